#pragma once
// A recorded answer in its other form: a stream put together into one body, a body taken apart into a stream. So that
// one cache entry serves both kinds of client. Off the hot path: done once an entry, by a DOM.

#include <string>
#include <string_view>

#include "api/types.hpp"
#include "core/error.hpp"

namespace ganglion::api {

// Chat completions and completions. The stream must be whole (ends with [DONE]); deltas merge as the official clients
// merge them: text concatenates, tool calls go by index, log-probabilities append, unknown fields are kept.
// Usage is the stream's last one. Errors: upstream_protocol (not whole, or not that dialect).
core::Result<std::string> assemble_from_stream(Endpoint endpoint, std::string_view sse);

// Role, content, tool calls, finish, usage where asked and known, [DONE]; for each choice in order.
// Error: upstream_protocol (the body is not an answer of that dialect).
core::Result<std::string> stream_from_body(Endpoint endpoint, std::string_view body, bool include_usage);

}  // namespace ganglion::api
