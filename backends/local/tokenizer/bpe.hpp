#pragma once
// Byte-pair encoding, on characters (with byte fallback or <unk>) and on the byte alphabet.

#include <array>
#include <optional>
#include <string>
#include <unordered_map>

#include "backends/local/tokenizer/merge_table.hpp"
#include "backends/local/tokenizer/model.hpp"

namespace ganglion::local::tok {

class Bpe final : public Model {
 public:
  explicit Bpe(const Spec& spec);  // throws LoadError

  void encode(std::string_view word, bool byte_level, Scratch& scratch, std::vector<std::int32_t>& ids) const override;
  const Vocab& vocab() const override { return vocab_; }

 private:
  void read_merges(const Spec& spec);
  void index_characters();
  void encode_cached(std::string_view word, bool byte_level, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  void encode_word(std::string_view word, bool byte_level, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  void add_characters(std::string_view word, std::vector<std::int32_t>& symbols) const;
  std::int32_t character_id(const char* at, std::uint32_t size) const;
  bool add_fallback_bytes(std::string_view character, std::vector<std::int32_t>& symbols) const;
  void merge_short(Scratch& scratch) const;
  void merge_long(Scratch& scratch) const;

  Vocab vocab_;
  MergeTable merges_;
  std::string prefix_;  // continuing_subword_prefix
  std::string suffix_;  // end_of_word_suffix
  std::int32_t unk_id_ = -1;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::array<std::int32_t, 256> fallback_ids_;  // of <0xXX>; -1: not in the vocabulary
  std::array<std::int32_t, 256> byte_ids_;      // of the byte alphabet
  bool all_bytes_known_ = false;                // so a byte-level word needs no spelling out
  std::vector<std::int32_t> basic_ids_;         // of single characters below U+10000
  // Whole byte-level words, for ignore_merges.
  std::unordered_map<std::string, std::int32_t> raw_words_;
  // No merge spans "x▁" (x not ▁), so words may be cut in front of ▁ without changing any id: text without a
  // pre-tokenizer then goes through the word cache.
  bool cut_at_meta_ = false;
};

}  // namespace ganglion::local::tok
