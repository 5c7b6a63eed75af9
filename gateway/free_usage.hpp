#pragma once
// The usage event of a recorded stream, for a client to whom it is free.

#include <string>
#include <string_view>

namespace ganglion::gateway {

std::string free_usage_event(std::string_view usage_event);

}  // namespace ganglion::gateway
