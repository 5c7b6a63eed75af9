#pragma once
// Path and method -> what is asked. A table look-up over exact, already validated paths; nothing is rebuilt from the
// Host header or from URL parts.

#include <string>
#include <string_view>

#include "api/types.hpp"
#include "core/error.hpp"

namespace ganglion::gateway {

struct Route {
  api::Endpoint endpoint = api::Endpoint::kCount;  // kCount, named "unknown": nothing is served there
  std::string model;                               // of GET /v1/models/{id}, percent-decoded; "" for the list
};

// Errors: not_found (names the paths served), method_not_allowed (names the right method).
core::Result<Route> match(std::string_view method, std::string_view path);

// Whose path it is, whatever the method: what a request counts under that match() refuses.
api::Endpoint endpoint_of(std::string_view path);

}  // namespace ganglion::gateway
