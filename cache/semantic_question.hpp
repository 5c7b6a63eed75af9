#pragma once
// Which requests the semantic cache may answer, and where in the body the question is. What surrounds it (system
// prompt, earlier turns, every parameter) must be the same to the letter: the guard is the body without the question.
// Pure functions.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/openai_request.hpp"
#include "cache/semantic_options.hpp"

namespace ganglion::cache {

// The text of the last message, which must be the user's, as a JSON string with its quotes. nullopt: this request is
// not for the semantic cache (tools, tool_choice, response_format, logprobs, n > 1, audio, images, a high temperature,
// a text that is empty or too long, or anything but one plain text). `body` must be one that parse_request accepted.
std::optional<api::Span> semantic_question(const api::RequestView& view, std::string_view body,
                                           const SemanticPolicy& policy, const SemanticOptions& options);

// The body with an empty question: what two requests must have in common.
std::string semantic_guard(std::string_view body, api::Span question);

// A hash of the runs of digits in the text, in order: "17 and 3" is not "17 and 4", whatever an embedding says.
std::uint64_t numbers_of(std::string_view text);

}  // namespace ganglion::cache
