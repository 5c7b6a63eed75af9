#pragma once
// Keeps what a client writes from becoming a special token. A chat template's own <|im_end|> must be read as one
// token; the same letters in a message must not, or a message could end its turn and open another one in the
// system's name. Every spelling of a special token in client text gets a mark behind its first character before the
// template runs; the rendered prompt is cut at the marks, so no piece holds the whole spelling, however the template
// slices the text. Prompts without such spellings are encoded in one piece, exactly as Hugging Face does.
// Immutable; any thread.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backends/local/chat/value.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::backends {

class SpecialTokenGuard {
 public:
  explicit SpecialTokenGuard(const local::Tokenizer& tokenizer);

  // The mark is a noncharacter (U+FDD0), which no text means to hold; those in `text` itself are dropped. Special
  // tokens of one character cannot be broken and stay.
  std::string mark(std::string_view text) const;
  // The same for every string inside, keys of dicts included.
  local::jinja::Value mark(const local::jinja::Value& value) const;

  // Ids of a rendered prompt; adds no special tokens of its own.
  std::vector<std::int32_t> encode(const local::Tokenizer& tokenizer, std::string_view prompt) const;

 private:
  bool begins_token(std::string_view text) const;

  std::array<std::vector<std::string>, 256> by_first_byte_;
};

}  // namespace ganglion::backends
