// See grammar.hpp.

#include "backends/local/grammar/grammar.hpp"

#include <algorithm>

namespace ganglion::local::grammar {

std::size_t StateMask::bytes_held() const {
  return sizeof(StateMask) + few.size() * sizeof(few[0]) + words.size() * sizeof(words[0]) + rests.bytes_held();
}

Grammar::Grammar(Automaton automaton, std::shared_ptr<const Vocabulary> vocabulary)
    : automaton_(std::move(automaton)), vocabulary_(std::move(vocabulary)) {}

// How far it is to either bound, up to what one token can count.
std::uint32_t Grammar::count_class(StateId state, std::uint32_t count) const {
  const Rule& rule = automaton_.rule(automaton_.state(state).rule);
  if (!rule.counts) return 0;
  const auto far = static_cast<std::uint32_t>(vocabulary_->token_bytes_max()) + 1;
  const std::uint32_t missing = rule.count_min > count ? rule.count_min - count : 0;
  const std::uint32_t left = rule.count_max == kNoLimit ? far : rule.count_max > count ? rule.count_max - count : 0;
  return std::min(missing, far) * (far + 1) + std::min(left, far);
}

std::shared_ptr<const StateMask> Grammar::state_mask(StateId state, std::uint32_t count) const {
  const std::uint64_t key = static_cast<std::uint64_t>(state) << 32 | count_class(state, count);
  {
    const std::lock_guard lock(mutex_);
    if (const auto known = masks_.find(key); known != masks_.end()) return known->second;
  }
  auto made = std::make_shared<const StateMask>(make_mask(state, count));
  const std::lock_guard lock(mutex_);
  ++masks_made_;
  const std::size_t bytes = made->bytes_held();
  if (mask_bytes_ + bytes > kMaskBytesMax) {  // rare: begin anew rather than keep account of their use
    masks_.clear();
    mask_bytes_ = 0;
  }
  if (masks_.try_emplace(key, made).second) mask_bytes_ += bytes;
  return made;
}

StateMask Grammar::make_mask(StateId state, std::uint32_t count) const {
  StackStore store;
  Walker walker(automaton_, store);
  const Trie& trie = vocabulary_->trie();
  std::vector<Places> at(static_cast<std::size_t>(trie.depth_max()) + 1);
  at[0].open.push_back({state, count, kUnknown});  // alone: where calls and returns lead has masks of its own
  StateMask out;
  std::vector<std::pair<std::string, std::int32_t>> rests;
  walk_trie(trie, walker, at, [&](std::uint32_t n, const Trie::Node& node, const Places& to) {
    for (const std::int32_t id : trie.ids(node)) out.few.push_back(id);
    if (!to.returned) return;
    for (std::uint32_t i = n + 1; i < node.after; ++i) {
      for (const std::int32_t id : trie.ids(trie.nodes()[i])) {
        rests.emplace_back(vocabulary_->bytes(id).substr(node.depth), id);
      }
    }
  });
  out.rests = Trie(std::move(rests));
  const std::size_t words = vocabulary_->words();
  if (out.few.size() > words) {
    out.words.assign(words, 0);
    for (const std::int32_t id : out.few) {
      out.words[static_cast<std::size_t>(id) / 32] |= 1U << (static_cast<std::uint32_t>(id) % 32);
    }
    out.few.clear();
  }
  out.few.shrink_to_fit();
  return out;
}

std::size_t Grammar::bytes_held() const {
  const std::lock_guard lock(mutex_);
  return automaton_.bytes_held() + mask_bytes_;
}

std::uint64_t Grammar::masks_made() const {
  const std::lock_guard lock(mutex_);
  return masks_made_;
}

}  // namespace ganglion::local::grammar
