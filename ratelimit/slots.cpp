// See ratelimit/slots.hpp.
//
// No wake-up is lost: whoever waits counts itself before it looks at the slots once more, and whoever gives one back
// does so before it looks at that count; both orders are sequentially consistent, so one of the two sees the other.

#include "ratelimit/slots.hpp"

namespace ganglion::ratelimit {
namespace {

constexpr std::uint64_t one(api::Tier tier) {
  return tier == api::Tier::fast ? std::uint64_t{1} << 32 : 1;
}
constexpr std::uint32_t low(std::uint64_t word) {
  return static_cast<std::uint32_t>(word);
}
constexpr std::uint32_t high(std::uint64_t word) {
  return static_cast<std::uint32_t>(word >> 32);
}

}  // namespace

bool Slots::take(api::Tier tier) {
  const std::uint64_t limits = limits_.load(std::memory_order_relaxed);
  std::uint64_t taken = taken_.load();
  do {
    if (low(taken) + high(taken) >= low(limits)) return false;
    if (tier == api::Tier::regular && low(taken) >= high(limits)) return false;
  } while (!taken_.compare_exchange_weak(taken, taken + one(tier)));
  return true;
}

bool Slots::try_take(api::Tier tier) {
  if (waiting_[index(api::Tier::fast)].load() != 0) return false;
  if (tier == api::Tier::regular && waiting_[index(tier)].load() != 0) return false;
  return take(tier);
}

void Slots::settle(Waiter& waiter, Waiter::State state) {
  queues_[index(waiter.tier_)].erase(waiter.at_);
  --waiting_[index(waiter.tier_)];
  waiter.state_ = state;
}

void Slots::hand_out() {
  for (const api::Tier tier : {api::Tier::fast, api::Tier::regular}) {
    auto& queue = queues_[index(tier)];
    while (!queue.empty() && take(tier)) {
      Waiter& first = *queue.front();
      settle(first, Waiter::State::granted);
      first.changed();
    }
    if (!queue.empty()) return;  // nobody passes those who wait in a higher tier
  }
}

bool Slots::enqueue(Waiter& waiter) {
  const std::lock_guard lock(mutex_);
  auto& regulars = queues_[index(api::Tier::regular)];
  if (queues_[0].size() + queues_[1].size() >= queue_max_) {
    if (waiter.tier_ != api::Tier::fast || regulars.empty()) return false;
    Waiter& last = *regulars.back();
    settle(last, Waiter::State::displaced);
    last.changed();
  }
  auto& queue = queues_[index(waiter.tier_)];
  waiter.at_ = queue.insert(queue.end(), &waiter);
  waiter.state_ = Waiter::State::waiting;
  ++waiting_[index(waiter.tier_)];
  hand_out();
  return true;
}

Slots::Waiter::State Slots::leave(Waiter& waiter) {
  const std::lock_guard lock(mutex_);
  const Waiter::State stood = waiter.state_;
  if (stood == Waiter::State::waiting) settle(waiter, Waiter::State::outside);
  // A fast one that leaves may have been what regular ones stood behind.
  if (stood == Waiter::State::waiting) hand_out();
  waiter.state_ = Waiter::State::outside;
  return stood;
}

void Slots::give_back(api::Tier tier) {
  taken_.fetch_sub(one(tier));
  if (waiting_[0].load() == 0 && waiting_[1].load() == 0) return;
  const std::lock_guard lock(mutex_);
  hand_out();
}

void Slots::set_limits(Limits limits) {
  limits_.store(pack(limits), std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  queue_max_ = limits.queue_max;
  hand_out();
}

std::uint32_t Slots::taken(api::Tier tier) const {
  const std::uint64_t taken = taken_.load(std::memory_order_relaxed);
  return tier == api::Tier::fast ? high(taken) : low(taken);
}

std::uint32_t Slots::total() const {
  return low(limits_.load(std::memory_order_relaxed));
}

}  // namespace ganglion::ratelimit
