#pragma once
// A TCP connection, plain or TLS, as non-blocking reads and writes plus waits for readiness. Data moves by recv,
// sendmsg, SSL_read and SSL_write directly, and readiness comes from the thread's ReadySet, so the common case has no
// asynchronous operation and no system call but those that move data. Time limits and cancellation are the owner's: it
// calls cancel() or close(), and the wait ends.

#include <sys/uio.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "net/ready_set.hpp"
#include "net/tls.hpp"

namespace ganglion::net {

struct Io {
  enum class Kind : std::uint8_t {
    bytes,       // n > 0 bytes moved
    want_read,   // nothing moved: wait_read(), then again
    want_write,  // nothing moved: wait_write(), then again
    end,         // the peer ended its side properly (FIN; with TLS close_notify)
    failed,      // reset, cut TLS stream, TLS error
  };
  Kind kind = Kind::failed;
  std::size_t n = 0;
};

class Stream final : private ReadySet::Member {
 public:
  using Socket = boost::asio::ip::tcp::socket;

  class PeerListener {
   public:
    // The peer has ended its side or reset the connection, read or not. Called once at most, from the loop; may destroy
    // the stream.
    virtual void on_hangup() = 0;

   protected:
    ~PeerListener() = default;
  };

  // Takes the socket from Asio, makes it non-blocking and sets TCP_NODELAY and TCP_NOTSENT_LOWAT.
  explicit Stream(Socket socket);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream();

  // nullptr: nobody. The listener must outlive the stream or be taken back.
  void listen_for_hangup(PeerListener* listener) { listener_ = listener; }

  void start_tls(SslPtr ssl);  // before handshake_now()
  bool tls() const { return ssl_ != nullptr; }
  SSL* ssl() const { return ssl_.get(); }
  Io handshake_now();  // bytes: done

  Io read_now(char* to, std::size_t size);
  // Sends from the front of the list in one system call; n may be less than the whole.
  Io write_now(std::span<const iovec> pieces);
  // More bytes are likely to be there now: the last read filled its buffer, or TLS holds decrypted bytes.
  bool likely_readable() const;

  // False: cancelled or closed. True may be too early: reading or writing again tells. One caller a direction; a second
  // one sends the first away with true.
  boost::asio::awaitable<bool> wait_read() { return wait(read_); }
  boost::asio::awaitable<bool> wait_write() { return wait(write_); }

  // TLS only: the peer sent close_notify (looks past nothing that is unread).
  bool tls_peer_closed();
  // From here on the connection is idle.
  void begin_idle() { idle_since_ = set_.turn(); }
  // An idle connection as it should be: open, and nothing to read. Without a system call where the kernel has been
  // asked for news since it went idle, and had none.
  bool quiet_and_open();
  // Ends our side: close_notify, FIN. Reading goes on.
  void shutdown_send();
  void reset_on_close();  // close() sends RST
  void cancel();          // ends waits
  void close();
  // Gives the descriptor away, open and non-blocking as it is; the stream is closed from then on. Nobody may wait.
  int release();
  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }

 private:
  using Waiter = boost::asio::async_result<boost::asio::use_awaitable_t<>, void(bool)>::handler_type;
  struct Direction {
    bool ready = false;  // an edge came while nobody waited, and the socket has not said EAGAIN since
    std::optional<Waiter> waiter;
  };

  void on_ready(std::uint32_t events) override;
  void on_shutdown() override;
  boost::asio::awaitable<bool> wait(Direction& direction);
  void begin_wait(Direction& direction, Waiter waiter);
  void end_wait(Direction& direction, bool ready);  // later, from the loop
  void leave();
  Io tls_result(int result);
  void send_close_notify();

  const boost::asio::any_io_executor executor_;
  ReadySet& set_;
  int fd_ = -1;
  bool registered_ = false;
  bool peer_ended_ = false;
  std::uint64_t idle_since_ = 0;
  PeerListener* listener_ = nullptr;
  Direction read_;
  Direction write_;
  bool* destroyed_ = nullptr;  // on_ready() asks whether what it called destroyed this
  SslPtr ssl_;
  bool filled_ = false;
  bool tls_broken_ = false;  // SSL_shutdown is not allowed after a fatal error
};

// Skips n bytes of the list; returns what is left of it.
std::span<iovec> advance(std::span<iovec> pieces, std::size_t n);

}  // namespace ganglion::net
