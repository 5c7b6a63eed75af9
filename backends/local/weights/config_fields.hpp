#pragma once
// Typed reads of one JSON object that remember the first mistake, so that a loader reads every field in a row and
// checks once. Absent and null are the same thing, as in the files themselves.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local {

class ConfigFields {
 public:
  // not_found when there is no such file; invalid_value when it is not a JSON object.
  static core::Result<ConfigFields> read(const std::filesystem::path& file);
  // Same, but a missing file reads as an empty object.
  static core::Result<ConfigFields> read_if_present(const std::filesystem::path& file);

  ConfigFields(ConfigFields&&) noexcept;
  ConfigFields& operator=(ConfigFields&&) noexcept;
  ~ConfigFields();

  bool has(std::string_view key) const;     // present and not null
  bool states(std::string_view key) const;  // present, perhaps null
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t min, std::int64_t max);
  std::int64_t integer_or(std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max);
  std::int64_t required_integer(std::string_view key, std::int64_t min, std::int64_t max);
  std::optional<double> number(std::string_view key, double min, double max);
  double number_or(std::string_view key, double fallback, double min, double max);
  std::optional<bool> boolean(std::string_view key);
  bool boolean_or(std::string_view key, bool fallback);
  std::optional<std::string> string(std::string_view key);
  std::optional<std::vector<std::string>> strings(std::string_view key);
  // One integer or a list of them; empty when absent.
  std::vector<std::int64_t> integers(std::string_view key, std::int64_t min, std::int64_t max);
  // A list of numbers; empty when absent.
  std::vector<double> numbers(std::string_view key, double min, double max);
  std::optional<ConfigFields> object(std::string_view key);

  const nlohmann::json& json() const { return *json_; }
  const std::string& where() const { return where_; }

  // Records a mistake found by the caller; only the first is kept.
  void fail(core::ErrorKind kind, std::string_view key, std::string_view what);
  // Takes over a mistake of a nested object.
  void absorb(const ConfigFields& nested);
  core::Result<void> result() const;

 private:
  ConfigFields(std::string where, nlohmann::json json);
  const nlohmann::json* value(std::string_view key) const;  // nullptr: absent or null

  std::string where_;
  std::unique_ptr<nlohmann::json> json_;
  std::optional<core::Error> error_;
};

}  // namespace ganglion::local
