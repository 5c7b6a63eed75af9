#pragma once
// A body that outlives the exchange that it came with.

#include <memory>
#include <string_view>

namespace ganglion::net {

// A request's body beyond its exchange; see Exchange::hold_body.
struct HeldBody {
  std::string_view text;
  std::shared_ptr<const char[]> owner;
};

}  // namespace ganglion::net
