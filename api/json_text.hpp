#pragma once
// JSON strings to text and back, and numbers as JSON writes them. Pure functions.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/json_cursor.hpp"

namespace ganglion::api {

// Appends `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD, so the output is always
// valid JSON.
void append_json_string(std::string& out, std::string_view text);
// The same without quotes, for building a string in pieces.
void append_json_escaped(std::string& out, std::string_view text);

// Length of the well-formed UTF-8 character at p (1..4), or 0: no overlong forms, no surrogates, at most U+10FFFF.
std::size_t utf8_length(const char* p, const char* end);
// How many bytes of `text`, from its beginning, are well-formed UTF-8.
std::size_t utf8_valid_prefix(std::string_view text);

// Undoes the escapes of a string that a JsonCursor accepted; appends to `out`.
void append_unescaped(std::string& out, std::string_view raw);
// The text of `s`: a view of the original, or of `buffer` when there were escapes to undo (buffer is then replaced).
std::string_view text_of(const JsonString& s, std::string& buffer);
// Compares the unescaped text.
bool equals_unescaped(const JsonString& s, std::string_view text);
inline bool equals(const JsonString& s, std::string_view text) {
  return s.escaped ? equals_unescaped(s, text) : s.raw == text;
}

void append_number(std::string& out, std::uint64_t value);
void append_number(std::string& out, std::int64_t value);
void append_number(std::string& out, double value);  // shortest that reads back the same; not finite: null
void append_number(std::string& out, float value);   // shortest that reads back as the same float

std::optional<double> to_double(std::string_view number);
std::optional<std::int64_t> to_int64(std::string_view number);    // no fraction, no exponent, in range
std::optional<std::uint64_t> to_uint64(std::string_view number);  // the same, not negative

}  // namespace ganglion::api
