// Any bytes as a tokenizer.json: an error that names something, or a tokenizer that encodes and decodes without
// harm and whose streamed text equals its decoded text.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "backends/local/tokenizer/stream_decoder.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ganglion::local;
  const auto tokenizer = Tokenizer::parse({reinterpret_cast<const char*>(data), size});
  if (!tokenizer) {
    if (tokenizer.error().message.empty()) std::abort();
    return 0;
  }
  // The file's own bytes serve as text too, which brings its tokens into it.
  for (const std::string_view text :
       {std::string_view("Hello  w\xC3\xB6rld\n'S 123 \xF0\x9F\x98\x80 \xFF"),
        std::string_view(reinterpret_cast<const char*>(data), std::min<std::size_t>(size, 512))}) {
    const auto ids = tokenizer->encode(text, true);
    for (const bool skip : {false, true}) {
      StreamDecoder stream(*tokenizer, skip);
      std::string streamed;
      for (const std::int32_t id : ids) streamed += stream.push(id);
      streamed += stream.flush();
      if (streamed != tokenizer->decode(ids, skip)) std::abort();
    }
  }
  return 0;
}
