#pragma once
// A strict, forward-only reader of one JSON text: RFC 8259 grammar, no duplicate passes, no DOM, no allocation of its
// own. Unlike simdjson's DOM it hands out byte spans of the original (for in-place rewriting) and the exact place and
// reason of a syntax error; UTF-8 is checked apart, by simdjson's vector code (valid_utf8). Tests and the fuzzer hold
// its verdicts against simdjson's. It can record where all values lie, in an outline. Not thread-safe; the text must
// outlive the cursor.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "api/json_outline.hpp"
#include "core/error.hpp"
#include "core/limits.hpp"

namespace ganglion::api {

struct Span {
  std::size_t offset = 0;
  std::size_t length = 0;
  bool empty() const { return length == 0; }
  std::size_t end() const { return offset + length; }
  std::string_view of(std::string_view text) const { return text.substr(offset, length); }
  friend bool operator==(const Span&, const Span&) = default;
};

enum class JsonType : std::uint8_t { none, object, array, string, number, boolean, null };
std::string_view name(JsonType type);  // "an object", "a string", ... for messages

// A string value as written: between the quotes, escapes not yet undone.
struct JsonString {
  std::string_view raw;
  bool escaped = false;  // raw holds at least one backslash
};

class JsonCursor {
 public:
  // Every value that is read, or skipped, with all that is in it, goes into `outline` if there is one.
  explicit JsonCursor(std::string_view text, JsonOutline* outline = nullptr)
      : begin_(text.data()), p_(begin_), end_(begin_ + text.size()), outline_(outline) {
    if (outline_ != nullptr) outline_->start(text);
  }

  // The type of the value that comes next (white space is skipped); none at the end or at a byte that begins no value.
  JsonType peek();
  // Where the next token begins.
  std::size_t offset() const { return static_cast<std::size_t>(p_ - begin_); }

  // Each reads one value of that type and returns true, or fails for good.
  bool string(JsonString& out);
  bool number(std::string_view& text);  // the number as written
  bool boolean(bool& out);
  bool null();
  bool skip();  // any value, checked to its end

  // for (bool more = c.begin_object(key); more; more = c.next_member(key)) { read exactly one value }
  // False at the closing brace and on failure: look at ok().
  bool begin_object(JsonString& key);
  bool next_member(JsonString& key);
  // for (bool more = c.begin_array(); more; more = c.next_element()) { read exactly one value }
  bool begin_array();
  bool next_element();

  // True if nothing but white space is left.
  bool at_end();

  bool ok() const { return expected_ == nullptr; }
  const char* expected() const { return expected_; }  // what would have been right, after a failure
  bool fail(const char* expected);                    // returns false

 private:
  void space();
  void close();
  bool open(char closing);
  bool more(char closing, const char* expected);
  bool member(JsonString& key);
  bool quoted(JsonString& out);  // a key or a value, not recorded
  bool outlined_key(JsonString& out);
  bool outlined_string(JsonString& out);
  bool outline_leaf(JsonOutline::Kind kind, const char* first);  // the value that ends at p_; returns true
  bool escape();
  bool word(const char* text, std::size_t size);

  const char* begin_;
  const char* p_;
  const char* end_;
  JsonOutline* outline_;  // null: nothing is recorded
  const char* expected_ = nullptr;
  std::size_t depth_ = 0;
};

// The steps between tokens are inlined into their loops: they are most of the work on a body of short values.

inline bool JsonCursor::fail(const char* expected) {
  if (expected_ == nullptr) expected_ = expected;
  return false;
}

inline void JsonCursor::space() {
  while (p_ != end_ && static_cast<unsigned char>(*p_) <= ' ' &&
         (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) {
    ++p_;
  }
}

inline constexpr auto kJsonTypeOf = [] {
  std::array<JsonType, 256> table{};
  table['{'] = JsonType::object;
  table['['] = JsonType::array;
  table['"'] = JsonType::string;
  table['t'] = table['f'] = JsonType::boolean;
  table['n'] = JsonType::null;
  table['-'] = JsonType::number;
  for (char c = '0'; c <= '9'; ++c) table[static_cast<std::size_t>(c)] = JsonType::number;
  return table;
}();

inline JsonType JsonCursor::peek() {
  space();
  if (p_ == end_ || !ok()) return JsonType::none;
  return kJsonTypeOf[static_cast<unsigned char>(*p_)];
}

// Steps over the closing bracket at p_.
inline void JsonCursor::close() {
  ++p_;
  --depth_;
  if (outline_ != nullptr) outline_->close(p_);
}

// Steps over the bracket at p_. False: what it opened is empty and closed again, or too deep.
inline bool JsonCursor::open(char closing) {
  if (depth_ == core::kJsonDepthMax) return fail("at most 64 levels of nesting");
  if (outline_ != nullptr) outline_->open(closing == '}' ? JsonOutline::Kind::object : JsonOutline::Kind::array, p_);
  ++depth_;
  ++p_;
  space();
  if (p_ == end_ || *p_ != closing) return true;
  close();
  return false;
}

// Steps to the next member or element. False: the closing bracket came.
inline bool JsonCursor::more(char closing, const char* expected) {
  space();
  if (p_ == end_ || !ok()) return fail(expected);
  if (*p_ == ',') {
    ++p_;
    return true;
  }
  if (*p_ != closing) return fail(expected);
  close();
  return false;
}

inline bool JsonCursor::string(JsonString& out) {
  return outline_ == nullptr ? quoted(out) : outlined_string(out);
}

inline bool JsonCursor::member(JsonString& key) {
  space();
  if (p_ == end_ || *p_ != '"') return fail("a key in double quotes");
  if (!(outline_ == nullptr ? quoted(key) : outlined_key(key))) return false;
  space();
  if (p_ == end_ || *p_ != ':') return fail("':' after the key");
  ++p_;
  return true;
}

inline bool JsonCursor::begin_object(JsonString& key) {
  if (peek() != JsonType::object) return fail("an object");
  return open('}') && member(key);
}

inline bool JsonCursor::next_member(JsonString& key) {
  return more('}', "',' or '}'") && member(key);
}

inline bool JsonCursor::begin_array() {
  if (peek() != JsonType::array) return fail("an array");
  return open(']');
}

inline bool JsonCursor::next_element() {
  return more(']', "',' or ']'");
}

// simdjson's vectorised check.
bool valid_utf8(std::string_view text);

// ErrorKind::invalid_json whose message has line, column and byte offset of the cursor's failure.
core::Error json_error(std::string_view text, const JsonCursor& cursor);
core::Error json_error(std::string_view text, std::size_t offset, std::string_view expected);

// Checks a whole text: UTF-8, grammar, depth <= core::kJsonDepthMax, nothing after the value.
core::Result<void> check_json(std::string_view text);

}  // namespace ganglion::api
