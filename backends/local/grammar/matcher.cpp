// See matcher.hpp.

#include "backends/local/grammar/matcher.hpp"

#include <algorithm>

namespace ganglion::local::grammar {
namespace {

constexpr std::size_t kKnownMax = 4;

void set(std::span<std::uint32_t> words, std::int32_t id) {
  words[static_cast<std::size_t>(id) / 32] |= 1U << (static_cast<std::uint32_t>(id) % 32);
}

}  // namespace

Matcher::Matcher(std::shared_ptr<const Grammar> grammar)
    : grammar_(std::move(grammar)), shared_(std::make_shared<Shared>()) {
  const Automaton& automaton = grammar_->automaton();
  const Rule& root = automaton.rule(automaton.root());
  const StackId stack = kBottom;
  Walker(automaton, shared_->store).enter({root.start, 0, stack}, places_);
}

bool Matcher::advance(std::int32_t id) {
  if (over_ || id < 0 || id >= grammar_->vocabulary().size()) return false;
  const auto ends = grammar_->vocabulary().end_ids();
  if (std::find(ends.begin(), ends.end(), id) != ends.end()) {
    if (places_.ended) over_ = true;
    return over_;
  }
  const std::string& bytes = grammar_->vocabulary().bytes(id);
  if (bytes.empty()) return false;
  Walker walker(grammar_->automaton(), shared_->store);
  Places from = places_, to;
  for (const char c : bytes) {
    walker.step(from, static_cast<std::uint8_t>(c), to);
    std::swap(from, to);
    if (from.dead()) return false;
  }
  places_ = std::move(from);
  return true;
}

Places Matcher::rounded() const {
  Places out = places_;
  for (Place& p : out.open) p.count = grammar_->count_class(p.state, p.count);
  return out;
}

bool Matcher::fill(std::span<std::uint32_t> words) const {
  std::fill(words.begin(), words.end(), 0);
  if (over_) return false;
  Places key = rounded();
  for (const Known& known : shared_->known) {
    if (known.places != key) continue;
    std::copy(known.words.begin(), known.words.end(), words.begin());
    return known.any;
  }
  const Automaton& automaton = grammar_->automaton();
  const int margin = automaton.height_max() + grammar_->vocabulary().openings_max() + 1;
  for (const Place& place : places_.open) {
    if (shared_->store.depth(place.stack) + margin < kNestingMax) {
      add_state(place, words);
    } else {  // so deep that nesting has to end: what a state allows anywhere does not hold here
      Places alone;
      alone.open.push_back(place);
      walk(grammar_->vocabulary().trie(), alone, words);
    }
  }
  if (places_.ended) {
    for (const std::int32_t id : grammar_->vocabulary().end_ids()) set(words, id);
  }
  const bool any = std::any_of(words.begin(), words.end(), [](std::uint32_t w) { return w != 0; });
  Known known{std::move(key), {words.begin(), words.end()}, any};
  if (shared_->known.size() < kKnownMax) {
    shared_->known.push_back(std::move(known));
  } else {
    shared_->known[shared_->next++ % kKnownMax] = std::move(known);
  }
  return any;
}

void Matcher::add_state(const Place& place, std::span<std::uint32_t> words) const {
  const auto mask = grammar_->state_mask(place.state, place.count);
  for (const std::int32_t id : mask->few) set(words, id);
  for (std::size_t i = 0; i < mask->words.size(); ++i) words[i] |= mask->words[i];
  if (mask->rests.nodes().empty() || place.stack < 0) return;
  Places behind;
  Walker(grammar_->automaton(), shared_->store).leave(place.stack, behind);
  if (!behind.open.empty()) walk(mask->rests, behind, words);
}

void Matcher::walk(const Trie& trie, const Places& from, std::span<std::uint32_t> words) const {
  Walker walker(grammar_->automaton(), shared_->store);
  auto& at = shared_->at;
  if (at.size() <= static_cast<std::size_t>(trie.depth_max()))
    at.resize(static_cast<std::size_t>(trie.depth_max()) + 1);
  at[0] = from;
  walk_trie(trie, walker, at, [&](std::uint32_t, const Trie::Node& node, const Places&) {
    for (const std::int32_t id : trie.ids(node)) set(words, id);
  });
}

}  // namespace ganglion::local::grammar
