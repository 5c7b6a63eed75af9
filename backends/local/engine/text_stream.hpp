#pragma once
// Sampled tokens to text that may be shown: whole code points only, nothing of a stop string, also where it crosses
// token borders. Holds back what could still become a stop string. Engine thread only.

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "backends/local/engine/events.hpp"
#include "backends/local/tokenizer/stream_decoder.hpp"

namespace ganglion::local {

class TextStream {
 public:
  // `shown`: special tokens whose names are text, too.
  TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops, std::vector<std::int32_t> shown = {});

  struct Release {
    std::string text;
    std::vector<std::int32_t> tokens;  // those whose text ends in `text`
    std::vector<TokenLogprobs> logprobs;
    bool stopped = false;  // a stop string was completed: nothing more will come
  };
  Release push(std::int32_t id, std::optional<TokenLogprobs> logprobs);
  // The end for another reason: what was held back is shown, unless it completes a stop string only now.
  Release finish();

 private:
  struct Held {
    std::int32_t id;
    std::optional<TokenLogprobs> logprobs;
    std::uint64_t end;  // offset in the whole text where the token's text ends
    bool placed;        // its text has come out of the decoder
  };
  Release take(std::string decoded, bool last);
  std::size_t held_back() const;

  const Tokenizer& tokenizer_;
  StreamDecoder decoder_;
  std::vector<std::string> stops_;
  std::vector<std::int32_t> shown_;
  std::string pending_;         // decoded and not shown
  std::uint64_t released_ = 0;  // bytes shown
  std::deque<Held> tokens_;
};

}  // namespace ganglion::local
