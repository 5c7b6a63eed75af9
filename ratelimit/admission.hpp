#pragma once
// Caps on what the process holds at once: requests in flight and bytes of request bodies. Lock-free; any thread.

#include <atomic>
#include <cstdint>

#include "core/error.hpp"
#include "ratelimit/options.hpp"

namespace ganglion::ratelimit {

class Admission;

// One request's place. Gives everything back when destroyed. Used by one thread at a time; Admission outlives it.
class Ticket {
 public:
  Ticket() = default;
  Ticket(Ticket&& other) noexcept;
  Ticket& operator=(Ticket&& other) noexcept;
  ~Ticket();

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
};

class Admission {
 public:
  explicit Admission(const AdmissionOptions& options) : options_(options) {}

  // overloaded (503) with retry_after when in_flight_max requests are being served. `body_bytes`: what is known of the
  // body's length (0 if chunked; reserve_body() as it arrives).
  core::Result<Ticket> enter(std::uint64_t body_bytes = 0);

  std::uint64_t in_flight() const { return in_flight_.load(std::memory_order_relaxed); }
  std::uint64_t body_bytes() const { return body_bytes_.load(std::memory_order_relaxed); }

 private:
  friend class Ticket;
  bool take_body(std::uint64_t bytes);

  const AdmissionOptions options_;
  std::atomic<std::uint64_t> in_flight_{0};
  std::atomic<std::uint64_t> body_bytes_{0};
};

}  // namespace ganglion::ratelimit
