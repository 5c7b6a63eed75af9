// See api/json_text.hpp.

#include "api/json_text.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

namespace ganglion::api {
namespace {

// 0: written as it is; 'u': \u00XX; else the letter after the backslash. 0x80 and above are handled as UTF-8.
constexpr auto kEscape = [] {
  std::array<char, 256> table{};
  for (std::size_t c = 0; c < 0x20; ++c) table[c] = 'u';
  table['\b'] = 'b';
  table['\f'] = 'f';
  table['\n'] = 'n';
  table['\r'] = 'r';
  table['\t'] = 't';
  table['"'] = '"';
  table['\\'] = '\\';
  for (std::size_t c = 0x80; c < 0x100; ++c) table[c] = 1;
  return table;
}();

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
  } else if (code < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (code >> 6)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else if (code < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (code >> 12)));
    out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | (code >> 18)));
    out.push_back(static_cast<char>(0x80 | ((code >> 12) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
  }
}

std::uint32_t hex4(const char* p) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = p[i];
    value = value * 16 + static_cast<std::uint32_t>(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return value;
}

// Appends the character of the escape at p (a backslash, already checked) and returns the place after it.
const char* append_escape(std::string& out, const char* p) {
  switch (p[1]) {
    case 'b':
      out.push_back('\b');
      return p + 2;
    case 'f':
      out.push_back('\f');
      return p + 2;
    case 'n':
      out.push_back('\n');
      return p + 2;
    case 'r':
      out.push_back('\r');
      return p + 2;
    case 't':
      out.push_back('\t');
      return p + 2;
    case 'u':
      break;
    default:
      out.push_back(p[1]);
      return p + 2;
  }
  std::uint32_t code = hex4(p + 2);
  p += 6;
  if (code >= 0xD800 && code < 0xDC00) {
    code = 0x10000 + ((code - 0xD800) << 10) + (hex4(p + 2) - 0xDC00);
    p += 6;
  }
  append_utf8(out, code);
  return p;
}

template <class T>
std::optional<T> parse_whole(std::string_view number) {
  T value{};
  const char* const end = number.data() + number.size();
  const auto [stop, error] = std::from_chars(number.data(), end, value);
  if (error != std::errc{} || stop != end) return std::nullopt;
  return value;
}

template <class T>
void append_chars(std::string& out, T value) {
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  out.append(buffer, result.ptr);
}

template <class T>
void append_real(std::string& out, T value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  append_chars(out, value);
}

}  // namespace

std::size_t utf8_length(const char* p, const char* end) {
  const auto byte = [&](std::ptrdiff_t i) { return static_cast<unsigned char>(p[i]); };
  const auto tail = [&](std::ptrdiff_t i) { return (byte(i) & 0xC0) == 0x80; };
  const auto left = end - p;
  if (left < 1) return 0;
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return left >= 2 && tail(1) ? 2 : 0;
  if (lead < 0xF0) {
    if (left < 3 || !tail(1) || !tail(2)) return 0;
    if (lead == 0xE0 && byte(1) < 0xA0) return 0;   // overlong
    if (lead == 0xED && byte(1) >= 0xA0) return 0;  // surrogate
    return 3;
  }
  if (lead > 0xF4 || left < 4 || !tail(1) || !tail(2) || !tail(3)) return 0;
  if (lead == 0xF0 && byte(1) < 0x90) return 0;   // overlong
  if (lead == 0xF4 && byte(1) >= 0x90) return 0;  // above U+10FFFF
  return 4;
}

std::size_t utf8_valid_prefix(std::string_view text) {
  const char* p = text.data();
  const char* const end = p + text.size();
  while (p != end) {
    const std::size_t size = utf8_length(p, end);
    if (size == 0) break;
    p += size;
  }
  return static_cast<std::size_t>(p - text.data());
}

void append_json_escaped(std::string& out, std::string_view text) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  const char* p = text.data();
  const char* const end = p + text.size();
  const char* plain = p;  // beginning of what is copied as it is
  while (p != end) {
    const char how = kEscape[static_cast<unsigned char>(*p)];
    if (how == 0) {
      ++p;
      continue;
    }
    if (how == 1) {
      const std::size_t size = utf8_length(p, end);
      if (size != 0) {
        p += size;
        continue;
      }
    }
    out.append(plain, p);
    if (how == 1) {
      out += "\xEF\xBF\xBD";
    } else if (how == 'u') {
      out += "\\u00";
      out.push_back(kHex[static_cast<unsigned char>(*p) >> 4]);
      out.push_back(kHex[static_cast<unsigned char>(*p) & 15]);
    } else {
      out.push_back('\\');
      out.push_back(how);
    }
    plain = ++p;
  }
  out.append(plain, end);
}

void append_json_string(std::string& out, std::string_view text) {
  out.push_back('"');
  append_json_escaped(out, text);
  out.push_back('"');
}

void append_unescaped(std::string& out, std::string_view raw) {
  const char* p = raw.data();
  const char* const end = p + raw.size();
  while (p != end) {
    const auto* const slash = static_cast<const char*>(std::memchr(p, '\\', static_cast<std::size_t>(end - p)));
    if (slash == nullptr) break;
    out.append(p, slash);
    p = append_escape(out, slash);
  }
  out.append(p, end);
}

std::string_view text_of(const JsonString& s, std::string& buffer) {
  if (!s.escaped) return s.raw;
  buffer.clear();
  append_unescaped(buffer, s.raw);
  return buffer;
}

bool equals_unescaped(const JsonString& s, std::string_view text) {
  // One escape is at most 12 bytes for at least 1 byte of text, so longer raw texts cannot be equal.
  if (s.raw.size() > text.size() * 12) return false;
  std::string unescaped;
  append_unescaped(unescaped, s.raw);
  return unescaped == text;
}

void append_number(std::string& out, std::uint64_t value) {
  append_chars(out, value);
}
void append_number(std::string& out, std::int64_t value) {
  append_chars(out, value);
}
void append_number(std::string& out, double value) {
  append_real(out, value);
}
void append_number(std::string& out, float value) {
  append_real(out, value);
}

std::optional<double> to_double(std::string_view number) {
  return parse_whole<double>(number);
}
std::optional<std::int64_t> to_int64(std::string_view number) {
  return parse_whole<std::int64_t>(number);
}
std::optional<std::uint64_t> to_uint64(std::string_view number) {
  return parse_whole<std::uint64_t>(number);
}

}  // namespace ganglion::api
