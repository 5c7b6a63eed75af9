#pragma once
// From YAML to a validated Config, or to every error in it at once. Only `app` and `ganglion check` load; nothing on
// the request path does. Functions here are pure but for the files and environment variables that they read.

#include <cstddef>
#include <expected>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.hpp"
#include "config/diagnostic.hpp"

namespace ganglion::config {

inline constexpr std::size_t kFileBytesMax = 4UL * 1024 * 1024;

// nullopt: the variable is not set. An empty variable counts as set.
using EnvLookup = std::function<std::optional<std::string>(std::string_view name)>;
std::optional<std::string> process_env(std::string_view name);

struct LoadOptions {
  EnvLookup env = process_env;
  // Resolve model folders and TLS files to absolute paths and report those that are not there. Tests and editors
  // that check a file for another machine turn it off.
  bool check_files = true;
};

using LoadResult = std::expected<Config, std::vector<Diagnostic>>;

// Errors come sorted by line; at least one is of Severity::error, warnings found on the way are among them. On success
// the warnings are in Config::warnings.
LoadResult load_file(const std::filesystem::path& path, const LoadOptions& options = {});
// `name` stands for the file in diagnostics; relative paths inside are resolved from its folder.
LoadResult load_text(std::string_view text, const std::string& name, const LoadOptions& options = {});

// config/ganglion.yaml as compiled in.
std::string_view embedded_default_text();
LoadResult embedded_default(const LoadOptions& options = {});

// Where a model folder is: an absolute path itself; else relative to the configuration file, $GANGLION_DATA_DIR,
// <folder of the program>/../share/ganglion and the source tree, in this order. `holds`: the file by which it is known.
// The error lists the places tried.
std::expected<std::filesystem::path, std::string> resolve_model_dir(std::string_view directory,
                                                                    const std::filesystem::path& config_file,
                                                                    const EnvLookup& env = process_env,
                                                                    std::string_view holds = "config.json");

}  // namespace ganglion::config
