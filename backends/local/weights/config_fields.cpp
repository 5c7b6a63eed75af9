// Typed reads of a JSON object; see the header.

#include "backends/local/weights/config_fields.hpp"

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

namespace ganglion::local {
namespace {

namespace fs = std::filesystem;
using core::ErrorKind;
using Json = nlohmann::json;

constexpr std::uintmax_t kConfigBytesMax = 16 << 20;

}  // namespace

ConfigFields::ConfigFields(std::string where, Json json)
    : where_(std::move(where)), json_(std::make_unique<Json>(std::move(json))) {}
ConfigFields::ConfigFields(ConfigFields&&) noexcept = default;
ConfigFields& ConfigFields::operator=(ConfigFields&&) noexcept = default;
ConfigFields::~ConfigFields() = default;

core::Result<ConfigFields> ConfigFields::read(const fs::path& file) {
  std::error_code ec;
  if (!fs::is_regular_file(file, ec)) return core::fail(ErrorKind::not_found, file.string() + ": no such file");
  if (fs::file_size(file, ec) > kConfigBytesMax || ec) {
    return core::fail(ErrorKind::invalid_value, file.string() + ": over 16 MiB");
  }
  std::ifstream in(file, std::ios::binary);
  Json json = Json::parse(in, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) {
    return core::fail(ErrorKind::invalid_value, file.string() + ": not a JSON object");
  }
  return ConfigFields(file.string(), std::move(json));
}

core::Result<ConfigFields> ConfigFields::read_if_present(const fs::path& file) {
  std::error_code ec;
  if (!fs::exists(file, ec)) return ConfigFields(file.string(), Json::object());
  return read(file);
}

const Json* ConfigFields::value(std::string_view key) const {
  const auto it = json_->find(key);
  return it == json_->end() || it->is_null() ? nullptr : &*it;
}

bool ConfigFields::states(std::string_view key) const {
  return json_->contains(key);
}

bool ConfigFields::has(std::string_view key) const {
  return value(key) != nullptr;
}

void ConfigFields::fail(ErrorKind kind, std::string_view key, std::string_view what) {
  if (!error_) error_ = core::make_error(kind, where_ + ": " + std::string(key) + " " + std::string(what));
}

void ConfigFields::absorb(const ConfigFields& nested) {
  if (!error_) error_ = nested.error_;
}

core::Result<void> ConfigFields::result() const {
  if (error_) return std::unexpected(*error_);
  return {};
}

std::optional<double> ConfigFields::number(std::string_view key, double min, double max) {
  const Json* v = value(key);
  if (v == nullptr) return std::nullopt;
  if (!v->is_number()) {
    fail(ErrorKind::invalid_value, key, "is not a number");
    return std::nullopt;
  }
  const double n = v->get<double>();
  if (!(n >= min && n <= max)) {
    fail(ErrorKind::invalid_value, key,
         "is " + v->dump() + ", outside " + Json(min).dump() + " to " + Json(max).dump());
    return std::nullopt;
  }
  return n;
}

std::optional<std::int64_t> ConfigFields::integer(std::string_view key, std::int64_t min, std::int64_t max) {
  const Json* v = value(key);
  if (v == nullptr) return std::nullopt;
  // Some writers spell whole numbers as 131072.0.
  const bool whole =
      v->is_number_integer() || (v->is_number_float() && std::floor(v->get<double>()) == v->get<double>());
  if (!whole) {
    fail(ErrorKind::invalid_value, key, "is not an integer");
    return std::nullopt;
  }
  const double approximate = v->get<double>();
  if (std::abs(approximate) > 9e15) {
    fail(ErrorKind::invalid_value, key, "is " + v->dump() + ", far outside any sensible range");
    return std::nullopt;
  }
  const auto n = v->is_number_float() ? static_cast<std::int64_t>(approximate) : v->get<std::int64_t>();
  if (n < min || n > max) {
    fail(ErrorKind::invalid_value, key,
         "is " + std::to_string(n) + ", outside " + std::to_string(min) + " to " + std::to_string(max));
    return std::nullopt;
  }
  return n;
}

std::int64_t ConfigFields::integer_or(std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max) {
  return integer(key, min, max).value_or(fallback);
}

std::int64_t ConfigFields::required_integer(std::string_view key, std::int64_t min, std::int64_t max) {
  if (!has(key)) fail(ErrorKind::invalid_value, key, "is missing");
  return integer(key, min, max).value_or(0);
}

double ConfigFields::number_or(std::string_view key, double fallback, double min, double max) {
  return number(key, min, max).value_or(fallback);
}

std::optional<bool> ConfigFields::boolean(std::string_view key) {
  const Json* v = value(key);
  if (v == nullptr) return std::nullopt;
  if (v->is_boolean()) return v->get<bool>();
  fail(ErrorKind::invalid_value, key, "is not true or false");
  return std::nullopt;
}

bool ConfigFields::boolean_or(std::string_view key, bool fallback) {
  return boolean(key).value_or(fallback);
}

std::optional<std::string> ConfigFields::string(std::string_view key) {
  const Json* v = value(key);
  if (v == nullptr) return std::nullopt;
  if (v->is_string()) return v->get<std::string>();
  fail(ErrorKind::invalid_value, key, "is not a string");
  return std::nullopt;
}

std::optional<std::vector<std::string>> ConfigFields::strings(std::string_view key) {
  const Json* v = value(key);
  if (v == nullptr) return std::nullopt;
  std::vector<std::string> list;
  if (v->is_array()) {
    for (const Json& item : *v) {
      if (item.is_string()) list.push_back(item.get<std::string>());
    }
  }
  if (!v->is_array() || list.size() != v->size()) {
    fail(ErrorKind::invalid_value, key, "is not a list of strings");
    return std::nullopt;
  }
  return list;
}

std::vector<std::int64_t> ConfigFields::integers(std::string_view key, std::int64_t min, std::int64_t max) {
  const Json* v = value(key);
  if (v == nullptr) return {};
  const Json list = v->is_array() ? *v : Json::array({*v});
  std::vector<std::int64_t> out;
  for (const Json& item : list) {
    if (!item.is_number_integer() || item.get<std::int64_t>() < min || item.get<std::int64_t>() > max) {
      fail(ErrorKind::invalid_value, key,
           "holds " + item.dump() + ", not an integer from " + std::to_string(min) + " to " + std::to_string(max));
      return {};
    }
    out.push_back(item.get<std::int64_t>());
  }
  return out;
}

std::vector<double> ConfigFields::numbers(std::string_view key, double min, double max) {
  const Json* v = value(key);
  if (v == nullptr) return {};
  std::vector<double> out;
  for (const Json& item : v->is_array() ? *v : Json::array({*v})) {
    const double number = item.is_number() ? item.get<double>() : std::numeric_limits<double>::quiet_NaN();
    if (!(number >= min && number <= max)) {
      fail(ErrorKind::invalid_value, key, "holds " + item.dump() + ", not a number in its range");
      return {};
    }
    out.push_back(number);
  }
  return out;
}

std::optional<ConfigFields> ConfigFields::object(std::string_view key) {
  const Json* v = value(key);
  if (v == nullptr) return std::nullopt;
  if (v->is_object()) return ConfigFields(where_ + ": " + std::string(key), *v);
  fail(ErrorKind::invalid_value, key, "is not an object");
  return std::nullopt;
}

}  // namespace ganglion::local
