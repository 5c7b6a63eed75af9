#pragma once
// Decodes one generation token by token. What it has returned is final: the concatenation of every push() and of
// flush() equals Tokenizer::decode of all the ids, and no piece ever splits a UTF-8 code point. One thread at a time;
// the Tokenizer must outlive it.

#include <cstdint>
#include <memory>
#include <string>

#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local {

namespace tok {
struct StreamState;
}

// When a byte-fallback run (<0xE4><0xBD>...) may be shown. decode() turns a whole run into U+FFFD if any part of it
// is not UTF-8, so `exact` waits for the run's end; `prompt` shows each complete code point at once and differs from
// decode() only for runs that turn out to be invalid. Byte-level decoders are exact and prompt either way.
enum class ByteRuns : std::uint8_t { exact, prompt };

class StreamDecoder {
 public:
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special, ByteRuns byte_runs = ByteRuns::exact);
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();

  // The text that has become certain with this token; often "", never part of a code point.
  std::string push(std::int32_t id);
  // What was held back, incomplete bytes as U+FFFD. The decoder is then as new.
  std::string flush();

 private:
  std::unique_ptr<tok::StreamState> state_;
};

}  // namespace ganglion::local
