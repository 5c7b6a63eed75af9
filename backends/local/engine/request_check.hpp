#pragma once
// Whether a request makes sense for a model, before it is queued.

#include "backends/local/engine/events.hpp"
#include "core/error.hpp"

namespace ganglion::local {

// invalid_value (param names the field) or context_length.
core::Result<void> check_request(const GenerateRequest& request, std::int64_t vocab_size, int context_max);

}  // namespace ganglion::local
