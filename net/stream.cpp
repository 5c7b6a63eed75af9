// See stream.hpp.

#include "net/stream.hpp"

#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/limits.hpp"

namespace ganglion::net {

namespace asio = boost::asio;

Stream::Stream(Socket socket) : executor_(socket.get_executor()), set_(ReadySet::of(executor_)) {
  boost::system::error_code ignored;
  socket.native_non_blocking(true, ignored);
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  // Bytes that the kernel takes but has not sent count as buffered per stream too.
  const int unsent_bytes_max = static_cast<int>(core::kStreamBufferBytesMax);
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent_bytes_max, sizeof unsent_bytes_max);
  boost::system::error_code error;
  const int fd = socket.release(error);
  if (error) return;  // as a closed stream: every read and wait fails
  fd_ = fd;
  try {
    registered_ = set_.add(fd_, *this);
  } catch (...) {
    ::close(fd_);  // nobody else would: there is no destructor for what was not made
    throw;
  }
}

Stream::~Stream() {
  if (destroyed_ != nullptr) *destroyed_ = true;
  close();
}

void Stream::leave() {
  if (std::exchange(registered_, false)) set_.remove(fd_, *this);
}

int Stream::release() {
  leave();
  return std::exchange(fd_, -1);
}

void Stream::on_ready(std::uint32_t events) {
  bool destroyed = false;
  struct Guard {  // also past an exception of what is called here
    Stream& stream;
    const bool& destroyed;
    ~Guard() {
      if (!destroyed) stream.destroyed_ = nullptr;
    }
  } const guard{*this, destroyed};
  destroyed_ = &destroyed;
  const bool ended = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  peer_ended_ = peer_ended_ || ended;
  if (PeerListener* const listener = ended ? std::exchange(listener_, nullptr) : nullptr) {
    listener->on_hangup();
    if (destroyed) return;
  }
  for (Direction* direction : {&read_, &write_}) {
    const std::uint32_t own = direction == &read_ ? EPOLLIN | EPOLLRDHUP : EPOLLOUT;
    if ((events & (own | EPOLLHUP | EPOLLERR)) == 0) continue;
    if (!direction->waiter) {
      direction->ready = true;
      continue;
    }
    Waiter waiter = std::move(*direction->waiter);
    direction->waiter.reset();
    std::move(waiter)(true);
    if (destroyed) return;
  }
}

void Stream::on_shutdown() {
  registered_ = false;
  // With a waiter goes its coroutine, and with that perhaps this stream.
  const auto reader = std::exchange(read_.waiter, std::nullopt);
  const auto writer = std::exchange(write_.waiter, std::nullopt);
}

asio::awaitable<bool> Stream::wait(Direction& direction) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(bool)>(
      [this, &direction](Waiter waiter) { begin_wait(direction, std::move(waiter)); }, asio::use_awaitable);
}

void Stream::begin_wait(Direction& direction, Waiter waiter) {
  if (direction.waiter) end_wait(direction, true);
  direction.waiter.emplace(std::move(waiter));
  if (!registered_) {
    end_wait(direction, false);
  } else if (std::exchange(direction.ready, false) || (peer_ended_ && &direction == &read_)) {
    // The edge of the end came with, or before, that of the last bytes: no other will.
    end_wait(direction, true);
  }
}

void Stream::end_wait(Direction& direction, bool ready) {
  auto waiting = std::exchange(direction.waiter, std::nullopt);  // gone also where there is no memory to post it
  if (!waiting) return;
  asio::post(executor_, [waiter = std::move(*waiting), ready]() mutable { std::move(waiter)(ready); });
}

void Stream::start_tls(SslPtr ssl) {
  ssl_ = std::move(ssl);
  attach_socket(ssl_.get(), fd());
}

Io Stream::tls_result(int result) {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      read_.ready = false;
      return {Io::Kind::want_read, 0};
    case SSL_ERROR_WANT_WRITE:
      write_.ready = false;
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
  if (result != 1) return tls_result(result);
  read_.ready = true;
  return {Io::Kind::bytes, 0};
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
    read_.ready = true;  // OpenSSL reads a record at a time: the next may lie in the socket
    return {Io::Kind::bytes, n};
  }
  for (;;) {
    const auto n = ::recv(fd(), to, size, 0);
    if (n > 0) {
      filled_ = read_.ready = static_cast<std::size_t>(n) == size;
      return {Io::Kind::bytes, static_cast<std::size_t>(n)};
    }
    if (n == 0) return {Io::Kind::end, 0};
    if (errno == EAGAIN) {
      read_.ready = false;
      return {Io::Kind::want_read, 0};
    }
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
    if (errno == EAGAIN) {
      write_.ready = false;
      return {Io::Kind::want_write, 0};
    }
    if (errno != EINTR) return {Io::Kind::failed, 0};
  }
}

bool Stream::likely_readable() const {
  return filled_ || (ssl_ && SSL_has_pending(ssl_.get()) == 1);
}

bool Stream::tls_peer_closed() {
  if (!ssl_ || tls_broken_) return false;
  ERR_clear_error();
  char byte = 0;
  std::size_t n = 0;
  const int result = SSL_peek_ex(ssl_.get(), &byte, 1, &n);
  read_.ready = true;
  if (result == 1) return false;
  const Io io = tls_result(result);
  return io.kind == Io::Kind::end || io.kind == Io::Kind::failed;
}

bool Stream::quiet_and_open() {
  if (!is_open() || tls_broken_) return false;
  char byte = 0;
  if (!ssl_) {
    const bool heard = registered_ && set_.turn() != idle_since_;
    if (heard && !told() && !read_.ready && !peer_ended_) return true;
    if (::recv(fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN) return false;
    read_.ready = false;
    return true;
  }
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
  ::shutdown(fd_, SHUT_WR);
}

void Stream::reset_on_close() {
  tls_broken_ = true;
  const linger now{.l_onoff = 1, .l_linger = 0};
  if (is_open()) ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

void Stream::cancel() {
  end_wait(read_, false);
  end_wait(write_, false);
}

void Stream::close() {
  if (!is_open()) return;
  send_close_notify();
  leave();
  ::close(std::exchange(fd_, -1));
  cancel();
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
