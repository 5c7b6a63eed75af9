// See ready_source.hpp.

#include "net/ready_source.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <system_error>

#include "core/log.hpp"

namespace ganglion::net {
namespace {

class EpollSource final : public ReadySource {
 public:
  explicit EpollSource(int fd) : fd_(fd) {}
  ~EpollSource() override { ::close(fd_); }
  EpollSource(const EpollSource&) = delete;
  EpollSource& operator=(const EpollSource&) = delete;

  int descriptor() const override { return fd_; }
  bool asks() const override { return true; }

  bool add(int fd, ReadySet::Member& member, std::uint64_t& /*key*/) override {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = &member;
    return epoll_ctl(fd_, EPOLL_CTL_ADD, fd, &event) == 0;
  }

  void remove(int fd, std::uint64_t /*key*/) override {
    epoll_event event{};
    epoll_ctl(fd_, EPOLL_CTL_DEL, fd, &event);
  }

  int take(std::span<ReadyEvent> out) override {
    std::array<epoll_event, 64> events;
    const int most = static_cast<int>(std::min(out.size(), events.size()));
    const int count = epoll_wait(fd_, events.data(), most, 0);
    for (int i = 0; i < count; ++i) {
      const epoll_event event = events[static_cast<std::size_t>(i)];  // packed: no reference to its members
      out[static_cast<std::size_t>(i)] = {static_cast<ReadySet::Member*>(event.data.ptr), event.events};
    }
    return std::max(count, 0);
  }

 private:
  int fd_;
};

}  // namespace

std::unique_ptr<ReadySource> make_epoll_source() {
  const int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  return std::make_unique<EpollSource>(fd);
}

std::unique_ptr<ReadySource> make_ready_source() {
#if defined(GANGLION_IO_URING)
  if (auto source = make_uring_source()) return source;
  static std::atomic<bool> told{false};
  if (!told.exchange(true))
    core::log(core::LogLevel::warn, "io_uring_refused",
              {{"why", std::system_category().message(errno)}, {"effect", "epoll is used"}});
#endif
  return make_epoll_source();
}

}  // namespace ganglion::net
