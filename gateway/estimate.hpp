#pragma once
// Token counts of our own, for two moments: the quick guess at admission (no parse, no tokenizer), and the count of an
// answer whose provider reported no usage (parsed and tokenized; such a bill is flagged `estimated`).

#include <cstdint>
#include <string_view>

#include "api/openai_request.hpp"
#include "backends/local/token_counter.hpp"

namespace ganglion::gateway {

// Prompt tokens by the usual four bytes a token, plus a message's frame.
std::uint64_t guess_prompt_tokens(const api::RequestView& view);
// What admission reserves for the answer where the request sets no maximum.
inline constexpr std::uint64_t kGuessedAnswerTokens = 256;

// Counts the text of a request's messages, prompt or input.
std::uint64_t count_prompt_tokens(api::Endpoint endpoint, std::string_view body, const backends::TokenCounter& counter);
// Counts the text of a whole answer's choices.
std::uint64_t count_answer_tokens(std::string_view body, const backends::TokenCounter& counter);
// Counts the text of recorded stream events.
std::uint64_t count_stream_tokens(std::string_view events, const backends::TokenCounter& counter);

}  // namespace ganglion::gateway
