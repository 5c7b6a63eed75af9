// See ratelimit/limiter.hpp. Each holder's three buckets share one mutex; a request locks its holders in address order,
// checks all, then takes from all, so there is no moment at which a refused request holds anything.

#include "ratelimit/limiter.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "ratelimit/limiter_detail.hpp"

namespace ganglion::ratelimit {

std::array<std::uint64_t, detail::kKinds> detail::costs_of(const Estimate& estimate) {
  return {1, estimate.tokens, static_cast<std::uint64_t>(std::max<api::NanoNeurons>(estimate.nano_neurons, 0))};
}

namespace {

using detail::BucketSet;
using detail::costs_of;
using detail::Group;
using detail::kKinds;

constexpr std::uint64_t kUnitsMax = 1'000'000'000'000'000'000;

// Locks all holders in the group's order; unlocks on destruction.
class LockAll {
 public:
  explicit LockAll(const Group& group) : group_(group) {
    for (const auto& set : group_.sets) set->mutex.lock();
  }
  ~LockAll() {
    for (const auto& set : group_.sets) set->mutex.unlock();
  }
  LockAll(const LockAll&) = delete;
  LockAll& operator=(const LockAll&) = delete;

 private:
  const Group& group_;
};

Rate rate_of(const RateSpec& spec, std::uint64_t scale) {
  const auto scaled = [&](std::uint64_t value) {
    std::uint64_t out = 0;
    return __builtin_mul_overflow(value, scale, &out) ? kUnitsMax : std::min(out, kUnitsMax);
  };
  return {.amount = scaled(spec.amount),
          .period = std::chrono::seconds{std::max(spec.period_s, 1U)},
          .burst = scaled(spec.burst == 0 ? spec.amount : spec.burst)};
}

std::array<Rate, kKinds> rates_of(const LimitSet& limits) {
  return {rate_of(limits.requests, 1), rate_of(limits.tokens, 1), rate_of(limits.neurons, api::kNanoPerNeuron)};
}

const RateSpec& spec_of(const LimitSet& limits, std::size_t kind) {
  return kind == 0 ? limits.requests : kind == 1 ? limits.tokens : limits.neurons;
}

std::string seconds(std::chrono::milliseconds wait) {
  std::string text = std::to_string(wait.count() / 1000) + "." + std::to_string(1000 + wait.count() % 1000).substr(1);
  return text + "s";
}

// The refusal for one bucket; `param` is its scope and kind, for whoever counts. Cold path.
core::Error refusal(const BucketSet& set, std::size_t kind, std::chrono::nanoseconds wait) {
  const RateSpec& spec = spec_of(set.limits, kind);
  const std::string what{name(static_cast<Kind>(kind))};
  std::string which = std::string{name(set.scope)} + "." + what;
  const std::string limit = std::to_string(spec.amount) + " " + what + " per " +
                            (spec.period_s == 1    ? std::string{"second"}
                             : spec.period_s == 60 ? std::string{"minute"}
                                                   : std::to_string(spec.period_s) + " seconds");
  if (wait == std::chrono::nanoseconds::max()) {
    core::Error error =
        core::make_error(core::ErrorKind::rate_limited,
                         "Request too large: it needs more " + what + " than the limit of this " +
                             std::string{name(set.scope)} + " ever allows at once (" +
                             std::to_string(spec.burst == 0 ? spec.amount : spec.burst) + "). Send a smaller one.");
    error.retryable = false;
    error.param = std::move(which);
    return error;
  }
  const auto retry_after = std::chrono::ceil<std::chrono::milliseconds>(wait);
  core::Error error = core::make_error(core::ErrorKind::rate_limited,
                                       "Rate limit reached for this " + std::string{name(set.scope)} + ": " + limit +
                                           ". Please try again in " + seconds(retry_after) + ".");
  error.retry_after = retry_after;
  error.param = std::move(which);
  return error;
}

// The refusal where as many run as may. How long they will is not known.
core::Error crowded(const BucketSet& set) {
  core::Error error = core::make_error(core::ErrorKind::rate_limited,
                                       "Too many requests at once for this " + std::string{name(set.scope)} + ": " +
                                           std::to_string(set.limits.running) +
                                           " may run. Please try again when one of them has ended.");
  error.retry_after = std::chrono::seconds{1};
  error.param = std::string{name(set.scope)} + ".running";
  return error;
}

// The tighter of two views of one kind: fewer remaining, then the later reset.
RateView tighter(const RateView& a, const RateView& b) {
  if (!a.limited) return b;
  if (!b.limited) return a;
  if (a.remaining != b.remaining) return a.remaining < b.remaining ? a : b;
  return a.reset >= b.reset ? a : b;
}

// One kind of a holder, shared or not; refilled.
std::chrono::nanoseconds wait_for(BucketSet& set, std::size_t kind, std::uint64_t units, core::SteadyTime now) {
  if (set.shared == nullptr) {
    set.buckets[kind].refill(now);
    return set.buckets[kind].wait_for(units);
  }
  Lease& lease = set.shared->leases[kind];
  if (lease.covers(units, now)) return std::chrono::nanoseconds{0};
  // There may be enough in the store, and somebody else was quicker to borrow it: worth asking again at once.
  return std::max<std::chrono::nanoseconds>(lease.wait_for(units, now), std::chrono::milliseconds{1});
}

void take(BucketSet& set, std::size_t kind, std::uint64_t units, core::SteadyTime now) {
  if (set.shared == nullptr)
    set.buckets[kind].take(units);
  else
    set.shared->leases[kind].take(units, now);
}

void give_or_take(BucketSet& set, std::size_t kind, std::uint64_t estimated, std::uint64_t actual,
                  core::SteadyTime now) {
  if (set.shared != nullptr) {
    if (actual > estimated)
      set.shared->leases[kind].take(actual - estimated, now);
    else
      set.shared->leases[kind].give(estimated - actual, now);
    return;
  }
  Bucket& bucket = set.buckets[kind];
  bucket.refill(now);
  if (actual > estimated)
    bucket.take(actual - estimated);
  else
    bucket.give(estimated - actual);
}

RateView view_of(BucketSet& set, std::size_t kind, core::SteadyTime now) {
  if (set.shared != nullptr) return set.shared->leases[kind].view(now);
  set.buckets[kind].refill(now);
  return set.buckets[kind].view();
}

}  // namespace

std::string_view name(Scope scope) {
  static constexpr std::array<std::string_view, 5> kNames{"key", "tenant", "gateway", "model", "unknown"};
  return kNames[static_cast<std::size_t>(scope)];
}

std::string_view name(Kind kind) {
  static constexpr std::array<std::string_view, 4> kNames{"requests", "tokens", "neurons", "unknown"};
  return kNames[static_cast<std::size_t>(kind)];
}

Permit::Permit(Permit&& other) noexcept
    : handle_(std::move(other.handle_)), estimate_(other.estimate_), limiter_(std::exchange(other.limiter_, nullptr)) {}

Permit& Permit::operator=(Permit&& other) noexcept {
  if (this == &other) return *this;
  settle(0, 0);
  handle_ = std::move(other.handle_);
  estimate_ = other.estimate_;
  limiter_ = std::exchange(other.limiter_, nullptr);
  return *this;
}

Permit::~Permit() {
  settle(0, 0);
}

void Permit::settle(std::uint64_t tokens, api::NanoNeurons nano_neurons) {
  Limiter* const limiter = std::exchange(limiter_, nullptr);
  if (limiter == nullptr) return;
  const auto estimated = costs_of(estimate_);
  const auto actual = costs_of({.tokens = tokens, .nano_neurons = nano_neurons});
  for (const auto& set : handle_.group_->sets) {
    const std::lock_guard lock(set->mutex);
    const core::SteadyTime now = limiter->clock_.steady();
    if (set->shared != nullptr) limiter->list(set);
    --set->running;
    for (std::size_t kind = 1; kind < kKinds; ++kind) {  // the request itself stays counted
      give_or_take(*set, kind, estimated[kind], actual[kind], now);
    }
  }
  handle_.group_.reset();
}

Limiter::Limiter(const LimiterOptions& options, const core::Clock& clock, bool shared)
    : options_(options), clock_(clock), shared_(shared), gateways_(std::max(options.gateways, 1U)) {}
Limiter::~Limiter() = default;

core::Result<LimiterHandle> Limiter::resolve(std::span<const ScopedLimits> limits, std::uint64_t version) {
  if (limits.size() > detail::kHoldersMax) return core::fail(core::ErrorKind::internal, "too many limit scopes");
  auto group = std::make_shared<Group>();
  const core::SteadyTime now = clock_.steady();
  const std::lock_guard lock(mutex_);
  for (const ScopedLimits& scoped : limits) {
    const auto rates = rates_of(scoped.limits);
    const bool any_rate = std::ranges::any_of(rates, [](const Rate& rate) { return rate.amount != 0; });
    if (!any_rate && scoped.limits.running == 0) continue;
    std::string id{name(scoped.scope)};
    id.append(1, '\0').append(scoped.id);
    auto found = sets_.find(id);
    if (found == sets_.end()) {
      if (sets_.size() >= options_.buckets_max && !forget_idle(now)) {
        core::Error error = core::make_error(core::ErrorKind::overloaded, "too many limited keys, tenants and models");
        error.retry_after = std::chrono::seconds{1};
        return std::unexpected(std::move(error));
      }
      auto fresh = std::make_shared<BucketSet>();
      fresh->scope = scoped.scope;
      for (std::size_t kind = 0; kind < kKinds; ++kind) fresh->buckets[kind] = Bucket{rates[kind], now};
      if (const auto before = restored_.extract(id); !before.empty()) {
        for (std::size_t kind = 0; kind < kKinds; ++kind) {
          fresh->buckets[kind] = Bucket{rates[kind], restored_at_};
          fresh->buckets[kind].take(before.mapped().units[kind]);
        }
      }
      if (shared_) {
        fresh->shared = std::make_unique<detail::SharedState>();
        // The holder is the hash tag, so that all that belongs to it lies on one node of a cluster.
        fresh->shared->key = "limit:{" + std::string{name(scoped.scope)} + ":" + std::string{scoped.id} + "}";
        for (std::size_t kind = 0; kind < kKinds; ++kind) fresh->shared->leases[kind] = Lease{rates[kind], now};
      }
      found = sets_.emplace(std::move(id), std::move(fresh)).first;
    }
    BucketSet& set = *found->second;
    const std::lock_guard set_lock(set.mutex);
    if (version >= set.version) {
      for (std::size_t kind = 0; kind < kKinds; ++kind) {
        set.buckets[kind].change(rates[kind], now);
        if (set.shared != nullptr) set.shared->leases[kind].change(rates[kind], now);
      }
      set.limits = scoped.limits;
      set.version = version;
    }
    if (std::ranges::find(group->sets, found->second) == group->sets.end()) group->sets.push_back(found->second);
  }
  std::ranges::sort(group->sets, std::less<>{}, [](const auto& set) { return set.get(); });
  return LimiterHandle{group->sets.empty() ? nullptr : std::move(group)};
}

bool Limiter::forget_idle(core::SteadyTime now) {
  // A holder that nobody has a handle of and whose buckets are full is the same as a new one.
  return std::erase_if(sets_, [&](const auto& entry) {
           if (entry.second.use_count() != 1) return false;
           const std::lock_guard lock(entry.second->mutex);
           if (entry.second->shared != nullptr) {
             return std::ranges::all_of(entry.second->shared->leases,
                                        [&](const Lease& lease) { return lease.idle(now); });
           }
           return std::ranges::all_of(entry.second->buckets, [&](Bucket& bucket) {
             bucket.refill(now);
             return bucket.full();
           });
         }) > 0;
}

core::Result<Permit> Limiter::admit(const LimiterHandle& handle, const Estimate& estimate) {
  Permit permit;
  if (handle.group_ == nullptr) return permit;
  const auto costs = costs_of(estimate);
  const LockAll lock(*handle.group_);
  for (const auto& set : handle.group_->sets)
    if (set->limits.running != 0 && set->running >= set->limits.running) return std::unexpected(crowded(*set));
  const core::SteadyTime now = clock_.steady();
  const BucketSet* tightest = nullptr;
  std::size_t tightest_kind = 0;
  std::chrono::nanoseconds longest{0};
  for (const auto& set : handle.group_->sets) {
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      const auto wait = wait_for(*set, kind, costs[kind], now);
      if (wait <= longest) continue;
      longest = wait;
      tightest = set.get();
      tightest_kind = kind;
    }
  }
  const bool local =
      shared_ && std::ranges::any_of(handle.group_->sets, [](const auto& set) { return set->shared->local; });
  if (local) (tightest == nullptr ? local_admitted_ : local_limited_).fetch_add(1, std::memory_order_relaxed);
  if (tightest != nullptr) return std::unexpected(refusal(*tightest, tightest_kind, longest));
  for (const auto& set : handle.group_->sets) {
    ++set->running;
    for (std::size_t kind = 0; kind < kKinds; ++kind) take(*set, kind, costs[kind], now);
  }
  permit.handle_ = handle;
  permit.estimate_ = estimate;
  permit.limiter_ = this;
  return permit;
}

RateLimitView Limiter::view(const LimiterHandle& handle) const {
  RateLimitView out;
  if (handle.group_ == nullptr) return out;
  for (const auto& set : handle.group_->sets) {
    const std::lock_guard lock(set->mutex);
    const core::SteadyTime now = clock_.steady();
    for (const std::size_t kind : {0, 1}) {
      RateView& view = kind == 0 ? out.requests : out.tokens;
      view = tighter(view, view_of(*set, kind, now));
    }
  }
  return out;
}

void Limiter::drop_waiters() {
  std::vector<std::move_only_function<void()>> dropped;
  const std::lock_guard lock(mutex_);
  for (const auto& [id, set] : sets_) {
    const std::lock_guard set_lock(set->mutex);
    if (set->shared == nullptr) continue;
    for (auto& waiter : set->shared->waiters) dropped.push_back(std::move(waiter));
    set->shared->waiters.clear();
  }
}

void Limiter::list(const std::shared_ptr<detail::BucketSet>& set) {
  if (std::exchange(set->shared->listed, true)) return;
  const std::lock_guard lock(listed_mutex_);
  listed_.push_back(set);
  listed_count_.fetch_add(1, std::memory_order_relaxed);
}

std::vector<TakenUnits> Limiter::taken() const {
  std::vector<TakenUnits> out;
  const std::lock_guard lock(mutex_);
  const core::SteadyTime now = clock_.steady();
  for (const auto& [id, set] : sets_) {
    const std::lock_guard set_lock(set->mutex);
    if (set->shared != nullptr) continue;
    TakenUnits taken{.id = id};
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      set->buckets[kind].refill(now);
      taken.units[kind] = set->buckets[kind].taken();
    }
    if (taken.units != decltype(taken.units){}) out.push_back(std::move(taken));
  }
  return out;
}

void Limiter::restore(std::vector<TakenUnits> taken) {
  const std::lock_guard lock(mutex_);
  restored_at_ = clock_.steady();
  for (TakenUnits& each : taken) {
    if (restored_.size() >= options_.buckets_max) break;
    std::string id = each.id;
    restored_.emplace(std::move(id), std::move(each));
  }
}

std::size_t Limiter::holders() const {
  const std::lock_guard lock(mutex_);
  return sets_.size();
}

}  // namespace ganglion::ratelimit
