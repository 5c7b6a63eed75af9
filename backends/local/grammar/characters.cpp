// See characters.hpp.

#include "backends/local/grammar/characters.hpp"

#include <algorithm>
#include <array>

namespace ganglion::local::grammar {
namespace {

constexpr std::string_view kHex = "0123456789abcdef";

std::string escape_of(std::uint32_t c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
  }
}

int encode(std::uint32_t c, std::array<std::uint8_t, 4>& out) {
  const auto byte = [](std::uint32_t v) { return static_cast<std::uint8_t>(v); };
  if (c < 0x80) return out[0] = byte(c), 1;
  if (c < 0x800) return out[0] = byte(0xC0 | c >> 6), out[1] = byte(0x80 | (c & 63)), 2;
  if (c < 0x10000) {
    return out[0] = byte(0xE0 | c >> 12), out[1] = byte(0x80 | (c >> 6 & 63)), out[2] = byte(0x80 | (c & 63)), 3;
  }
  out[0] = byte(0xF0 | c >> 18), out[1] = byte(0x80 | (c >> 12 & 63)), out[2] = byte(0x80 | (c >> 6 & 63)),
  out[3] = byte(0x80 | (c & 63));
  return 4;
}

// Code points of one encoded length, as few sequences of byte ranges as it takes.
void add_utf8(RuleGraph& graph, std::uint32_t from, std::uint32_t to, std::uint32_t low, std::uint32_t high) {
  for (const std::uint32_t border : {0x7FU, 0x7FFU, 0xFFFFU}) {
    if (low <= border && border < high) {
      add_utf8(graph, from, to, low, border);
      return add_utf8(graph, from, to, border + 1, high);
    }
  }
  if (high >= 0x80) {
    // Cut so that, behind the first byte that differs, all continuations are possible.
    for (int i = 1; i < 4; ++i) {
      const std::uint32_t mask = (1U << (6 * i)) - 1;
      if ((low & ~mask) == (high & ~mask)) continue;
      if ((low & mask) != 0) {
        add_utf8(graph, from, to, low, low | mask);
        return add_utf8(graph, from, to, (low | mask) + 1, high);
      }
      if ((high & mask) != mask) {
        add_utf8(graph, from, to, low, (high & ~mask) - 1);
        return add_utf8(graph, from, to, high & ~mask, high);
      }
    }
  }
  std::array<std::uint8_t, 4> a{}, b{};
  const int size = encode(low, a);
  encode(high, b);
  for (int i = 0; i < size; ++i) {
    const std::uint32_t next = i + 1 == size ? to : graph.add();
    const auto at = static_cast<std::size_t>(i);
    graph.range(from, next, a[at], b[at]);
    from = next;
  }
}

}  // namespace

CodePoints::CodePoints(std::initializer_list<Range> ranges) : ranges_(ranges) {
  normalise();
}

CodePoints CodePoints::all() {
  return {{0, 0xD7FF}, {0xE000, kMax}};
}

void CodePoints::add(std::uint32_t low, std::uint32_t high) {
  ranges_.emplace_back(low, high);
  normalise();
}

void CodePoints::add(const CodePoints& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalise();
}

void CodePoints::normalise() {
  std::sort(ranges_.begin(), ranges_.end());
  std::vector<Range> out;
  for (const auto& [low, high] : ranges_) {
    if (!out.empty() && low <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, high);
    } else {
      out.emplace_back(low, high);
    }
  }
  ranges_ = std::move(out);
}

CodePoints CodePoints::complement() const {
  CodePoints out;
  for (const auto& [from, to] : all().ranges_) {
    std::uint32_t at = from;
    for (const auto& [low, high] : ranges_) {
      if (high < at || low > to) continue;
      if (low > at) out.ranges_.emplace_back(at, low - 1);
      at = high + 1;
    }
    if (at <= to) out.ranges_.emplace_back(at, to);
  }
  out.normalise();
  return out;
}

void add_character(RuleGraph& graph, std::uint32_t from, std::uint32_t to, const CodePoints& set) {
  for (const auto& [first, last] : set.ranges()) {
    std::uint32_t low = first;
    const auto plain = [&](std::uint32_t high) {
      if (low <= high) add_utf8(graph, from, to, low, high);
    };
    for (; low <= last && low < 0x20; ++low) graph.text(from, to, escape_of(low));
    for (const std::uint32_t escaped : {std::uint32_t{'"'}, std::uint32_t{'\\'}, std::uint32_t{0xD800}}) {
      if (escaped < low || escaped > last) continue;
      plain(escaped - 1);
      if (escaped != 0xD800) graph.text(from, to, escape_of(escaped));
      low = escaped == 0xD800 ? 0xE000 : escaped + 1;
    }
    plain(last);
  }
}

void add_any_spelling(RuleGraph& graph, std::uint32_t from, std::uint32_t to, CountOp op) {
  // The empty transitions behind the operation are what add_character and the escapes hang on.
  RuleGraph plain;
  const std::uint32_t end = plain.add();
  add_utf8(plain, 0, end, 0x20, '"' - 1);
  add_utf8(plain, 0, end, '"' + 1, '\\' - 1);
  add_utf8(plain, 0, end, '\\' + 1, 0xD7FF);
  add_utf8(plain, 0, end, 0xE000, CodePoints::kMax);
  const std::uint32_t escape = plain.add();
  plain.byte(0, escape, '\\');
  for (const char c : {'"', '\\', '/', 'b', 'f', 'n', 'r', 't'}) plain.byte(escape, end, c);
  const auto hex = [&](std::uint32_t a, std::uint32_t b) {
    plain.range(a, b, '0', '9'), plain.range(a, b, 'a', 'f'), plain.range(a, b, 'A', 'F');
  };
  // \uXXXX: a high surrogate must be followed by a low one.
  const std::uint32_t u = plain.add(), x2 = plain.add(), x3 = plain.add(), x4 = plain.add(), d = plain.add();
  plain.byte(escape, u, 'u');
  plain.range(u, x2, '0', '9');
  for (const char c : {'a', 'A', 'e', 'E'}) plain.range(u, x2, c, c + (c == 'a' || c == 'A' ? 2 : 1));
  hex(x2, x3), hex(x3, x4), hex(x4, end);
  plain.byte(u, d, 'd'), plain.byte(u, d, 'D');
  plain.range(d, x3, '0', '7');
  const std::uint32_t h3 = plain.add(), h4 = plain.add(), h5 = plain.add(), l0 = plain.add(), l1 = plain.add(),
                      l2 = plain.add(), l3 = plain.add(), l4 = plain.add();
  plain.range(d, h3, '8', '9'), plain.range(d, h3, 'a', 'b'), plain.range(d, h3, 'A', 'B');
  hex(h3, h4), hex(h4, h5);
  plain.byte(h5, l0, '\\'), plain.byte(l0, l1, 'u');
  plain.byte(l1, l2, 'd'), plain.byte(l1, l2, 'D');
  plain.range(l2, l3, 'c', 'f'), plain.range(l2, l3, 'C', 'F');
  hex(l3, l4), hex(l4, end);
  // Copied over, the first bytes with the operation.
  std::vector<std::uint32_t> at(plain.nodes().size());
  for (std::uint32_t i = 0; i < at.size(); ++i) at[i] = i == 0 ? from : i == end ? to : graph.add();
  for (std::uint32_t i = 0; i < at.size(); ++i) {
    for (const auto& e : plain.nodes()[i].edges) {
      graph.range(at[i], at[e.to], e.low, e.high, i == 0 ? op : CountOp{});
    }
  }
}

void add_raw_character(RuleGraph& graph, std::uint32_t from, std::uint32_t to, std::string_view but) {
  CodePoints without;
  for (const char c : but) without.add(static_cast<unsigned char>(c), static_cast<unsigned char>(c));
  for (const auto& [low, high] : without.complement().ranges()) add_utf8(graph, from, to, low, high);
}

std::string spelled(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == '"' || byte == '\\') {
      out += escape_of(byte);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

std::uint8_t CharacterPhase::next(std::uint8_t phase, std::uint8_t byte) {
  // 1..3: so many continuation bytes to come; 4: behind a backslash; 5..8: hexadecimal digits to come, 8 - phase + 1.
  if (phase == kBoundary) {
    if (byte == '\\') return 4;
    return byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : byte >= 0xC0 ? 1 : kBoundary;
  }
  if (phase <= 3) return static_cast<std::uint8_t>(phase - 1);
  if (phase == 4) return byte == 'u' ? 5 : kBoundary;
  return phase == 8 ? kBoundary : static_cast<std::uint8_t>(phase + 1);
}

}  // namespace ganglion::local::grammar
