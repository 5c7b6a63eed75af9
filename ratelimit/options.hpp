#pragma once
// Limits as the operator writes them. A zero rate means no limit of that kind.

#include <chrono>
#include <cstdint>

namespace ganglion::ratelimit {

struct RateSpec {
  std::uint64_t amount = 0;     // requests, tokens or whole neurons per period; 0: unlimited
  std::uint32_t period_s = 60;  // 1 or 60 (per second, per minute); any positive value works
  std::uint64_t burst = 0;      // bucket size; 0: `amount`
};

struct LimitSet {
  RateSpec requests;
  RateSpec tokens;
  RateSpec neurons;
  std::uint32_t running = 0;  // requests at once, in this process; 0: any
};

struct LimiterOptions {
  std::uint64_t buckets_max = 1'000'000;  // idle full buckets are forgotten first
  bool shared = true;                     // with Redis: over all gateways together
  std::uint32_t gateways = 0;             // that share the limits; 0: as many as were seen last
};

struct AdmissionOptions {
  std::uint32_t in_flight_max = 4096;                          // calls to backends at once, whole process
  std::uint64_t body_memory_bytes_max = 512ULL * 1024 * 1024;  // request bodies held, whole process
  std::uint64_t memory_bytes_max = 0;                          // resident set of the process; 0: no limit
};

// What the tiers are as a service. See docs/tiers.md.
struct TierOptions {
  std::uint32_t fast_reserved_percent = 20;        // of every capacity: regular requests may not take it
  std::chrono::milliseconds fast_wait_max{2'000};  // for a place; past it the request is shed
  std::chrono::milliseconds regular_wait_max{10'000};
  std::uint32_t queue_max = 1'024;  // requests waiting for a place, whole process

  // Of `total`, how much regular requests may hold: at least one, where there is one.
  template <class T>
  T regular_share(T total) const {
    const T reserved = static_cast<T>(static_cast<double>(total) * fast_reserved_percent / 100);
    return total > reserved ? total - reserved : (total > 0 ? 1 : 0);
  }
};

}  // namespace ganglion::ratelimit
