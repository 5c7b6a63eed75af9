// See stacks.hpp.

#include "backends/local/grammar/stacks.hpp"

#include <algorithm>

namespace ganglion::local::grammar {

std::size_t StackStore::Hash::operator()(const Frame& f) const {
  std::uint64_t x = static_cast<std::uint64_t>(static_cast<std::uint32_t>(f.below)) << 32 | f.back;
  x = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ULL + f.count;
  x = (x ^ (x >> 32)) * 0x94d049bb133111ebULL;
  return static_cast<std::size_t>(x ^ (x >> 29));
}

StackId StackStore::push(const Frame& frame) {
  const auto [at, fresh] = known_.try_emplace(frame, static_cast<StackId>(frames_.size()));
  if (fresh) frames_.push_back(frame);
  return at->second;
}

void StackStore::clear() {
  frames_.clear();
  known_.clear();
}

namespace {

// Places that one byte may lead through: far more than any grammar means to.
constexpr std::size_t kVisitsMax = 16 * kPlacesMax;

}  // namespace

bool Walker::apply(const CountOp& op, const Rule& rule, std::uint32_t& count) const {
  if (op.kind == CountOp::Kind::none) return true;
  if (op.kind == CountOp::Kind::at_least) return count >= op.bound;
  if (count >= op.bound) return false;
  // Where there is no upper bound, counting stops where it makes no difference any more.
  if (rule.count_max != kNoLimit || count < rule.count_min) ++count;
  return true;
}

void Walker::leave(StackId stack, Places& to) {
  if (stack == kBottom) {
    to.ended = true;
  } else if (stack == kUnknown) {
    to.returned = true;
  } else {
    const StackStore::Frame frame = store_.at(stack);
    enter({frame.back, frame.count, frame.below}, to);
  }
}

void Walker::enter(const Place& first, Places& to) {
  // Followed iteratively: chains of returns are as long as the nesting is deep.
  pending_.assign(1, first);
  called_.clear();
  for (std::size_t visits = 0; !pending_.empty() && visits < kVisitsMax; ++visits) {
    const Place place = pending_.back();
    pending_.pop_back();
    const State& s = automaton_.state(place.state);
    if (s.bytes > 0) {
      if (std::find(to.open.begin(), to.open.end(), place) != to.open.end()) continue;
      if (to.open.size() >= kPlacesMax) continue;
      to.open.push_back(place);
    }
    if (s.final) {
      if (place.stack == kBottom) {
        to.ended = true;
      } else if (place.stack == kUnknown) {
        to.returned = true;
      } else {
        const StackStore::Frame& frame = store_.at(place.stack);
        pending_.push_back({frame.back, frame.count, frame.below});
      }
    }
    if (s.calls == 0) continue;
    if (std::find(called_.begin(), called_.end(), place) != called_.end()) continue;
    called_.push_back(place);
    const int depth = store_.depth(place.stack);
    for (const CallEdge& call : automaton_.calls(s)) {
      const Rule& rule = automaton_.rule(call.rule);
      const int inside = depth + (rule.nests ? 1 : 0);
      // Only as deep as leaves room to close again.
      if (inside + rule.height > kNestingMax || depth + automaton_.state(call.to).height > kNestingMax) continue;
      std::uint32_t count = place.count;
      if (!apply(call.op, automaton_.rule(s.rule), count)) continue;
      const State& back = automaton_.state(call.to);
      // Where there is nothing left to do after it, the rule returns to where this one would have.
      const bool last = back.final && back.bytes == 0 && back.calls == 0 && !rule.nests;
      const StackId stack =
          last ? place.stack : store_.push({place.stack, call.to, count, static_cast<std::uint16_t>(inside)});
      pending_.push_back({rule.start, 0, stack});
    }
  }
}

void Walker::step(const Places& from, std::uint8_t byte, Places& to) {
  to.clear();
  for (const Place& place : from.open) {
    const State& s = automaton_.state(place.state);
    for (const ByteEdge& e : automaton_.bytes(s)) {
      if (byte < e.low || byte > e.high) continue;
      if (store_.depth(place.stack) + automaton_.state(e.to).height > kNestingMax) continue;
      std::uint32_t count = place.count;
      if (!apply(e.op, automaton_.rule(s.rule), count)) continue;
      enter({e.to, count, place.stack}, to);
    }
  }
}

}  // namespace ganglion::local::grammar
