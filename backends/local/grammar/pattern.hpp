#pragma once
// Regular expressions of JSON Schema's `pattern` (ECMA-262), those that are regular, as tables over the bytes of a JSON
// string's inside. As in JSON Schema a pattern matches anywhere unless it is anchored.

#include <string_view>

#include "backends/local/grammar/builder.hpp"

namespace ganglion::local::grammar {

// Supported: literals, `.`, classes, \d \w \s and their opposites, \t \n \r \f \v \xXX \uXXXX \u{X}, groups that
// capture or not, |, * + ? {m} {m,} {m,n} (lazy ones too), ^ at the beginning and $ at the end of an alternative.
// Errors: unsupported, naming what is not (look-around, back references, \b, \p); invalid_value for mistakes.
core::Result<ByteTable> pattern_table(AutomatonBuilder& builder, std::string_view pattern);

// All strings, one spelling each.
core::Result<ByteTable> any_string_table(AutomatonBuilder& builder);

}  // namespace ganglion::local::grammar
