#pragma once
// Reads of tokenizer.json for the constructors of components: a missing key, a wrong type or an unimplemented type
// throws LoadError with the path of the key. Thrown only while loading; Tokenizer::parse turns it into a Result.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local::tok {

struct LoadError {
  core::ErrorKind kind;
  std::string message;
};

// A value of the document and where it stands. Borrows the document. Null counts as absent.
class Spec {
 public:
  Spec(const nlohmann::json& json, std::string where) : json_(&json), where_(std::move(where)) {}

  bool has(std::string_view key) const;
  Spec at(std::string_view key) const;  // required
  std::optional<Spec> find(std::string_view key) const;
  std::vector<Spec> list(std::string_view key) const;  // required array
  std::string string(std::string_view key) const;      // required
  std::optional<std::string> find_string(std::string_view key) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::int64_t integer(std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max) const;
  std::string type() const { return string("type"); }
  // The value itself as a string.
  std::string text() const;
  // A string that is exactly one code point.
  std::string character(std::string_view key) const;

  const nlohmann::json& json() const { return *json_; }
  const std::string& where() const { return where_; }
  [[noreturn]] void bad(const std::string& what) const;
  [[noreturn]] void unsupported(const std::string& what) const;

 private:
  const nlohmann::json* json_;
  std::string where_;
};

}  // namespace ganglion::local::tok
