#pragma once
// What the connections of one worker share, and what the workers of one server share. Internal to net.

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "core/limits.hpp"
#include "net/address_count.hpp"
#include "net/buffer_pool.hpp"
#include "net/exchange.hpp"
#include "net/hooks.hpp"
#include "net/http1_write.hpp"
#include "net/options.hpp"
#include "net/server.hpp"
#include "net/timer_wheel.hpp"
#include "net/tls.hpp"

namespace ganglion::net {

// What becomes of connections that have no request running.
enum class Hold : std::uint8_t {
  none,
  waiting,  // whether another process takes over is not decided: nothing new begins, nothing is closed
  giving,   // they are given to that process
};

// Thread-safe.
struct ServerShared {
  ServerShared(ServerOptions o, ServerHooks& h) : options(std::move(o)), hooks(h), certificate(options.tls) {}
  const ServerOptions options;
  ServerHooks& hooks;
  ServerCertificate certificate;
  std::atomic<std::size_t> connections{0};
  AddressCount addresses;
  std::size_t address_connections_max = 0;  // from one address; 0: any number
  std::function<void()> address_rejected;   // told of each past it
  std::atomic<bool> draining{false};
  std::atomic<Hold> hold{Hold::none};
  HandOff hand_off;  // set before `giving`
};

// A connection's place among all of them.
class Counted {
 public:
  explicit Counted(ServerShared& shared)
      : shared_(&shared), before_(shared.connections.fetch_add(1, std::memory_order_relaxed)) {}
  Counted(Counted&& other) noexcept : shared_(std::exchange(other.shared_, nullptr)), before_(other.before_) {}
  Counted& operator=(Counted&&) = delete;
  ~Counted() { give_back(); }
  std::size_t before() const { return before_; }  // how many there were
  void give_back() {
    if (shared_ != nullptr) shared_->connections.fetch_sub(1, std::memory_order_relaxed);
    shared_ = nullptr;
  }

 private:
  ServerShared* shared_;
  std::size_t before_;
};

// A listening socket of one worker.
struct Listener {
  explicit Listener(boost::asio::io_context& io) : acceptor(io), back_off(io) {}
  boost::asio::ip::tcp::acceptor acceptor;
  boost::asio::steady_timer back_off;
  bool waits = false;  // for connections, or until it may accept again
};

// On its io_context's thread, but for `exchanges`.
struct Worker {
  Worker(std::shared_ptr<ServerShared> s, boost::asio::io_context& context, Handler h)
      : shared(std::move(s)),
        io(context),
        handler(std::move(h)),
        wheel(TimerWheel::of(context.get_executor())),
        buffers(core::kHeaderBlockBytesMax, 256) {}

  std::shared_ptr<ServerShared> shared;
  boost::asio::io_context& io;
  Handler handler;
  std::vector<std::shared_ptr<Listener>> listeners;  // one, but for sockets that were inherited
  bool accepting = true;
  TimerWheel& wheel;
  BufferPool buffers;
  http1::DateCache date;
  std::vector<Connection*> open;  // each knows its place
  std::size_t rejecting = 0;      // connections over the cap that are being told so
  std::atomic<std::size_t> exchanges{0};
};

}  // namespace ganglion::net
