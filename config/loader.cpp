// File or text to Config: parse, read through the table, check the meaning, resolve files; every step adds to one list.

#include "config/loader.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <tuple>

#include "config/checks.hpp"
#include "config/describe.hpp"
#include "config/fingerprint.hpp"
#include "config/node.hpp"
#include "config/tables.hpp"

namespace ganglion::config {

extern const std::string_view kEmbeddedDefault;  // generated from config/ganglion.yaml

namespace {

LoadResult failed(std::string file, std::string message) {
  return std::unexpected(std::vector{Diagnostic{.file = std::move(file), .message = std::move(message)}});
}

LoadResult load(std::string_view text, const std::string& name, const std::string& source, const LoadOptions& options) {
  const auto root = parse_yaml(text, name);
  if (!root) return std::unexpected(std::vector{root.error()});
  Config config;
  config.source = source;
  Reader reader(name, options);
  read_object(reader, *root, root_table(), config);
  check_meaning(reader, *root, config);
  if (options.check_files) resolve_files(reader, *root, config);
  const bool bad = reader.failed();
  std::vector<Diagnostic> found = reader.take();
  std::ranges::sort(found, {}, [](const Diagnostic& d) { return std::tie(d.line, d.column, d.message); });
  if (bad) return std::unexpected(std::move(found));
  config.warnings = std::move(found);
  config.hash = fingerprint(config);
  return config;
}

}  // namespace

LoadResult load_text(std::string_view text, const std::string& name, const LoadOptions& options) {
  return load(text, name, name, options);
}

LoadResult load_file(const std::filesystem::path& path, const LoadOptions& options) {
  const std::string name = path.string();
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return failed(name, "is a folder, not a configuration file");
  std::ifstream in(path, std::ios::binary);
  if (!in) return failed(name, std::string("cannot be read: ") + std::strerror(errno));
  std::string text(kFileBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(in.gcount()));
  if (text.size() > kFileBytesMax) return failed(name, "larger than 4 MiB, which no configuration is");
  return load(text, name, name, options);
}

std::string_view embedded_default_text() {
  return kEmbeddedDefault;
}

LoadResult embedded_default(const LoadOptions& options) {
  return load(kEmbeddedDefault, "(built-in configuration)", "", options);
}

}  // namespace ganglion::config
