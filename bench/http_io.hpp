#pragma once
// What the bench programs share: sockets, epoll, a minimal HTTP/1.1 message reader and a log-linear histogram. Not part
// of the product and deliberately none of its code, so that a fault in net/ cannot hide in its own measurement.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace ganglion::bench {

inline std::int64_t now_ns() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

[[noreturn]] inline void die(const char* what) {
  std::perror(what);
  std::exit(1);
}

inline void set_up(int fd) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

inline sockaddr_in loopback(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

inline int listen_on(int& port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int one = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in address = loopback(port);
  if (::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || ::listen(fd, 4096) != 0) die("listen");
  socklen_t size = sizeof address;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  port = ntohs(address.sin_port);
  set_up(fd);
  return fd;
}

inline int connect_to(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(port);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    ::close(fd);
    return -1;
  }
  set_up(fd);
  return fd;
}

inline void watch(int epoll, int fd, std::uint32_t events, std::uint64_t tag, int how = EPOLL_CTL_ADD) {
  epoll_event event{.events = events, .data = {.u64 = tag}};
  ::epoll_ctl(epoll, how, fd, &event);
}

// Value of a header in a message head, "" if absent; names in lower case, heads as our own peers write them.
inline std::string_view header(std::string_view head, std::string_view name) {
  std::size_t at = head.find("\r\n");
  while (at != std::string_view::npos && at + 2 < head.size()) {
    const std::size_t begin = at + 2;
    at = head.find("\r\n", begin);
    std::string_view line = head.substr(begin, at == std::string_view::npos ? std::string_view::npos : at - begin);
    if (line.size() <= name.size() || line[name.size()] != ':') continue;
    bool same = true;
    for (std::size_t i = 0; i < name.size() && same; ++i) same = (line[i] | 0x20) == name[i] || line[i] == name[i];
    if (!same) continue;
    line.remove_prefix(name.size() + 1);
    while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    return line;
  }
  return {};
}

inline std::int64_t to_int(std::string_view text, std::int64_t fallback = -1) {
  std::int64_t value = fallback;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// Log-linear: 64 sub-buckets per power of two, under 1.6 % error, from 1 ns to hours.
class Histogram {
 public:
  void add(std::int64_t ns) {
    const auto value = static_cast<std::uint64_t>(ns < 1 ? 1 : ns);
    ++counts_[index(value)];
    ++total_;
    if (value > max_) max_ = value;
  }
  std::uint64_t total() const { return total_; }
  double max_us() const { return static_cast<double>(max_) / 1e3; }
  double quantile_us(double q) const {
    if (total_ == 0) return 0;
    auto left = static_cast<std::uint64_t>(q * static_cast<double>(total_ - 1)) + 1;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      if (counts_[i] >= left) return static_cast<double>(upper(i)) / 1e3;
      left -= counts_[i];
    }
    return max_us();
  }

 private:
  static constexpr unsigned kSubBits = 6;
  static std::size_t index(std::uint64_t value) {
    const auto width = static_cast<unsigned>(std::bit_width(value));
    if (width <= kSubBits + 1) return static_cast<std::size_t>(value);
    const unsigned shift = width - kSubBits - 1;
    return (static_cast<std::size_t>(shift) << kSubBits) + static_cast<std::size_t>(value >> shift);
  }
  static std::uint64_t upper(std::size_t index) {
    if (index < (2U << kSubBits)) return index;
    const std::size_t shift = (index >> kSubBits) - 1;
    return (((index & ((1U << kSubBits) - 1)) | (1U << kSubBits)) + 1) << shift;
  }
  std::array<std::uint64_t, (64 << kSubBits)> counts_{};
  std::uint64_t total_ = 0;
  std::uint64_t max_ = 0;
};

// `--name value` words.
inline std::string option(int argc, char** argv, std::string_view name, std::string fallback) {
  for (int i = 1; i + 1 < argc; ++i) {
    if (argv[i] == "--" + std::string{name}) return argv[i + 1];
  }
  return fallback;
}

inline bool flag(int argc, char** argv, std::string_view name) {
  for (int i = 1; i < argc; ++i) {
    if (argv[i] == "--" + std::string{name}) return true;
  }
  return false;
}

}  // namespace ganglion::bench
