#pragma once
// Everything that a tokenizer.json describes, put together.

#include <algorithm>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "backends/local/tokenizer/added_tokens.hpp"
#include "backends/local/tokenizer/decoder.hpp"
#include "backends/local/tokenizer/model.hpp"
#include "backends/local/tokenizer/normalizer.hpp"
#include "backends/local/tokenizer/post_processor.hpp"
#include "backends/local/tokenizer/pre_tokenizer.hpp"

namespace ganglion::local::tok {

// Scratches waiting for the next encode call. At most kKept wait; a burst of callers makes its own and drops them.
class ScratchPool {
 public:
  std::unique_ptr<Scratch> borrow();
  void give_back(std::unique_ptr<Scratch> scratch);

 private:
  static constexpr std::size_t kKept = 8;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_;
};

struct Pipeline {
  explicit Pipeline(const Spec& spec);  // throws LoadError

  void encode(std::string_view text, bool plain_special, std::vector<std::int32_t>& ids) const;
  std::string_view token(std::int32_t id) const;  // as spelled; "": no such id
  std::string_view shown(std::int32_t id) const;  // as decoders get it
  bool is_special(std::int32_t id) const { return std::ranges::binary_search(special_ids, id); }

  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<Model> model;
  PostProcessor post_processor;
  Decoder decoder;
  AddedTokens added;
  std::int32_t end_id = 0;
  std::vector<std::int32_t> special_ids;
  std::optional<std::int32_t> bos_id, eos_id, pad_id;

 private:
  void encode_text(Normalized text, bool plain_special, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  void encode_words(std::string_view text, bool at_start, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  mutable ScratchPool scratches_;
};

}  // namespace ganglion::local::tok
