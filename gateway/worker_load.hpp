#pragma once
// What one worker has to do besides a request: whether it may wait for the disk in that request's place.

#include <chrono>
#include <cstddef>

#include "core/event_rate.hpp"

namespace ganglion::gateway {

// On the worker's thread. Outlives the worker's io_context, which destroys requests that are still suspended.
class WorkerLoad {
 public:
  class Running {
   public:
    Running(WorkerLoad& load, std::chrono::steady_clock::time_point now) : load_(load) {
      ++load_.running_;
      load_.arrivals_.count();
      load_.crowded_ = load_.arrivals_.often(now);
    }
    ~Running() { --load_.running_; }
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

   private:
    WorkerLoad& load_;
  };

  // No other client's request runs here, and so few come that hardly one would wait.
  bool alone() const { return running_ <= 1 && !crowded_; }

 private:
  std::size_t running_ = 0;
  core::EventRate arrivals_;
  bool crowded_ = false;
};

}  // namespace ganglion::gateway
