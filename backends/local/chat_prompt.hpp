#pragma once
// From an OpenAI-dialect request to token ids: messages through the model's chat template, texts through its
// tokenizer. Pure computation on the caller's thread.

#include <cstdint>
#include <string_view>
#include <vector>

#include "api/chat_request.hpp"
#include "backends/local/local_parts.hpp"
#include "core/error.hpp"

namespace ganglion::backends {

// The prompt of a chat. Errors: unsupported (no template, or tools with a template that knows none), invalid_value
// (the template refuses the messages), context_length (far too long, by its bytes alone).
core::Result<std::vector<std::int32_t>> chat_prompt(const LocalModel::Parts& parts, const api::ChatRequest& request);

// A completions prompt or an embeddings input. Text gets the tokenizer's own special tokens; ids stay as they are
// and are checked against the vocabulary.
core::Result<std::vector<std::int32_t>> plain_prompt(const LocalModel::Parts& parts, const api::PromptItem& item,
                                                     std::string_view param);

}  // namespace ganglion::backends
