#pragma once
// Caps on what the process holds at once: bytes of request bodies, and calls to backends. A body that finds no room is
// refused; a call that finds no place waits for one, by tier (docs/tiers.md). Any thread.

#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "api/types.hpp"
#include "core/cancel.hpp"
#include "core/clock.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"
#include "ratelimit/options.hpp"
#include "ratelimit/slots.hpp"

namespace ganglion::ratelimit {

class Admission;

// Room for one request's body. Gives everything back when destroyed. Used by one thread at a time; Admission outlives
// it.
class Ticket {
 public:
  Ticket() = default;
  Ticket(Ticket&& other) noexcept;
  Ticket& operator=(Ticket&& other) noexcept;
  ~Ticket() { release_body(); }

  // Before holding `bytes` more of the body. overloaded when the process holds too much.
  core::Result<void> reserve_body(std::uint64_t bytes);
  // The body is no longer held.
  void release_body();
  std::uint64_t body_bytes() const { return body_bytes_; }
  explicit operator bool() const { return owner_ != nullptr; }

 private:
  friend class Admission;
  Admission* owner_ = nullptr;
  std::uint64_t body_bytes_ = 0;
  std::uint64_t limit_ = 0;
};

// The place of one call to a backend. Given back when destroyed, on any thread; Admission outlives it.
class Place {
 public:
  Place() = default;
  Place(Place&& other) noexcept;
  Place& operator=(Place&& other) noexcept;
  ~Place();
  explicit operator bool() const { return owner_ != nullptr; }
  std::chrono::nanoseconds waited() const { return waited_; }  // 0: it was free at once

 private:
  friend class Admission;
  Admission* owner_ = nullptr;
  api::Tier tier_ = api::Tier::regular;
  core::SteadyTime since_;
  std::chrono::nanoseconds waited_{0};
};

// upstream_busy: it had a place here, but no connection to a backend came free in time. memory: the process holds
// nearly as much as it may.
enum class Shed : std::uint8_t { queue_full, displaced, waited_too_long, upstream_busy, memory, kCount };
std::string_view name(Shed why);

class Admission {
 public:
  explicit Admission(const AdmissionOptions& options, const TierOptions& tiers = {});

  // After a reload. Places and bodies that are held stay; what waits is looked at anew.
  void configure(const AdmissionOptions& options, const TierOptions& tiers);

  // Room for a body, before it is read. `presumed`: the tier as far as it is known then; a part of the memory is for
  // fast requests. overloaded (503) with retry_after when there is none, and while the process is short of
  // memory.
  core::Result<Ticket> enter(api::Tier presumed, std::uint64_t body_bytes = 0);

  // A place for one call where one is free and nobody waits for it.
  std::optional<Place> place_now(api::Tier tier);
  // A place for one call, at once or after a wait of at most the tier's own limit, fast before regular, each in order.
  // Errors: overloaded with retry_after (shed), cancelled, deadline_exceeded.
  boost::asio::awaitable<core::Result<Place>> place(api::Tier tier, core::Deadline deadline,
                                                    core::CancelSource& cancel);

  // What the process has resident now. From 85 % of the limit on no regular request enters, from 95 % on none.
  void tell_memory(std::uint64_t resident_bytes) { memory_bytes_.store(resident_bytes, std::memory_order_relaxed); }
  bool short_of_memory(api::Tier tier) const;

  std::uint64_t body_bytes() const { return body_bytes_.load(std::memory_order_relaxed); }
  const Slots& slots() const { return slots_; }
  void count_shed(api::Tier tier, Shed why) {
    shed_[index(tier)][static_cast<std::size_t>(why)].fetch_add(1, std::memory_order_relaxed);
  }
  std::uint64_t shed(api::Tier tier, Shed why) const {
    return shed_[index(tier)][static_cast<std::size_t>(why)].load(std::memory_order_relaxed);
  }

 private:
  friend class Ticket;
  friend class Place;
  class AsioWaiter;
  static Slots::Limits limits(const AdmissionOptions& options, const TierOptions& tiers);
  bool take_body(std::uint64_t bytes, std::uint64_t limit);
  Place granted(api::Tier tier, core::SteadyTime now, std::chrono::nanoseconds waited);
  core::Error refuse(api::Tier tier, Shed why);
  void left(api::Tier tier, core::SteadyTime since);

  Slots slots_;
  std::atomic<std::uint64_t> body_bytes_{0};
  std::atomic<std::uint64_t> body_bytes_max_, body_bytes_regular_;
  std::atomic<std::uint64_t> memory_bytes_{0}, memory_bytes_max_{0};
  std::array<std::atomic<std::int64_t>, kTierCount> wait_max_ms_;
  std::atomic<std::int64_t> held_ns_{0};  // moving mean of how long a place is held
  std::array<std::array<std::atomic<std::uint64_t>, static_cast<std::size_t>(Shed::kCount)>, kTierCount> shed_{};
};

}  // namespace ganglion::ratelimit
