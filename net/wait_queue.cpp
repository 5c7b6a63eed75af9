// See wait_queue.hpp.

#include "net/wait_queue.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace ganglion::net {

namespace asio = boost::asio;

asio::awaitable<WaitQueue::Outcome> WaitQueue::wait(core::Deadline until, core::CancelSource& cancel) {
  if (cancel.cancelled()) co_return Outcome::cancelled;
  Waiter waiter{.timer = asio::steady_timer(executor_, until.at())};
  // Out of the list whichever way this coroutine ends, being destroyed included.
  struct Place {
    std::list<Waiter*>& list;
    std::list<Waiter*>::iterator at;
    ~Place() { list.erase(at); }
  } place{waiters_, waiters_.insert(waiters_.end(), &waiter)};
  core::CancelRegistration on_cancel(cancel, [&waiter](core::CancelReason) { waiter.timer.cancel(); });
  (void)co_await waiter.timer.async_wait(asio::as_tuple(asio::use_awaitable));
  if (waiter.notified) co_return Outcome::notified;
  co_return cancel.cancelled() ? Outcome::cancelled : Outcome::timed_out;
}

bool WaitQueue::notify_one() {
  for (Waiter* waiter : waiters_) {
    if (waiter->notified) continue;
    waiter->notified = true;
    waiter->timer.cancel();
    return true;
  }
  return false;
}

void WaitQueue::notify_all() {
  for (Waiter* waiter : waiters_) {
    waiter->notified = true;
    waiter->timer.cancel();
  }
}

}  // namespace ganglion::net
