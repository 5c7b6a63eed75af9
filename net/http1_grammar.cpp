// Character tables and the checks over them; see http1_grammar.hpp.

#include "net/http1_grammar.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace ganglion::net {

std::string_view name(Method method) {
  static constexpr std::array<std::string_view, 8> kNames = {"GET",   "HEAD",   "POST",    "PUT",
                                                             "PATCH", "DELETE", "OPTIONS", ""};
  return kNames[static_cast<std::size_t>(method)];
}

namespace {

constexpr int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

}  // namespace

std::string_view find_header(std::span<const Header> headers, std::string_view name) {
  for (const Header& header : headers) {
    if (iequals(header.name, name)) return header.value;
  }
  return {};
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    out += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return out;
}

namespace http1 {
namespace {

enum : std::uint8_t { kTchar = 1, kPathChar = 2, kQueryChar = 4, kHostChar = 8 };

constexpr std::array<std::uint8_t, 256> make_classes() {
  std::array<std::uint8_t, 256> classes{};
  const auto add = [&](std::string_view chars, std::uint8_t bits) {
    for (const char c : chars) classes[static_cast<unsigned char>(c)] |= bits;
  };
  add("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", kTchar | kPathChar | kQueryChar | kHostChar);
  add("!#$%&'*+-.^_`|~", kTchar);
  add("-._~!$&'()*+,;=:@/%", kPathChar);
  add("-._~!$&'()*+,;=:@/%?[]{}|^`", kQueryChar);
  add("-._~", kHostChar);
  return classes;
}
constexpr auto kClasses = make_classes();

constexpr bool has_class(char c, std::uint8_t bits) {
  return (kClasses[static_cast<unsigned char>(c)] & bits) != 0;
}

bool all_of_class(std::string_view text, std::uint8_t bits) {
  return std::ranges::all_of(text, [bits](char c) { return has_class(c, bits); });
}

#if defined(__SSE2__)
// The text's bytes in a register, some of them twice; for 4 to 16 bytes.
__m128i window(std::string_view text) {
  const char* const p = text.data();
  const std::size_t n = text.size();
  if (n >= 8) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)),
                              _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + n - 8)));
  }
  std::int32_t first = 0;
  std::int32_t last = 0;
  std::memcpy(&first, p, sizeof first);
  std::memcpy(&last, p + n - 4, sizeof last);
  return _mm_set_epi32(first, last, first, last);
}

// Calls `bad` with 16 bytes at a time until all of the text (4 bytes or more) was seen; whether any was.
template <class Bad>
bool any_window(std::string_view text, Bad bad) {
  if (text.size() <= 16) return _mm_movemask_epi8(bad(window(text))) != 0;
  std::size_t at = 0;
  __m128i seen = _mm_setzero_si128();
  for (; at + 16 <= text.size(); at += 16) {
    seen = _mm_or_si128(seen, bad(_mm_loadu_si128(reinterpret_cast<const __m128i*>(text.data() + at))));
  }
  // The rest, with bytes before it once more.
  seen = _mm_or_si128(seen, bad(_mm_loadu_si128(reinterpret_cast<const __m128i*>(text.data() + text.size() - 16))));
  return _mm_movemask_epi8(seen) != 0;
}

// 0xff where a byte is in [first, last], for ASCII bounds; bytes from 0x80 on are in none.
__m128i in_range(__m128i bytes, char first, char last) {
  return _mm_and_si128(_mm_cmpgt_epi8(bytes, _mm_set1_epi8(static_cast<char>(first - 1))),
                       _mm_cmplt_epi8(bytes, _mm_set1_epi8(static_cast<char>(last + 1))));
}

// Letters, digits and '-': what nearly all names are made of. Other token characters look bad here.
bool is_plain_token(std::string_view text) {
  return !any_window(text, [](__m128i bytes) {
    const __m128i letters = in_range(_mm_or_si128(bytes, _mm_set1_epi8(0x20)), 'a', 'z');
    const __m128i good =
        _mm_or_si128(_mm_or_si128(letters, in_range(bytes, '0', '9')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('-')));
    return _mm_xor_si128(good, _mm_set1_epi8(-1));
  });
}
#endif

bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned char c = byte(i);
    if (c < 0x80) {
      ++i;
      continue;
    }
    const std::size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || i + length > text.size()) return false;
    for (std::size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    }
    const unsigned char second = byte(i + 1);
    // Overlong forms, surrogates, and values past U+10FFFF.
    if ((c == 0xe0 && second < 0xa0) || (c == 0xed && second > 0x9f) || (c == 0xf0 && second < 0x90) ||
        (c == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += length;
  }
  return true;
}

// Every escape decodes to something that is neither a control character nor a backslash.
Why check_escapes(std::string_view text) {
  for (std::size_t i = text.find('%'); i != std::string_view::npos; i = text.find('%', i + 1)) {
    if (i + 2 >= text.size()) return "broken percent escape in the request target";
    const int high = hex_value(text[i + 1]);
    const int low = hex_value(text[i + 2]);
    if (high < 0 || low < 0) return "broken percent escape in the request target";
    const int value = high * 16 + low;
    if (value < 0x20 || value == 0x7f || value == '\\') return "forbidden percent escape in the request target";
  }
  return nullptr;
}

Why check_segments(std::string_view path) {
  for (std::size_t start = 1; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string_view segment = path.substr(start, end - start);
    if (segment == "." || segment == "..") return "dot segments in the request target";
    if (segment.empty() && end != path.size()) return "empty segments in the request target";
    start = end + 1;
  }
  return nullptr;
}

Why add_connection(std::string_view value, Framing& framing) {
  while (!value.empty()) {
    const std::size_t comma = std::min(value.find(','), value.size());
    std::string_view option = value.substr(0, comma);
    value.remove_prefix(std::min(comma + 1, value.size()));
    while (!option.empty() && (option.front() == ' ' || option.front() == '\t')) option.remove_prefix(1);
    while (!option.empty() && (option.back() == ' ' || option.back() == '\t')) option.remove_suffix(1);
    if (option.empty()) continue;
    if (!is_token(option)) return "bad Connection header";
    if (iequals(option, "close")) framing.close = true;
    if (iequals(option, "keep-alive")) framing.keep_alive = true;
    // Naming these asks the next hop to strip what framing or authorization rests on.
    for (const std::string_view kept : {"transfer-encoding", "content-length", "host", "authorization"}) {
      if (iequals(option, kept)) return "Connection names a header that must not be hop-by-hop";
    }
  }
  return nullptr;
}

}  // namespace

bool is_token(std::string_view text) {
#if defined(__SSE2__)
  if (text.size() >= 4 && is_plain_token(text)) return true;
#endif
  return !text.empty() && all_of_class(text, kTchar);
}

bool is_field_value(std::string_view text) {
#if defined(__SSE2__)
  if (text.size() >= 4) {
    return !any_window(text, [](__m128i bytes) {
      const __m128i control = _mm_cmpeq_epi8(_mm_max_epu8(bytes, _mm_set1_epi8(0x1F)), _mm_set1_epi8(0x1F));
      const __m128i tab = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t'));
      return _mm_or_si128(_mm_andnot_si128(tab, control), _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7F)));
    });
  }
#endif
  bool bad = false;
  for (const char c : text) {
    const auto u = static_cast<unsigned char>(c);
    bad |= (u < 0x20 && u != '\t') || u == 0x7f;
  }
  return !bad;
}

Why parse_field_line(std::string_view line, Header& out) {
  if (line.front() == ' ' || line.front() == '\t') return "folded header line";
  const std::size_t colon = line.find(':');
  if (colon == std::string_view::npos) return "header line without a colon";
  out.name = line.substr(0, colon);
  if (!is_token(out.name)) return "bad header name";
  std::string_view value = line.substr(colon + 1);
  while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
  while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
  if (!is_field_value(value)) return "control character in a header value";
  out.value = value;
  return nullptr;
}

std::optional<std::uint64_t> parse_content_length(std::string_view text) {
  if (text.empty() || text.size() > 18 || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  std::uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return value;
}

Why Framing::add(const Header& header) {
  switch (header.name.size()) {
    case 10:
      if (iequals(header.name, "connection")) return add_connection(header.value, *this);
      return nullptr;
    case 14:
      if (iequals(header.name, "content_length")) return "bad header name";
      if (!iequals(header.name, "content-length")) return nullptr;
      if (content_length) return "more than one Content-Length";
      if (chunked) return "Content-Length beside Transfer-Encoding";
      content_length = parse_content_length(header.value);
      return content_length ? nullptr : "bad Content-Length";
    case 17:
      if (iequals(header.name, "transfer_encoding")) return "bad header name";
      if (!iequals(header.name, "transfer-encoding")) return nullptr;
      if (chunked) return "more than one Transfer-Encoding";
      if (content_length) return "Content-Length beside Transfer-Encoding";
      if (!iequals(header.value, "chunked")) return "Transfer-Encoding other than chunked";
      chunked = true;
      return nullptr;
    default:
      return nullptr;
  }
}

Why check_target(std::string_view target, std::string_view& path, std::string_view& query) {
  path = target;
  query = {};
  if (target == "*") return nullptr;
  if (target.empty() || target.front() != '/') return "the request target must be a path";
  if (const std::size_t mark = target.find('?'); mark != std::string_view::npos) {
    path = target.substr(0, mark);
    query = target.substr(mark + 1);
  }
  if (!all_of_class(path, kPathChar)) return "forbidden character in the request path";
  if (!all_of_class(query, kQueryChar)) return "forbidden character in the request query";
  if (Why why = check_segments(path)) return why;
  if (target.find('%') == std::string_view::npos) return nullptr;
  if (Why why = check_escapes(path)) return why;
  if (Why why = check_escapes(query)) return why;
  // What a decoding router would see must pass as well: %2e%2e, %2f%2f, overlong UTF-8.
  const auto decoded = percent_decode(path);
  if (!decoded || !is_utf8(*decoded)) return "percent escapes in the request path are not UTF-8";
  return check_segments(*decoded);
}

bool is_host(std::string_view text) {
  std::string_view port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos || end < 3 || end > 46) return false;
    for (const char c : text.substr(1, end - 1)) {
      if (hex_value(c) < 0 && c != ':' && c != '.') return false;
    }
    port = text.substr(end + 1);
  } else {
    const std::size_t end = std::min(text.find(':'), text.size());
    if (end == 0 || end > 253 || !all_of_class(text.substr(0, end), kHostChar)) return false;
    port = text.substr(end);
  }
  if (port.empty()) return true;
  if (port.front() != ':' || port.size() < 2 || port.size() > 6) return false;
  return std::ranges::all_of(port.substr(1), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace http1
}  // namespace ganglion::net
