// See stream.hpp.

#include "net/stream.hpp"

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/limits.hpp"

namespace ganglion::net {

namespace asio = boost::asio;

Stream::Stream(Socket socket) : socket_(std::move(socket)) {
  boost::system::error_code ignored;
  socket_.native_non_blocking(true, ignored);
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  // Bytes that the kernel takes but has not sent count as buffered per stream too.
  const int unsent_bytes_max = static_cast<int>(core::kStreamBufferBytesMax);
  ::setsockopt(socket_.native_handle(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes_max, sizeof unsent_bytes_max);
}

Stream::~Stream() {
  close();
}

void Stream::start_tls(SslPtr ssl) {
  ssl_ = std::move(ssl);
  attach_socket(ssl_.get(), fd());
}

Io Stream::tls_result(int result) {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return {Io::Kind::want_read, 0};
    case SSL_ERROR_WANT_WRITE:
      return {Io::Kind::want_write, 0};
    case SSL_ERROR_ZERO_RETURN:
      return {Io::Kind::end, 0};
    default:
      tls_broken_ = true;
      return {Io::Kind::failed, 0};
  }
}

Io Stream::handshake_now() {
  ERR_clear_error();
  const int result = SSL_do_handshake(ssl_.get());
  return result == 1 ? Io{Io::Kind::bytes, 0} : tls_result(result);
}

Io Stream::read_now(char* to, std::size_t size) {
  filled_ = false;
  if (!is_open()) return {Io::Kind::failed, 0};
  if (ssl_) {
    ERR_clear_error();
    std::size_t n = 0;
    const int result = SSL_read_ex(ssl_.get(), to, size, &n);
    if (result != 1) return tls_result(result);
    filled_ = n == size;
    return {Io::Kind::bytes, n};
  }
  for (;;) {
    const auto n = ::recv(fd(), to, size, 0);
    if (n > 0) {
      filled_ = static_cast<std::size_t>(n) == size;
      return {Io::Kind::bytes, static_cast<std::size_t>(n)};
    }
    if (n == 0) return {Io::Kind::end, 0};
    if (errno == EAGAIN) return {Io::Kind::want_read, 0};
    if (errno != EINTR) return {Io::Kind::failed, 0};
  }
}

Io Stream::write_now(std::span<const iovec> pieces) {
  if (!is_open()) return {Io::Kind::failed, 0};
  if (ssl_) {
    // One TLS record of at most 16 KiB: small pieces are joined, a large first piece goes as it is.
    char record[16 * 1024];
    const void* from = pieces.front().iov_base;
    std::size_t size = std::min(pieces.front().iov_len, sizeof record);
    if (size < sizeof record && pieces.size() > 1) {
      size = 0;
      for (const iovec& piece : pieces) {
        const std::size_t take = std::min(piece.iov_len, sizeof record - size);
        std::memcpy(record + size, piece.iov_base, take);
        size += take;
      }
      from = record;
    }
    ERR_clear_error();
    std::size_t n = 0;
    const int result = SSL_write_ex(ssl_.get(), from, size, &n);
    return result == 1 ? Io{Io::Kind::bytes, n} : tls_result(result);
  }
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());
  message.msg_iovlen = pieces.size();
  for (;;) {
    const auto n = ::sendmsg(fd(), &message, MSG_NOSIGNAL);
    if (n >= 0) return {Io::Kind::bytes, static_cast<std::size_t>(n)};
    if (errno == EAGAIN) return {Io::Kind::want_write, 0};
    if (errno != EINTR) return {Io::Kind::failed, 0};
  }
}

bool Stream::likely_readable() const {
  return filled_ || (ssl_ && SSL_has_pending(ssl_.get()) == 1);
}

Stream::Wait Stream::wait_read() {
  return socket_.async_wait(Socket::wait_read, asio::as_tuple(asio::use_awaitable));
}

Stream::Wait Stream::wait_write() {
  return socket_.async_wait(Socket::wait_write, asio::as_tuple(asio::use_awaitable));
}

bool Stream::tls_peer_closed() {
  if (!ssl_ || tls_broken_) return false;
  ERR_clear_error();
  char byte = 0;
  std::size_t n = 0;
  const int result = SSL_peek_ex(ssl_.get(), &byte, 1, &n);
  if (result == 1) return false;
  const Io io = tls_result(result);
  return io.kind == Io::Kind::end || io.kind == Io::Kind::failed;
}

bool Stream::quiet_and_open() {
  if (!is_open() || tls_broken_) return false;
  char byte = 0;
  if (!ssl_) return ::recv(fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
  ERR_clear_error();
  std::size_t n = 0;
  const int result = SSL_peek_ex(ssl_.get(), &byte, 1, &n);
  return result != 1 && tls_result(result).kind == Io::Kind::want_read;
}

// Besides telling the peer, this keeps the session resumable: OpenSSL drops that of a connection freed without it.
void Stream::send_close_notify() {
  if (!ssl_ || tls_broken_ || !SSL_is_init_finished(ssl_.get())) return;
  if ((SSL_get_shutdown(ssl_.get()) & SSL_SENT_SHUTDOWN) != 0) return;
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
}

void Stream::shutdown_send() {
  if (!is_open()) return;
  send_close_notify();
  boost::system::error_code ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
}

void Stream::reset_on_close() {
  boost::system::error_code ignored;
  tls_broken_ = true;
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);
}

void Stream::cancel() {
  boost::system::error_code ignored;
  if (is_open()) socket_.cancel(ignored);
}

void Stream::close() {
  if (!is_open()) return;
  send_close_notify();
  boost::system::error_code ignored;
  socket_.close(ignored);
}

std::span<iovec> advance(std::span<iovec> pieces, std::size_t n) {
  while (!pieces.empty() && n >= pieces.front().iov_len) {
    n -= pieces.front().iov_len;
    pieces = pieces.subspan(1);
  }
  if (n > 0) {
    pieces.front().iov_base = static_cast<char*>(pieces.front().iov_base) + n;
    pieces.front().iov_len -= n;
  }
  return pieces;
}

}  // namespace ganglion::net
