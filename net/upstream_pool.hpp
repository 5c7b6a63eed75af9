#pragma once
// The connections of one worker to one upstream: slots, idle LIFO, waiters. Internal to net.

#include <boost/asio/any_io_executor.hpp>
#include <memory>
#include <vector>

#include "core/clock.hpp"
#include "net/buffer_pool.hpp"
#include "net/dns_cache.hpp"
#include "net/hooks.hpp"
#include "net/options.hpp"
#include "net/timer_wheel.hpp"
#include "net/tls.hpp"
#include "net/upstream_connection.hpp"
#include "net/url.hpp"
#include "net/wait_queue.hpp"

namespace ganglion::net {

struct UpstreamPool : std::enable_shared_from_this<UpstreamPool> {
  UpstreamPool(boost::asio::any_io_executor e, const UpstreamOptions& o, BaseUrl u, UpstreamHooks& h);
  ~UpstreamPool();

  // The idle connection used last, if it is still alive; those found dead on the way are closed.
  std::unique_ptr<UpstreamConnection> take_idle();
  // What take() gives without a wait, for whoever may have it.
  bool may_take(bool urgent) const;
  std::unique_ptr<UpstreamConnection> take_now(bool fresh);
  // An idle connection that is alive (unless `fresh`), or an object that holds a slot but is not connected; waits while
  // as many are in use as this request may add to. overloaded after its slot_wait.
  boost::asio::awaitable<core::Result<std::unique_ptr<UpstreamConnection>>> take(const UpstreamRequest& request,
                                                                                 bool fresh, core::Deadline deadline,
                                                                                 core::CancelSource& cancel);
  // A connection came free: to those who wait, urgent ones first.
  void wake();
  void put(std::unique_ptr<UpstreamConnection> connection);
  void drop_idle(UpstreamConnection& connection);
  void close();

  boost::asio::any_io_executor executor;
  const UpstreamOptions options;
  const BaseUrl url;
  UpstreamHooks& hooks;
  core::SystemClock clock;
  TimerWheel& wheel;
  BufferPool buffers;
  std::shared_ptr<DnsCache> dns;
  WaitQueue urgent_waiting, waiting;
  SslContextPtr tls;
  SslSessionPtr session;     // the newest one the upstream gave us
  std::size_t open = 0;      // connections that exist, connecting ones included
  std::size_t promised = 0;  // to waiters that were woken and have not run yet
  std::vector<std::unique_ptr<UpstreamConnection>> idle;
  bool closed = false;
};

}  // namespace ganglion::net
