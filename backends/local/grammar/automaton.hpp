#pragma once
// What constrained text must look like, as a pushdown automaton over bytes: rules whose states consume a byte or call
// another rule. A call keeps the state to return to on a stack. Each frame also has one counter, for lengths of strings
// and arrays, so that a bound of a million costs no million states.
//
// Every state that is reached can reach the end: what could not was cut away when the automaton was made. So a text
// that the automaton has accepted so far can always be completed.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace ganglion::local::grammar {

using StateId = std::uint32_t;
using RuleId = std::uint32_t;

inline constexpr std::uint32_t kNoLimit = std::numeric_limits<std::uint32_t>::max();
inline constexpr std::uint16_t kNoHeight = std::numeric_limits<std::uint16_t>::max();
// Arrays and objects within each other. A text never gets deeper: where the schema would allow it, it must close.
inline constexpr int kNestingMax = 64;

// A transition's look at its frame's counter.
struct CountOp {
  enum class Kind : std::uint8_t { none, below, at_least };
  Kind kind = Kind::none;
  std::uint32_t bound = 0;  // below: the counter must be less, and is then one more; at_least: it must be no less
  friend bool operator==(const CountOp&, const CountOp&) = default;
  friend auto operator<=>(const CountOp&, const CountOp&) = default;
};

struct ByteEdge {
  std::uint8_t low = 0, high = 0;  // both included
  CountOp op;
  StateId to = 0;
};
struct CallEdge {
  RuleId rule = 0;
  CountOp op;
  StateId to = 0;  // where it goes on after the rule
};

struct State {
  std::uint32_t bytes_from = 0, calls_from = 0;
  std::uint16_t bytes = 0, calls = 0;
  std::uint16_t height = kNoHeight;  // levels of nesting that are needed to get from here to the rule's end
  bool final = false;                // the rule may end here
  RuleId rule = 0;
};

struct Rule {
  StateId start = 0;
  std::uint16_t height = kNoHeight;
  bool nests = false;  // an array or an object: a level of nesting
  // The largest bounds of its counter operations; what is past both makes no difference.
  std::uint32_t count_min = 0, count_max = 0;
  bool counts = false;
};

class Automaton {
 public:
  const State& state(StateId id) const { return states_[id]; }
  const Rule& rule(RuleId id) const { return rules_[id]; }
  std::span<const ByteEdge> bytes(const State& s) const {
    return std::span(byte_edges_).subspan(s.bytes_from, s.bytes);
  }
  std::span<const CallEdge> calls(const State& s) const {
    return std::span(call_edges_).subspan(s.calls_from, s.calls);
  }
  RuleId root() const { return root_; }
  std::size_t states() const { return states_.size(); }
  int height_max() const { return height_max_; }  // of any state
  std::size_t bytes_held() const {
    return states_.size() * sizeof(State) + byte_edges_.size() * sizeof(ByteEdge) +
           call_edges_.size() * sizeof(CallEdge) + rules_.size() * sizeof(Rule);
  }

 private:
  friend class AutomatonBuilder;
  std::vector<State> states_;
  std::vector<Rule> rules_;
  std::vector<ByteEdge> byte_edges_;
  std::vector<CallEdge> call_edges_;
  RuleId root_ = 0;
  int height_max_ = 0;
};

}  // namespace ganglion::local::grammar
