// Binding, accepting, draining, certificate reload. See server.hpp.

#include "net/server.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <exception>
#include <new>
#include <utility>

#include "core/assert.hpp"
#include "core/log.hpp"
#include "net/connection.hpp"
#include "net/descriptors.hpp"
#include "net/retry_for_memory.hpp"
#include "net/server_worker.hpp"

namespace ganglion::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using core::ErrorKind;
using namespace std::chrono_literals;

namespace {

constexpr int kBacklog = 4096;
constexpr auto kAcceptBackOff = 100ms;
constexpr int kAcceptedAtOnce = 16;  // then other handlers of the worker have their turn
constexpr auto kCertificateCheckInterval = 5s;
constexpr std::size_t kRejectingMax = 64;  // per worker; past it a connection over the cap is closed without a word

std::string address_text(const asio::ip::address& address) {
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    return asio::ip::make_address_v4(asio::ip::v4_mapped, address.to_v6()).to_string();
  }
  return address.to_string();
}

core::Error bind_error(const tcp::endpoint& endpoint, const char* step, boost::system::error_code error) {
  return core::make_error(ErrorKind::internal, "cannot " + std::string{step} + " " + endpoint.address().to_string() +
                                                   " port " + std::to_string(endpoint.port()) + ": " + error.message());
}

// SO_REUSEPORT would silently share the port with another process of ours; binding without it finds out.
core::Result<void> check_port_free(asio::io_context& io, const tcp::endpoint& endpoint) {
  if (endpoint.port() == 0) return {};
  boost::system::error_code error;
  tcp::acceptor probe(io);
  probe.open(endpoint.protocol(), error);
  if (!error) probe.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) probe.bind(endpoint, error);
  if (error) return std::unexpected(bind_error(endpoint, "bind", error));
  return {};
}

// accept() says what there is: else it waits, for another connection in place of one that was aborted, too.
void accept_at_once(tcp::acceptor& acceptor, boost::system::error_code& error) {
  acceptor.non_blocking(true, error);
  if (!error) acceptor.set_option(asio::socket_base::enable_connection_aborted(true), error);
}

core::Result<void> open_acceptor(tcp::acceptor& acceptor, const tcp::endpoint& endpoint) {
  using ReusePort = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
  boost::system::error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.set_option(ReusePort(true), error);
  if (!error) accept_at_once(acceptor, error);
  if (!error) acceptor.bind(endpoint, error);
  if (error) return std::unexpected(bind_error(endpoint, "bind", error));
  acceptor.listen(kBacklog, error);
  if (error) return std::unexpected(bind_error(endpoint, "listen on", error));
  return {};
}

core::Result<void> open_all(const std::vector<std::shared_ptr<Worker>>& workers, tcp::endpoint& endpoint) {
  if (auto free = check_port_free(workers.front()->io, endpoint); !free) return free;
  for (const auto& worker : workers) {
    auto listener = std::make_shared<Listener>(worker->io);
    if (auto opened = open_acceptor(listener->acceptor, endpoint); !opened) return opened;
    endpoint.port(listener->acceptor.local_endpoint().port());
    worker->listeners.push_back(std::move(listener));
  }
  return {};
}

// A socket of another process, which is closed unless somebody has it by then.
class Given {
 public:
  explicit Given(int fd) : fd_(fd) {}
  Given(Given&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Given& operator=(Given&&) = delete;
  ~Given() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  void release() { fd_ = -1; }

 private:
  int fd_;
};

void admit(const std::shared_ptr<Worker>& worker, tcp::socket socket, const tcp::endpoint& peer) {
  ServerShared& shared = *worker->shared;
  auto admission = Connection::Admission::accepted;
  Counted counted(shared);
  std::optional<AddressCount::Place> place;
  if (counted.before() >= shared.options.connections_max || socket.native_handle() >= descriptor_bounds().client) {
    admission = Connection::Admission::over_cap;
  } else if (place = shared.addresses.enter(peer.address(), shared.address_connections_max); !place) {
    admission = Connection::Admission::over_address_cap;
  }
  if (admission != Connection::Admission::accepted) {
    counted.give_back();
    // A TLS client could not read a plain refusal, and a handshake is what an overloaded server should not pay for.
    if (worker->rejecting >= kRejectingMax || shared.certificate.enabled()) {
      Connection::count_rejected(shared, admission);
      return;
    }
  }
  auto connection = std::make_unique<Connection>(worker, std::move(socket), address_text(peer.address()), admission,
                                                 std::move(counted), place ? std::move(*place) : AddressCount::Place{});
  asio::co_spawn(worker->io, Connection::run(std::move(connection)), asio::detached);
}

// Takes what waits in the backlog, as far as one turn goes. The error is of the listener, not of one connection.
boost::system::error_code accept_some(const std::shared_ptr<Worker>& worker, tcp::acceptor& acceptor) {
  boost::system::error_code error;
  for (int i = 0; i < kAcceptedAtOnce; ++i) {
    tcp::endpoint peer;
    tcp::socket socket(worker->io);
    acceptor.accept(socket, peer, error);
    // Gone before it was accepted; or another process or worker that shares the socket was quicker.
    if (error == asio::error::connection_aborted) continue;
    if (error == asio::error::would_block) return {};
    if (error) return error;
    admit(worker, std::move(socket), peer);
  }
  return error;
}

void tell_failed(Worker& worker, int errno_value) noexcept {
  try {
    worker.shared->hooks.accept_failed(errno_value);
  } catch (const std::exception&) {  // no memory to say so
  }
}

void await_connections(const std::shared_ptr<Worker>& worker, const std::shared_ptr<Listener>& listener);

// Out of descriptors or memory: connections stay in the backlog, so an immediate retry would spin.
void back_off(const std::shared_ptr<Worker>& worker, const std::shared_ptr<Listener>& listener) {
  retry_for_memory([&] {
    listener->back_off.expires_after(kAcceptBackOff);
    listener->back_off.async_wait(
        [worker, listener](boost::system::error_code /*error*/) { await_connections(worker, listener); });
  });
}

// No coroutine, which Asio drops where it has no memory for a wait, nor async_accept, which it drops where it has none
// for the accepted socket: a listener that stops accepting would let connections rot in its backlog.
void await_connections(const std::shared_ptr<Worker>& worker, const std::shared_ptr<Listener>& listener) {
  listener->waits = listener->acceptor.is_open() && worker->accepting;
  if (!listener->waits) return;
  retry_for_memory([&] {
    listener->acceptor.async_wait(tcp::acceptor::wait_read, [worker, listener](boost::system::error_code error) {
      const bool goes_on = worker->accepting && listener->acceptor.is_open();
      try {
        if (!error && goes_on) error = accept_some(worker, listener->acceptor);
      } catch (const std::exception&) {  // this costs the connection that memory was wanted for
        tell_failed(*worker, ENOMEM);
      }
      if (goes_on && error && error != asio::error::operation_aborted) {
        tell_failed(*worker, error.value());
        return back_off(worker, listener);
      }
      await_connections(worker, listener);
    });
  });
}

void start_accepting(const std::shared_ptr<Worker>& worker) {
  for (const auto& listener : worker->listeners) {
    if (!listener->waits) await_connections(worker, listener);
  }
}

// Every worker gets one of the sockets, or a copy where there are fewer; more than workers are shared out.
core::Result<std::uint16_t> use_inherited(const std::vector<std::shared_ptr<Worker>>& workers,
                                          const std::vector<int>& sockets, const tcp::endpoint& endpoint) {
  std::uint16_t port = 0;
  for (std::size_t i = 0; i < std::max(sockets.size(), workers.size()); ++i) {
    const auto& worker = workers[i % workers.size()];
    const int given = sockets[i % sockets.size()];
    const int fd = i < sockets.size() ? given : ::fcntl(given, F_DUPFD_CLOEXEC, 0);
    auto listener = std::make_shared<Listener>(worker->io);
    boost::system::error_code error;
    listener->acceptor.assign(endpoint.protocol(), fd, error);
    if (!error) accept_at_once(listener->acceptor, error);
    if (!error) port = listener->acceptor.local_endpoint(error).port();
    if (error) return std::unexpected(bind_error(endpoint, "use the inherited socket of", error));
    worker->listeners.push_back(std::move(listener));
  }
  return port;
}

// Whether the socket listens at the address that is configured (any port, where that is 0).
bool listens_at(int fd, const tcp::endpoint& endpoint) {
  tcp::endpoint bound;
  auto size = static_cast<socklen_t>(bound.capacity());
  if (::getsockname(fd, bound.data(), &size) != 0) return false;
  bound.resize(size);
  return bound.address() == endpoint.address() && (endpoint.port() == 0 || bound.port() == endpoint.port());
}

}  // namespace

struct Server::State {
  std::shared_ptr<ServerShared> shared;
  std::vector<std::shared_ptr<Worker>> workers;
  std::shared_ptr<asio::steady_timer> certificate_timer;  // on the first worker
  std::size_t next_adopting = 0;

  static void watch_certificate(std::weak_ptr<State> weak);
};

void Server::State::watch_certificate(std::weak_ptr<State> weak) {
  const auto state = weak.lock();
  if (!state) return;
  state->certificate_timer->expires_after(kCertificateCheckInterval);
  state->certificate_timer->async_wait([weak = std::move(weak)](boost::system::error_code error) {
    const auto alive = weak.lock();
    if (error || !alive) return;
    ServerShared& shared = *alive->shared;
    if (shared.certificate.files_changed()) {
      const auto loaded = shared.certificate.load();
      shared.hooks.tls_reloaded(loaded.has_value());
      if (!loaded) core::log(core::LogLevel::error, "tls_reload_failed", {{"error", loaded.error().message}});
    }
    watch_certificate(alive);
  });
}

Server::Server(ServerOptions options, std::vector<ServerWorker> workers, ServerHooks& hooks)
    : state_(std::make_shared<State>()) {
  GW_ASSERT(!workers.empty());
  state_->shared = std::make_shared<ServerShared>(std::move(options), hooks);
  for (ServerWorker& worker : workers) {
    state_->workers.push_back(std::make_shared<Worker>(state_->shared, *worker.io, std::move(worker.handler)));
  }
}

Server::~Server() = default;

void Server::limit_addresses(std::size_t connections_max, std::function<void()> rejected) {
  state_->shared->address_connections_max = connections_max;
  state_->shared->address_rejected = std::move(rejected);
}

core::Result<std::uint16_t> Server::listen(const std::vector<int>& inherited) {
  const ServerOptions& options = state_->shared->options;
  boost::system::error_code error;
  const auto address = asio::ip::make_address(options.host, error);
  if (error) return core::fail(ErrorKind::internal, "not an IP address to listen on: " + options.host);
  if (state_->shared->certificate.enabled()) {
    if (auto loaded = state_->shared->certificate.load(); !loaded) return std::unexpected(loaded.error());
  }
  tcp::endpoint endpoint(address, options.port);
  std::vector<int> usable;
  for (const int fd : inherited) {
    if (listens_at(fd, endpoint)) {
      usable.push_back(fd);
    } else {
      ::close(fd);
    }
  }
  if (!usable.empty()) {
    auto port = use_inherited(state_->workers, usable, endpoint);
    if (!port) return port;
    endpoint.port(*port);
  } else if (auto opened = open_all(state_->workers, endpoint); !opened) {
    return std::unexpected(opened.error());
  }
  for (const auto& worker : state_->workers) start_accepting(worker);
  if (state_->shared->certificate.enabled()) {
    state_->certificate_timer = std::make_shared<asio::steady_timer>(state_->workers.front()->io);
    asio::post(state_->workers.front()->io, [weak = std::weak_ptr(state_)] { State::watch_certificate(weak); });
  }
  return endpoint.port();
}

std::vector<int> Server::listeners() const {
  std::vector<int> out;
  for (const auto& worker : state_->workers) {
    for (const auto& listener : worker->listeners) out.push_back(listener->acceptor.native_handle());
  }
  return out;
}

void Server::pause() {
  state_->shared->hold = Hold::waiting;
  for (const auto& worker : state_->workers) {
    asio::post(worker->io, [worker] {
      worker->accepting = false;
      boost::system::error_code ignored;
      for (const auto& listener : worker->listeners) listener->acceptor.cancel(ignored);
    });
  }
}

void Server::resume() {
  state_->shared->hold = Hold::none;
  for (const auto& worker : state_->workers) {
    asio::post(worker->io, [worker] {
      worker->accepting = true;
      start_accepting(worker);
    });
  }
}

void Server::give(HandOff to) {
  state_->shared->hand_off = std::move(to);
  state_->shared->hold = Hold::giving;
  stop_accepting();
  for (const auto& worker : state_->workers) {
    asio::post(worker->io, [worker] {
      for (Connection* connection : worker->open) connection->give_if_idle();
    });
  }
}

void Server::adopt(int fd, std::string received) {
  const auto& worker = state_->workers[state_->next_adopting++ % state_->workers.size()];
  Given given(fd);
  try {
    asio::post(worker->io, [worker, given = std::move(given), received = std::move(received)]() mutable {
      tcp::endpoint peer;
      auto size = static_cast<socklen_t>(peer.capacity());
      if (::getpeername(given.get(), peer.data(), &size) != 0) return;  // it has gone meanwhile
      peer.resize(size);
      tcp::socket socket(worker->io);
      boost::system::error_code error;
      socket.assign(peer.protocol(), given.get(), error);
      if (error) return;
      given.release();
      Counted counted(*worker->shared);
      // One that another process has taken is not refused any more.
      auto place = worker->shared->addresses.enter(peer.address(), worker->shared->address_connections_max);
      auto connection = std::make_unique<Connection>(worker, std::move(socket), address_text(peer.address()),
                                                     Connection::Admission::adopted, std::move(counted),
                                                     place ? std::move(*place) : AddressCount::Place{}, received);
      asio::co_spawn(worker->io, Connection::run(std::move(connection)), asio::detached);
    });
  } catch (const std::bad_alloc&) {
    tell_failed(*worker, ENOMEM);
  }
}

void Server::stop_accepting() {
  for (const auto& worker : state_->workers) {
    asio::post(worker->io, [worker] {
      boost::system::error_code ignored;
      for (const auto& listener : worker->listeners) {
        listener->acceptor.close(ignored);
        listener->back_off.cancel();
      }
    });
  }
  if (state_->certificate_timer) {
    asio::post(state_->workers.front()->io, [timer = state_->certificate_timer] { timer->cancel(); });
  }
}

void Server::drain() {
  state_->shared->draining = true;
  for (const auto& worker : state_->workers) {
    asio::post(worker->io, [worker] {
      for (Connection* connection : worker->open) connection->close_if_idle();
    });
  }
}

void Server::cancel_all() {
  state_->shared->draining = true;
  for (const auto& worker : state_->workers) {
    asio::post(worker->io, [worker] {
      // A cancel callback may end connections of this list only later, from the loop.
      for (Connection* connection : worker->open) connection->cancel_shutdown();
    });
  }
}

std::size_t Server::connections() const {
  return state_->shared->connections.load();
}

std::size_t Server::exchanges() const {
  std::size_t total = 0;
  for (const auto& worker : state_->workers) total += worker->exchanges.load();
  return total;
}

core::Result<void> Server::reload_tls(const TlsServerOptions& options) {
  auto loaded = state_->shared->certificate.load(options);
  if (loaded && !state_->shared->certificate.enabled()) return loaded;
  state_->shared->hooks.tls_reloaded(loaded.has_value());
  if (!loaded) core::log(core::LogLevel::error, "tls_reload_failed", {{"error", loaded.error().message}});
  return loaded;
}

}  // namespace ganglion::net
