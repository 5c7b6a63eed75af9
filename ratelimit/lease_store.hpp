#pragma once
// Where shared buckets live: one exchange borrows slices of a holder's buckets, returns what is not needed and charges
// what was used too much, all in one step. Two implementations: Redis (redis_leases.hpp) and, in tests, memory.

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <string>
#include <string_view>

#include "ratelimit/bucket.hpp"

namespace ganglion::ratelimit {

inline constexpr std::size_t kLeaseKinds = 3;  // requests, tokens, neurons

struct LeaseAsk {
  struct Part {
    Rate rate;                     // amount 0: no such limit; the rest is ignored
    std::uint64_t need = 0;        // granted for all parts or for none
    std::uint64_t extra = 0;       // more, if the bucket is far from empty
    std::int64_t back = 0;         // > 0: unspent units returned; < 0: units used beyond what was borrowed
    std::int64_t back_if_new = 0;  // instead of `back`, where the store no longer knows the bucket (it starts full)
  };
  std::string key;  // of the holder, without prefix; parts share a slot
  std::array<Part, kLeaseKinds> parts;
  // An extra is at most the bucket's level divided by this: slices shrink near the limit.
  std::uint32_t divisor = 8;
};

struct LeaseGrant {
  struct Part {
    std::uint64_t granted = 0;
    double level = 0;  // of the shared bucket after that; negative: debt
  };
  bool enough = false;  // the needs were granted
  std::array<Part, kLeaseKinds> parts;
};

struct LeaseFailure {
  bool maybe_done = false;  // the exchange may have happened all the same
};

using LeaseResult = std::expected<LeaseGrant, LeaseFailure>;

// One a thread.
class LeaseStore {
 public:
  virtual ~LeaseStore() = default;
  // `done` is called once, later, on this thread, within the store's own time limit.
  virtual void exchange(const LeaseAsk& ask, std::move_only_function<void(LeaseResult)> done) = 0;
  // An exchange for the key is worth trying.
  virtual bool available(std::string_view key) const = 0;
  // This gateway is there; `done`, if the store answers, is told how many are.
  virtual void report(std::string_view gateway, std::move_only_function<void(std::uint32_t)> done) = 0;
  // It goes; `done` is called once, whether the store answers or not.
  virtual void leave(std::string_view gateway, std::move_only_function<void()> done) = 0;
};

}  // namespace ganglion::ratelimit
