// The pending text is short: what one token adds to what is held back, so plain searches do.

#include "backends/local/engine/text_stream.hpp"

#include <algorithm>

namespace ganglion::local {

TextStream::TextStream(const Tokenizer& tokenizer, std::vector<std::string> stops, std::vector<std::int32_t> shown)
    : tokenizer_(tokenizer),
      decoder_(tokenizer, /*skip_special=*/true),
      stops_(std::move(stops)),
      shown_(std::move(shown)) {
  std::erase_if(stops_, [](const std::string& s) { return s.empty(); });
}

TextStream::Release TextStream::push(std::int32_t id, std::optional<TokenLogprobs> logprobs) {
  tokens_.push_back({id, std::move(logprobs), 0, false});
  if (std::find(shown_.begin(), shown_.end(), id) != shown_.end()) {
    return take(decoder_.flush() + std::string(tokenizer_.id_to_token(id)), false);
  }
  return take(decoder_.push(id), false);
}

TextStream::Release TextStream::finish() {
  return take(decoder_.flush(), true);
}

// Length of the longest end of the pending text that begins a stop string.
std::size_t TextStream::held_back() const {
  std::size_t most = 0;
  for (const std::string& stop : stops_) {
    for (std::size_t n = std::min(stop.size() - 1, pending_.size()); n > most; --n) {
      if (pending_.compare(pending_.size() - n, n, stop, 0, n) == 0) most = n;
    }
  }
  return most;
}

TextStream::Release TextStream::take(std::string decoded, bool last) {
  Release out;
  pending_ += decoded;
  // A token whose bytes the decoder still holds belongs to the text that comes out with a later one.
  if (!decoded.empty() || last) {
    for (Held& token : tokens_) {
      if (!token.placed) token.end = released_ + pending_.size();
      token.placed = true;
    }
  }
  std::size_t show = std::string::npos;
  for (const std::string& stop : stops_) show = std::min(show, pending_.find(stop));
  out.stopped = show != std::string::npos;
  if (!out.stopped) show = pending_.size() - (last ? 0 : held_back());
  out.text = pending_.substr(0, show);
  pending_.erase(0, show);
  released_ += show;
  while (!tokens_.empty() && tokens_.front().placed && tokens_.front().end <= released_) {
    out.tokens.push_back(tokens_.front().id);
    if (tokens_.front().logprobs) out.logprobs.push_back(std::move(*tokens_.front().logprobs));
    tokens_.pop_front();
  }
  if (out.stopped) tokens_.clear();
  return out;
}

}  // namespace ganglion::local
