#pragma once
// A TCP connection, plain or TLS, as non-blocking reads and writes plus waits for readiness. Data moves by recv,
// sendmsg, SSL_read and SSL_write directly; Asio is asked only to wait, so the common case has no asynchronous
// operation per transfer. Time limits and cancellation are the owner's: it calls cancel() or close(), and the wait
// ends.

#include <sys/uio.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstddef>
#include <memory>
#include <span>
#include <tuple>

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

class Stream {
 public:
  using Socket = boost::asio::ip::tcp::socket;
  using Wait = boost::asio::awaitable<std::tuple<boost::system::error_code>>;

  // Makes the socket non-blocking and sets TCP_NODELAY and TCP_NOTSENT_LOWAT.
  explicit Stream(Socket socket);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream();

  void start_tls(SslPtr ssl);  // before handshake_now()
  bool tls() const { return ssl_ != nullptr; }
  SSL* ssl() const { return ssl_.get(); }
  Io handshake_now();  // bytes: done

  Io read_now(char* to, std::size_t size);
  // Sends from the front of the list in one system call; n may be less than the whole.
  Io write_now(std::span<const iovec> pieces);
  // More bytes are likely to be there now: the last read filled its buffer, or TLS holds decrypted bytes.
  bool likely_readable() const;

  // Complete with an error when cancelled or closed.
  Wait wait_read();
  Wait wait_write();

  // TLS only: the peer sent close_notify (looks past nothing that is unread).
  bool tls_peer_closed();
  // An idle connection as it should be: open, and nothing to read.
  bool quiet_and_open();
  // Ends our side: close_notify, FIN. Reading goes on.
  void shutdown_send();
  void reset_on_close();  // close() sends RST
  void cancel();          // ends waits
  void close();
  bool is_open() const { return socket_.is_open(); }
  int fd() { return socket_.native_handle(); }

 private:
  Io tls_result(int result);
  void send_close_notify();

  Socket socket_;
  SslPtr ssl_;
  bool filled_ = false;
  bool tls_broken_ = false;  // SSL_shutdown is not allowed after a fatal error
};

// Skips n bytes of the list; returns what is left of it.
std::span<iovec> advance(std::span<iovec> pieces, std::size_t n);

}  // namespace ganglion::net
