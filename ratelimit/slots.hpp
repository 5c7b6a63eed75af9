#pragma once
// A fixed number of slots, and who waits for one: fast before regular, each in order of arrival, a share that only fast
// may take. Decides and calls back; knows no clock and no executor, so a test can run a day of it in a moment.
// Thread-safe. While nobody waits, taking and giving back are one compare-and-swap.

#include <array>
#include <atomic>
#include <cstdint>
#include <list>
#include <mutex>

#include "api/types.hpp"

namespace ganglion::ratelimit {

inline constexpr std::size_t kTierCount = 2;
constexpr std::size_t index(api::Tier tier) {
  return tier == api::Tier::fast ? 1 : 0;
}

class Slots {
 public:
  struct Limits {
    std::uint32_t total = 1;
    std::uint32_t regular = 1;  // of them, at most so many to regular
    std::uint32_t queue_max = 0;
  };

  // Someone in the queue. The owner keeps it alive until it is `granted` or `displaced`, or leave() returned.
  class Waiter {
   public:
    enum class State : std::uint8_t { outside, waiting, granted, displaced };
    explicit Waiter(api::Tier tier) : tier_(tier) {}
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    virtual ~Waiter() = default;

   protected:
    // The state is `granted` (a slot is this waiter's) or `displaced` now. Called once, on the thread that gave the
    // slot back, under the queue's lock: note it, post something, return.
    virtual void changed() = 0;

   private:
    friend class Slots;
    const api::Tier tier_;
    State state_ = State::outside;
    std::list<Waiter*>::iterator at_;
  };

  explicit Slots(Limits limits) : limits_(pack(limits)), queue_max_(limits.queue_max) {}

  void set_limits(Limits limits);

  // A slot at once, or not at all; never past those of the same or the higher tier that wait.
  bool try_take(api::Tier tier);
  // Joins the queue; may be granted before this returns (changed() is called then as well). False: the queue is full.
  // A fast one that finds it full takes the place of the regular one that came last.
  bool enqueue(Waiter& waiter);
  // Out of the queue; how it stood until now. `granted`: the slot is the caller's, to use or to give back.
  Waiter::State leave(Waiter& waiter);
  void give_back(api::Tier tier);

  std::uint32_t taken(api::Tier tier) const;
  std::uint32_t waiting(api::Tier tier) const { return waiting_[index(tier)].load(std::memory_order_relaxed); }
  std::uint32_t total() const;

 private:
  static std::uint64_t pack(Limits limits) { return std::uint64_t{limits.regular} << 32 | limits.total; }
  bool take(api::Tier tier);
  void hand_out();  // mutex_ held
  void settle(Waiter& waiter, Waiter::State state);

  std::atomic<std::uint64_t> taken_{0};  // fast above, regular below
  std::atomic<std::uint64_t> limits_;    // regular above, total below
  std::array<std::atomic<std::uint32_t>, kTierCount> waiting_{};
  std::mutex mutex_;  // guards what follows, and every Waiter's state
  std::array<std::list<Waiter*>, kTierCount> queues_;
  std::uint32_t queue_max_;
};

}  // namespace ganglion::ratelimit
