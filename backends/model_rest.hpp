#pragma once
// When a backend takes requests for one of its models again: providers limit each model for itself, so a 429's
// Retry-After says nothing of the others. Shared by all workers; one atomic.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "core/clock.hpp"

namespace ganglion::backends {

class ModelRest {
 public:
  static constexpr std::chrono::milliseconds kRestMax{30'000};  // whatever was asked for: then it is tried again

  void begin(core::SteadyTime now, std::chrono::milliseconds asked) {
    const std::int64_t until = (now + std::min(asked, kRestMax)).time_since_epoch().count();
    std::int64_t current = until_ns_.load(std::memory_order_relaxed);
    while (until > current && !until_ns_.compare_exchange_weak(current, until)) {
    }
  }
  // 0: it does not rest.
  std::chrono::nanoseconds left(core::SteadyTime now) const {
    const std::chrono::nanoseconds until{until_ns_.load(std::memory_order_relaxed)};
    return std::max(until - now.time_since_epoch(), std::chrono::nanoseconds{0});
  }

 private:
  std::atomic<std::int64_t> until_ns_{0};  // steady clock
};

}  // namespace ganglion::backends
