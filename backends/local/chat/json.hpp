#pragma once
// JSON text to template values and back. Object order is kept both ways.

#include <string>
#include <string_view>

#include "backends/local/chat/value.hpp"
#include "core/error.hpp"

namespace ganglion::local::jinja {

// invalid_json on bad text or nesting over core::kJsonDepthMax; integers outside 64 bits become floats.
core::Result<Value> parse_json(std::string_view text);

struct JsonStyle {
  int indent = -1;  // < 0: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
  bool ensure_ascii = false;
};

// As Python's json.dumps(). invalid_value when a value has no JSON form (undefined, a callable).
core::Result<std::string> dump_json(const Value& v, const JsonStyle& style);

}  // namespace ganglion::local::jinja
