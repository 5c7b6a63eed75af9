// A recursive descent parser that builds an automaton with empty transitions as it goes, and the subset construction
// over bytes.

#include "backends/local/grammar/pattern.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "backends/local/grammar/characters.hpp"
#include "backends/local/grammar/explore.hpp"

namespace ganglion::local::grammar {
namespace {

using core::ErrorKind;
using core::Result;
using NodeId = std::uint32_t;

constexpr std::size_t kNodesMax = 40'000;
constexpr int kGroupsMax = 64;  // within each other

const CodePoints& digits() {
  static const CodePoints set{{'0', '9'}};
  return set;
}
const CodePoints& words() {
  static const CodePoints set{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
  return set;
}
const CodePoints& spaces() {
  static const CodePoints set{{9, 13},          {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680}, {0x2000, 0x200A},
                              {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
  return set;
}
const CodePoints& line_ends() {
  static const CodePoints set{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
  return set;
}

class Parser {
 public:
  Parser(std::string_view text, RuleGraph& graph) : text_(text), graph_(graph) {}

  // The whole pattern, from node 0 to a node that is final.
  Result<void> run() {
    const NodeId end = graph_.add();
    graph_.end(end);
    alternatives(0, end, 0);
    if (!error_ && at_ < text_.size()) wrong("has a ')' too many");
    if (error_) return std::unexpected(*error_);
    return {};
  }

 private:
  bool more() const { return at_ < text_.size() && !error_; }
  char peek() const { return text_[at_]; }
  bool take(char c) {
    if (!more() || peek() != c) return false;
    ++at_;
    return true;
  }
  void wrong(const std::string& what) {
    if (!error_) error_ = core::make_error(ErrorKind::invalid_value, "the pattern " + what);
  }
  void unsupported(const std::string& what) {
    if (!error_) error_ = core::make_error(ErrorKind::unsupported, what + " in patterns is not supported");
  }

  void alternatives(NodeId from, NodeId to, int depth) {
    if (depth > kGroupsMax) return wrong("has too many groups within each other");
    do {
      alternative(from, to, depth);
    } while (take('|'));
  }

  void alternative(NodeId from, NodeId to, int depth) {
    const bool outermost = depth == 0;
    NodeId at = graph_.add();
    graph_.empty(from, at);
    if (more() && peek() == '^') {
      if (!outermost) return unsupported("'^' within a group");
      ++at_;
    } else if (outermost) {
      anything(at);
    }
    bool closed = false;
    while (more() && peek() != '|' && peek() != ')') {
      if (peek() == '$') {
        if (!outermost) return unsupported("'$' within a group");
        ++at_;
        closed = true;
        if (more() && peek() != '|') return unsupported("'$' before the end");
        break;
      }
      at = repeated(at, depth);
      if (graph_.nodes().size() > kNodesMax) return wrong("is too large");
    }
    if (outermost && !closed) {
      const NodeId rest = graph_.add();
      graph_.empty(at, rest);
      at = rest;
      anything(at);
    }
    graph_.empty(at, to);
  }

  void anything(NodeId at) { add_character(graph_, at, at, CodePoints::all()); }

  // An atom and what says how often; returns the node behind it.
  NodeId repeated(NodeId from, int depth) {
    const auto fresh = [&](NodeId a) {  // loops must not come back to a node that others leave from
      const NodeId b = graph_.add();
      graph_.empty(a, b);
      return b;
    };
    const std::size_t begin = at_;
    NodeId start = fresh(from), end = atom(start, depth);
    const std::size_t behind = at_;
    int least = 1, most = 1;  // most < 0: any number
    if (!quantifier(least, most) || error_) return end;
    if (most == 0) return fresh(from);
    const std::size_t rest = at_;
    const NodeId out = graph_.add();
    const int copies = std::max(most < 0 ? least : most, 1);
    for (int i = 0; i < copies && !error_; ++i) {
      if (i > 0) {  // read anew for each repetition: a graph is copied no more simply
        start = fresh(end);
        at_ = begin;
        end = atom(start, depth);
        at_ = behind;
      }
      if (i >= least) graph_.empty(start, out);
      if (graph_.nodes().size() > kNodesMax) wrong("is too large");
    }
    if (most < 0) graph_.empty(end, start);
    graph_.empty(end, out);
    at_ = rest;
    return out;
  }

  bool quantifier(int& least, int& most) {
    if (!more()) return false;
    if (take('*')) {
      least = 0, most = -1;
    } else if (take('+')) {
      least = 1, most = -1;
    } else if (take('?')) {
      least = 0, most = 1;
    } else if (!bounds(least, most)) {
      return false;
    }
    take('?');  // lazy: the same strings
    if (more() && (peek() == '*' || peek() == '+')) wrong("repeats a repetition");
    return true;
  }

  bool bounds(int& least, int& most) {
    if (peek() != '{') return false;
    const std::size_t begin = at_++;
    const auto low = number();
    bool good = low.has_value();
    std::optional<int> high = low;
    if (good && take(',')) high = more() && peek() == '}' ? std::optional(-1) : number();
    good = good && high && take('}');
    if (!good) {  // as ECMA-262 reads it: a brace like any other
      at_ = begin;
      return false;
    }
    least = *low, most = *high;
    if (most >= 0 && most < least) wrong("has a repetition whose bounds are the wrong way round");
    return true;
  }

  std::optional<int> number() {
    std::optional<int> out;
    while (more() && peek() >= '0' && peek() <= '9') {
      out = out.value_or(0) * 10 + (text_[at_++] - '0');
      if (*out > 100'000) wrong("repeats more than 100000 times"), out = 0;
    }
    return out;
  }

  NodeId atom(NodeId from, int depth) {
    const NodeId to = graph_.add();
    if (take('(')) {
      if (take('?') && !take(':')) {
        unsupported("'(?" + std::string(text_.substr(at_, 1)) + "'");
        return to;
      }
      alternatives(from, to, depth + 1);
      if (!take(')')) wrong("has a '(' that nothing closes");
      return to;
    }
    CodePoints set;
    if (take('[')) {
      set = char_class();
    } else if (take('.')) {
      set = line_ends().complement();
    } else if (take('\\')) {
      set = escape();
    } else if (peek() == '*' || peek() == '+' || peek() == '?') {
      wrong("repeats nothing");
    } else {
      const std::uint32_t c = character();
      set.add(c, c);
    }
    if (!error_) add_character(graph_, from, to, set);
    return to;
  }

  // One code point of the pattern itself, which is valid UTF-8.
  std::uint32_t character() {
    const auto byte = static_cast<unsigned char>(text_[at_++]);
    if (byte < 0x80) return byte;
    const int rest = byte >= 0xF0 ? 3 : byte >= 0xE0 ? 2 : 1;
    std::uint32_t c = byte & (0x3FU >> rest);
    for (int i = 0; i < rest && at_ < text_.size(); ++i)
      c = c << 6 | (static_cast<unsigned char>(text_[at_++]) & 0x3FU);
    return c;
  }

  std::uint32_t hex(std::size_t count) {
    std::uint32_t out = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const char c = more() ? text_[at_++] : ' ';
      const int v = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
      if (v < 0) return wrong("has an escape with too few digits"), 0;
      out = out << 4 | static_cast<std::uint32_t>(v);
    }
    return out;
  }

  std::uint32_t unicode_escape() {
    if (take('{')) {
      const std::size_t end = text_.find('}', at_);
      if (end == std::string_view::npos || end == at_ || end - at_ > 6) return wrong("has a bad \\u{...}"), 0;
      const std::uint32_t c = hex(end - at_);
      take('}');
      return c <= CodePoints::kMax ? c : (wrong("has a bad \\u{...}"), 0);
    }
    const std::uint32_t high = hex(4);
    if (high < 0xD800 || high > 0xDBFF || text_.substr(at_, 2) != "\\u") return high;
    at_ += 2;
    const std::uint32_t low = hex(4);
    return low < 0xDC00 || low > 0xDFFF ? (wrong("has half a surrogate pair"), 0)
                                        : 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  CodePoints escape() {
    if (!more()) return wrong("ends with a backslash"), CodePoints{};
    const auto one = [](std::uint32_t c) { return CodePoints{{c, c}}; };
    const char c = text_[at_++];
    switch (c) {
      case 'd':
        return digits();
      case 'D':
        return digits().complement();
      case 'w':
        return words();
      case 'W':
        return words().complement();
      case 's':
        return spaces();
      case 'S':
        return spaces().complement();
      case 't':
        return one('\t');
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case '0':
        return one(0);
      case 'x':
        return one(hex(2));
      case 'u':
        return one(unicode_escape());
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter) unsupported(std::string("'\\") + c + "'");
    --at_;
    const std::uint32_t itself = character();
    return one(itself);
  }

  CodePoints char_class() {
    const bool negated = take('^');
    CodePoints set;
    while (more() && peek() != ']') {
      std::uint32_t low = 0;
      if (!class_item(set, low)) continue;
      if (text_.substr(at_, 1) != "-" || text_.substr(at_ + 1, 1) == "]" || at_ + 1 >= text_.size()) {
        set.add(low, low);
        continue;
      }
      ++at_;
      std::uint32_t high = 0;
      if (!class_item(set, high)) {  // a class cannot end a range: the parts as they are
        set.add(low, low);
        set.add('-', '-');
        continue;
      }
      if (high < low) return wrong("has a range whose ends are the wrong way round"), CodePoints{};
      set.add(low, high);
    }
    if (!take(']')) wrong("has a '[' that nothing closes");
    // Surrogates are in no text.
    return negated ? set.complement() : set.complement().complement();
  }

  // False: it was a class of its own and is in `set`.
  bool class_item(CodePoints& set, std::uint32_t& c) {
    if (!take('\\')) return c = character(), true;
    if (take('b')) return c = '\b', true;
    if (more() && peek() == '-') return ++at_, c = '-', true;
    const bool many = more() && std::string_view("dDwWsS").find(peek()) != std::string_view::npos;
    const CodePoints got = escape();
    if (many || got.ranges().size() != 1) return set.add(got), false;
    c = got.ranges().front().first;
    return true;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  RuleGraph& graph_;
  std::optional<core::Error> error_;
};

Result<ByteTable> table_of(AutomatonBuilder& builder, const RuleGraph& graph) {
  using Items = std::vector<std::uint32_t>;
  std::uint64_t work = 0;
  const auto close = [&](std::set<std::uint32_t>& items) {
    std::vector<std::uint32_t> open(items.begin(), items.end());
    while (!open.empty()) {
      const auto& node = graph.nodes()[open.back()];
      open.pop_back();
      work += 1 + node.edges.size();
      for (const auto& e : node.edges) {
        if (e.kind == RuleGraph::Edge::Kind::empty && items.insert(e.to).second) open.push_back(e.to);
      }
    }
    // Only nodes that read or end matter from here on.
    Items out;
    for (const std::uint32_t i : items) {
      const auto& node = graph.nodes()[i];
      bool reads = node.final;
      for (const auto& e : node.edges) reads = reads || e.kind == RuleGraph::Edge::Kind::byte;
      if (reads) out.push_back(i);
    }
    return out;
  };
  std::set<std::uint32_t> first{0};
  const Items start = close(first);
  std::optional<core::Error> over;
  Items last;  // neighbouring bytes mostly lead to the same nodes
  std::optional<Items> last_closed;
  auto made = explore(
      builder, start,
      [&](const Items& items, std::uint8_t byte) -> std::optional<Items> {
        if (over) return std::nullopt;
        Items to;
        for (const std::uint32_t i : items) {
          for (const auto& e : graph.nodes()[i].edges) {
            if (e.kind == RuleGraph::Edge::Kind::byte && e.low <= byte && byte <= e.high) to.push_back(e.to);
          }
          work += graph.nodes()[i].edges.size() / 4;
        }
        if (to.empty()) return std::nullopt;
        if (to != last) {
          std::set<std::uint32_t> all(to.begin(), to.end());
          last_closed = close(all);
          last = std::move(to);
          if (auto ok = builder.spend(4 * std::exchange(work, 0)); !ok) over = ok.error();
        }
        return last_closed;
      },
      [&](const Items& items) {
        for (const std::uint32_t i : items) {
          if (graph.nodes()[i].final) return true;
        }
        return false;
      });
  if (over) return std::unexpected(*over);
  return made;
}

}  // namespace

Result<ByteTable> pattern_table(AutomatonBuilder& builder, std::string_view pattern) {
  RuleGraph graph;
  if (auto ok = Parser(pattern, graph).run(); !ok) return std::unexpected(ok.error());
  return table_of(builder, graph);
}

Result<ByteTable> any_string_table(AutomatonBuilder& builder) {
  RuleGraph graph;
  graph.end(0);
  add_character(graph, 0, 0, CodePoints::all());
  return table_of(builder, graph);
}

}  // namespace ganglion::local::grammar
