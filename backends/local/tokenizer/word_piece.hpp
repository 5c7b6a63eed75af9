#pragma once
// WordPiece: the longest token that fits, again and again; one [UNK] for a word that cannot be covered.

#include <string>

#include "backends/local/tokenizer/model.hpp"

namespace ganglion::local::tok {

class WordPiece final : public Model {
 public:
  explicit WordPiece(const Spec& spec);  // throws LoadError

  void encode(std::string_view word, bool byte_level, Scratch& scratch, std::vector<std::int32_t>& ids) const override;
  const Vocab& vocab() const override { return vocab_; }

 private:
  void encode_word(std::string_view word, std::string& candidate, std::vector<std::int32_t>& ids) const;

  Vocab vocab_;
  std::string prefix_;  // continuing_subword_prefix, "##"
  std::int32_t unk_id_ = -1;
  std::size_t characters_max_ = 100;
  std::size_t token_bytes_max_ = 0;  // no longer candidate can be in the vocabulary
};

}  // namespace ganglion::local::tok
