// Reads of tokenizer.json; see the header.

#include "backends/local/tokenizer/spec.hpp"

#include <nlohmann/json.hpp>

#include "backends/local/tokenizer/utf8.hpp"

namespace ganglion::local::tok {

using Json = nlohmann::json;

void Spec::bad(const std::string& what) const {
  throw LoadError{core::ErrorKind::invalid_value, where_ + ": " + what};
}

void Spec::unsupported(const std::string& what) const {
  throw LoadError{core::ErrorKind::unsupported, where_ + ": " + what + " is not implemented"};
}

std::optional<Spec> Spec::find(std::string_view key) const {
  if (!json_->is_object()) bad("is not an object");
  const auto it = json_->find(key);
  if (it == json_->end() || it->is_null()) return std::nullopt;
  return Spec(*it, where_ + "." + std::string(key));
}

bool Spec::has(std::string_view key) const {
  return find(key).has_value();
}

Spec Spec::at(std::string_view key) const {
  auto value = find(key);
  if (!value) bad("has no \"" + std::string(key) + "\"");
  return *value;
}

std::vector<Spec> Spec::list(std::string_view key) const {
  const Spec value = at(key);
  if (!value.json_->is_array()) value.bad("is not a list");
  std::vector<Spec> items;
  for (std::size_t i = 0; i < value.json_->size(); ++i) {
    items.emplace_back((*value.json_)[i], value.where_ + "[" + std::to_string(i) + "]");
  }
  return items;
}

std::string Spec::text() const {
  if (!json_->is_string()) bad("is not a string");
  return json_->get<std::string>();
}

std::string Spec::string(std::string_view key) const {
  return at(key).text();
}

std::optional<std::string> Spec::find_string(std::string_view key) const {
  const auto value = find(key);
  if (!value) return std::nullopt;
  return value->text();
}

bool Spec::boolean(std::string_view key, bool fallback) const {
  const auto value = find(key);
  if (!value) return fallback;
  if (!value->json_->is_boolean()) value->bad("is not true or false");
  return value->json_->get<bool>();
}

std::int64_t Spec::integer(std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max) const {
  const auto value = find(key);
  if (!value) return fallback;
  // An unsigned value above INT64_MAX would turn negative below, and fail the range check as it should.
  if (!value->json_->is_number_integer()) value->bad("is not an integer");
  const auto n = value->json_->get<std::int64_t>();
  if (n < min || n > max) value->bad("is outside " + std::to_string(min) + " to " + std::to_string(max));
  return n;
}

std::string Spec::character(std::string_view key) const {
  std::string value = string(key);
  if (count_code_points(value) != 1) at(key).bad("is not one character");
  return value;
}

}  // namespace ganglion::local::tok
