#pragma once
// What Python's str does, on UTF-8: indices and lengths are in code points; spaces and simple case mappings are
// Unicode's. Input is taken as valid UTF-8; a stray byte counts as one character.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ganglion::local::jinja {

struct CodePoint {
  char32_t value = 0;
  std::size_t bytes = 1;
};
CodePoint code_point_at(std::string_view s, std::size_t byte);
void append_utf8(std::string& out, char32_t c);

std::size_t text_length(std::string_view s);
std::size_t byte_offset(std::string_view s, std::size_t index);  // of code point `index`, at most s.size()
bool is_space(char32_t c);
bool is_digit(char32_t c);
bool is_alpha(char32_t c);
char32_t to_upper(char32_t c);
char32_t to_lower(char32_t c);

std::string upper(std::string_view s);
std::string lower(std::string_view s);
std::string capitalize(std::string_view s);
std::string swap_case(std::string_view s);
std::string title(std::string_view s);        // str.title()
std::string title_words(std::string_view s);  // Jinja's title filter

// `chars` nullopt: whitespace.
std::string_view strip(std::string_view s, std::optional<std::string_view> chars, bool left, bool right);

// Pieces of `s`; separator nullopt: runs of whitespace. limit < 0: no limit. from_right: rsplit.
std::vector<std::string> split(std::string_view s, std::optional<std::string_view> separator, std::int64_t limit,
                               bool from_right);
std::vector<std::string> split_lines(std::string_view s, bool keep_ends);

// count < 0: all.
std::string replace(std::string_view s, std::string_view from, std::string_view to, std::int64_t count);
std::size_t count(std::string_view s, std::string_view piece);

}  // namespace ganglion::local::jinja
