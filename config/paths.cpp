// Where model folders are found.

#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "config/loader.hpp"

namespace ganglion::config {
namespace {

namespace fs = std::filesystem;

// The folder of the running program; empty when /proc does not say.
fs::path program_folder() {
  std::error_code error;
  const fs::path self = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path{} : self.parent_path();
}

}  // namespace

std::expected<fs::path, std::string> resolve_model_dir(std::string_view directory, const fs::path& config_file,
                                                       const EnvLookup& env, std::string_view holds) {
  const fs::path given(directory);
  std::vector<fs::path> places;
  if (given.is_absolute()) {
    places.push_back(given);
  } else {
    if (!config_file.empty()) places.push_back(fs::absolute(config_file).parent_path() / given);
    if (const auto data = env("GANGLION_DATA_DIR"); data && !data->empty()) places.push_back(fs::path(*data) / given);
    if (const fs::path program = program_folder(); !program.empty()) {
      places.push_back(program / "../share/ganglion" / given);
    }
#ifdef GANGLION_SOURCE_ROOT
    places.push_back(fs::path(GANGLION_SOURCE_ROOT) / given);  // a build that was not installed
#endif
  }
  std::string tried;
  for (fs::path& place : places) {
    place = place.lexically_normal();
    std::error_code ignored;
    if (fs::is_regular_file(place / holds, ignored)) return place;
    tried += (tried.empty() ? "" : ", ") + place.string();
  }
  return std::unexpected("no model folder (one with a " + std::string(holds) + ") at " + tried);
}

}  // namespace ganglion::config
