#pragma once
// The decoder of tokenizer.json, as a chain of stages through which tokens stream. Decoding a whole sequence and
// decoding it token by token are the same code, so they cannot disagree.

#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "backends/local/tokenizer/pattern.hpp"
#include "backends/local/tokenizer/pre_tokenizer.hpp"
#include "backends/local/tokenizer/spec.hpp"

namespace ganglion::local::tok {

// A stage sees tokens as they come: text() adds to the token that is open, end() closes it, finish() ends the
// sequence (all tokens are closed by then). What a stage makes goes to `next` in the same form.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  virtual void text(std::string_view part) = 0;
  virtual void end() = 0;
  virtual void finish() { next->finish(); }
  DecodeStage* next = nullptr;
};

struct JoinSpec {};  // no decoder: tokens joined by spaces
struct ByteLevelDecoderSpec {};
struct ByteFallbackSpec {};
struct FuseSpec {};
struct ReplaceDecoderSpec {
  std::shared_ptr<const Pattern> pattern;
  std::string content;
};
struct StripDecoderSpec {
  std::string content;  // one character
  std::size_t start, stop;
};
struct MetaspaceDecoderSpec {
  std::string replacement;
  bool drop_in_first;
};
struct WordPieceDecoderSpec {
  std::string prefix;
  bool cleanup;
};
struct SuffixDecoderSpec {
  std::string suffix;
};
using DecodeStageSpec = std::variant<JoinSpec, ByteLevelDecoderSpec, ByteFallbackSpec, FuseSpec, ReplaceDecoderSpec,
                                     StripDecoderSpec, MetaspaceDecoderSpec, WordPieceDecoderSpec, SuffixDecoderSpec>;

// Makes the stage that a spec describes. prompt: a byte-fallback stage shows code points before its run has ended.
std::unique_ptr<DecodeStage> make_stage(const DecodeStageSpec& spec, bool prompt);

class Decoder {
 public:
  Decoder() : stages_{JoinSpec{}} {}
  explicit Decoder(const Spec& spec);  // throws LoadError

  // The bytes that one token stands for inside running text.
  std::string token_bytes(std::string_view token) const;
  const std::vector<DecodeStageSpec>& stages() const { return stages_; }

 private:
  void add(const Spec& spec, int depth);
  std::vector<DecodeStageSpec> stages_;
};

// One sequence on its way through a decoder. Owns its stages; the Decoder must outlive it.
class DecodeChain {
 public:
  DecodeChain(const Decoder& decoder, bool prompt);
  DecodeChain(const DecodeChain&) = delete;
  DecodeChain& operator=(const DecodeChain&) = delete;
  void token(std::string_view token);
  void finish();
  std::string take();  // what has come out since the last take

 private:
  class Sink;
  std::vector<std::unique_ptr<DecodeStage>> stages_;
  std::string out_;
};

// The byte that "<0x0A>" names, or -1.
int fallback_byte(std::string_view token);

}  // namespace ganglion::local::tok
