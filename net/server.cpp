// Binding, accepting, draining, certificate reload. See server.hpp.

#include "net/server.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <thread>

#include "core/assert.hpp"
#include "core/log.hpp"
#include "net/connection.hpp"
#include "net/descriptors.hpp"
#include "net/server_worker.hpp"

namespace ganglion::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using core::ErrorKind;
using namespace std::chrono_literals;

namespace {

constexpr int kBacklog = 4096;
constexpr auto kAcceptBackOff = 100ms;
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

core::Result<void> open_acceptor(tcp::acceptor& acceptor, const tcp::endpoint& endpoint) {
  using ReusePort = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
  boost::system::error_code error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.set_option(ReusePort(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (error) return std::unexpected(bind_error(endpoint, "bind", error));
  acceptor.listen(kBacklog, error);
  if (error) return std::unexpected(bind_error(endpoint, "listen on", error));
  return {};
}

core::Result<void> open_all(const std::vector<std::shared_ptr<Worker>>& workers, tcp::endpoint& endpoint) {
  if (auto free = check_port_free(workers.front()->io, endpoint); !free) return free;
  for (const auto& worker : workers) {
    auto acceptor = std::make_shared<tcp::acceptor>(worker->io);
    if (auto opened = open_acceptor(*acceptor, endpoint); !opened) return opened;
    endpoint.port(acceptor->local_endpoint().port());
    worker->acceptors.push_back(std::move(acceptor));
  }
  return {};
}

void admit(const std::shared_ptr<Worker>& worker, tcp::socket socket, const tcp::endpoint& peer) {
  ServerShared& shared = *worker->shared;
  auto admission = Connection::Admission::accepted;
  std::optional<AddressCount::Place> place;
  if (shared.connections.fetch_add(1, std::memory_order_relaxed) >= shared.options.connections_max ||
      socket.native_handle() >= descriptor_bounds().client) {
    admission = Connection::Admission::over_cap;
  } else if (place = shared.addresses.enter(peer.address(), shared.address_connections_max); !place) {
    admission = Connection::Admission::over_address_cap;
  }
  if (admission != Connection::Admission::accepted) {
    shared.connections.fetch_sub(1, std::memory_order_relaxed);
    // A TLS client could not read a plain refusal, and a handshake is what an overloaded server should not pay for.
    if (worker->rejecting >= kRejectingMax || shared.certificate.enabled()) {
      Connection::count_rejected(shared, admission);
      return;
    }
  }
  auto connection = std::make_unique<Connection>(worker, std::move(socket), address_text(peer.address()), admission,
                                                 place ? std::move(*place) : AddressCount::Place{});
  asio::co_spawn(worker->io, Connection::run(std::move(connection)), asio::detached);
}

using Acceptor = std::shared_ptr<tcp::acceptor>;

asio::awaitable<void> accept_loop(std::shared_ptr<Worker> worker, Acceptor acceptor) {
  asio::steady_timer back_off(worker->io);
  while (acceptor->is_open() && worker->accepting) {
    tcp::endpoint peer;
    auto [error, socket] = co_await acceptor->async_accept(peer, asio::as_tuple(asio::use_awaitable));
    if (!error) {
      admit(worker, std::move(socket), peer);
      continue;
    }
    if (error == asio::error::operation_aborted || !acceptor->is_open()) break;
    // Another process or worker that shares the socket was quicker.
    if (error == asio::error::connection_aborted || error == asio::error::would_block) continue;
    // Out of descriptors or memory: the connection stays in the backlog, so an immediate retry would spin.
    worker->shared->hooks.accept_failed(error.value());
    core::log(core::LogLevel::warn, "accept_failed", {{"error", error.message()}});
    back_off.expires_after(kAcceptBackOff);
    (void)co_await back_off.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

// An exception (no memory for a connection's state) ends the loop's coroutine; a listener that stops accepting would
// let connections rot in its backlog, so it begins again.
void start_accepting(const std::shared_ptr<Worker>& worker, const Acceptor& acceptor) {
  asio::co_spawn(worker->io, accept_loop(worker, acceptor), [worker, acceptor](std::exception_ptr failed) {
    while (failed && acceptor->is_open() && worker->accepting) {
      try {
        worker->shared->hooks.accept_failed(ENOMEM);
        start_accepting(worker, acceptor);
        return;
      } catch (const std::exception&) {
        std::this_thread::yield();  // nothing on this thread can go on without memory
      }
    }
  });
}

void start_accepting(const std::shared_ptr<Worker>& worker) {
  for (const Acceptor& acceptor : worker->acceptors) start_accepting(worker, acceptor);
}

// Every worker gets one of the sockets, or a copy where there are fewer; more than workers are shared out.
core::Result<std::uint16_t> use_inherited(const std::vector<std::shared_ptr<Worker>>& workers,
                                          const std::vector<int>& sockets, const tcp::endpoint& endpoint) {
  std::uint16_t port = 0;
  for (std::size_t i = 0; i < std::max(sockets.size(), workers.size()); ++i) {
    const auto& worker = workers[i % workers.size()];
    const int given = sockets[i % sockets.size()];
    const int fd = i < sockets.size() ? given : ::fcntl(given, F_DUPFD_CLOEXEC, 0);
    auto acceptor = std::make_shared<tcp::acceptor>(worker->io);
    boost::system::error_code error;
    acceptor->assign(endpoint.protocol(), fd, error);
    if (!error) acceptor->non_blocking(true, error);
    if (!error) port = acceptor->local_endpoint(error).port();
    if (error) return std::unexpected(bind_error(endpoint, "use the inherited socket of", error));
    worker->acceptors.push_back(std::move(acceptor));
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
    for (const auto& acceptor : worker->acceptors) out.push_back(acceptor->native_handle());
  }
  return out;
}

void Server::pause() {
  state_->shared->hold = Hold::waiting;
  for (const auto& worker : state_->workers) {
    asio::post(worker->io, [worker] {
      worker->accepting = false;
      boost::system::error_code ignored;
      for (const auto& acceptor : worker->acceptors) acceptor->cancel(ignored);
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
  asio::post(worker->io, [worker, fd, received = std::move(received)] {
    tcp::endpoint peer;
    auto size = static_cast<socklen_t>(peer.capacity());
    if (::getpeername(fd, peer.data(), &size) != 0) {  // it has gone meanwhile
      ::close(fd);
      return;
    }
    peer.resize(size);
    tcp::socket socket(worker->io);
    boost::system::error_code error;
    socket.assign(peer.protocol(), fd, error);
    if (error) {
      ::close(fd);
      return;
    }
    worker->shared->connections.fetch_add(1, std::memory_order_relaxed);
    // One that another process has taken is not refused any more.
    auto place = worker->shared->addresses.enter(peer.address(), worker->shared->address_connections_max);
    auto connection = std::make_unique<Connection>(worker, std::move(socket), address_text(peer.address()),
                                                   Connection::Admission::adopted,
                                                   place ? std::move(*place) : AddressCount::Place{}, received);
    asio::co_spawn(worker->io, Connection::run(std::move(connection)), asio::detached);
  });
}

void Server::stop_accepting() {
  for (const auto& worker : state_->workers) {
    asio::post(worker->io, [worker] {
      boost::system::error_code ignored;
      for (const auto& acceptor : worker->acceptors) acceptor->close(ignored);
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
