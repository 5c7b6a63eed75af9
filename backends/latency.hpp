#pragma once
// How quickly one target (a backend under one of its model names) begins to answer, by tier, as all workers see it.
// Thread-safe; all atomics, no locks: a lost update under contention costs one sample.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>

#include "api/types.hpp"
#include "core/clock.hpp"

namespace ganglion::backends {

class Latency {
 public:
  // A mean that nobody renewed for so long counts half, then a quarter, ...: a target that was slow once is tried
  // again.
  static constexpr std::chrono::nanoseconds kHalfLife = std::chrono::seconds{10};

  void observe(api::Tier tier, std::chrono::nanoseconds to_first_byte, core::SteadyTime now);
  // What a request of this tier may expect, in ns: the tier's own mean, else the other's. 0: never measured.
  double expected_ns(api::Tier tier, core::SteadyTime now) const;

  // Requests of the tier at this target now, over all workers.
  std::atomic<std::uint32_t>& in_flight(api::Tier tier) { return of(tier).in_flight; }
  std::uint32_t in_flight(api::Tier tier) const { return of(tier).in_flight.load(std::memory_order_relaxed); }

 private:
  struct Tier {
    std::atomic<std::uint64_t> mean_ns{0};
    std::atomic<std::int64_t> at_ns{0};
    std::atomic<std::uint32_t> in_flight{0};
  };
  Tier& of(api::Tier tier) { return tiers_[tier == api::Tier::fast ? 1 : 0]; }
  const Tier& of(api::Tier tier) const { return tiers_[tier == api::Tier::fast ? 1 : 0]; }

  std::array<Tier, 2> tiers_;
};

}  // namespace ganglion::backends
