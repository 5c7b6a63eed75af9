#pragma once
// A model's tokens as the bytes they add to a text. Made once a model, shared by all of its grammars; immutable.
//
// A special token adds no text: it stands in the trie as a code of its own that begins with a byte that UTF-8 does not
// have, so that a grammar allows it only where it names it (special()).

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backends/local/grammar/trie.hpp"

namespace ganglion::local {
class Tokenizer;
}

namespace ganglion::local::grammar {

class Vocabulary {
 public:
  // `size`: rows of logits, which may be more than the tokenizer has tokens. `end_ids` end a text.
  Vocabulary(const Tokenizer& tokenizer, std::int64_t size, std::span<const std::int32_t> end_ids);
  // For tests: token i adds bytes[i]; "" is a token without text, allowed nowhere.
  Vocabulary(std::vector<std::string> bytes, std::vector<std::int32_t> end_ids);

  static std::string special(std::int32_t id);  // the code of a special token

  const Trie& trie() const { return trie_; }
  std::int64_t size() const { return static_cast<std::int64_t>(bytes_.size()); }
  std::size_t words() const { return (bytes_.size() + 31) / 32; }
  const std::string& bytes(std::int32_t id) const { return bytes_[static_cast<std::size_t>(id)]; }
  std::span<const std::int32_t> end_ids() const { return end_ids_; }
  int token_bytes_max() const { return trie_.depth_max(); }
  int openings_max() const { return openings_max_; }  // brackets that one token opens, at most

 private:
  void build();
  std::vector<std::string> bytes_;
  std::vector<std::int32_t> end_ids_;
  Trie trie_;
  int openings_max_ = 0;
};

}  // namespace ganglion::local::grammar
