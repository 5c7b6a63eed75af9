// One decode chain, kept between tokens.

#include "backends/local/tokenizer/stream_decoder.hpp"

#include <optional>

#include "backends/local/tokenizer/pipeline.hpp"

namespace ganglion::local {
namespace tok {

struct StreamState {
  const Pipeline* pipeline;
  bool skip_special;
  bool prompt;
  std::optional<DecodeChain> chain;
};

}  // namespace tok

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special, ByteRuns byte_runs)
    : state_(std::make_unique<tok::StreamState>(tokenizer.p_.get(), skip_special, byte_runs == ByteRuns::prompt)) {
  state_->chain.emplace(state_->pipeline->decoder, state_->prompt);
}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

std::string StreamDecoder::push(std::int32_t id) {
  const std::string_view token = state_->pipeline->shown(id);
  if (token.empty() || (state_->skip_special && state_->pipeline->is_special(id))) return {};
  state_->chain->token(token);
  return state_->chain->take();
}

std::string StreamDecoder::flush() {
  state_->chain->finish();
  std::string text = state_->chain->take();
  state_->chain.emplace(state_->pipeline->decoder, state_->prompt);
  return text;
}

}  // namespace ganglion::local
