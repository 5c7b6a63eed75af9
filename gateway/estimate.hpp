#pragma once
// Token counts of our own, for two moments: the quick guess at admission (no parse, no tokenizer), and the count of an
// answer whose provider reported no usage (parsed and tokenized; such a bill is flagged `estimated`).

#include <cstdint>
#include <optional>
#include <string_view>

#include "api/openai_request.hpp"
#include "backends/local/token_counter.hpp"

namespace ganglion::gateway {

// Prompt tokens by the usual four bytes a token, plus a message's frame.
std::uint64_t guess_prompt_tokens(const api::RequestView& view);
// What admission reserves for the answer where the request sets no maximum.
inline constexpr std::uint64_t kGuessedAnswerTokens = 256;
// What the request asks for at most, over its choices; never past what is billed at most.
std::uint64_t guess_answer_tokens(const api::RequestView& view);

// Counts the text of a request's messages, prompt or input.
std::uint64_t count_prompt_tokens(api::Endpoint endpoint, std::string_view body, const backends::TokenCounter& counter);
// Counts the text of a whole answer's choices.
std::uint64_t count_answer_tokens(std::string_view body, const backends::TokenCounter& counter);
// Counts the text of recorded stream events.
std::uint64_t count_stream_tokens(std::string_view events, const backends::TokenCounter& counter);

// A call whose provider did not say what it used.
struct CallText {
  const api::RequestView& view;
  std::string_view body;
  std::string_view answer;               // whole
  std::optional<std::string_view> tape;  // or the stream's text events; none: too many to be kept
  std::uint64_t text_events = 0;         // of the stream
};
// What it used by our own count, `estimated`. Where counting fails (no memory, a tokenizer's fault) sizes are taken
// for it: the bill is not lost by that. Never more answer than the request's max_tokens.
api::Usage own_count(const CallText& call, const backends::TokenCounter& counter) noexcept;

}  // namespace ganglion::gateway
