// epoll and, where it is built in, io_uring: the same news of the same sockets.

#include "net/ready_source.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <functional>
#include <memory>
#include <vector>

namespace ganglion::net {
namespace {

struct Sink final : ReadySet::Member {
  void on_ready(std::uint32_t /*events*/) override {}
  void on_shutdown() override {}
};

struct Sockets {
  Sockets() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds.data()), 0); }
  ~Sockets() {
    for (const int fd : fds)
      if (fd >= 0) ::close(fd);
  }
  void close_ours() { ::close(std::exchange(fds[0], -1)); }
  std::array<int, 2> fds{-1, -1};
};

using Make = std::function<std::unique_ptr<ReadySource>()>;

struct Kind {
  const char* name;
  Make make;
};

std::vector<Kind> kinds() {
  std::vector<Kind> out{{"epoll", make_epoll_source}};
#if defined(GANGLION_IO_URING)
  out.push_back({"io_uring", [] { return make_uring_source(); }});
#endif
  return out;
}

class ReadySourceTest : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    source_ = GetParam().make();
    if (!source_) GTEST_SKIP() << "the kernel refuses it here";
  }
  // What is told of `member` within a second, all events together; 0: nothing.
  std::uint32_t told(const ReadySet::Member& member, int wait_ms = 1000) {
    pollfd wait{.fd = source_->descriptor(), .events = POLLIN, .revents = 0};
    std::uint32_t all = 0;
    while (all == 0 && ::poll(&wait, 1, wait_ms) > 0) {
      std::array<ReadyEvent, 8> events;
      const int count = source_->take(events);
      for (int i = 0; i < count; ++i)
        if (events[static_cast<std::size_t>(i)].member == &member) all |= events[static_cast<std::size_t>(i)].events;
    }
    return all;
  }

  std::unique_ptr<ReadySource> source_;
  Sink sink_;
};

TEST_P(ReadySourceTest, TellsOfEachEdgeOnceAndAgain) {
  Sockets pair;
  std::uint64_t key = 0;
  ASSERT_TRUE(source_->add(pair.fds[0], sink_, key));
  EXPECT_NE(told(sink_) & EPOLLOUT, 0U) << "what is so already";
  EXPECT_EQ(told(sink_, 20), 0U) << "and not again";
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(::write(pair.fds[1], "x", 1), 1);
    EXPECT_NE(told(sink_) & EPOLLIN, 0U) << i << ": bytes that come while others lie unread are news too";
  }
  ASSERT_EQ(::shutdown(pair.fds[1], SHUT_WR), 0);
  EXPECT_NE(told(sink_) & EPOLLRDHUP, 0U);
  source_->remove(pair.fds[0], key);
}

TEST_P(ReadySourceTest, NothingIsToldOfWhoHasLeftAndItsSocketCloses) {
  Sockets first;
  Sockets second;
  Sink other;
  std::uint64_t key = 0;
  std::uint64_t other_key = 0;
  ASSERT_TRUE(source_->add(first.fds[0], sink_, key));
  ASSERT_NE(told(sink_), 0U);
  ASSERT_EQ(::write(first.fds[1], "x", 1), 1);  // its news may be on their way
  source_->remove(first.fds[0], key);
  ASSERT_TRUE(source_->add(second.fds[0], other, other_key));
  EXPECT_EQ(told(sink_, 20), 0U);
  first.close_ours();
  pollfd peer{.fd = first.fds[1], .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&peer, 1, 1000), 1) << "nothing holds the socket open";
  char byte = 0;
  const auto got = ::recv(first.fds[1], &byte, 1, 0);
  EXPECT_TRUE(got == 0 || (got < 0 && errno == ECONNRESET));
  ASSERT_EQ(::write(second.fds[1], "y", 1), 1);
  EXPECT_NE(told(other) & EPOLLIN, 0U);
  source_->remove(second.fds[0], other_key);
}

TEST_P(ReadySourceTest, MoreSocketsThanOneBatchHolds) {
  constexpr std::size_t kCount = 700;  // more than io_uring's queue has places
  std::vector<std::unique_ptr<Sockets>> pairs;
  std::vector<std::unique_ptr<Sink>> sinks;
  std::vector<std::uint64_t> keys(kCount);
  for (std::size_t i = 0; i < kCount; ++i) {
    pairs.push_back(std::make_unique<Sockets>());
    sinks.push_back(std::make_unique<Sink>());
    ASSERT_TRUE(source_->add(pairs[i]->fds[0], *sinks[i], keys[i]));
  }
  std::array<ReadyEvent, 64> events;
  while (source_->take(events) > 0) {
  }
  for (const auto& pair : pairs) ASSERT_EQ(::write(pair->fds[1], "x", 1), 1);
  std::size_t readable = 0;
  pollfd wait{.fd = source_->descriptor(), .events = POLLIN, .revents = 0};
  while (readable < kCount && ::poll(&wait, 1, 1000) > 0) {
    const int count = source_->take(events);
    for (int i = 0; i < count; ++i) readable += (events[static_cast<std::size_t>(i)].events & EPOLLIN) != 0 ? 1 : 0;
  }
  EXPECT_GE(readable, kCount);
  for (std::size_t i = 0; i < kCount; ++i) source_->remove(pairs[i]->fds[0], keys[i]);
}

INSTANTIATE_TEST_SUITE_P(Kinds, ReadySourceTest, ::testing::ValuesIn(kinds()),
                         [](const auto& kind) { return std::string{kind.param.name}; });

#if defined(GANGLION_IO_URING)
TEST(ReadySource, ARefusedRingIsNoSource) {
  errno = 0;
  EXPECT_EQ(make_uring_source(0), nullptr);  // as where a sysctl or seccomp forbids it
  EXPECT_EQ(errno, EINVAL);
}
#endif

}  // namespace
}  // namespace ganglion::net
