// See builder.hpp. Subset construction over bytes, calls and counter operations together: what reads the same byte with
// different operations stays apart, and is told apart by running both.

#include "backends/local/grammar/builder.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace ganglion::local::grammar {

using core::ErrorKind;
using core::Result;

namespace {

// A rule that would have more states made deterministic is left as it is.
constexpr std::size_t kDeterministicMax = 2'000;

using Node = RuleGraph::Node;
using Edge = RuleGraph::Edge;

void close(const std::vector<Node>& nodes, std::vector<std::uint32_t>& items) {
  std::vector<std::uint32_t> open = items;
  std::set<std::uint32_t> seen(items.begin(), items.end());
  while (!open.empty()) {
    const std::uint32_t at = open.back();
    open.pop_back();
    for (const Edge& e : nodes[at].edges) {
      if (e.kind == Edge::Kind::empty && seen.insert(e.to).second) open.push_back(e.to);
    }
  }
  items.assign(seen.begin(), seen.end());
}

}  // namespace

void RuleGraph::empty(std::uint32_t from, std::uint32_t to) {
  nodes_[from].edges.push_back({.to = to});
}
void RuleGraph::range(std::uint32_t from, std::uint32_t to, int low, int high, CountOp op) {
  nodes_[from].edges.push_back({.kind = Edge::Kind::byte,
                                .low = static_cast<std::uint8_t>(low),
                                .high = static_cast<std::uint8_t>(high),
                                .op = op,
                                .to = to});
}
void RuleGraph::byte(std::uint32_t from, std::uint32_t to, char c, CountOp op) {
  range(from, to, static_cast<unsigned char>(c), static_cast<unsigned char>(c), op);
}
void RuleGraph::call(std::uint32_t from, std::uint32_t to, RuleId rule, CountOp op) {
  nodes_[from].edges.push_back({.kind = Edge::Kind::call, .rule = rule, .op = op, .to = to});
}
void RuleGraph::text(std::uint32_t from, std::uint32_t to, std::string_view text, CountOp op) {
  if (text.empty()) return empty(from, to);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::uint32_t next = i + 1 == text.size() ? to : add();
    byte(from, next, text[i], i == 0 ? op : CountOp{});
    from = next;
  }
}

Result<void> AutomatonBuilder::spend(std::uint64_t steps) {
  work_ += steps;
  if (work_ <= budget_.work_max) return {};
  return core::fail(ErrorKind::invalid_value, "the schema takes too long to compile");
}

Result<RuleId> AutomatonBuilder::declare() {
  if (out_.rules_.size() >= budget_.rules_max) {
    return core::fail(ErrorKind::invalid_value,
                      "the schema has more than " + std::to_string(budget_.rules_max) + " parts");
  }
  out_.rules_.emplace_back();
  return static_cast<RuleId>(out_.rules_.size() - 1);
}

Result<void> AutomatonBuilder::define(RuleId rule, const RuleGraph& graph, bool nests) {
  Subset made;
  auto small = determinise(graph, made);
  if (!small) return std::unexpected(small.error());
  if (!*small) {
    made = {};
    if (auto ok = without_empty(graph, made); !ok) return ok;
  }
  return append(rule, made.nodes, nests);
}

Result<void> AutomatonBuilder::define(RuleId rule, const ByteTable& table) {
  std::vector<Node> nodes(std::max<std::size_t>(table.rows.size(), 1));
  for (std::size_t i = 0; i < table.rows.size(); ++i) {
    const ByteTable::Row& row = table.rows[i];
    nodes[i].final = row.final;
    for (int low = 0; low < 256;) {
      const std::uint32_t to = row.next[static_cast<std::size_t>(low)];
      int high = low;
      while (high < 255 && row.next[static_cast<std::size_t>(high) + 1] == to) ++high;
      if (to != ByteTable::kNone) {
        nodes[i].edges.push_back({.kind = Edge::Kind::byte,
                                  .low = static_cast<std::uint8_t>(low),
                                  .high = static_cast<std::uint8_t>(high),
                                  .op = {},
                                  .to = to});
      }
      low = high + 1;
    }
  }
  return append(rule, nodes, false);
}

// False: it would be too large. `out.nodes` has neither empty transitions nor, but for different operations, two
// transitions for one byte.
Result<bool> AutomatonBuilder::determinise(const RuleGraph& graph, Subset& out) {
  std::map<Items, std::uint32_t> known;
  const auto id_of = [&](Items items) {
    close(graph.nodes(), items);
    const auto [at, fresh] = known.try_emplace(items, static_cast<std::uint32_t>(out.sets.size()));
    if (fresh) {
      out.sets.push_back(std::move(items));
      out.nodes.emplace_back();
    }
    return at->second;
  };
  id_of({0});
  for (std::size_t i = 0; i < out.sets.size(); ++i) {
    if (out.sets.size() > kDeterministicMax) return false;
    std::map<CountOp, std::vector<const Edge*>> bytes;
    std::map<std::pair<RuleId, CountOp>, Items> calls;
    std::uint64_t work = 1;
    const Items items = out.sets[i];
    for (const std::uint32_t item : items) {
      const Node& node = graph.nodes()[item];
      out.nodes[i].final = out.nodes[i].final || node.final;
      work += 1 + node.edges.size();
      for (const Edge& e : node.edges) {
        if (e.kind == Edge::Kind::byte) bytes[e.op].push_back(&e);
        if (e.kind == Edge::Kind::call) calls[{e.rule, e.op}].push_back(e.to);
      }
    }
    for (const auto& [op, edges] : bytes) {
      std::set<int> borders;  // where the set of edges that apply changes
      for (const Edge* e : edges) borders.insert(e->low), borders.insert(e->high + 1);
      for (auto at = borders.begin(); std::next(at) != borders.end(); ++at) {
        Items to;
        for (const Edge* e : edges) {
          if (e->low <= *at && *at <= e->high) to.push_back(e->to);
        }
        work += edges.size();
        if (to.empty()) continue;
        const std::uint32_t id = id_of(std::move(to));
        out.nodes[i].edges.push_back({.kind = Edge::Kind::byte,
                                      .low = static_cast<std::uint8_t>(*at),
                                      .high = static_cast<std::uint8_t>(*std::next(at) - 1),
                                      .op = op,
                                      .to = id});
      }
    }
    for (auto& [key, to] : calls) {
      const std::uint32_t id = id_of(std::move(to));
      out.nodes[i].edges.push_back({.kind = Edge::Kind::call, .rule = key.first, .op = key.second, .to = id});
    }
    if (auto ok = spend(8 * work); !ok) return std::unexpected(ok.error());
  }
  return true;
}

// The same graph, each node with the transitions of those that it reaches without reading.
Result<void> AutomatonBuilder::without_empty(const RuleGraph& graph, Subset& out) {
  for (std::uint32_t i = 0; i < graph.nodes().size(); ++i) {
    Items items{i};
    close(graph.nodes(), items);
    Node& node = out.nodes.emplace_back();
    std::uint64_t work = 1;
    for (const std::uint32_t item : items) {
      const Node& from = graph.nodes()[item];
      node.final = node.final || from.final;
      for (const Edge& e : from.edges) {
        if (e.kind != Edge::Kind::empty) node.edges.push_back(e);
      }
      work += 1 + from.edges.size();
    }
    if (auto ok = spend(4 * work); !ok) return ok;
  }
  return {};
}

Result<void> AutomatonBuilder::append(RuleId rule, const std::vector<Node>& nodes, bool nests) {
  const auto base = static_cast<StateId>(out_.states_.size());
  Rule& r = out_.rules_[rule];
  r.start = base;
  r.nests = nests;
  const auto count = [&](const CountOp& op) {
    if (op.kind == CountOp::Kind::none) return;
    r.counts = true;
    auto& largest = op.kind == CountOp::Kind::below ? r.count_max : r.count_min;
    largest = std::max(largest, op.bound);
  };
  for (const Node& node : nodes) {
    State state{.bytes_from = static_cast<std::uint32_t>(out_.byte_edges_.size()),
                .calls_from = static_cast<std::uint32_t>(out_.call_edges_.size()),
                .final = node.final,
                .rule = rule};
    for (const Edge& e : node.edges) {
      count(e.op);
      if (e.kind == Edge::Kind::byte) {
        out_.byte_edges_.push_back({e.low, e.high, e.op, base + e.to});
        ++state.bytes;
      } else {
        out_.call_edges_.push_back({e.rule, e.op, base + e.to});
        ++state.calls;
      }
    }
    out_.states_.push_back(state);
  }
  const std::size_t edges = out_.byte_edges_.size() + out_.call_edges_.size();
  if (out_.states_.size() > budget_.states_max || edges > budget_.edges_max) {
    return core::fail(ErrorKind::invalid_value, "the schema is too large: its grammar has more than " +
                                                    std::to_string(budget_.states_max) + " states");
  }
  return {};
}

// The least nesting from each state to its rule's end, by going over all states until nothing gets less.
void AutomatonBuilder::measure() {
  const auto add = [](std::uint16_t a, int b) -> std::uint16_t {
    return a == kNoHeight ? kNoHeight : static_cast<std::uint16_t>(std::min<int>(a + b, kNoHeight - 1));
  };
  for (bool changed = true; changed;) {
    changed = false;
    // Backwards: most transitions lead on.
    for (std::size_t i = out_.states_.size(); i-- > 0;) {
      State& s = out_.states_[i];
      std::uint16_t least = s.final ? std::uint16_t{0} : s.height;
      for (const ByteEdge& e : out_.bytes(s)) least = std::min(least, out_.states_[e.to].height);
      for (const CallEdge& e : out_.calls(s)) {
        const Rule& r = out_.rules_[e.rule];
        least = std::min(least, std::max(add(r.height, r.nests ? 1 : 0), out_.states_[e.to].height));
      }
      if (least < s.height) s.height = least, changed = true;
    }
    for (Rule& r : out_.rules_) {
      const std::uint16_t height = out_.states_.empty() ? kNoHeight : out_.states_[r.start].height;
      if (height < r.height) r.height = height, changed = true;
    }
  }
}

void AutomatonBuilder::cut() {
  const auto dead = [&](StateId to) { return out_.states_[to].height == kNoHeight; };
  for (State& s : out_.states_) {
    const auto bytes = out_.byte_edges_.begin() + s.bytes_from;
    s.bytes = static_cast<std::uint16_t>(
        std::remove_if(bytes, bytes + s.bytes, [&](const ByteEdge& e) { return dead(e.to); }) - bytes);
    const auto calls = out_.call_edges_.begin() + s.calls_from;
    s.calls = static_cast<std::uint16_t>(
        std::remove_if(calls, calls + s.calls,
                       [&](const CallEdge& e) { return dead(e.to) || out_.rules_[e.rule].height == kNoHeight; }) -
        calls);
    if (s.height != kNoHeight) out_.height_max_ = std::max(out_.height_max_, static_cast<int>(s.height));
  }
}

// A rule that begins by calling itself would be called forever.
Result<void> AutomatonBuilder::check_recursion() const {
  std::vector<std::uint8_t> seen(out_.rules_.size(), 0);  // 1: on the way, 2: done
  struct Visit {
    RuleId rule;
    std::size_t next;
  };
  for (RuleId first = 0; first < out_.rules_.size(); ++first) {
    if (seen[first] != 0) continue;
    std::vector<Visit> way{{first, 0}};
    seen[first] = 1;
    while (!way.empty()) {
      Visit& at = way.back();
      const auto calls = out_.calls(out_.states_[out_.rules_[at.rule].start]);
      if (at.next == calls.size()) {
        seen[at.rule] = 2;
        way.pop_back();
        continue;
      }
      const RuleId to = calls[at.next++].rule;
      if (seen[to] == 1) {
        return core::fail(ErrorKind::invalid_value, "the schema refers to itself with nothing in between");
      }
      if (seen[to] == 0) seen[to] = 1, way.push_back({to, 0});
    }
  }
  return {};
}

Result<Automaton> AutomatonBuilder::finish(RuleId root) {
  measure();
  cut();
  out_.root_ = root;
  if (out_.rules_[root].height == kNoHeight) {
    return core::fail(ErrorKind::invalid_value, "no JSON value can satisfy the schema");
  }
  if (out_.rules_[root].height + (out_.rules_[root].nests ? 1 : 0) > kNestingMax) {
    return core::fail(ErrorKind::invalid_value,
                      "the schema nests deeper than " + std::to_string(kNestingMax) + " levels");
  }
  if (auto ok = check_recursion(); !ok) return std::unexpected(ok.error());
  return std::move(out_);
}

}  // namespace ganglion::local::grammar
