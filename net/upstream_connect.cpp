// Making an upstream connection: addresses in turn, TLS, limits. See upstream_connection.hpp.

#include <algorithm>
#include <boost/asio/as_tuple.hpp>

#include "net/address_rule.hpp"
#include "net/descriptors.hpp"
#include "net/self_connect.hpp"
#include "net/upstream_pool.hpp"

namespace ganglion::net {

namespace asio = boost::asio;
using core::ErrorKind;
using namespace std::chrono_literals;

namespace {

constexpr std::chrono::nanoseconds kAttemptLimitMin = 250ms;

}  // namespace

UpstreamConnection::UpstreamConnection(UpstreamPool& pool) : pool_(pool), timer_(pool.wheel, [this] { expired(); }) {
  ++pool_.open;
  pool_.hooks.connections(1, 0);
}

UpstreamConnection::~UpstreamConnection() {
  pool_.buffers.give(std::move(in_));
  --pool_.open;
  pool_.hooks.connections(-1, 0);
  pool_.wake();
}

void UpstreamConnection::limit(std::chrono::nanoseconds limit, Stop why) {
  const auto at = std::chrono::steady_clock::now() + limit;
  armed_ = deadline_.at() <= at ? Stop::deadline : why;
  timer_.arm(std::min(at, deadline_.at()));
}

void UpstreamConnection::expired() {
  if (idle_) {
    pool_.drop_idle(*this);  // destroys this
  } else {
    stop(armed_);
  }
}

void UpstreamConnection::stop(Stop why) {
  if (stopped_ != Stop::none) return;
  stopped_ = why;
  boost::system::error_code ignored;
  if (connecting_) connecting_->close(ignored);
  if (stream_) stream_->close();
}

asio::awaitable<bool> UpstreamConnection::wait(Io::Kind kind) {
  unyielded_ = 0;
  const bool ready = co_await (kind == Io::Kind::want_write ? stream_->wait_write() : stream_->wait_read());
  co_return ready&& stopped_ == Stop::none;
}

core::Error UpstreamConnection::stopped_error() const {
  switch (stopped_) {
    case Stop::deadline:
      return core::make_error(ErrorKind::deadline_exceeded, "the request's deadline passed");
    case Stop::connect:
      return core::make_error(ErrorKind::upstream_connect, "connecting to the upstream took too long");
    case Stop::first_byte:
      return core::make_error(ErrorKind::upstream_timeout, "the upstream did not begin to answer in time");
    case Stop::idle:
      return core::make_error(ErrorKind::upstream_timeout, "the upstream stopped sending");
    case Stop::cancelled:
    case Stop::none:
      break;
  }
  return core::make_error(ErrorKind::cancelled);
}

asio::awaitable<core::Result<void>> UpstreamConnection::connect(core::Deadline deadline, core::CancelSource& cancel) {
  const auto started = std::chrono::steady_clock::now();
  const core::Deadline until = deadline.capped(pool_.options.connect_timeout, started);
  deadline_ = deadline;
  on_cancel_.emplace(cancel, [this](core::CancelReason) { stop(Stop::cancelled); });
  auto addresses = co_await pool_.dns->resolve(until, cancel);
  if (!addresses) {
    if (addresses.error().kind == ErrorKind::deadline_exceeded && !deadline.passed()) {
      co_return core::fail(ErrorKind::upstream_connect, addresses.error().message);
    }
    co_return std::unexpected(addresses.error());
  }
  core::Result<void> outcome = core::fail(ErrorKind::upstream_connect, "the upstream has no address");
  for (std::size_t i = 0; i < addresses->size(); ++i) {
    // Each address gets its share of what is left, so that a dead first one does not use up the whole limit.
    const auto share = until.left() / static_cast<std::int64_t>(addresses->size() - i);
    const core::Deadline attempt_until = until.capped(std::max(share, kAttemptLimitMin));
    outcome = co_await connect_to((*addresses)[i], attempt_until);
    if (outcome) break;
    const bool next = (stopped_ == Stop::none || stopped_ == Stop::connect) && !until.passed();
    if (!next) break;
    stopped_ = i + 1 < addresses->size() ? Stop::none : stopped_;
  }
  if (outcome && pool_.tls) {
    limit(until.left(), Stop::connect);
    outcome = co_await handshake();
  }
  timer_.disarm();
  if (!outcome) co_return outcome;
  pool_.hooks.connected(std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
  co_return outcome;
}

asio::awaitable<core::Result<void>> UpstreamConnection::connect_to(const asio::ip::address& address,
                                                                   core::Deadline until) {
  if (stopped_ != Stop::none) co_return std::unexpected(stopped_error());
  // The address itself is judged, here where it is connected to: what a name resolved to when someone last looked is
  // nobody's promise.
  if (const char* why = refused_address(address, pool_.url.host, pool_.options.public_only)) {
    co_return core::fail(ErrorKind::upstream_connect, why);
  }
  connecting_.emplace(pool_.executor);
  limit(until.left(), Stop::connect);
  const asio::ip::tcp::endpoint endpoint(address, pool_.url.port);
  boost::system::error_code opened;
  connecting_->open(endpoint.protocol(), opened);
  if (opened || connecting_->native_handle() >= descriptor_bounds().upstream) {
    connecting_.reset();
    core::Error error =
        core::make_error(ErrorKind::overloaded, "too many connections are open for another upstream one");
    error.retry_after = 1s;
    co_return std::unexpected(std::move(error));
  }
  const auto [error] = co_await connecting_->async_connect(endpoint, asio::as_tuple(asio::use_awaitable));
  if (stopped_ != Stop::none) co_return std::unexpected(stopped_error());
  if (error || was_connected_to_itself(*connecting_, endpoint)) {
    co_return core::fail(ErrorKind::upstream_connect, "the upstream refused the connection");
  }
  stream_.emplace(std::move(*connecting_));
  stream_->listen_for_hangup(this);
  connecting_.reset();
  co_return core::Result<void>{};
}

asio::awaitable<core::Result<void>> UpstreamConnection::handshake() {
  SslPtr ssl = make_client_ssl(pool_.tls.get(), pool_.url.host, pool_.options.tls.verify);
  if (!ssl) co_return core::fail(ErrorKind::upstream_connect, "TLS could not be set up for the upstream");
  if (pool_.session) SSL_set_session(ssl.get(), pool_.session.get());
  stream_->start_tls(std::move(ssl));
  for (;;) {
    const Io io = stream_->handshake_now();
    if (io.kind == Io::Kind::bytes) co_return core::Result<void>{};
    if (io.kind == Io::Kind::end || io.kind == Io::Kind::failed) {
      const bool untrusted = SSL_get_verify_result(stream_->ssl()) != X509_V_OK;
      co_return core::fail(ErrorKind::upstream_connect, untrusted ? "the upstream's certificate is not trusted"
                                                                  : "the TLS handshake with the upstream failed");
    }
    if (!co_await wait(io.kind)) co_return std::unexpected(stopped_error());
  }
}

void UpstreamConnection::on_hangup() {
  hung_up_ = true;
  if (!idle_) return;
  pool_.hooks.stale();
  pool_.drop_idle(*this);  // destroys this
}

bool UpstreamConnection::alive_while_idle() {
  idle_ = false;
  timer_.disarm();
  return !hung_up_ && stream_->quiet_and_open();
}

bool UpstreamConnection::may_end() const {
  return !failed_ && !send_failed_ && stopped_ == Stop::none && !hung_up_ && framed() && parser_.keep_alive();
}

bool UpstreamConnection::reusable() const {
  return ended_ && begin_ == end_ && may_end();
}

void UpstreamConnection::forget_request(core::Deadline deadline) {
  on_cancel_.reset();
  deadline_ = deadline;
}

void UpstreamConnection::go_idle() {
  on_cancel_.reset();
  pool_.buffers.give(std::move(in_));
  begin_ = end_ = 0;
  whole_ = {};
  idle_ = true;
  if (stream_) stream_->begin_idle();
  timer_.arm(std::chrono::steady_clock::now() + pool_.options.pool_idle_timeout);
}

}  // namespace ganglion::net
