#pragma once
// Coroutines of one worker waiting for an event, each with its own limit and cancellation. For the rare waits (a pool
// slot, a DNS answer); not for the request path's reads and writes.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <list>

#include "core/cancel.hpp"
#include "core/deadline.hpp"

namespace ganglion::net {

class WaitQueue {
 public:
  enum class Outcome : std::uint8_t { notified, timed_out, cancelled };

  explicit WaitQueue(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}

  boost::asio::awaitable<Outcome> wait(core::Deadline until, core::CancelSource& cancel);
  bool notify_one();  // the one that waits longest; false: none is left to notify
  void notify_all();
  std::size_t size() const { return waiters_.size(); }

 private:
  struct Waiter {
    boost::asio::steady_timer timer;
    bool notified = false;
  };
  boost::asio::any_io_executor executor_;
  std::list<Waiter*> waiters_;
};

}  // namespace ganglion::net
