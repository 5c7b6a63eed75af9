#pragma once
// The one absolute deadline of a request: made once from its limit, passed down by value, never restarted.

#include <algorithm>
#include <chrono>

#include "core/clock.hpp"

namespace ganglion::core {

class Deadline {
 public:
  Deadline() = default;  // never
  explicit Deadline(SteadyTime at) : at_(at) {}
  static Deadline after(std::chrono::nanoseconds limit, SteadyTime now = std::chrono::steady_clock::now()) {
    return limit >= std::chrono::hours{24 * 365} ? Deadline{} : Deadline{now + limit};
  }

  SteadyTime at() const { return at_; }
  bool never() const { return at_ == SteadyTime::max(); }
  bool passed(SteadyTime now = std::chrono::steady_clock::now()) const { return now >= at_; }
  std::chrono::nanoseconds left(SteadyTime now = std::chrono::steady_clock::now()) const {
    return never() ? std::chrono::nanoseconds::max() : std::max(at_ - now, std::chrono::steady_clock::duration{0});
  }
  // The earlier of this deadline and a stage's own limit.
  Deadline capped(std::chrono::nanoseconds limit, SteadyTime now = std::chrono::steady_clock::now()) const {
    return Deadline{std::min(at_, after(limit, now).at_)};
  }

 private:
  SteadyTime at_ = SteadyTime::max();
};

}  // namespace ganglion::core
