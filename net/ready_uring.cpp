// Readiness by io_uring: one multishot poll a socket, whose events lie in memory that is shared with the kernel, so
// that taking them is no system call. Data still moves by recv and sendmsg (docs/adr/0015-io-uring.md).

#if defined(GANGLION_IO_URING)

#include <liburing.h>
#include <poll.h>
#include <sys/epoll.h>

#include <cerrno>
#include <vector>

#include "net/ready_source.hpp"

namespace ganglion::net {
namespace {

static_assert(POLLIN == EPOLLIN && POLLOUT == EPOLLOUT && POLLERR == EPOLLERR && POLLHUP == EPOLLHUP);

constexpr std::uint64_t kNobody = 0;  // of requests whose own end tells nothing
constexpr unsigned kMask = EPOLLIN | EPOLLOUT | EPOLLRDHUP;

class UringSource final : public ReadySource {
 public:
  UringSource() = default;
  ~UringSource() override {
    if (made_) io_uring_queue_exit(&ring_);
  }
  UringSource(const UringSource&) = delete;
  UringSource& operator=(const UringSource&) = delete;

  bool start(unsigned entries) {
    const int result = io_uring_queue_init(entries, &ring_, 0);
    made_ = result == 0;
    if (!made_) errno = -result;
    return made_;
  }

  int descriptor() const override { return ring_.ring_fd; }
  bool asks() const override { return false; }

  bool add(int fd, ReadySet::Member& member, std::uint64_t& key) override {
    if (free_.empty()) {
      // As much as there can be slots, so that remove() needs no memory.
      if (free_.capacity() <= slots_.size()) free_.reserve(2 * slots_.size() + 16);
      slots_.emplace_back();
      free_.push_back(static_cast<std::uint32_t>(slots_.size() - 1));
    }
    const std::uint32_t place = free_.back();
    Slot& slot = slots_[place];
    const std::uint64_t wanted = std::uint64_t{++slot.turn} << 32 | place;
    if (!poll(fd, wanted)) return false;
    free_.pop_back();
    slot.member = &member;
    slot.fd = fd;
    key = wanted;
    return true;
  }

  // The poll holds the socket open: it is ended now, not with the next wait.
  void remove(int /*fd*/, std::uint64_t key) override {
    Slot& slot = slots_[static_cast<std::uint32_t>(key)];
    slot.member = nullptr;
    free_.push_back(static_cast<std::uint32_t>(key));
    if (io_uring_sqe* const entry = next()) {
      io_uring_prep_poll_remove(entry, key);
      io_uring_sqe_set_data64(entry, kNobody);
      io_uring_submit(&ring_);
    }
  }

  int take(std::span<ReadyEvent> out) override {
    int count = 0;
    while (count < static_cast<int>(out.size())) {
      io_uring_cqe* event = nullptr;
      if (io_uring_peek_cqe(&ring_, &event) != 0) break;
      const std::uint64_t key = io_uring_cqe_get_data64(event);
      const int result = event->res;
      const bool goes_on = (event->flags & IORING_CQE_F_MORE) != 0;
      io_uring_cqe_seen(&ring_, event);
      if (key == kNobody) continue;
      Slot& slot = slots_[static_cast<std::uint32_t>(key)];
      if (slot.member == nullptr || slot.turn != key >> 32) continue;  // of a socket that has left
      if (!goes_on && !poll(slot.fd, key)) {
        out[static_cast<std::size_t>(count++)] = {slot.member, EPOLLERR | EPOLLHUP};
        continue;
      }
      if (result > 0) out[static_cast<std::size_t>(count++)] = {slot.member, static_cast<std::uint32_t>(result)};
    }
    return count;
  }

 private:
  struct Slot {
    ReadySet::Member* member = nullptr;
    int fd = -1;
    std::uint32_t turn = 0;  // tells its members apart
  };

  io_uring_sqe* next() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    if (entry == nullptr && io_uring_submit(&ring_) >= 0) entry = io_uring_get_sqe(&ring_);
    return entry;
  }

  bool poll(int fd, std::uint64_t key) {
    io_uring_sqe* const entry = next();
    if (entry == nullptr) return false;
    io_uring_prep_poll_multishot(entry, fd, kMask);
    io_uring_sqe_set_data64(entry, key);
    const int result = io_uring_submit(&ring_);
    if (result < 0) errno = -result;
    return result >= 0;
  }

  io_uring ring_{};
  bool made_ = false;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
};

}  // namespace

std::unique_ptr<ReadySource> make_uring_source(unsigned entries) {
  auto source = std::make_unique<UringSource>();
  if (!source->start(entries)) return nullptr;
  return source;
}

}  // namespace ganglion::net

#endif
