// See raw_socket.hpp.

#include "tests/support/raw_socket.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace ganglion::test {

RawSocket::RawSocket(int fd) : fd_(fd) {
  const timeval limit{.tv_sec = 20, .tv_usec = 0};  // a machine may stand still for seconds
  ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  const int on = 1;
  ::setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

RawSocket::RawSocket(RawSocket&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), reset_(other.reset_), pending_(std::move(other.pending_)) {}

RawSocket& RawSocket::operator=(RawSocket&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = std::exchange(other.fd_, -1);
    reset_ = other.reset_;
    pending_ = std::move(other.pending_);
  }
  return *this;
}

RawSocket::~RawSocket() {
  close();
}

RawSocket RawSocket::connect(std::uint16_t port, const std::string& address, int receive_buffer_bytes) {
  const bool six = address.find(':') != std::string::npos;
  const int fd = ::socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer_bytes > 0) {
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof receive_buffer_bytes);
  }
  int result = -1;
  if (six) {
    sockaddr_in6 to{};
    to.sin6_family = AF_INET6;
    to.sin6_port = htons(port);
    inet_pton(AF_INET6, address.c_str(), &to.sin6_addr);
    result = ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to);
  } else {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    inet_pton(AF_INET, address.c_str(), &to.sin_addr);
    result = ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to);
  }
  if (result != 0) {
    ::close(fd);
    return {};
  }
  return RawSocket(fd);
}

bool RawSocket::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const auto n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

bool RawSocket::fill() {
  char buffer[65536];
  for (;;) {
    const auto n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == ECONNRESET) reset_ = true;
    if (n <= 0) return false;
    pending_.append(buffer, static_cast<std::size_t>(n));
    return true;
  }
}

std::string RawSocket::read_some(std::size_t bytes_max) {
  if (pending_.empty()) fill();
  const std::string out = pending_.substr(0, bytes_max);
  pending_.erase(0, out.size());
  return out;
}

std::string RawSocket::read_until(std::string_view marker) {
  std::size_t at = 0;
  while ((at = pending_.find(marker)) == std::string::npos) {
    if (!fill()) return std::exchange(pending_, {});
  }
  const std::string out = pending_.substr(0, at + marker.size());
  pending_.erase(0, out.size());
  return out;
}

std::string RawSocket::read_exactly(std::size_t bytes) {
  while (pending_.size() < bytes && fill()) {
  }
  const std::string out = pending_.substr(0, bytes);
  pending_.erase(0, out.size());
  return out;
}

std::string RawSocket::read_to_end() {
  while (fill()) {
  }
  return std::exchange(pending_, {});
}

std::string RawSocket::read_message(bool head_only) {
  std::string message = read_until("\r\n\r\n");
  if (head_only || !message.ends_with("\r\n\r\n")) return message;
  if (header_of(message, "Transfer-Encoding") == "chunked") {
    for (;;) {
      const std::string line = read_until("\r\n");
      message += line;
      const std::size_t size = line.empty() ? 0 : std::stoul(line, nullptr, 16);
      message += read_exactly(size + 2);
      if (size == 0) return message;
    }
  }
  const std::string length = header_of(message, "Content-Length");
  if (!length.empty()) message += read_exactly(std::stoul(length));
  return message;
}

bool RawSocket::ended() {
  return pending_.empty() && !fill() && (errno != EAGAIN || reset_);
}

bool RawSocket::wait_closed(std::chrono::milliseconds limit) {
  pollfd entry{.fd = fd_, .events = POLLRDHUP, .revents = 0};
  return ::poll(&entry, 1, static_cast<int>(limit.count())) == 1;
}

void RawSocket::half_close() {
  ::shutdown(fd_, SHUT_WR);
}

void RawSocket::close() {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
}

void RawSocket::reset() {
  const linger now{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

int status_of(const std::string& message) {
  return message.size() > 12 && message.starts_with("HTTP/1.") ? std::stoi(message.substr(9, 3)) : 0;
}

std::string header_of(const std::string& message, const std::string& name) {
  const std::string head = message.substr(0, message.find("\r\n\r\n") + 2);
  const std::size_t at = head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return {};
  const std::size_t start = at + name.size() + 4;
  return head.substr(start, head.find("\r\n", start) - start);
}

std::string body_of(const std::string& message) {
  const std::size_t at = message.find("\r\n\r\n");
  if (at == std::string::npos) return {};
  std::string raw = message.substr(at + 4);
  if (header_of(message, "Transfer-Encoding") != "chunked") return raw;
  std::string out;
  while (!raw.empty()) {
    const std::size_t line_end = raw.find("\r\n");
    if (line_end == std::string::npos) break;
    const std::size_t size = std::stoul(raw, nullptr, 16);
    if (size == 0) break;
    out += raw.substr(line_end + 2, size);
    raw.erase(0, std::min(raw.size(), line_end + 2 + size + 2));
  }
  return out;
}

}  // namespace ganglion::test
