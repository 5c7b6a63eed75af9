# nlohmann_json::nlohmann_json is defined by ../CMakeLists.txt.
