#pragma once
// Passive health of one backend, shared by all workers: no probe traffic, which would cost money. After
// kFailuresToEject failures in a row the backend rests; the rest doubles from 1 s to 30 s while it keeps failing, and
// one request at a time is let through to try it again. A Retry-After rests it for as long as it asked (capped).
// Thread-safe; all atomics, no locks.

#include <atomic>
#include <chrono>
#include <cstdint>

#include "core/clock.hpp"

namespace ganglion::backends {

class Health {
 public:
  static constexpr std::uint32_t kFailuresToEject = 5;
  static constexpr std::chrono::milliseconds kRestMin{1'000};
  static constexpr std::chrono::milliseconds kRestMax{30'000};

  // Whether a request may go there now. True once per rest that ended (the trial), then false until its outcome.
  bool available(core::SteadyTime now) const;
  // Claims the trial request of a backend whose rest ended; false if another request has it.
  bool claim(core::SteadyTime now);

  void succeeded();
  void failed(core::SteadyTime now);
  void rest(core::SteadyTime now, std::chrono::milliseconds asked);
  // A claimed trial that ended without a verdict (the client left).
  void released();

  // 0: it does not rest.
  std::chrono::nanoseconds rest_left(core::SteadyTime now) const;
  std::uint32_t failures_in_a_row() const { return failures_.load(std::memory_order_relaxed); }

  // Requests now being served, over all workers.
  std::atomic<std::uint32_t> in_flight{0};

 private:
  std::atomic<std::uint32_t> failures_{0};
  std::atomic<std::int64_t> rest_until_ns_{0};  // steady clock; 0: not resting
  std::atomic<bool> trial_{false};
};

}  // namespace ganglion::backends
