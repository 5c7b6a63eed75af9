// See api/json_cursor.hpp. The two inner loops are the string scan (16 bytes a step with SSE2, which every x86-64 has)
// and skip(), which walks nested values without recursion: one bit a level says whether it is an object.

#include "api/json_cursor.hpp"

#include <simdjson.h>

#include <algorithm>
#include <bit>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "api/json_text.hpp"

namespace ganglion::api {
namespace {

static_assert(core::kJsonDepthMax <= 64, "skip() keeps one bit a level in a word");

// simdjson picks its implementation at the first use, which allocates under noexcept: at the start of the process it
// may.
[[maybe_unused]] const bool kImplementationPicked = simdjson::validate_utf8("", 0);

constexpr bool is_digit(char c) {
  return static_cast<unsigned char>(c - '0') < 10;
}

// The first byte that ends a run of plain string content: a quote, a backslash or a control character.
const char* plain_end(const char* p, const char* end) {
#if defined(__SSE2__)
  const __m128i quote = _mm_set1_epi8('"');
  const __m128i backslash = _mm_set1_epi8('\\');
  const __m128i control = _mm_set1_epi8(0x1F);
  for (; end - p >= 16; p += 16) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    // Unsigned bytes <= 0x1F are those that max(b, 0x1F) leaves at 0x1F.
    const __m128i stop = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash)),
                                      _mm_cmpeq_epi8(_mm_max_epu8(bytes, control), control));
    const auto mask = static_cast<unsigned>(_mm_movemask_epi8(stop));
    if (mask != 0) return p + std::countr_zero(mask);
  }
#endif
  while (p != end && *p != '"' && *p != '\\' && static_cast<unsigned char>(*p) >= 0x20) ++p;
  return p;
}

// Value of 4 hex digits, or -1.
int hex4(const char* p) {
  int value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = p[i];
    int digit = 0;
    if (is_digit(c)) {
      digit = c - '0';
    } else if (const char lower = static_cast<char>(c | 0x20); lower >= 'a' && lower <= 'f') {
      digit = lower - 'a' + 10;
    } else {
      return -1;
    }
    value = value * 16 + digit;
  }
  return value;
}

constexpr const char* kValue = "a value";

}  // namespace

std::string_view name(JsonType type) {
  switch (type) {
    case JsonType::object:
      return "an object";
    case JsonType::array:
      return "an array";
    case JsonType::string:
      return "a string";
    case JsonType::number:
      return "a number";
    case JsonType::boolean:
      return "a boolean";
    case JsonType::null:
      return "null";
    case JsonType::none:
      break;
  }
  return "nothing";
}

bool JsonCursor::escape() {
  if (end_ - p_ < 2) {
    p_ = end_;
    return fail("the rest of an escape sequence");
  }
  switch (p_[1]) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
      p_ += 2;
      return true;
    case 'u':
      break;
    default:
      return fail("one of the escapes \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
  }
  const int unit = end_ - p_ < 6 ? -1 : hex4(p_ + 2);
  if (unit < 0) return fail("four hexadecimal digits after \\u");
  if (unit >= 0xDC00 && unit < 0xE000) return fail("a high surrogate before this low one");
  if (unit < 0xD800 || unit >= 0xE000) {
    p_ += 6;
    return true;
  }
  const int low = end_ - p_ < 12 || p_[6] != '\\' || p_[7] != 'u' ? -1 : hex4(p_ + 8);
  if (low < 0xDC00 || low >= 0xE000) return fail("a low surrogate after this high one (text cut inside a character?)");
  p_ += 12;
  return true;
}

bool JsonCursor::outlined_string(JsonString& out) {
  return quoted(out) &&
         outline_leaf(out.escaped ? JsonOutline::Kind::escaped : JsonOutline::Kind::plain, out.raw.data() - 1);
}

bool JsonCursor::outlined_key(JsonString& out) {
  if (!quoted(out)) return false;
  outline_->key(out);
  return true;
}

// Not inlined: most who read numbers record nothing, and need no frame for it.
[[gnu::noinline]] bool JsonCursor::outline_leaf(JsonOutline::Kind kind, const char* first) {
  outline_->leaf(kind, first, p_);
  return true;
}

bool JsonCursor::quoted(JsonString& out) {
  space();
  if (p_ == end_ || *p_ != '"' || !ok()) return fail("a string in double quotes");
  ++p_;
  const char* const first = p_;
  out.escaped = false;
  while (true) {
    p_ = plain_end(p_, end_);
    if (p_ == end_) return fail("a closing '\"' for this string");
    if (*p_ == '"') {
      out.raw = {first, static_cast<std::size_t>(p_ - first)};
      ++p_;
      return true;
    }
    if (*p_ != '\\') return fail("control characters in strings written as escapes");
    out.escaped = true;
    if (!escape()) return false;
  }
}

bool JsonCursor::number(std::string_view& text) {
  space();
  const char* p = p_;
  const char* const first = p;
  if (!ok()) return false;
  if (p != end_ && *p == '-') ++p;
  const char* const digits = p;
  while (p != end_ && is_digit(*p)) ++p;
  p_ = p;
  if (p == digits) return fail("a digit");
  if (*digits == '0' && p - digits > 1) {
    p_ = digits + 1;
    return fail("no further digits after a leading zero");
  }
  if (p != end_ && *p == '.') {
    const char* const fraction = ++p;
    while (p != end_ && is_digit(*p)) ++p;
    p_ = p;
    if (p == fraction) return fail("a digit after the decimal point");
  }
  if (p != end_ && (*p | 0x20) == 'e') {
    ++p;
    if (p != end_ && (*p == '+' || *p == '-')) ++p;
    const char* const exponent = p;
    while (p != end_ && is_digit(*p)) ++p;
    p_ = p;
    if (p == exponent) return fail("a digit in the exponent");
  }
  p_ = p;
  text = {first, static_cast<std::size_t>(p - first)};
  return outline_ == nullptr || outline_leaf(JsonOutline::Kind::plain, first);
}

bool JsonCursor::word(const char* text, std::size_t size) {
  if (!ok()) return false;
  if (static_cast<std::size_t>(end_ - p_) < size || std::memcmp(p_, text, size) != 0) {
    return fail("true, false or null");
  }
  const char* const first = p_;
  p_ += size;
  return outline_ == nullptr || outline_leaf(JsonOutline::Kind::plain, first);
}

bool JsonCursor::boolean(bool& out) {
  space();
  out = p_ != end_ && *p_ == 't';
  return out ? word("true", 4) : word("false", 5);
}

bool JsonCursor::null() {
  space();
  return word("null", 4);
}

bool JsonCursor::skip() {
  std::uint64_t objects = 0;  // the lowest bit says whether the innermost level opened here is an object
  std::size_t level = 0;
  JsonString text;
  std::string_view number_text;
  bool flag = false;
  while (true) {
    bool opened = false;  // an object or array that is not empty: its first value comes next
    bool object = false;
    switch (peek()) {
      case JsonType::object:
        opened = begin_object(text);
        object = true;
        break;
      case JsonType::array:
        opened = begin_array();
        break;
      case JsonType::string:
        string(text);
        break;
      case JsonType::number:
        number(number_text);
        break;
      case JsonType::boolean:
        boolean(flag);
        break;
      case JsonType::null:
        null();
        break;
      case JsonType::none:
        return fail(kValue);
    }
    if (!ok()) return false;
    if (opened) {
      objects = (objects << 1) | (object ? 1U : 0U);
      ++level;
      continue;
    }
    while (level != 0 && !((objects & 1U) != 0 ? next_member(text) : next_element())) {
      if (!ok()) return false;
      objects >>= 1;
      --level;
    }
    if (level == 0) return true;
  }
}

bool JsonCursor::at_end() {
  space();
  if (p_ == end_ && ok()) return true;
  return fail("the end of the text");
}

bool valid_utf8(std::string_view text) {
  return simdjson::validate_utf8(text.data(), text.size());
}

core::Error json_error(std::string_view text, std::size_t offset, std::string_view expected) {
  offset = std::min(offset, text.size());
  const std::string_view before = text.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_start = before.rfind('\n') + 1;  // npos + 1 == 0
  std::string message = "invalid JSON at line ";
  message += std::to_string(line);
  message += ", column " + std::to_string(offset - line_start + 1);
  message += " (byte " + std::to_string(offset) + "): expected ";
  message += expected;
  if (offset == text.size()) message += ", but the text ends here";
  return core::make_error(core::ErrorKind::invalid_json, std::move(message));
}

core::Error json_error(std::string_view text, const JsonCursor& cursor) {
  return json_error(text, cursor.offset(), cursor.expected() != nullptr ? cursor.expected() : kValue);
}

core::Result<void> check_json(std::string_view text) {
  JsonCursor cursor{text};
  if (!cursor.skip() || !cursor.at_end()) return std::unexpected(json_error(text, cursor));
  if (!valid_utf8(text)) return std::unexpected(json_error(text, utf8_valid_prefix(text), "valid UTF-8"));
  return {};
}

}  // namespace ganglion::api
