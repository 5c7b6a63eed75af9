#pragma once
// One text on its way through a grammar: which tokens may come next, and what follows from the one that came. Copies go
// their own ways from where they were made (a guess ahead, thrown away); they share what they store, so all copies of
// one matcher belong to one thread.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backends/local/grammar/grammar.hpp"

namespace ganglion::local::grammar {

class Matcher {
 public:
  explicit Matcher(std::shared_ptr<const Grammar> grammar);

  // Takes a token. False: the grammar does not allow it, and nothing has changed. An end token is allowed where the
  // text is complete, and nothing is after it.
  bool advance(std::int32_t id);

  // The tokens that may come next, one bit each, end tokens included; `words` has the vocabulary's words(). False: the
  // vocabulary has none (the text may still be complete).
  bool fill(std::span<std::uint32_t> words) const;

  bool complete() const { return places_.ended; }              // the text may end here
  bool over() const { return over_ || places_.open.empty(); }  // and nothing can follow
  const Grammar& grammar() const { return *grammar_; }

 private:
  struct Known {  // masks of the last few places: within a string they are the same from token to token
    Places places;
    std::vector<std::uint32_t> words;
    bool any = false;
  };
  struct Shared {
    StackStore store;
    std::vector<Known> known;
    std::size_t next = 0;
    std::vector<Places> at;  // by depth in a trie
  };
  Places rounded() const;  // counters that make no difference made equal
  void add_state(const Place& place, std::span<std::uint32_t> words) const;
  void walk(const Trie& trie, const Places& from, std::span<std::uint32_t> words) const;

  std::shared_ptr<const Grammar> grammar_;
  std::shared_ptr<Shared> shared_;
  Places places_;
  bool over_ = false;  // an end token came
};

}  // namespace ganglion::local::grammar
