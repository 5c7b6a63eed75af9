#pragma once
// Makes automata. A rule is written down as a small graph with empty transitions (RuleGraph), made deterministic where
// that stays small, and added; finish() then measures what every state needs to end and cuts away what cannot.

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "backends/local/grammar/automaton.hpp"
#include "core/error.hpp"

namespace ganglion::local::grammar {

// What compiling one grammar may use.
struct Budget {
  std::size_t states_max = 100'000;
  std::size_t edges_max = 1'000'000;
  std::size_t rules_max = 20'000;
  std::uint64_t work_max = 60'000'000;  // elementary steps, each some nanoseconds
};

// One rule, not yet deterministic. Node 0 is the start.
class RuleGraph {
 public:
  struct Edge {
    enum class Kind : std::uint8_t { empty, byte, call };
    Kind kind = Kind::empty;
    std::uint8_t low = 0, high = 0;
    RuleId rule = 0;
    CountOp op;
    std::uint32_t to = 0;
  };
  struct Node {
    std::vector<Edge> edges;
    bool final = false;
  };

  RuleGraph() : nodes_(1) {}
  std::uint32_t add() {
    nodes_.emplace_back();
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  }
  void empty(std::uint32_t from, std::uint32_t to);
  void range(std::uint32_t from, std::uint32_t to, int low, int high, CountOp op = {});
  void byte(std::uint32_t from, std::uint32_t to, char c, CountOp op = {});
  void call(std::uint32_t from, std::uint32_t to, RuleId rule, CountOp op = {});
  // From `from` along `text` to `to`; the first byte carries `op`. An empty text is an empty transition.
  void text(std::uint32_t from, std::uint32_t to, std::string_view text, CountOp op = {});
  void end(std::uint32_t node) { nodes_[node].final = true; }

  const std::vector<Node>& nodes() const { return nodes_; }

 private:
  std::vector<Node> nodes_;
};

// A deterministic automaton over bytes alone, while a grammar is made.
struct ByteTable {
  static constexpr std::uint32_t kNone = kNoLimit;
  struct Row {
    std::array<std::uint32_t, 256> next;
    bool final = false;
    Row() { next.fill(kNone); }
  };
  std::vector<Row> rows;  // row 0: the start; none: nothing is accepted
};

class AutomatonBuilder {
 public:
  explicit AutomatonBuilder(const Budget& budget = {}) : budget_(budget) {}

  // A rule that is defined later, so that others can call it before.
  core::Result<RuleId> declare();
  core::Result<void> define(RuleId rule, const RuleGraph& graph, bool nests = false);
  core::Result<void> define(RuleId rule, const ByteTable& table);

  // Counts work; fails when there was too much of it.
  core::Result<void> spend(std::uint64_t steps);
  const Budget& budget() const { return budget_; }
  std::size_t states() const { return out_.states_.size(); }

  // Errors: invalid_value when nothing can satisfy the root, or a rule calls itself before anything else.
  core::Result<Automaton> finish(RuleId root);

 private:
  using Items = std::vector<std::uint32_t>;  // nodes of a graph, sorted
  struct Subset {
    std::vector<Items> sets;
    std::vector<RuleGraph::Node> nodes;
  };
  core::Result<bool> determinise(const RuleGraph& graph, Subset& out);
  core::Result<void> without_empty(const RuleGraph& graph, Subset& out);
  core::Result<void> append(RuleId rule, const std::vector<RuleGraph::Node>& nodes, bool nests);
  void measure();
  void cut();
  core::Result<void> check_recursion() const;

  Budget budget_;
  std::uint64_t work_ = 0;
  Automaton out_;
};

}  // namespace ganglion::local::grammar
