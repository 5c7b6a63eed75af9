#pragma once
// Coarse time limits for one worker: a hashed wheel of 20 ms ticks. Arming and disarming cost a store and a compare,
// because an entry that is already linked to an earlier tick is only looked at again when that tick comes. Ticks only
// while something is linked. One per io_context (an Asio service, so it lives as long); its thread only.

#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>

#include "core/clock.hpp"

namespace ganglion::net {

class TimerWheel final : public boost::asio::execution_context::service {
 private:
  struct Link {
    Link* previous = this;
    Link* next = this;
    void unlink() {
      previous->next = next;
      next->previous = previous;
      previous = next = this;
    }
    void append(Link& link) {
      link.previous = previous;
      link.next = this;
      previous->next = &link;
      previous = &link;
    }
    bool alone() const { return next == this; }
  };

 public:
  static constexpr std::chrono::milliseconds kTick{20};
  static constexpr std::size_t kSlots = 512;
  static boost::asio::execution_context::id id;

  // A limit that is armed again and again. `expired` runs on the loop, at most 2 ticks late, never early, and may arm
  // or destroy any entry.
  class Entry : private Link {
   public:
    Entry(TimerWheel& wheel, std::function<void()> expired) : wheel_(wheel), expired_(std::move(expired)) {}
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    ~Entry();
    void arm(core::SteadyTime at);
    void disarm() { at_ = core::SteadyTime::max(); }
    bool armed() const { return at_ != core::SteadyTime::max(); }
    core::SteadyTime at() const { return at_; }

   private:
    friend class TimerWheel;
    TimerWheel& wheel_;
    std::function<void()> expired_;
    core::SteadyTime at_ = core::SteadyTime::max();
    std::int64_t linked_tick_ = 0;  // valid while linked
  };

  // The wheel of an io_context (no other execution context will do).
  static TimerWheel& of(const boost::asio::any_io_executor& executor);
  explicit TimerWheel(boost::asio::execution_context& context);

  // Fires what is due. The timer calls it; tests may.
  void advance(core::SteadyTime now);
  std::size_t linked() const { return linked_; }

 private:
  void shutdown() override;
  std::int64_t tick_of(core::SteadyTime at) const;
  void link(Entry& entry);
  void schedule();

  core::SteadyTime epoch_;
  std::int64_t tick_ = 0;  // processed up to here
  std::size_t linked_ = 0;
  std::array<Link, kSlots> slots_;
  std::optional<boost::asio::steady_timer> timer_;
  bool ticking_ = false;
};

}  // namespace ganglion::net
