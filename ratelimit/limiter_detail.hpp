#pragma once
// What the limiter keeps of each holder of buckets. Internal to ratelimit.

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ratelimit/lease.hpp"
#include "ratelimit/limiter.hpp"

namespace ganglion::ratelimit::detail {

constexpr std::size_t kKinds = static_cast<std::size_t>(Kind::kCount);
constexpr std::size_t kHoldersMax = 8;  // of one request; scopes are four
static_assert(kKinds == kLeaseKinds);

// Shared with other gateways: leases instead of buckets. Guarded by the set's mutex.
struct SharedState {
  std::string key;  // of the holder in the store
  std::array<Lease, kKinds> leases;
  bool local = false;           // the store cannot be used
  bool asking = false;          // an exchange is under way
  bool listed = false;          // among those that the keeper looks at
  core::SteadyTime retry_at{};  // local: not tried again before
  // Requests that wait for the exchange; each runs once, on any thread, and only posts.
  std::vector<std::move_only_function<void()>> waiters;
  std::array<std::uint64_t, kKinds> waiting{};  // what they want together
};

struct BucketSet {
  mutable std::mutex mutex;
  Scope scope = Scope::key;
  std::array<Bucket, kKinds> buckets;   // guarded by mutex
  LimitSet limits;                      // same; as written, for messages
  std::uint64_t version = 0;            // same; of the configuration that wrote them
  std::uint32_t running = 0;            // same; permits that are neither settled nor destroyed
  std::unique_ptr<SharedState> shared;  // null: this process alone
};

struct Group {
  std::vector<std::shared_ptr<BucketSet>> sets;  // sorted by address, unique, at most kHoldersMax
};

std::array<std::uint64_t, kKinds> costs_of(const Estimate& estimate);

}  // namespace ganglion::ratelimit::detail
