#pragma once
// Rate limits of the process: buckets per key, tenant, gateway and model, for requests, tokens and neurons, and how
// many requests may run at once. A request takes from all that apply or from none. Handles are resolved once per (key,
// model) and kept by workers, so the request path neither hashes nor allocates.

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "api/types.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"
#include "ratelimit/bucket.hpp"
#include "ratelimit/options.hpp"

namespace ganglion::ratelimit {

enum class Scope : std::uint8_t { key, tenant, gateway, model, kCount };
std::string_view name(Scope scope);
enum class Kind : std::uint8_t { requests, tokens, neurons, kCount };
std::string_view name(Kind kind);

// One holder of buckets: `id` is the key id, tenant, gateway or model name (or any name unique within the scope).
struct ScopedLimits {
  Scope scope = Scope::key;
  std::string_view id;
  LimitSet limits;
};

// What the request is thought to use, before it is dispatched.
struct Estimate {
  std::uint64_t tokens = 0;
  api::NanoNeurons nano_neurons = 0;
};

// What was taken of a holder's buckets, for the process that takes this one's place.
struct TakenUnits {
  std::string id;  // of the holder among all scopes
  std::array<std::uint64_t, static_cast<std::size_t>(Kind::kCount)> units{};
};

struct RateLimitView {
  RateView requests;  // of the tightest bucket of each kind
  RateView tokens;
};

class Limiter;

namespace detail {
struct BucketSet;
struct Group;
}  // namespace detail

// Shared reference to the buckets of one (key, model). Cheap to copy; default constructed: unlimited.
class LimiterHandle {
 public:
  LimiterHandle() = default;

 private:
  friend class Limiter;
  friend class Permit;
  friend class LeaseBroker;
  explicit LimiterHandle(std::shared_ptr<const detail::Group> group) : group_(std::move(group)) {}
  std::shared_ptr<const detail::Group> group_;
};

// An admitted request's hold on its buckets. Destroyed without settle(): tokens and neurons go back, the request stays
// counted. Until then it is one of those that run. May be settled and destroyed on any thread. `Limiter` must outlive
// it.
class Permit {
 public:
  Permit() = default;
  Permit(Permit&& other) noexcept;
  Permit& operator=(Permit&& other) noexcept;
  ~Permit();

  // Once: gives back what was estimated too much, takes what was too little (a bucket may go into debt by that much).
  void settle(std::uint64_t tokens, api::NanoNeurons nano_neurons);

 private:
  friend class Limiter;
  LimiterHandle handle_;
  Estimate estimate_;
  Limiter* limiter_ = nullptr;
};

class Limiter {
 public:
  // `shared`: the buckets belong to several gateways together; whoever admits asks a LeaseBroker first.
  Limiter(const LimiterOptions& options, const core::Clock& clock, bool shared = false);
  ~Limiter();

  // Cold path (key or model seen first, after a reload). Existing buckets keep their state; changed limits keep what
  // was used. `version` is the configuration's: a request that still runs on an older one than the buckets were last
  // given finds them as they are. Fails with overloaded when buckets_max holders are all in use.
  core::Result<LimiterHandle> resolve(std::span<const ScopedLimits> limits, std::uint64_t version);

  // rate_limited with retry_after such that asking again then succeeds if nobody else took it; retry_after is 0 when
  // the request is larger than a bucket and can never pass, and a guess when too many run at once. `param` names the
  // bucket, as "key.tokens", or "key.running".
  core::Result<Permit> admit(const LimiterHandle& handle, const Estimate& estimate);

  RateLimitView view(const LimiterHandle& handle) const;
  std::size_t holders() const;
  // Holders whose buckets are not full, unless they are shared; and such holders in the process that goes on, before
  // its first request.
  std::vector<TakenUnits> taken() const;
  void restore(std::vector<TakenUnits> taken);
  // Requests that wait for a lease are dropped where they wait. After the last worker has stopped, before its context
  // goes.
  void drop_waiters();
  bool shared() const { return shared_; }
  // Holders that have something to put right in the store, and those of them on their local share.
  std::int64_t listed_holders() const { return listed_count_.load(std::memory_order_relaxed); }
  std::int64_t local_holders() const { return local_count_.load(std::memory_order_relaxed); }
  // Requests admitted and refused while a holder of theirs was on its local share.
  std::pair<std::uint64_t, std::uint64_t> local_decisions() const {
    return {local_admitted_.load(std::memory_order_relaxed), local_limited_.load(std::memory_order_relaxed)};
  }
  // How many share the limits, as far as is known.
  std::uint32_t gateways() const { return gateways_.load(std::memory_order_relaxed); }
  void set_gateways(std::uint32_t count) { gateways_.store(std::max(count, 1U), std::memory_order_relaxed); }

 private:
  friend class LeaseBroker;
  friend class LeaseKeeper;
  friend class Permit;
  void list(const std::shared_ptr<detail::BucketSet>& set);  // with the set's lock held
  bool forget_idle(core::SteadyTime now);

  const LimiterOptions options_;
  const core::Clock& clock_;
  const bool shared_;
  std::atomic<std::uint32_t> gateways_;
  std::atomic<std::uint64_t> local_admitted_{0}, local_limited_{0};
  // Holders with something to put right in the store: guarded by its own mutex, which nobody waits under.
  std::mutex listed_mutex_;
  std::vector<std::shared_ptr<detail::BucketSet>> listed_;
  std::atomic<std::int64_t> listed_count_{0}, local_count_{0};
  mutable std::mutex mutex_;  // guards sets_; never held while a bucket waits
  std::unordered_map<std::string, std::shared_ptr<detail::BucketSet>> sets_;
  std::unordered_map<std::string, TakenUnits> restored_;  // until their holder is asked for
  core::SteadyTime restored_at_{};
};

}  // namespace ganglion::ratelimit
