#pragma once
// The addresses of one host name, for one worker: looked up by the system's resolver on Asio's helper thread, kept for
// a TTL. One lookup at a time whoever waits; a failed refresh leaves the old addresses in use; a failure without old
// addresses is remembered for a second.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/address.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/cancel.hpp"
#include "core/clock.hpp"
#include "core/deadline.hpp"
#include "core/error.hpp"
#include "net/hooks.hpp"
#include "net/wait_queue.hpp"

namespace ganglion::net {

class DnsCache : public std::enable_shared_from_this<DnsCache> {
 public:
  using Addresses = std::vector<boost::asio::ip::address>;
  // Blocking lookups are never made here: `start` begins one and calls back on the worker's thread.
  using Lookup = std::function<void(const std::string& host, std::function<void(Addresses)> done)>;

  DnsCache(boost::asio::any_io_executor executor, std::string host, std::chrono::nanoseconds ttl, UpstreamHooks& hooks,
           const core::Clock& clock, Lookup lookup = {});

  // Not empty. Errors: upstream_connect (no such name), deadline_exceeded (`until` passed), cancelled.
  boost::asio::awaitable<core::Result<Addresses>> resolve(core::Deadline until, core::CancelSource& cancel);

 private:
  void refresh();
  void finished(Addresses addresses);

  boost::asio::any_io_executor executor_;
  const std::string host_;
  const std::chrono::nanoseconds ttl_;
  UpstreamHooks& hooks_;
  const core::Clock& clock_;
  Lookup lookup_;
  WaitQueue waiting_;
  Addresses addresses_;
  core::SteadyTime fresh_until_ = core::SteadyTime::min();
  core::SteadyTime failed_until_ = core::SteadyTime::min();
  bool looking_ = false;
  std::weak_ptr<char> asked_;  // the look-up, as long as somebody is going to answer it
};

}  // namespace ganglion::net
