// See backends/health.hpp.

#include "backends/health.hpp"

#include <algorithm>

namespace ganglion::backends {
namespace {

std::int64_t nanoseconds(core::SteadyTime time) {
  return time.time_since_epoch().count();
}

}  // namespace

bool Health::available(core::SteadyTime now) const {
  const std::int64_t until = rest_until_ns_.load(std::memory_order_relaxed);
  if (until == 0) return true;
  return nanoseconds(now) >= until && !trial_.load(std::memory_order_relaxed);
}

bool Health::claim(core::SteadyTime now) {
  const std::int64_t until = rest_until_ns_.load(std::memory_order_relaxed);
  if (until == 0) return true;
  return nanoseconds(now) >= until && !trial_.exchange(true);
}

void Health::succeeded() {
  failures_.store(0, std::memory_order_relaxed);
  rest_until_ns_.store(0, std::memory_order_relaxed);
  trial_.store(false, std::memory_order_relaxed);
}

void Health::failed(core::SteadyTime now) {
  const std::uint32_t failures = failures_.fetch_add(1, std::memory_order_relaxed) + 1;
  trial_.store(false, std::memory_order_relaxed);
  if (failures < kFailuresToEject) return;
  const std::uint32_t doublings = std::min(failures - kFailuresToEject, 5U);
  rest(now, std::min(kRestMin * (1U << doublings), kRestMax));
}

void Health::rest(core::SteadyTime now, std::chrono::milliseconds asked) {
  const std::int64_t until = nanoseconds(now + std::min(asked, kRestMax));
  std::int64_t current = rest_until_ns_.load(std::memory_order_relaxed);
  while (until > current && !rest_until_ns_.compare_exchange_weak(current, until)) {
  }
}

std::chrono::nanoseconds Health::rest_left(core::SteadyTime now) const {
  const std::int64_t until = rest_until_ns_.load(std::memory_order_relaxed);
  return std::chrono::nanoseconds{std::max<std::int64_t>(until - nanoseconds(now), 0)};
}

void Health::released() {
  trial_.store(false, std::memory_order_relaxed);
}

}  // namespace ganglion::backends
