#pragma once
// Loading a snippet with a scripted environment, and its diagnostics as text.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "config/loader.hpp"

#include "tests/support/temp_dir.hpp"

namespace ganglion::config {

using Env = std::map<std::string, std::string, std::less<>>;

inline LoadOptions with_env(Env env) {
  return {.env = [env = std::move(env)](std::string_view name) -> std::optional<std::string> {
            const auto found = env.find(name);
            if (found == env.end()) return std::nullopt;
            return found->second;
          },
          .check_files = false};
}

// A minimum that loads, to put a snippet after.
inline const std::string kBase = "local: [{name: demo-chat, path: models/demo-chat}]\n";

inline LoadResult load(const std::string& text, Env env = {}) {
  return load_text(text, "c.yaml", with_env(std::move(env)));
}

// What is reported for `text`, errors and warnings, one line each.
inline std::string report(const std::string& text, Env env = {}) {
  const LoadResult result = load(text, std::move(env));
  return format(result ? result->warnings : result.error());
}

inline Config good(const std::string& text, Env env = {}) {
  LoadResult result = load(text, std::move(env));
  if (!result) {
    ADD_FAILURE() << format(result.error());
    return {};
  }
  return *std::move(result);
}

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A generated file in the repository is what is generated now. With GANGLION_UPDATE_DOCS set it is written instead.
inline void expect_committed(const std::string& path, const std::string& generated) {
  const std::filesystem::path full = std::filesystem::path(GANGLION_SOURCE_DIR) / path;
  if (std::getenv("GANGLION_UPDATE_DOCS") != nullptr) std::ofstream(full) << generated;
  EXPECT_EQ(slurp(full), generated) << path << " is stale; run this test with GANGLION_UPDATE_DOCS=1";
}

// A folder of its own with files in it.
class TempFolder {
 public:
  std::filesystem::path operator/(const std::string& name) const { return root_ / name; }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((*this / name).parent_path());
    std::ofstream(*this / name) << text;
  }

 private:
  test::TempDir root_;
};

}  // namespace ganglion::config
