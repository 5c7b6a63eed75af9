#pragma once
// Which sockets can be read, written, or have been left by their peer: a set of our own per io_context (of epoll, or of
// io_uring: ready_source.hpp), in which a socket is registered once, edge-triggered, for all of it. Waiting on a socket
// is then a pointer that is set, where Asio's async_wait costs a system call each; the loop pays one system call a
// batch of events instead. An Asio service; its thread only.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace ganglion::net {

class ReadySource;
struct ReadyEvent;

class ReadySet final : public boost::asio::execution_context::service {
 public:
  static boost::asio::execution_context::id id;

  class Member {
   public:
    // Called from the loop with the bits of epoll_event::events; may destroy this member or any other.
    virtual void on_ready(std::uint32_t events) = 0;
    // The io_context goes away: whatever waits must be dropped, not completed. May destroy this member.
    virtual void on_shutdown() = 0;

   protected:
    ~Member() = default;
    // The kernel has told of something that on_ready() has not been called for yet.
    bool told() const { return told_; }

   private:
    friend class ReadySet;
    std::size_t place_ = 0;
    std::uint64_t key_ = 0;  // the source's
    bool told_ = false;
  };

  static ReadySet& of(const boost::asio::any_io_executor& executor);
  explicit ReadySet(boost::asio::execution_context& context);
  ~ReadySet() override;

  // False where the kernel refuses (out of memory or watches). After true, remove() is called once, before the
  // descriptor is closed. What is ready already is told as well.
  bool add(int fd, Member& member);
  void remove(int fd, Member& member);
  // Grows whenever the kernel was asked and all that it had to tell was taken down (Member::told()); with io_uring,
  // which tells when it likes, never.
  std::uint64_t turn() const { return turn_; }

 private:
  void shutdown() override;
  void wait();
  void dispatch();

  static constexpr int kBatch = 64;

  std::unique_ptr<ReadySource> source_;
  std::optional<boost::asio::posix::stream_descriptor> descriptor_;  // the source's own, only to wait on
  std::vector<Member*> members_;
  bool waiting_ = false;
  std::unique_ptr<ReadyEvent[]> batch_;
  int batch_size_ = 0;
  std::uint64_t turn_ = 0;
};

}  // namespace ganglion::net
