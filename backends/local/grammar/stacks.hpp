#pragma once
// Where an automaton can be: a set of places, each a state, its frame's counter and a stack of frames to return to.
// Stacks share their lower frames, and equal ones are one (StackStore). One thread at a time.

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backends/local/grammar/automaton.hpp"
#include "backends/local/grammar/trie.hpp"

namespace ganglion::local::grammar {

using StackId = std::int32_t;
inline constexpr StackId kBottom = -1;   // nothing to return to: the text ends here
inline constexpr StackId kUnknown = -2;  // whatever called: for what holds wherever a rule is called from

class StackStore {
 public:
  struct Frame {
    StackId below;
    StateId back;         // where to go on
    std::uint32_t count;  // of the caller's frame
    std::uint16_t depth;  // levels of nesting, this frame's included
    friend bool operator==(const Frame&, const Frame&) = default;
  };
  StackId push(const Frame& frame);
  const Frame& at(StackId id) const { return frames_[static_cast<std::size_t>(id)]; }
  int depth(StackId id) const { return id < 0 ? 0 : at(id).depth; }
  void clear();
  std::size_t size() const { return frames_.size(); }

 private:
  struct Hash {
    std::size_t operator()(const Frame& f) const;
  };
  std::vector<Frame> frames_;
  std::unordered_map<Frame, StackId, Hash> known_;
};

struct Place {
  StateId state = 0;
  std::uint32_t count = 0;
  StackId stack = kBottom;
  friend bool operator==(const Place&, const Place&) = default;
};

// A place for each way in which the text so far can be read.
struct Places {
  std::vector<Place> open;  // with transitions to go on by; calls and returns are already followed
  bool ended = false;       // the text is complete
  bool returned = false;    // a rule that was called from kUnknown is complete
  bool dead() const { return open.empty() && !ended && !returned; }
  void clear() {
    open.clear();
    ended = returned = false;
  }
  friend bool operator==(const Places&, const Places&) = default;
};

// Readings that go on at once. Past it further ones are dropped, which only narrows what is allowed.
inline constexpr std::size_t kPlacesMax = 1'024;

class Walker {
 public:
  Walker(const Automaton& automaton, StackStore& store) : automaton_(automaton), store_(store) {}

  // Adds a place and all that calls and returns lead to from there.
  void enter(const Place& place, Places& to);
  // From `from` by one byte; `to` is overwritten.
  void step(const Places& from, std::uint8_t byte, Places& to);
  // Adds where `place`'s rule goes on once it is complete.
  void leave(StackId stack, Places& to);

 private:
  bool apply(const CountOp& op, const Rule& rule, std::uint32_t& count) const;
  const Automaton& automaton_;
  StackStore& store_;
  std::vector<Place> pending_, called_;
};

// Depth first through all of `trie` that the readings at[0] reach; `visit(index, node, places)` for each node reached.
// `at` has room for the trie's depth.
template <class Visit>
void walk_trie(const Trie& trie, Walker& walker, std::vector<Places>& at, Visit visit) {
  const auto nodes = trie.nodes();
  for (std::uint32_t n = 0; n < nodes.size();) {
    const Trie::Node& node = nodes[n];
    Places& to = at[node.depth];
    walker.step(at[node.depth - 1U], node.byte, to);
    if (to.dead()) {
      n = node.after;
      continue;
    }
    visit(n, node, to);
    n = to.open.empty() ? node.after : n + 1;
  }
}

}  // namespace ganglion::local::grammar
