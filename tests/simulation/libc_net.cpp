// The C library's sockets, epoll and eventfd, as the simulated machine has them.

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstdarg>

#include "tests/simulation/net.hpp"

using ganglion::sim::net;
using ganglion::sim::next_symbol;

// NOLINTBEGIN(readability-identifier-naming): the C library's names
#define REAL(name)                                                                         \
  ([] {                                                                                    \
    static decltype(&::name) found = nullptr;                                              \
    if (found == nullptr) found = reinterpret_cast<decltype(&::name)>(next_symbol(#name)); \
    return found;                                                                          \
  }())

namespace {

ganglion::sim::Net* of(int fd) {
  auto* const n = net();
  return n != nullptr && n->knows(fd) ? n : nullptr;
}

std::uint16_t port_of(const sockaddr* address) {
  return ntohs(reinterpret_cast<const sockaddr_in*>(address)->sin_port);
}

}  // namespace

extern "C" {

int socket(int domain, int type, int protocol) noexcept {
  auto* const n = net();
  if (n == nullptr || domain != AF_INET) return REAL(socket)(domain, type, protocol);
  return n->make_socket();
}

int bind(int fd, const sockaddr* address, socklen_t size) noexcept {
  auto* const n = of(fd);
  return n == nullptr ? REAL(bind)(fd, address, size) : n->bind(fd, port_of(address));
}

int listen(int fd, int backlog) noexcept {
  auto* const n = of(fd);
  return n == nullptr ? REAL(listen)(fd, backlog) : n->listen(fd);
}

int accept(int fd, sockaddr* address, socklen_t* size) {
  auto* const n = of(fd);
  return n == nullptr ? REAL(accept)(fd, address, size) : n->accept(fd, address, size);
}

int accept4(int fd, sockaddr* address, socklen_t* size, int flags) {
  auto* const n = of(fd);
  return n == nullptr ? REAL(accept4)(fd, address, size, flags) : n->accept(fd, address, size);
}

int connect(int fd, const sockaddr* address, socklen_t size) {
  auto* const n = of(fd);
  return n == nullptr ? REAL(connect)(fd, address, size) : n->connect_to(fd, port_of(address));
}

ssize_t recv(int fd, void* to, size_t size, int flags) {
  auto* const n = of(fd);
  if (n == nullptr) return REAL(recv)(fd, to, size, flags);
  const iovec piece{.iov_base = to, .iov_len = size};
  return n->receive(fd, &piece, 1, flags);
}

ssize_t recvmsg(int fd, msghdr* message, int flags) {
  auto* const n = of(fd);
  if (n == nullptr) return REAL(recvmsg)(fd, message, flags);
  return n->receive(fd, message->msg_iov, message->msg_iovlen, flags);
}

ssize_t send(int fd, const void* data, size_t size, int flags) {
  auto* const n = of(fd);
  if (n == nullptr) return REAL(send)(fd, data, size, flags);
  const iovec piece{.iov_base = const_cast<void*>(data), .iov_len = size};
  return n->send(fd, &piece, 1);
}

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  auto* const n = of(fd);
  if (n == nullptr) return REAL(sendmsg)(fd, message, flags);
  return n->send(fd, message->msg_iov, message->msg_iovlen);
}

ssize_t readv(int fd, const iovec* pieces, int count) {
  auto* const n = of(fd);
  if (n == nullptr) return REAL(readv)(fd, pieces, count);
  return n->receive(fd, pieces, static_cast<std::size_t>(count), 0);
}

ssize_t writev(int fd, const iovec* pieces, int count) {
  auto* const n = of(fd);
  if (n == nullptr) return REAL(writev)(fd, pieces, count);
  return n->send(fd, pieces, static_cast<std::size_t>(count));
}

int shutdown(int fd, int how) noexcept {
  auto* const n = of(fd);
  if (n == nullptr) return REAL(shutdown)(fd, how);
  return how == SHUT_RD ? 0 : n->shut(fd);
}

int getsockname(int fd, sockaddr* address, socklen_t* size) noexcept {
  auto* const n = of(fd);
  return n == nullptr ? REAL(getsockname)(fd, address, size) : n->name(fd, true, address, size);
}

int getpeername(int fd, sockaddr* address, socklen_t* size) noexcept {
  auto* const n = of(fd);
  return n == nullptr ? REAL(getpeername)(fd, address, size) : n->name(fd, false, address, size);
}

int setsockopt(int fd, int level, int name, const void* value, socklen_t size) noexcept {
  auto* const n = of(fd);
  return n == nullptr ? REAL(setsockopt)(fd, level, name, value, size) : n->option(fd, level, name, value);
}

int getsockopt(int fd, int level, int name, void* value, socklen_t* size) noexcept {
  auto* const n = of(fd);
  return n == nullptr ? REAL(getsockopt)(fd, level, name, value, size) : n->get_option(fd, level, name, value, size);
}

int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  if (of(fd) != nullptr) return 0;  // FIONBIO: all of them are non-blocking
  static const auto real = reinterpret_cast<int (*)(int, unsigned long, ...)>(next_symbol("ioctl"));
  return real(fd, request, argument);
}

int poll(pollfd* fds, nfds_t count, int timeout) {
  if (count != 1 || of(fds->fd) == nullptr) return REAL(poll)(fds, count, timeout);
  fds->revents = static_cast<short>(of(fds->fd)->ready(fds->fd) &
                                    (static_cast<unsigned short>(fds->events) | EPOLLERR | EPOLLHUP));
  return fds->revents != 0 ? 1 : 0;
}

int epoll_create1(int flags) noexcept {
  auto* const n = net();
  return n == nullptr ? REAL(epoll_create1)(flags) : n->make_epoll();
}

int epoll_ctl(int epoll, int op, int fd, epoll_event* event) noexcept {
  auto* const n = of(epoll);
  return n == nullptr ? REAL(epoll_ctl)(epoll, op, fd, event) : n->control(epoll, op, fd, event);
}

int epoll_wait(int epoll, epoll_event* out, int max, int timeout) {
  auto* const n = of(epoll);
  return n == nullptr ? REAL(epoll_wait)(epoll, out, max, timeout) : n->wait(epoll, out, max, timeout);
}

int eventfd(unsigned count, int flags) noexcept {
  auto* const n = net();
  return n == nullptr ? REAL(eventfd)(count, flags) : n->make_event(count);
}

// Without it Asio computes how long to wait in epoll_wait, which is the machine's.
int timerfd_create(int clock, int flags) noexcept {
  if (net() == nullptr) return REAL(timerfd_create)(clock, flags);
  errno = ENOSYS;
  return -1;
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
