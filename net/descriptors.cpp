// See net/descriptors.hpp.

#include "net/descriptors.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <limits>

namespace ganglion::net {

DescriptorBounds descriptor_bounds(std::uint64_t limit) {
  constexpr std::uint64_t kReserveMin = 16;   // ledger, logs, sinks, cache files, the admin listener
  constexpr std::uint64_t kReserveMax = 256;  // more than all of them ever have open
  const auto bound = [](std::uint64_t n) {
    return static_cast<int>(std::min<std::uint64_t>(n, std::numeric_limits<int>::max()));
  };
  const std::uint64_t reserve = std::min(std::clamp(limit / 8, kReserveMin, kReserveMax), limit / 4);
  return {.client = bound(limit - 2 * reserve), .upstream = bound(limit - reserve)};
}

const DescriptorBounds& descriptor_bounds() {
  static const DescriptorBounds bounds = [] {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) {
      return descriptor_bounds(std::numeric_limits<int>::max());
    }
    return descriptor_bounds(limit.rlim_cur);
  }();
  return bounds;
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);  // what cannot be raised stays; the bounds follow what there is
}

}  // namespace ganglion::net
