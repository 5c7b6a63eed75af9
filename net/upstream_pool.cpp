// See upstream_pool.hpp; the client's public face is here too.

#include "net/upstream_pool.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <stdexcept>

#include "net/http_client.hpp"

namespace ganglion::net {

namespace asio = boost::asio;
using core::ErrorKind;

namespace {

constexpr std::size_t kWaitersMax = 4096;
constexpr std::size_t kIdleBuffersKept = 64;

// For the packet with a stream's terminating chunk. A server that sends it later than this is not worth waiting for.
constexpr std::chrono::milliseconds kEndWait{100};

int keep_session(SSL* ssl, SSL_SESSION* session) {
  auto* pool = static_cast<UpstreamPool*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  pool->session.reset(session);
  return 1;  // the reference is ours now
}

asio::awaitable<void> await_end(std::shared_ptr<UpstreamPool> pool, std::unique_ptr<UpstreamConnection> connection) {
  const auto piece = co_await connection->next();
  if (piece && piece->empty() && connection->reusable()) pool->put(std::move(connection));
}

}  // namespace

UpstreamPool::UpstreamPool(asio::any_io_executor e, const UpstreamOptions& o, BaseUrl u, UpstreamHooks& h)
    : executor(std::move(e)),
      options(o),
      url(std::move(u)),
      hooks(h),
      wheel(TimerWheel::of(executor)),
      buffers(http1::kResponseHeadBytesMax, kIdleBuffersKept),
      dns(std::make_shared<DnsCache>(executor, url.host, options.dns_ttl, hooks, clock)),
      urgent_waiting(executor),
      waiting(executor) {
  if (!url.tls) return;
  auto context = make_client_context(options.tls);
  if (!context) throw std::invalid_argument(context.error().message);
  tls = std::move(*context);
  SSL_CTX_set_app_data(tls.get(), this);
  SSL_CTX_sess_set_new_cb(tls.get(), keep_session);
}

UpstreamPool::~UpstreamPool() = default;

std::unique_ptr<UpstreamConnection> UpstreamPool::take_idle() {
  while (!idle.empty()) {
    auto connection = std::move(idle.back());
    idle.pop_back();
    hooks.connections(0, -1);
    if (connection->alive_while_idle()) return connection;
    hooks.stale();
  }
  return nullptr;
}

bool UpstreamPool::may_take(bool urgent) const {
  const std::size_t kept = urgent ? 0 : std::min(options.connections_urgent, options.connections_max - 1);
  return open - idle.size() + promised + kept < options.connections_max;
}

// A slot is this caller's. Where idle connections fill the pool and none is alive or wanted, one makes room.
std::unique_ptr<UpstreamConnection> UpstreamPool::take_now(bool fresh) {
  if (!fresh) {
    if (auto connection = take_idle()) return connection;
  }
  if (open >= options.connections_max && !idle.empty()) drop_idle(*idle.front());
  return std::make_unique<UpstreamConnection>(*this);
}

asio::awaitable<core::Result<std::unique_ptr<UpstreamConnection>>> UpstreamPool::take(const UpstreamRequest& request,
                                                                                      bool fresh,
                                                                                      core::Deadline deadline,
                                                                                      core::CancelSource& cancel) {
  // Those who wait do so because they may not take one, so whoever may take one now passes nobody of its own kind.
  if (may_take(request.urgent)) co_return take_now(fresh);
  WaitQueue& queue = request.urgent ? urgent_waiting : waiting;
  auto outcome = WaitQueue::Outcome::timed_out;
  if (queue.size() < kWaitersMax) {
    hooks.waiting(request.urgent, 1);
    const auto limit = request.slot_wait.count() > 0 ? request.slot_wait : options.connect_timeout;
    outcome = co_await queue.wait(deadline.capped(limit), cancel);
    hooks.waiting(request.urgent, -1);
  }
  if (outcome == WaitQueue::Outcome::notified) {
    auto taken = take_now(fresh);
    --promised;  // only now: what is dropped on the way must not be promised twice
    co_return taken;
  }
  if (outcome == WaitQueue::Outcome::cancelled) co_return core::fail(ErrorKind::cancelled);
  if (deadline.passed()) co_return core::fail(ErrorKind::deadline_exceeded, "no upstream connection came free");
  co_return core::fail(ErrorKind::overloaded, "every connection to the upstream is in use");
}

void UpstreamPool::wake() {
  while (may_take(true) && urgent_waiting.notify_one()) ++promised;
  while (may_take(false) && waiting.notify_one()) ++promised;
}

void UpstreamPool::put(std::unique_ptr<UpstreamConnection> connection) {
  if (closed) return;
  connection->go_idle();
  idle.push_back(std::move(connection));
  hooks.connections(0, 1);
  wake();
}

void UpstreamPool::drop_idle(UpstreamConnection& connection) {
  const auto at = std::ranges::find(idle, &connection, [](const auto& held) { return held.get(); });
  if (at == idle.end()) return;
  const auto dropped = std::move(*at);  // out of the list before it dies
  idle.erase(at);
  hooks.connections(0, -1);
}

void UpstreamPool::close() {
  closed = true;
  const auto dropped = std::exchange(idle, {});
  hooks.connections(0, -static_cast<int>(dropped.size()));
}

UpstreamResponse::UpstreamResponse(std::shared_ptr<UpstreamPool> pool, std::unique_ptr<UpstreamConnection> connection)
    : pool_(std::move(pool)), connection_(std::move(connection)) {}

UpstreamResponse::~UpstreamResponse() {
  if (connection_->reusable()) {
    pool_->put(std::move(connection_));
  } else if (end_expected_ && !connection_->ended() && connection_->may_end() && !pool_->closed) {
    connection_->forget_request(core::Deadline::after(kEndWait));
    const asio::any_io_executor executor = pool_->executor;
    asio::co_spawn(executor, await_end(std::move(pool_), std::move(connection_)), asio::detached);
  }
}

int UpstreamResponse::status() const {
  return connection_->head().status();
}

std::span<const Header> UpstreamResponse::headers() const {
  return connection_->head().headers();
}

bool UpstreamResponse::framed() const {
  return connection_->framed();
}

bool UpstreamResponse::ended() const {
  return connection_->ended();
}

asio::awaitable<core::Result<std::string_view>> UpstreamResponse::next() {
  return connection_->next();
}

asio::awaitable<core::Result<std::string_view>> UpstreamResponse::read_all(std::size_t bytes_max) {
  return connection_->read_all(bytes_max);
}

UpstreamClient::UpstreamClient(asio::any_io_executor executor, const UpstreamOptions& options, UpstreamHooks& hooks) {
  auto url = parse_base_url(options.base_url);
  if (!url) throw std::invalid_argument("not an http(s) base URL: " + options.base_url);
  pool_ = std::make_shared<UpstreamPool>(std::move(executor), options, std::move(*url), hooks);
}

UpstreamClient::~UpstreamClient() {
  pool_->close();
}

std::size_t UpstreamClient::idle_connections() const {
  return pool_->idle.size();
}

std::size_t UpstreamClient::open_connections() const {
  return pool_->open;
}

namespace {

using Sent = core::Result<std::unique_ptr<UpstreamResponse>>;

UpstreamFailure failure_of(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::upstream_connect:
      return UpstreamFailure::connect;
    case ErrorKind::upstream_timeout:
      return UpstreamFailure::timeout;
    case ErrorKind::upstream_protocol:
      return UpstreamFailure::protocol;
    case ErrorKind::overloaded:
      return UpstreamFailure::pool_full;
    default:
      return UpstreamFailure::closed;
  }
}

std::unexpected<core::Error> report(UpstreamPool& pool, core::Error error) {
  const bool called_off = error.kind == ErrorKind::cancelled || error.kind == ErrorKind::deadline_exceeded;
  if (!called_off) pool.hooks.failed(failure_of(error.kind));
  return std::unexpected(std::move(error));
}

// The pool is kept alive by this coroutine, so that a client may be dropped while it sends.
asio::awaitable<Sent> send_on(std::shared_ptr<UpstreamPool> pool, const UpstreamRequest& request,
                              core::Deadline deadline, core::CancelSource& cancel) {
  for (bool fresh_only = false;; fresh_only = true) {
    if (cancel.cancelled()) co_return core::fail(ErrorKind::cancelled);
    if (deadline.passed()) co_return core::fail(ErrorKind::deadline_exceeded, "the request's deadline passed");
    std::unique_ptr<UpstreamConnection> connection;
    if (pool->may_take(request.urgent)) {
      connection = pool->take_now(fresh_only);
    } else {
      auto taken = co_await pool->take(request, fresh_only, deadline, cancel);
      if (!taken) co_return report(*pool, std::move(taken.error()));
      connection = std::move(*taken);
    }
    const bool reused = connection->connected();
    if (reused) {
      pool->hooks.reused();
    } else if (auto made = co_await connection->connect(deadline, cancel); !made) {
      co_return report(*pool, std::move(made.error()));
    }
    auto answered = co_await connection->exchange(request, deadline, cancel);
    if (answered) co_return std::make_unique<UpstreamResponse>(std::move(pool), std::move(connection));
    // The upstream may close an idle connection at the very moment we use it.
    if (reused && !fresh_only && answered.error().kind == ErrorKind::upstream_closed &&
        connection->nothing_received()) {
      if (request.before_resend != nullptr)
        if (auto may = (*request.before_resend)(); !may) co_return report(*pool, std::move(may.error()));
      pool->hooks.retried();
      continue;
    }
    co_return report(*pool, std::move(answered.error()));
  }
}

}  // namespace

asio::awaitable<Sent> UpstreamClient::send(const UpstreamRequest& request, core::Deadline deadline,
                                           core::CancelSource& cancel) {
  return send_on(pool_, request, deadline, cancel);
}

}  // namespace ganglion::net
