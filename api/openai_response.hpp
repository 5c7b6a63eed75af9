#pragma once
// What the gateway must know of a non-streamed OpenAI-dialect answer, in one scan of the body.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "api/json_cursor.hpp"
#include "api/types.hpp"
#include "core/error.hpp"

namespace ganglion::api {

struct AnswerFacts {
  std::optional<Usage> usage;
  Span usage_object;        // empty if none
  bool error = false;       // carries an error object
  std::size_t choices = 0;  // or embeddings in `data`
};

// The whole body must be one JSON object. Error: upstream_protocol, saying where it is not JSON.
core::Result<AnswerFacts> scan_answer(std::string_view body);

// The body with `"neurons":<decimal>` added to its usage object, in `out` (old content replaced); the body itself if it
// has no usage object. A `neurons` field already there keeps its place and is overridden by ours, which comes last.
std::string_view inject_neurons(std::string_view body, const AnswerFacts& facts, std::string_view decimal,
                                std::string& out);

// The member to splice in before the closing brace of a usage object: `,"neurons":1.5`, no comma if it is empty.
void splice_neurons(std::string_view text, Span usage_object, std::string_view decimal, std::string& out);

}  // namespace ganglion::api
