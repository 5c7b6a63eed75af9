#pragma once
// Policy's few changes to a request body, spliced into the original bytes: everything else stays as the client wrote
// it, white space and unknown fields included.

#include <string>
#include <string_view>

#include "api/openai_request.hpp"
#include "core/text_parts.hpp"

namespace ganglion::api {

struct RewritePlan {
  std::string_view model;           // the upstream's name of the model; "" or equal to the client's: unchanged
  bool include_usage = false;       // make sure a stream reports usage (no effect when stream is false)
  bool strip_service_tier = false;  // remove service_tier, for upstreams that would refuse or re-price it
};

// The body to send: `body` itself when nothing changes, else parts of it with what is new between them, which lies in
// `out`, whose old content is replaced. `view` must come from parse_request on the same body.
core::TextParts rewrite_body(std::string_view body, const RequestView& view, const RewritePlan& plan, std::string& out);

}  // namespace ganglion::api
