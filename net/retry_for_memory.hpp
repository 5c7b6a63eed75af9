#pragma once
// For what cannot be done without, where there is no memory for it now: waits that a whole thread depends on, jobs that
// somebody waits for.

#include <boost/asio/post.hpp>
#include <memory>
#include <new>
#include <thread>
#include <utility>

namespace ganglion::net {

// Calls `begin` until it does not run out of memory.
template <class Begin>
void retry_for_memory(const Begin& begin) {
  for (;;) {
    try {
      begin();
      return;
    } catch (const std::bad_alloc&) {
      std::this_thread::yield();
    }
  }
}

// asio::post for a job that must not be lost, as when somebody waits for what it does.
template <class Executor, class Job>
void post_surely(const Executor& executor, Job job) {
  std::shared_ptr<Job> held;
  retry_for_memory([&] { held = std::make_shared<Job>(std::move(job)); });  // moved from once there is memory for it
  retry_for_memory([&] { boost::asio::post(executor, [held] { (*held)(); }); });
}

}  // namespace ganglion::net
