#pragma once
// Template text to tokens, with Jinja's whitespace rules under trim_blocks and lstrip_blocks: a newline after a block
// or comment goes, blanks before one at the start of a line go; "-" strips all white space, "+" keeps it.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local::jinja {

enum class TokenType : std::uint8_t {
  data,
  variable_begin,
  variable_end,
  block_begin,
  block_end,
  name,
  string,
  integer,
  real,
  op,
  end
};

struct Token {
  TokenType type = TokenType::end;
  int line = 1;
  std::string text;  // data, names, operators; strings with their escapes resolved
  std::int64_t integer = 0;
  double real = 0;
};

// Always ends with a token of type end. Errors: invalid_value with the line.
core::Result<std::vector<Token>> tokenize(std::string_view source);

}  // namespace ganglion::local::jinja
