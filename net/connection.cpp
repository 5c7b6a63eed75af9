// The life of a connection: handshake, heads, handler, end. See connection.hpp.

#include "net/connection.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <exception>
#include <new>
#include <utility>

#include "core/log.hpp"

namespace ganglion::net {

namespace asio = boost::asio;
using core::CancelReason;
using core::ErrorKind;
using namespace std::chrono_literals;

namespace {

// A client that gets `Connection: close` while it is still sending must be read from for a while, or the reset that
// answers its bytes may destroy the answer on its way.
constexpr auto kLingerLimit = 2s;
constexpr std::size_t kLingerBytesMax = 16UL * 1024 * 1024;
constexpr auto kTlsProbeInterval = 50ms;
constexpr unsigned kRequestsInARowMax = 32;
constexpr auto kHeldPoll = 2ms;

core::SteadyTime now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

Connection::Connection(std::shared_ptr<Worker> worker, Stream::Socket socket, std::string peer, Admission admission,
                       Counted counted, AddressCount::Place place, std::string_view received)
    : worker_(std::move(worker)),
      stream_(std::move(socket)),
      peer_(std::move(peer)),
      admission_(admission),
      counted_(std::move(counted)),
      address_place_(std::move(place)),
      place_(worker_->open.size()),
      io_timer_(worker_->wheel,
                [this] {
                  io_expired_ = true;
                  stream_.cancel();
                }),
      deadline_timer_(worker_->wheel,
                      [this] {
                        if (cancel_) cancel_->cancel(CancelReason::deadline);
                      }),
      probe_timer_(worker_->wheel, [this] { probe_tls(); }) {
  if (admission_ == Admission::adopted) {
    phase_ = Phase::closing;  // between two requests
    if (!received.empty() && received.size() <= worker_->buffers.buffer_bytes()) {
      in_ = worker_->buffers.take();
      received.copy(in_.get(), received.size());
      in_used_ = received.size();
    }
  }
  worker_->open.push_back(this);  // from here on nothing throws
  if (admission_ >= Admission::over_cap) {
    ++worker_->rejecting;
    count_rejected(*worker_->shared, admission_);
    return;
  }
  worker_->shared->hooks.connection_opened();
  stream_.listen_for_hangup(this);
}

Connection::~Connection() {
  stream_.listen_for_hangup(nullptr);
  worker_->open.back()->place_ = place_;
  worker_->open[place_] = worker_->open.back();
  worker_->open.pop_back();
  worker_->buffers.give(std::move(in_));
  worker_->buffers.give(std::move(raw_));
  if (phase_ == Phase::exchange) worker_->exchanges.fetch_sub(1, std::memory_order_relaxed);
  if (admission_ >= Admission::over_cap) {
    --worker_->rejecting;
    return;
  }
  worker_->shared->hooks.connection_closed();
}

void Connection::count_rejected(ServerShared& shared, Admission admission) {
  if (admission == Admission::over_cap)
    shared.hooks.connection_rejected();
  else if (shared.address_rejected)
    shared.address_rejected();
}

asio::awaitable<void> Connection::run(std::unique_ptr<Connection> self) {
  co_await self->live();
}

asio::awaitable<void> Connection::live() {
  if (admission_ >= Admission::over_cap) {
    core::Error error = admission_ == Admission::over_cap
                            ? core::make_error(ErrorKind::overloaded, "too many connections")
                            : core::make_error(ErrorKind::rate_limited, "too many connections from this address");
    error.retry_after = 1s;
    co_await send_error(error);
    co_await close_gracefully();
    co_return;
  }
  const bool plain = admission_ == Admission::adopted || !worker_->shared->certificate.enabled();
  if (!plain && !co_await handshake()) co_return;
  for (;;) {
    const Next next = co_await read_head();
    if (next == Next::given) co_return;
    if (next == Next::closed) {  // nothing is on its way that a reset could destroy
      if (!broken_) stream_.shutdown_send();
      co_return;
    }
    if (next == Next::refused) {
      co_await send_error(body_error_);
      break;
    }
    if (!co_await serve()) break;
  }
  if (!broken_) co_await close_gracefully();
}

void Connection::arm(std::chrono::nanoseconds limit) {
  io_expired_ = false;
  io_timer_.arm(now() + limit);
}

asio::awaitable<bool> Connection::wait(Io::Kind kind) {
  unyielded_ = 0;
  const bool ready = co_await (kind == Io::Kind::want_write ? stream_.wait_write() : stream_.wait_read());
  co_return ready && !io_expired_;
}

asio::awaitable<bool> Connection::handshake() {
  SslPtr ssl = worker_->shared->certificate.make_ssl();
  if (!ssl) co_return false;
  stream_.start_tls(std::move(ssl));
  arm(worker_->shared->options.header_timeout);
  for (;;) {
    const Io io = stream_.handshake_now();
    if (io.kind == Io::Kind::bytes) co_return true;
    const bool blocked = io.kind == Io::Kind::want_read || io.kind == Io::Kind::want_write;
    if (!blocked || !co_await wait(io.kind)) {
      worker_->shared->hooks.tls_handshake_failed();
      co_return false;
    }
  }
}

// On `refused`, body_error_ holds what to answer.
asio::awaitable<Connection::Next> Connection::read_head() {
  const ServerOptions& options = worker_->shared->options;
  // A new connection owes its first head at once; later ones may stay idle, but a head once begun has its limit.
  bool head_timed = phase_ == Phase::starting || in_used_ > 0;
  arm(head_timed ? options.header_timeout : options.keep_alive_timeout);
  phase_ = Phase::idle;
  parser_.reset();
  // Pipelined requests that need no waiting would keep the worker from its other connections.
  if (++unyielded_ > kRequestsInARowMax) {
    unyielded_ = 0;
    co_await asio::post(asio::use_awaitable);
  }
  for (Io io{.kind = Io::Kind::want_read};;) {
    if (worker_->shared->hold.load(std::memory_order_relaxed) != Hold::none && !co_await held()) co_return Next::given;
    if (in_used_ > 0) {
      phase_ = Phase::reading_head;
      switch (parser_.feed({in_.get(), in_used_})) {
        case http1::RequestParser::Status::done:
          io_timer_.disarm();
          co_return Next::request;
        case http1::RequestParser::Status::refused:
          body_error_ = parser_.error();
          co_return Next::refused;
        case http1::RequestParser::Status::more:
          break;
      }
      if (!head_timed) arm(options.header_timeout);
      head_timed = true;
    } else {
      if (last_request()) co_return Next::closed;
      worker_->buffers.give(std::move(in_));
    }
    if (!stream_.likely_readable() && !co_await wait(io.kind)) {
      if (!io_expired_ && gives()) continue;
      if (!io_expired_ || in_used_ == 0) co_return Next::closed;
      body_error_ = core::make_error(ErrorKind::request_timeout, "the request head was not complete in time");
      co_return Next::refused;
    }
    if (!in_) in_ = worker_->buffers.take();
    io = stream_.read_now(in_.get() + in_used_, worker_->buffers.buffer_bytes() - in_used_);
    if (io.kind == Io::Kind::end || io.kind == Io::Kind::failed) co_return Next::closed;
    in_used_ += io.n;
    if (io.kind == Io::Kind::bytes) io.kind = Io::Kind::want_read;
  }
}

bool Connection::gives() const {
  // What a TLS connection has agreed on cannot be given away.
  return worker_->shared->hold.load(std::memory_order_relaxed) == Hold::giving && !stream_.tls() && stream_.is_open();
}

bool Connection::last_request() const {
  return worker_->shared->draining.load(std::memory_order_relaxed) ||
         (worker_->shared->hold.load(std::memory_order_relaxed) == Hold::giving && stream_.tls());
}

asio::awaitable<bool> Connection::held() {
  const ServerOptions& options = worker_->shared->options;
  const Hold before = worker_->shared->hold.load(std::memory_order_relaxed);
  asio::steady_timer timer(worker_->io);
  while (worker_->shared->hold.load(std::memory_order_relaxed) == Hold::waiting && in_used_ > 0) {
    io_timer_.disarm();
    timer.expires_after(kHeldPoll);
    (void)co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  if (gives()) {
    broken_ = true;
    const int fd = stream_.release();
    worker_->shared->hand_off(fd, {in_.get(), in_used_});
    co_return false;
  }
  if (before == Hold::waiting && in_used_ > 0) arm(options.header_timeout);
  co_return true;
}

void Connection::begin_exchange() {
  phase_ = Phase::exchange;
  worker_->exchanges.fetch_add(1, std::memory_order_relaxed);
  received_at_ = now();
  body_state_ = Body::unread;
  body_view_ = {};
  body_size_ = 0;
  raw_begin_ = raw_end_ = 0;
  bytes_in_ = bytes_out_ = 0;
  continue_sent_ = started_ = finished_ = aborted_ = chunked_out_ = false;
  body_allowed_ = true;
  length_left_.reset();
  cancel_.emplace();
  on_cancel_.emplace(*cancel_, [this](CancelReason reason) { on_cancelled(reason); });
  if (stream_.tls()) probe_timer_.arm(received_at_ + kTlsProbeInterval);
  worker_->shared->hooks.request_begun();
  if (peer_gone_) cancel_->cancel(CancelReason::client_gone);
}

void Connection::end_exchange() {
  on_cancel_.reset();
  cancel_.reset();
  deadline_timer_.disarm();
  probe_timer_.disarm();
  io_timer_.disarm();
  io_expired_ = false;
  phase_ = Phase::closing;  // until read_head says otherwise
  worker_->exchanges.fetch_sub(1, std::memory_order_relaxed);
  worker_->shared->hooks.request_ended(bytes_in_, bytes_out_);
}

asio::awaitable<bool> Connection::serve() {
  begin_exchange();
  ErrorKind unanswered = ErrorKind::internal;
  try {
    co_await worker_->handler(exchange_);
  } catch (const std::exception& error) {
    // Without memory for this request there may be some for the next one.
    if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) unanswered = ErrorKind::overloaded;
    worker_->shared->hooks.handler_threw();
    core::log(core::LogLevel::error, "handler_threw", {{"what", error.what()}});
  }
  const CancelReason reason = cancel_->reason();
  if (!started_ &&
      (reason == CancelReason::none || reason == CancelReason::deadline || reason == CancelReason::shutdown)) {
    co_await send_error(reason == CancelReason::none ? core::make_error(unanswered, "the request was not answered")
                                                     : cancel_error());
  }
  if (!finished_) aborted_ = true;
  end_exchange();
  if (const auto settled = settle_now()) co_return *settled;
  co_return co_await settle_body();
}

asio::awaitable<void> Connection::send_error(const core::Error& error) {
  // Within an exchange the caller has made sure that nothing was started.
  if (!cancel_) {
    phase_ = Phase::closing;
    started_ = finished_ = false;
    worker_->shared->hooks.request_refused(error.kind);
  }
  const ErrorBody body = worker_->shared->hooks.error_body(error);
  ResponseHead head;
  head.status = core::face(error.kind).http_status;
  head.content_type = body.content_type;
  head.close = true;
  std::string retry_after;
  if (error.retry_after > 0ms) {
    http1::append_number(
        retry_after, static_cast<std::uint64_t>(std::chrono::ceil<std::chrono::seconds>(error.retry_after).count()));
    head.headers.add("Retry-After", retry_after);
  }
  (void)co_await respond(head, body.text);
}

asio::awaitable<void> Connection::close_gracefully() {
  phase_ = Phase::closing;
  stream_.shutdown_send();
  arm(kLingerLimit);
  if (!in_) in_ = worker_->buffers.take();
  for (std::size_t total = 0; total < kLingerBytesMax;) {
    const Io io = stream_.read_now(in_.get(), worker_->buffers.buffer_bytes());
    total += io.n;
    if (io.kind == Io::Kind::bytes) continue;
    if (io.kind != Io::Kind::want_read || !co_await wait(io.kind)) break;
  }
}

void Connection::close_if_idle() {
  if (phase_ == Phase::idle) stream_.cancel();
}

void Connection::give_if_idle() {
  if (phase_ == Phase::idle || phase_ == Phase::reading_head) stream_.cancel();
}

void Connection::cancel_shutdown() {
  if (cancel_) {
    cancel_->cancel(CancelReason::shutdown);
  } else {
    broken_ = true;
    stream_.close();
  }
}

void Connection::on_hangup() {
  peer_gone_ = true;
  if (cancel_) cancel_->cancel(CancelReason::client_gone);
}

void Connection::on_cancelled(CancelReason reason) {
  worker_->shared->hooks.exchange_cancelled(reason);
  stream_.cancel();  // a wait of this exchange for its client ends too
}

void Connection::probe_tls() {
  if (!cancel_ || cancel_->cancelled()) return;
  if (stream_.tls_peer_closed()) {
    on_hangup();
  } else {
    probe_timer_.arm(now() + kTlsProbeInterval);
  }
}

core::Error Connection::cancel_error() const {
  switch (cancel_ ? cancel_->reason() : CancelReason::client_gone) {
    case CancelReason::deadline:
      return core::make_error(ErrorKind::deadline_exceeded, "the request's deadline passed");
    case CancelReason::shutdown:
      return core::make_error(ErrorKind::shutting_down, "the gateway is shutting down");
    default:
      return core::make_error(ErrorKind::cancelled, "the client is gone");
  }
}

}  // namespace ganglion::net
