#pragma once
// Looks at the process's resident memory ten times a second and tells admission; while it is short, has the allocator
// give free memory back. Runs on the control thread.

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <functional>

#include "ratelimit/admission.hpp"

namespace ganglion::app {

// From /proc/self/statm; 0 where that cannot be read.
std::uint64_t resident_bytes();

// Gives the calling thread's free memory back to the system, as far as the allocator can.
void release_free_memory();

class MemoryWatch {
 public:
  // `relieve`: called at most once a second while short, to run release_free_memory() on the threads that have some.
  MemoryWatch(boost::asio::io_context& control, ratelimit::Admission& admission, std::function<void()> relieve);
  void start() { look(); }
  void stop() { timer_.cancel(); }

 private:
  void look();

  boost::asio::steady_timer timer_;
  ratelimit::Admission& admission_;
  std::function<void()> relieve_;
  bool short_ = false;
  unsigned looks_ = 0;
};

}  // namespace ganglion::app
