#pragma once
// What a chat request asks its answer to be, as a grammar: response_format, and calls that it requires or whose
// arguments are strict.

#include <memory>

#include "api/chat_request.hpp"
#include "backends/local/local_parts.hpp"
#include "backends/local/tool_style.hpp"
#include "core/error.hpp"

namespace ganglion::backends {

struct Constraints {
  std::shared_ptr<const local::grammar::Grammar> grammar;  // null: any text
  ToolStyle style = ToolStyle::none;                       // of the calls to look for
  std::vector<std::string> functions;                      // that may be called; empty: look for none
  std::vector<std::int32_t> shown_ids;
};

// Errors: unsupported and invalid_value, with the request's field in `param`.
core::Result<Constraints> constraints_of(const LocalModel::Parts& parts, const api::ChatRequest& request);

}  // namespace ganglion::backends
