#pragma once
// Time as an input: every component that waits, refills or stamps takes a Clock, so that tests move it by hand.
// Durations are measured on the steady clock; only records, logs and calendar windows read the wall clock.

#include <atomic>
#include <chrono>

namespace ganglion::core {

using SteadyTime = std::chrono::steady_clock::time_point;
using WallTime = std::chrono::system_clock::time_point;

// Thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual SteadyTime steady() const = 0;
  virtual WallTime wall() const = 0;
};

class SystemClock final : public Clock {
 public:
  SteadyTime steady() const override { return std::chrono::steady_clock::now(); }
  WallTime wall() const override { return std::chrono::system_clock::now(); }
};

// Starts at a fixed instant (2026-01-01 00:00:00 UTC) and moves only when told.
class ManualClock final : public Clock {
 public:
  SteadyTime steady() const override { return SteadyTime{std::chrono::seconds{1000}} + offset(); }
  WallTime wall() const override {
    return WallTime{std::chrono::seconds{1'767'225'600}} + offset() + std::chrono::nanoseconds{wall_jump_ns_.load()};
  }
  void advance(std::chrono::nanoseconds by) { offset_ns_ += by.count(); }
  // The wall clock alone jumps, as it does when an operator or NTP sets it.
  void jump_wall(std::chrono::nanoseconds by) { wall_jump_ns_ += by.count(); }

 private:
  std::chrono::nanoseconds offset() const { return std::chrono::nanoseconds{offset_ns_.load()}; }
  std::atomic<std::int64_t> offset_ns_{0};
  std::atomic<std::int64_t> wall_jump_ns_{0};
};

}  // namespace ganglion::core
