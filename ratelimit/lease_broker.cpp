// See ratelimit/lease_broker.hpp. Lock order: a set's mutex, then the list's; a store is never called under either.

#include "ratelimit/lease_broker.hpp"

#include <algorithm>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "core/digest.hpp"
#include "ratelimit/limiter_detail.hpp"

namespace ganglion::ratelimit {

namespace asio = boost::asio;
using core::SteadyTime;
using detail::BucketSet;
using detail::kKinds;
using detail::SharedState;
using namespace std::chrono_literals;

namespace {

constexpr int kTriesMax = 8;        // exchanges that one request waits for
constexpr auto kRetryLocal = 50ms;  // between two tries to come back from the local share
constexpr auto kStaleView = 50ms;   // a refusal from an older view asks for a newer one
constexpr auto kTick = 250ms;
constexpr auto kFirstTick = 25ms;  // until it is counted for the first time
constexpr unsigned kFirstTicksMax = 40;
constexpr unsigned kTicksPerReport = 4;
constexpr std::uint32_t kDivisorPerGateway = 8;  // slices lent out together are at most an eighth of a burst

}  // namespace

LeaseBroker::LeaseBroker(asio::any_io_executor executor, Limiter& limiter, LeaseStore& store, LeaseMetrics metrics)
    : executor_(std::move(executor)), limiter_(limiter), store_(store), metrics_(metrics) {}

std::optional<core::Result<Permit>> LeaseBroker::try_admit(const LimiterHandle& handle, const Estimate& estimate) {
  const Costs costs = detail::costs_of(estimate);
  if (look(handle, costs) == Look::wait) return std::nullopt;
  auto permit = limiter_.admit(handle, estimate);
  if (permit) return permit;
  // Another thread may have spent what lay here between the look and the decision, and more may have come since: that
  // is no refusal.
  const Look again = look(handle, costs);
  if (again == Look::wait) return std::nullopt;
  if (again == Look::covered) permit = limiter_.admit(handle, estimate);
  return permit;
}

LeaseBroker::Look LeaseBroker::look(const LimiterHandle& handle, const Costs& costs) {
  if (handle.group_ == nullptr) return Look::decide;
  Look furthest = Look::covered;
  for (const SetPtr& set : handle.group_->sets) furthest = std::max(furthest, look(set, costs));
  return furthest;
}

LeaseBroker::Look LeaseBroker::look(const SetPtr& set, const Costs& costs) {
  const bool reachable = store_.available(set->shared->key);
  std::unique_lock lock(set->mutex);
  SharedState& shared = *set->shared;
  const SteadyTime now = limiter_.clock_.steady();
  if (!reachable && !shared.local) go_local(set, now);
  bool ask = false;
  Look verdict = Look::decide;
  if (shared.local) {
    ask = reachable && now >= shared.retry_at;
  } else {
    bool covered = true;
    bool hopeless = false;
    bool low = false;
    bool owing = false;
    SteadyTime oldest = now;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      Lease& lease = shared.leases[kind];
      if (lease.unlimited()) continue;
      low = low || lease.low(now);
      owing = owing || lease.credit() < 0;
      if (lease.covers(costs[kind], now)) continue;
      covered = false;
      hopeless = hopeless || lease.wait_for(costs[kind], now) > 0ns;
      oldest = std::min(oldest, lease.heard_at());
    }
    // A refusal says when to come again. What is owed is charged first, and an old view renewed, so that this is true.
    if (covered) {
      verdict = Look::covered;
    } else if (!hopeless || owing || now - oldest > kStaleView) {
      verdict = Look::wait;
    }
    ask = covered && low;
  }
  if (!ask || shared.asking) return verdict;
  LeaseAsk exchange = begin(*set, {}, now);
  limiter_.list(set);
  lock.unlock();
  send(set, exchange);
  return verdict;
}

asio::awaitable<core::Result<Permit>> LeaseBroker::admit(LimiterHandle handle, Estimate estimate) {
  const SteadyTime began = limiter_.clock_.steady();
  const Costs costs = detail::costs_of(estimate);
  std::optional<core::Result<Permit>> decided;
  for (int tries = 0; !decided && tries < kTriesMax; ++tries) {
    for (const SetPtr& set : handle.group_->sets) {
      if (look(set, costs) == Look::wait) co_await wait_for(set, costs);
    }
    decided = try_admit(handle, estimate);
  }
  metrics_.wait.observe(limiter_.clock_.steady() - began);
  if (!decided) decided = limiter_.admit(handle, estimate);
  co_return std::move(*decided);
}

// Until the exchange under way, or a new one, has ended.
asio::awaitable<void> LeaseBroker::wait_for(SetPtr set, Costs costs) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void()>(
      [this, set = std::move(set), costs](auto handler) mutable {
        std::unique_lock lock(set->mutex);
        SharedState& shared = *set->shared;
        shared.waiters.emplace_back([executor = executor_, handler = std::move(handler)]() mutable {
          asio::post(executor, [handler = std::move(handler)]() mutable { std::move(handler)(); });
        });
        if (shared.asking) {
          for (std::size_t kind = 0; kind < kKinds; ++kind)
            shared.waiting[kind] += std::min(costs[kind], ~std::uint64_t{0} >> 8);
          return;
        }
        LeaseAsk ask = begin(*set, costs, limiter_.clock_.steady());
        limiter_.list(set);
        lock.unlock();
        send(set, ask);
      },
      asio::use_awaitable);
}

LeaseAsk LeaseBroker::begin(BucketSet& set, const Costs& costs, SteadyTime now) {
  SharedState& shared = *set.shared;
  shared.asking = true;
  LeaseAsk ask{.key = shared.key, .parts = {}, .divisor = kDivisorPerGateway * limiter_.gateways()};
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    ask.parts[kind] = shared.leases[kind].plan(costs[kind], shared.waiting[kind], limiter_.gateways(), now);
    shared.waiting[kind] = 0;
  }
  return ask;
}

void LeaseBroker::send(const SetPtr& set, const LeaseAsk& ask) {
  store_.exchange(ask, [this, set](LeaseResult result) { finished(set, result); });
}

void LeaseBroker::finished(const SetPtr& set, const LeaseResult& result) {
  std::vector<std::move_only_function<void()>> waiters;
  {
    const std::scoped_lock lock(set->mutex);
    SharedState& shared = *set->shared;
    const SteadyTime now = limiter_.clock_.steady();
    shared.asking = false;
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      if (result)
        shared.leases[kind].granted(result->parts[kind], now);
      else
        shared.leases[kind].failed(result.error());
    }
    if (!result) {
      go_local(set, now);
      shared.retry_at = now + kRetryLocal;
    } else if (std::exchange(shared.local, false)) {
      limiter_.local_count_.fetch_sub(1, std::memory_order_relaxed);
    }
    waiters = std::exchange(shared.waiters, {});
  }
  (!result ? metrics_.failed : result->enough ? metrics_.granted : metrics_.refused).add();
  for (auto& waiter : waiters) waiter();
}

// With the set's lock held.
void LeaseBroker::go_local(const SetPtr& set, SteadyTime now) {
  if (std::exchange(set->shared->local, true)) return;
  for (Lease& lease : set->shared->leases) lease.go_local(limiter_.gateways(), now);
  limiter_.local_count_.fetch_add(1, std::memory_order_relaxed);
  limiter_.list(set);
}

bool LeaseBroker::tend(const SetPtr& set) {
  const bool reachable = store_.available(set->shared->key);
  std::unique_lock lock(set->mutex);
  SharedState& shared = *set->shared;
  const SteadyTime now = limiter_.clock_.steady();
  if (shared.asking) return true;
  const bool uneven = std::ranges::any_of(shared.leases, [&](const Lease& lease) { return lease.uneven(now); });
  const bool held = std::ranges::any_of(shared.leases, [](const Lease& lease) { return lease.credit() != 0; });
  if (uneven && reachable) {
    LeaseAsk ask = begin(*set, {}, now);
    lock.unlock();
    send(set, ask);
    return true;
  }
  if (held || shared.local) return true;
  shared.listed = false;
  limiter_.listed_count_.fetch_sub(1, std::memory_order_relaxed);
  return false;
}

bool LeaseBroker::close(const SetPtr& set) {
  const bool reachable = store_.available(set->shared->key);
  std::unique_lock lock(set->mutex);
  SharedState& shared = *set->shared;
  if (shared.asking) return false;
  const auto holds = [](const Lease& lease) { return lease.credit() != 0 || lease.local(); };
  if (!reachable || !std::ranges::any_of(shared.leases, holds)) return true;
  const SteadyTime now = limiter_.clock_.steady();
  shared.asking = true;
  LeaseAsk ask{.key = shared.key, .parts = {}, .divisor = kDivisorPerGateway * limiter_.gateways()};
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    ask.parts[kind] = shared.leases[kind].close(limiter_.gateways(), now);
  }
  lock.unlock();
  send(set, ask);
  return false;
}

LeaseKeeper::LeaseKeeper(const asio::any_io_executor& executor, Limiter& limiter, LeaseStore& store,
                         LeaseMetrics metrics)
    : broker_(executor, limiter, store, metrics), id_(core::random_hex(8)), timer_(executor) {}

LeaseKeeper::~LeaseKeeper() {
  timer_.cancel();
}

void LeaseKeeper::start() {
  tick();
  schedule();
}

void LeaseKeeper::schedule() {
  timer_.expires_after(!reported_ && ticks_ < kFirstTicksMax ? kFirstTick : kTick);
  timer_.async_wait([this, alive = std::weak_ptr<int>(alive_)](boost::system::error_code error) {
    if (error || alive.expired() || closing_) return;
    tick();
    schedule();
  });
}

void LeaseKeeper::report() {
  broker_.store_.report(id_, [this, alive = std::weak_ptr<int>(alive_)](std::uint32_t gateways) {
    if (alive.expired()) return;
    reported_ = true;
    Limiter& limiter = broker_.limiter_;
    if (limiter.options_.gateways == 0) limiter.set_gateways(gateways);
  });
}

bool LeaseKeeper::close() {
  if (!closing_) {
    closing_ = true;
    timer_.cancel();
    broker_.store_.leave(id_, [this, alive = std::weak_ptr<int>(alive_)] {
      if (!alive.expired()) left_ = true;
    });
  }
  bool done = left_;
  for (const auto& set : listed()) done = broker_.close(set) && done;
  return done;
}

void LeaseKeeper::resign() {
  resigned_ = true;
  broker_.store_.leave(id_, [] {});
  for (const auto& set : listed()) [[maybe_unused]]
    const bool settled = broker_.close(set);
}

// As at the start: the sooner it is counted again, the sooner everybody's part is right.
void LeaseKeeper::resume() {
  if (!std::exchange(resigned_, false)) return;
  reported_ = false;
  ticks_ = 0;
  tick();
}

std::vector<std::shared_ptr<BucketSet>> LeaseKeeper::listed() const {
  const std::scoped_lock lock(broker_.limiter_.listed_mutex_);
  return broker_.limiter_.listed_;
}

// The first reports find no connection yet; the sooner one arrives, the sooner its part of what is shared is right.
void LeaseKeeper::tick() {
  Limiter& limiter = broker_.limiter_;
  if (const bool due = ticks_++ % kTicksPerReport == 0 || !reported_; due && !resigned_) report();
  std::vector<std::shared_ptr<BucketSet>> listed;
  {
    const std::scoped_lock lock(limiter.listed_mutex_);
    listed.swap(limiter.listed_);
  }
  std::erase_if(listed, [this](const auto& set) { return !broker_.tend(set); });
  const std::scoped_lock lock(limiter.listed_mutex_);
  limiter.listed_.insert(limiter.listed_.end(), listed.begin(), listed.end());
}

}  // namespace ganglion::ratelimit
