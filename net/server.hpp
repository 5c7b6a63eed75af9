#pragma once
// The HTTP/1.1 server: one SO_REUSEPORT acceptor per worker, connections that never leave their worker, TLS, caps,
// draining. It owns no threads: the caller runs each worker's io_context on one thread.

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "net/exchange.hpp"
#include "net/hooks.hpp"
#include "net/options.hpp"

namespace ganglion::net {

struct ServerWorker {
  boost::asio::io_context* io = nullptr;  // io_context(1), run by one thread; outlives the Server's connections
  Handler handler;
};

// Takes an open connection and what was read of it and not used. Any worker's thread; may wait a little.
using HandOff = std::function<void(int fd, std::string_view received)>;

// Life: construct, listen(), run the io_contexts; stop_accepting() -> drain() -> poll connections() until 0 or the
// drain window is over -> cancel_all() -> stop the io_contexts -> destroy. All public calls are thread-safe.
class Server {
 public:
  Server(ServerOptions options, std::vector<ServerWorker> workers, ServerHooks& hooks);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Before listen(): past so many open connections from one address (IPv6: one /64) a new one gets 429 and is closed,
  // and `rejected` is called, on a worker's thread.
  void limit_addresses(std::size_t connections_max, std::function<void()> rejected);

  // Loads the certificate, binds and starts to accept; returns the bound port. Errors are `internal` with the cause in
  // the message (address in use also when another process holds the port with SO_REUSEPORT).
  // `inherited`: sockets that listen already, from a service manager or from the process that this one replaces; owned
  // from then on. Those of another address than the configured one are closed.
  core::Result<std::uint16_t> listen(const std::vector<int>& inherited = {});

  // Replacing this process by another, without a refused connection or a cut one: pause(), then either resume() or
  // give(). The listening sockets are shared with the other process all the while.
  std::vector<int> listeners() const;  // still owned by the server
  void pause();                        // accepts nothing, begins no request, closes nothing
  void resume();
  // Closes this process's copies of the listening sockets and gives away every connection that has no request running,
  // now or after its request. TLS connections end with their request instead.
  void give(HandOff to);
  // The other side: takes such a connection over.
  void adopt(int fd, std::string received);

  void stop_accepting();
  // Closes idle connections; running exchanges answer with `Connection: close` and are the connection's last.
  void drain();
  // Cancels every running exchange with `shutdown` and closes what has none.
  void cancel_all();
  std::size_t connections() const;  // open now, lingering closes included
  std::size_t exchanges() const;    // handlers running now

  // Reads certificate and key anew: new handshakes use them, on failure the old ones stay and the error is logged and
  // returned. Also happens by itself within 5 s after one of the files changed. Any thread.
  core::Result<void> reload_tls(const TlsServerOptions& options);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace ganglion::net
