#pragma once
// A token bucket as pure integer arithmetic: no clock, no lock, no drift. Levels are kept in units of
// 1/period_ns of a unit, so any rate is exact to the nanosecond. Not thread-safe.

#include <chrono>
#include <cstdint>

#include "core/clock.hpp"

namespace ganglion::ratelimit {

// A rate in the bucket's own units (requests, tokens, nano-neurons). amount 0: unlimited.
struct Rate {
  std::uint64_t amount = 0;            // units per period, at most 1e18
  std::chrono::nanoseconds period{1};  // at most 2^32 s
  std::uint64_t burst = 0;             // units the bucket holds, at most 1e18
  friend bool operator==(const Rate&, const Rate&) = default;
};

// What OpenAI's x-ratelimit-* headers say of one bucket.
struct RateView {
  bool limited = false;  // false: no such limit, no headers
  std::uint64_t limit = 0;
  std::uint64_t remaining = 0;
  std::chrono::nanoseconds reset{0};  // until the bucket is full again
};

class Bucket {
 public:
  Bucket() = default;
  Bucket(const Rate& rate, core::SteadyTime now);  // starts full

  bool unlimited() const { return rate_.amount == 0; }
  const Rate& rate() const { return rate_; }

  // Refills up to `now`; an earlier `now` changes nothing.
  void refill(core::SteadyTime now);
  bool has(std::uint64_t units) const;
  // Takes units even if that makes a debt. refill() first.
  void take(std::uint64_t units);
  // Returns units; never above full.
  void give(std::uint64_t units);
  // How long until has(units); 0 if it has them, max() if it never will (units > burst).
  std::chrono::nanoseconds wait_for(std::uint64_t units) const;
  bool full() const;
  std::uint64_t taken() const;  // units that are missing from a full bucket, rounded up
  RateView view() const;
  // New rate; what was used stays used.
  void change(const Rate& rate, core::SteadyTime now);

 private:
  using Level = __int128;
  Level capacity() const { return static_cast<Level>(rate_.burst) * rate_.period.count(); }

  Rate rate_;
  Level level_ = 0;  // in 1/period_ns units; negative: debt
  core::SteadyTime at_{};
};

}  // namespace ganglion::ratelimit
