#pragma once
// A compiled grammar over one model's vocabulary, and the masks of tokens that it allows. Immutable but for a bounded
// store of masks behind a lock; any thread.
//
// What a state allows consists of tokens that end within its own rule, which is the same wherever the rule was called
// from and is kept, and of tokens that reach beyond the rule's end. Of those the state keeps what is left of them
// behind that end, and only these rests are tried, at run time, against the stack at hand.

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "backends/local/grammar/automaton.hpp"
#include "backends/local/grammar/stacks.hpp"
#include "backends/local/grammar/trie.hpp"
#include "backends/local/grammar/vocabulary.hpp"

namespace ganglion::local::grammar {

inline constexpr std::size_t kMaskBytesMax = 64U << 20;  // of the masks that one grammar keeps

// What one state allows.
struct StateMask {
  std::vector<std::int32_t> few;     // token ids; or
  std::vector<std::uint32_t> words;  // one bit a token
  Trie rests;                        // what is left, behind the rule's end, of tokens that reach beyond it
  std::size_t bytes_held() const;
};

class Grammar {
 public:
  Grammar(Automaton automaton, std::shared_ptr<const Vocabulary> vocabulary);

  const Automaton& automaton() const { return automaton_; }
  const Vocabulary& vocabulary() const { return *vocabulary_; }

  // The mask of a place's state, made when it is first asked for.
  std::shared_ptr<const StateMask> state_mask(StateId state, std::uint32_t count) const;
  // Counters that make no difference within one token count as one.
  std::uint32_t count_class(StateId state, std::uint32_t count) const;
  std::size_t bytes_held() const;    // automaton and masks
  std::uint64_t masks_made() const;  // for tests and figures

 private:
  StateMask make_mask(StateId state, std::uint32_t count) const;

  Automaton automaton_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  mutable std::mutex mutex_;  // guards what follows
  mutable std::unordered_map<std::uint64_t, std::shared_ptr<const StateMask>> masks_;
  mutable std::size_t mask_bytes_ = 0;
  mutable std::uint64_t masks_made_ = 0;
};

}  // namespace ganglion::local::grammar
