#pragma once
// The added_tokens of tokenizer.json: strings that are found in the text before anything else looks at it (or, when
// `normalized`, in normalized text), with the reference's rules for spaces and word borders.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backends/local/tokenizer/normalizer.hpp"
#include "backends/local/tokenizer/spec.hpp"
#include "backends/local/tokenizer/vocab.hpp"

namespace ganglion::local::tok {

struct AddedToken {
  std::string content;
  std::string shown;  // what decoders get: the content, normalized where the token is (it then has taken in the space)
  std::int32_t id;
  bool single_word, lstrip, rstrip, normalized, special;
};

// A part of a text: an added token (id >= 0) or what lies between.
struct Segment {
  std::size_t begin;
  std::size_t end;
  std::int32_t id;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // Throws LoadError, also when a stated id contradicts the vocabulary.
  AddedTokens(const std::vector<Spec>& specs, const Vocab& vocab, const Normalizer& normalizer);

  // Cuts raw text at the tokens that are not normalized, or normalized text at those that are. With plain_special,
  // special tokens count as ordinary text.
  void split_raw(std::string_view text, bool plain_special, std::vector<Segment>& out) const;
  void split_normalized(std::string_view text, bool plain_special, std::vector<Segment>& out) const;

  const AddedToken* by_id(std::int32_t id) const;
  const AddedToken* by_content(std::string_view content) const;
  const std::vector<AddedToken>& all() const { return tokens_; }
  bool is_special(std::string_view content) const;

 private:
  // Leftmost-longest matching of a few hundred strings: a trie with a first-byte table in front.
  class Trie {
   public:
    void insert(std::string_view key, std::int32_t token);
    bool empty() const { return nodes_.empty(); }
    struct Found {
      std::size_t begin, end;
      std::int32_t token;
    };
    std::optional<Found> next(std::string_view text, std::size_t from) const;

   private:
    struct Node {
      std::vector<std::pair<unsigned char, std::int32_t>> next;
      std::int32_t token = -1;
    };
    std::int32_t child(std::int32_t node, unsigned char byte) const;
    std::vector<Node> nodes_;
    std::int32_t first_[256] = {};  // 0: no key begins so
  };

  void split(const Trie& trie, std::string_view text, bool plain_special, std::vector<Segment>& out) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::int32_t, std::size_t> by_id_;
  std::unordered_map<std::string, std::size_t> by_content_;
  Trie raw_;
  Trie normalized_;
};

}  // namespace ganglion::local::tok
