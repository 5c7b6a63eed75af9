#pragma once
// Where a ReadySet's news come from: epoll, or io_uring in builds with GANGLION_IO_URING. Internal to net; one thread.

#include <cstdint>
#include <memory>
#include <span>

#include "net/ready_set.hpp"

namespace ganglion::net {

struct ReadyEvent {
  ReadySet::Member* member = nullptr;
  std::uint32_t events = 0;  // bits of epoll_event::events
};

class ReadySource {
 public:
  virtual ~ReadySource() = default;
  // Readable while take() has something to give.
  virtual int descriptor() const = 0;
  // Edges of reading, writing and hanging up of `fd`, and what is so already. `key` is the source's, until remove().
  // False where the kernel refuses.
  virtual bool add(int fd, ReadySet::Member& member, std::uint64_t& key) = 0;
  // Before `fd` is closed. Nothing is told of it afterwards.
  virtual void remove(int fd, std::uint64_t key) = 0;
  // What has happened since, as many as fit.
  virtual int take(std::span<ReadyEvent> out) = 0;
  // take() asks the kernel: what it did not tell had not happened.
  virtual bool asks() const = 0;
};

std::unique_ptr<ReadySource> make_epoll_source();  // throws std::system_error

#if defined(GANGLION_IO_URING)
// nullptr and errno where the kernel refuses (none, too old, forbidden by sysctl or seccomp).
std::unique_ptr<ReadySource> make_uring_source(unsigned entries = 256);
#endif

// io_uring where it is built in and allowed; a refusal is logged once.
std::unique_ptr<ReadySource> make_ready_source();

}  // namespace ganglion::net
