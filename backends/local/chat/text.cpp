// Python's str on UTF-8. Case mappings are the C library's for C.UTF-8: simple ones, one code point to one.

#include "backends/local/chat/text.hpp"

#include <locale.h>
#include <wctype.h>

#include <algorithm>
#include <array>

namespace ganglion::local::jinja {

namespace {

// Made once and kept for the process: the tables of a locale object are read-only.
locale_t unicode() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", static_cast<locale_t>(nullptr));
  return locale;
}

bool ascii_upper(char32_t c) {
  return c >= 'A' && c <= 'Z';
}
bool ascii_lower(char32_t c) {
  return c >= 'a' && c <= 'z';
}

template <class Map>
std::string map_text(std::string_view s, Map map) {
  std::string out;
  out.reserve(s.size());
  for (std::size_t i = 0; i < s.size();) {
    const CodePoint c = code_point_at(s, i);
    const char32_t mapped = map(c.value);
    if (mapped == c.value) {
      out.append(s.substr(i, c.bytes));
    } else {
      append_utf8(out, mapped);
    }
    i += c.bytes;
  }
  return out;
}

bool in_set(char32_t c, std::string_view set) {
  for (std::size_t i = 0; i < set.size();) {
    const CodePoint member = code_point_at(set, i);
    if (member.value == c) return true;
    i += member.bytes;
  }
  return false;
}

// First byte of the last code point of s[0, end).
std::size_t previous(std::string_view s, std::size_t end) {
  std::size_t i = end - 1;
  while (i > 0 && end - i < 4 && (static_cast<unsigned char>(s[i]) & 0xC0) == 0x80) --i;
  return i + code_point_at(s, i).bytes == end ? i : end - 1;
}

std::vector<std::string> split_spaces(std::string_view s, std::int64_t limit) {
  std::vector<std::string> out;
  std::size_t i = 0;
  while (true) {
    while (i < s.size()) {
      const CodePoint c = code_point_at(s, i);
      if (!is_space(c.value)) break;
      i += c.bytes;
    }
    if (i >= s.size()) return out;
    if (limit >= 0 && static_cast<std::int64_t>(out.size()) == limit) {
      out.emplace_back(strip(s.substr(i), std::nullopt, false, true));
      return out;
    }
    std::size_t end = i;
    while (end < s.size()) {
      const CodePoint c = code_point_at(s, end);
      if (is_space(c.value)) break;
      end += c.bytes;
    }
    out.emplace_back(s.substr(i, end - i));
    i = end;
  }
}

std::vector<std::string> split_spaces_right(std::string_view s, std::int64_t limit) {
  std::vector<std::string> out;
  while (true) {
    s = strip(s, std::nullopt, false, true);
    if (s.empty()) break;
    if (limit >= 0 && static_cast<std::int64_t>(out.size()) == limit) {
      out.emplace_back(strip(s, std::nullopt, true, false));
      break;
    }
    std::size_t begin = s.size();
    while (begin > 0) {
      const std::size_t at = previous(s, begin);
      if (is_space(code_point_at(s, at).value)) break;
      begin = at;
    }
    out.emplace_back(s.substr(begin));
    s = s.substr(0, begin);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace

CodePoint code_point_at(std::string_view s, std::size_t byte) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char lead = at(byte);
  if (lead < 0x80) return {lead, 1};
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
  if (length == 1 || byte + length > s.size()) return {lead, 1};
  char32_t c = lead & (0xFFU >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(byte + i) & 0xC0) != 0x80) return {lead, 1};
    c = (c << 6) | (at(byte + i) & 0x3FU);
  }
  return {c, length};
}

void append_utf8(std::string& out, char32_t c) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (c >> 6)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (c >> 12)));
    out.push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    out.push_back(static_cast<char>(0xF0 | ((c >> 18) & 0x07)));
    out.push_back(static_cast<char>(0x80 | ((c >> 12) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | ((c >> 6) & 0x3F)));
    out.push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

std::size_t text_length(std::string_view s) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < s.size(); i += code_point_at(s, i).bytes) ++n;
  return n;
}

std::size_t byte_offset(std::string_view s, std::size_t index) {
  std::size_t i = 0;
  for (; i < s.size() && index > 0; --index) i += code_point_at(s, i).bytes;
  return i;
}

bool is_space(char32_t c) {
  return c == ' ' || (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x1F) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_digit(char32_t c) {
  return c < 0x80 ? (c >= '0' && c <= '9') : false;
}
bool is_alpha(char32_t c) {
  return c < 0x80 ? ascii_upper(c) || ascii_lower(c) : iswalpha_l(static_cast<wint_t>(c), unicode()) != 0;
}
char32_t to_upper(char32_t c) {
  if (c < 0x80) return ascii_lower(c) ? c - 32 : c;
  return static_cast<char32_t>(towupper_l(static_cast<wint_t>(c), unicode()));
}
char32_t to_lower(char32_t c) {
  if (c < 0x80) return ascii_upper(c) ? c + 32 : c;
  return static_cast<char32_t>(towlower_l(static_cast<wint_t>(c), unicode()));
}

std::string upper(std::string_view s) {
  // The one common letter whose capital is two.
  return replace(map_text(s, to_upper), "\u00df", "SS", -1);
}
std::string lower(std::string_view s) {
  return map_text(s, to_lower);
}

std::string capitalize(std::string_view s) {
  bool first = true;
  return map_text(s, [&](char32_t c) {
    const char32_t mapped = first ? to_upper(c) : to_lower(c);
    first = false;
    return mapped;
  });
}

std::string swap_case(std::string_view s) {
  return map_text(s, [](char32_t c) { return to_upper(c) != c ? to_upper(c) : to_lower(c); });
}

std::string title(std::string_view s) {
  bool inside = false;
  return map_text(s, [&](char32_t c) {
    const bool cased = is_alpha(c);
    const char32_t mapped = inside ? to_lower(c) : to_upper(c);
    inside = cased;
    return mapped;
  });
}

std::string title_words(std::string_view s) {
  bool first = true;
  return map_text(s, [&](char32_t c) {
    if (is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<') {
      first = true;
      return c;
    }
    const char32_t mapped = first ? to_upper(c) : to_lower(c);
    first = false;
    return mapped;
  });
}

std::string_view strip(std::string_view s, std::optional<std::string_view> chars, bool left, bool right) {
  const auto drop = [&](char32_t c) { return chars ? in_set(c, *chars) : is_space(c); };
  while (left && !s.empty()) {
    const CodePoint c = code_point_at(s, 0);
    if (!drop(c.value)) break;
    s.remove_prefix(c.bytes);
  }
  while (right && !s.empty()) {
    const std::size_t at = previous(s, s.size());
    if (!drop(code_point_at(s, at).value)) break;
    s = s.substr(0, at);
  }
  return s;
}

std::vector<std::string> split(std::string_view s, std::optional<std::string_view> separator, std::int64_t limit,
                               bool from_right) {
  if (!separator) return from_right ? split_spaces_right(s, limit) : split_spaces(s, limit);
  std::vector<std::string> out;
  if (separator->empty()) return out;
  if (from_right) {
    while (limit < 0 || static_cast<std::int64_t>(out.size()) < limit) {
      const std::size_t at = s.rfind(*separator);
      if (at == std::string_view::npos) break;
      out.emplace_back(s.substr(at + separator->size()));
      s = s.substr(0, at);
    }
    out.emplace_back(s);
    std::reverse(out.begin(), out.end());
    return out;
  }
  while (limit < 0 || static_cast<std::int64_t>(out.size()) < limit) {
    const std::size_t at = s.find(*separator);
    if (at == std::string_view::npos) break;
    out.emplace_back(s.substr(0, at));
    s.remove_prefix(at + separator->size());
  }
  out.emplace_back(s);
  return out;
}

std::vector<std::string> split_lines(std::string_view s, bool keep_ends) {
  std::vector<std::string> out;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < s.size();) {
    const CodePoint c = code_point_at(s, i);
    std::size_t end = i + c.bytes;
    const bool ends = (c.value >= 0x0A && c.value <= 0x0D) || (c.value >= 0x1C && c.value <= 0x1E) || c.value == 0x85 ||
                      c.value == 0x2028 || c.value == 0x2029;
    if (ends) {
      if (c.value == '\r' && end < s.size() && s[end] == '\n') ++end;
      out.emplace_back(s.substr(begin, (keep_ends ? end : i) - begin));
      begin = end;
    }
    i = end;
  }
  if (begin < s.size()) out.emplace_back(s.substr(begin));
  return out;
}

std::string replace(std::string_view s, std::string_view from, std::string_view to, std::int64_t limit) {
  std::string out;
  std::size_t i = 0;
  if (from.empty()) {
    // Python puts `to` before every character and at the end.
    while (limit != 0) {
      out.append(to);
      if (limit > 0) --limit;
      if (i >= s.size()) return out;
      const std::size_t bytes = code_point_at(s, i).bytes;
      out.append(s.substr(i, bytes));
      i += bytes;
    }
    out.append(s.substr(i));
    return out;
  }
  while (limit != 0) {
    const std::size_t at = s.find(from, i);
    if (at == std::string_view::npos) break;
    out.append(s.substr(i, at - i)).append(to);
    i = at + from.size();
    if (limit > 0) --limit;
  }
  out.append(s.substr(i));
  return out;
}

std::size_t count(std::string_view s, std::string_view piece) {
  if (piece.empty()) return text_length(s) + 1;
  std::size_t n = 0;
  for (std::size_t at = s.find(piece); at != std::string_view::npos; at = s.find(piece, at + piece.size())) ++n;
  return n;
}

}  // namespace ganglion::local::jinja
