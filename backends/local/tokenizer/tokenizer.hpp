#pragma once
// Text to token ids and back, read from a Hugging Face tokenizer.json and written for exact agreement with the
// `tokenizers` library (BPE with byte fallback, byte-level BPE, WordPiece). A component type that is not implemented
// is a load-time error naming it. Immutable after load except for a bounded, thread-safe word cache: one Tokenizer
// serves all threads.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local {

namespace tok {
struct Pipeline;
}

class Tokenizer {
 public:
  // `path` is a model directory or a tokenizer.json. Errors: not_found, invalid_value (malformed; the key is named),
  // unsupported (a component type or regex that cannot be honoured exactly; it is named).
  static core::Result<Tokenizer> load(const std::filesystem::path& path);
  // Same, from the text of a tokenizer.json; `origin` is what errors call it.
  static core::Result<Tokenizer> parse(std::string_view json, std::string_view origin = "tokenizer.json");

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  // Ids of `text`. Special tokens written out in the text are recognised, as in HF: do not pass a user's untrusted
  // text through this where that matters, use encode_ordinary for it. add_special_tokens adds what the
  // post-processor says (BOS; [CLS] and [SEP]). Truncation and padding settings are ignored. Bytes that are not UTF-8
  // become U+FFFD, one per maximal invalid run.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special_tokens) const;
  // Ids of `text` with special added tokens taken as plain text; nothing added.
  std::vector<std::int32_t> encode_ordinary(std::string_view text) const;
  // Number of ids that encode(text, false) gives.
  std::size_t count(std::string_view text) const;

  // The whole text of `ids`; ids outside the vocabulary are skipped, invalid UTF-8 becomes U+FFFD.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special) const;

  // One more than the largest id, added tokens included. A model's own vocab_size may be larger (padding rows).
  std::int32_t vocab_size() const;
  std::optional<std::int32_t> token_to_id(std::string_view token) const;
  // The vocabulary's spelling ("Ġthe", "▁the", "<0x0A>"); "" when the id is not in the vocabulary.
  std::string_view id_to_token(std::int32_t id) const;
  // The bytes that a token stands for in running text (" the", "\n"; may be a piece of a UTF-8 sequence), as in the
  // `bytes` field of logprobs. Special tokens give their content.
  std::string token_bytes(std::int32_t id) const;

  bool is_special(std::int32_t id) const;  // an added token marked special
  bool is_added(std::int32_t id) const;    // any added token
  std::span<const std::int32_t> special_ids() const;
  // bos_token / eos_token / ... of tokenizer_config.json, when loaded from a directory that has one.
  std::optional<std::int32_t> bos_id() const;
  std::optional<std::int32_t> eos_id() const;
  std::optional<std::int32_t> pad_id() const;

 private:
  friend class StreamDecoder;
  explicit Tokenizer(std::unique_ptr<tok::Pipeline> pipeline);
  std::unique_ptr<tok::Pipeline> p_;
};

}  // namespace ganglion::local
