#pragma once
// Whether something happens so often that what it costs should be shared: by the rate of the last window.

#include <chrono>
#include <cstdint>

namespace ganglion::core {

// One thread, or under the owner's lock.
class EventRate {
 public:
  static constexpr std::chrono::milliseconds kWindow{2};
  // In a window. Where 1,000 a second happen one by one, chance does not bring twelve into two milliseconds.
  static constexpr std::int64_t kOften = 12;

  void count() { ++count_; }
  bool often(std::chrono::steady_clock::time_point now) {
    const std::chrono::nanoseconds took = now - began_;
    if (took >= kWindow) {
      often_ = std::chrono::nanoseconds{kWindow} * count_ >= kOften * took;
      count_ = 0;
      began_ = now;
    }
    return often_;
  }

 private:
  std::chrono::steady_clock::time_point began_;
  std::int64_t count_ = 0;
  bool often_ = false;
};

}  // namespace ganglion::core
