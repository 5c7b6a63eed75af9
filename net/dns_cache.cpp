// See dns_cache.hpp.

#include "net/dns_cache.hpp"

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <memory>
#include <new>

namespace ganglion::net {

namespace asio = boost::asio;
using core::ErrorKind;
using namespace std::chrono_literals;

namespace {

constexpr auto kFailureKept = 1s;
constexpr std::size_t kAddressesMax = 8;

DnsCache::Lookup system_lookup(const asio::any_io_executor& executor) {
  return [executor](const std::string& host, std::function<void(DnsCache::Addresses)> done) {
    auto resolver = std::make_shared<asio::ip::tcp::resolver>(executor);
    resolver->async_resolve(host, "", asio::ip::tcp::resolver::flags{},
                            [resolver, done = std::move(done)](boost::system::error_code error, auto results) {
                              DnsCache::Addresses addresses;
                              if (!error) {
                                for (const auto& entry : results) addresses.push_back(entry.endpoint().address());
                              }
                              done(std::move(addresses));
                            });
  };
}

}  // namespace

DnsCache::DnsCache(asio::any_io_executor executor, std::string host, std::chrono::nanoseconds ttl, UpstreamHooks& hooks,
                   const core::Clock& clock, Lookup lookup)
    : executor_(std::move(executor)),
      host_(std::move(host)),
      ttl_(ttl),
      hooks_(hooks),
      clock_(clock),
      lookup_(lookup ? std::move(lookup) : system_lookup(executor_)),
      waiting_(executor_) {
  boost::system::error_code error;
  const auto literal = asio::ip::make_address(host_, error);
  if (error) return;
  addresses_ = {literal};
  fresh_until_ = core::SteadyTime::max();
}

asio::awaitable<core::Result<DnsCache::Addresses>> DnsCache::resolve(core::Deadline until, core::CancelSource& cancel) {
  if (clock_.steady() < fresh_until_) co_return addresses_;
  if (addresses_.empty() && clock_.steady() < failed_until_) {
    co_return core::fail(ErrorKind::upstream_connect, "the upstream's name cannot be resolved");
  }
  if (!looking_ || asked_.expired()) refresh();
  // Old addresses are good enough while the lookup runs: names move rarely, and a wrong one fails to connect.
  if (!addresses_.empty()) co_return addresses_;
  while (looking_) {
    switch (co_await waiting_.wait(until, cancel)) {
      case WaitQueue::Outcome::notified:
        break;
      case WaitQueue::Outcome::timed_out:
        co_return core::fail(ErrorKind::deadline_exceeded, "resolving the upstream's name took too long");
      case WaitQueue::Outcome::cancelled:
        co_return core::fail(ErrorKind::cancelled);
    }
  }
  if (addresses_.empty()) co_return core::fail(ErrorKind::upstream_connect, "the upstream's name cannot be resolved");
  co_return addresses_;
}

void DnsCache::refresh() {
  looking_ = true;
  // Lives as long as the question. One that goes without an answer (Asio has no memory for what was found) is lost.
  const auto question = std::make_shared<char>();
  asked_ = question;
  try {
    lookup_(host_, [question, weak = weak_from_this()](Addresses addresses) {
      if (const auto self = weak.lock()) self->finished(std::move(addresses));
    });
  } catch (const std::bad_alloc&) {
    looking_ = false;
    if (addresses_.empty()) throw;
  }
}

void DnsCache::finished(Addresses addresses) {
  looking_ = false;
  const auto now = clock_.steady();
  const bool ok = !addresses.empty();
  if (ok) {
    auto unique = addresses.begin();
    for (const auto& address : addresses) {
      if (std::find(addresses.begin(), unique, address) == unique) *unique++ = address;
    }
    addresses.erase(unique, addresses.end());
    if (addresses.size() > kAddressesMax) addresses.resize(kAddressesMax);
    addresses_ = std::move(addresses);
    fresh_until_ = now + ttl_;
  } else {
    failed_until_ = now + kFailureKept;
    if (!addresses_.empty()) fresh_until_ = failed_until_;  // asks again after that
  }
  hooks_.dns_lookup(ok, !ok && !addresses_.empty());
  waiting_.notify_all();
}

}  // namespace ganglion::net
