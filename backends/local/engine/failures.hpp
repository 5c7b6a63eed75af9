#pragma once
// What both engines do about failures: when a device that was given up is tried again, and words for those who wait
// where there is no memory for them.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <new>

#include "core/error.hpp"

namespace ganglion::local {

inline constexpr int kDeviceFailuresMax = 3;  // in a row, until a device that claims to be well is given up

// Between attempts to bring a device back: none before the first, then `restart_ms`, twice that ... 64 times that.
class RestartPause {
 public:
  using Clock = std::chrono::steady_clock;

  void begin() { failed_ = 0, next_ = Clock::now(); }
  void put_off(int restart_ms) {
    next_ = Clock::now() + std::chrono::milliseconds(std::int64_t{restart_ms} << std::min(failed_++, kDoublings));
  }
  bool over() const { return Clock::now() >= next_; }
  Clock::time_point next() const { return next_; }

 private:
  static constexpr int kDoublings = 6;
  int failed_ = 0;
  Clock::time_point next_;
};

// A copy to tell somebody; without its words where there is no memory for them.
inline core::Error copy_to_tell(const core::Error& error) noexcept {
  core::Error out;
  out.kind = error.kind;
  out.source = error.source;
  out.retryable = error.retryable;
  out.retry_after = error.retry_after;
  try {
    out.message = error.message;
    out.param = error.param;
  } catch (const std::bad_alloc&) {  // the kind says enough
  }
  return out;
}

}  // namespace ganglion::local
