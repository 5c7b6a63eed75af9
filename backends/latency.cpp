// See backends/latency.hpp.

#include "backends/latency.hpp"

#include <algorithm>
#include <cmath>

namespace ganglion::backends {

void Latency::observe(api::Tier tier, std::chrono::nanoseconds to_first_byte, core::SteadyTime now) {
  Tier& t = of(tier);
  const auto sample = static_cast<std::uint64_t>(std::max<std::int64_t>(to_first_byte.count(), 1));
  const std::uint64_t old = t.mean_ns.load(std::memory_order_relaxed);
  t.mean_ns.store(old == 0 ? sample : old - old / 8 + sample / 8, std::memory_order_relaxed);
  t.at_ns.store(now.time_since_epoch().count(), std::memory_order_relaxed);
}

double Latency::expected_ns(api::Tier tier, core::SteadyTime now) const {
  const Tier& own = of(tier);
  const Tier& t = own.mean_ns.load(std::memory_order_relaxed) != 0
                      ? own
                      : of(tier == api::Tier::fast ? api::Tier::regular : api::Tier::fast);
  const auto mean = static_cast<double>(t.mean_ns.load(std::memory_order_relaxed));
  const std::int64_t age = now.time_since_epoch().count() - t.at_ns.load(std::memory_order_relaxed);
  if (age <= kHalfLife.count()) return mean;
  return mean * std::exp2(1.0 - static_cast<double>(age) / static_cast<double>(kHalfLife.count()));
}

}  // namespace ganglion::backends
