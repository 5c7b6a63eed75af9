// A server that is down, on a port that the kernel also chooses from for a connection's own end: in a network of the
// test's own there is no other to choose, so that every attempt would reach itself.

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <thread>

#include "net/redis_client.hpp"
#include "tests/support/raw_socket.hpp"
#include "tests/unit/net/redis_fixture.hpp"
#include "tests/unit/net/upstream_fixture.hpp"

namespace ganglion::net {
namespace {

using ganglion::test::RawSocket;

constexpr std::uint16_t kPort = 40'000;

// The calling thread has the loopback to itself from here on, with one port. False where that takes rights it has not.
bool enter_network_of_one_port() {
  if (::unshare(CLONE_NEWNET) != 0) return false;
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ifreq loopback{};
  std::strcpy(loopback.ifr_name, "lo");
  loopback.ifr_flags = IFF_UP | IFF_RUNNING;
  const bool up = ::ioctl(fd, SIOCSIFFLAGS, &loopback) == 0;
  ::close(fd);
  const int range = ::open("/proc/sys/net/ipv4/ip_local_port_range", O_WRONLY | O_CLOEXEC);
  const std::string_view one = "40000 40000";
  const bool set = range >= 0 && ::write(range, one.data(), one.size()) == static_cast<ssize_t>(one.size());
  ::close(range);
  return up && set;
}

bool connects_to_itself() {
  RawSocket socket = RawSocket::connect(kPort);
  const bool connected = socket.valid();
  socket.reset();
  return connected;
}
bool port_is_free() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(kPort);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool bound = ::bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
  ::close(fd);
  return bound;
}

// Runs `body` in such a network; false if there is none to be had.
bool in_network_of_one_port(const std::function<void()>& body) {
  bool entered = false;
  std::thread([&] {
    entered = enter_network_of_one_port();
    if (!entered) return;
    ASSERT_TRUE(connects_to_itself()) << "the network is not what this test is about";
    body();
  }).join();
  return entered;
}

class UpstreamConnectsToItself : public test::UpstreamTest {};

TEST_F(UpstreamConnectsToItself, IsARefusalAndLeavesThePortFree) {
  const bool ran = in_network_of_one_port([&] {
    UpstreamOptions options;
    options.base_url = "http://127.0.0.1:" + std::to_string(kPort);
    run(options, [&](UpstreamClient& client) -> boost::asio::awaitable<void> {
      for (int i = 0; i < 3; ++i) {
        EXPECT_EQ((co_await ask(client)).error, core::ErrorKind::upstream_connect);
      }
      EXPECT_EQ(client.open_connections(), 0U);
    });
    EXPECT_EQ(hooks_.last_failure, UpstreamFailure::connect);
    EXPECT_TRUE(port_is_free());
  });
  if (!ran) GTEST_SKIP() << "a network of its own takes rights that this process has not";
}

class RedisConnectsToItself : public ganglion::test::RedisTest {};

TEST_F(RedisConnectsToItself, IsARefusalAndLeavesThePortFree) {
  const bool ran = in_network_of_one_port([&] {
    {
      RedisClient client(io_.get_executor(), {.addresses = {"127.0.0.1:" + std::to_string(kPort)}}, hooks_);
      this->run([&]() -> boost::asio::awaitable<void> {
        const auto result = co_await client.command(RedisCommand{"PING"});
        EXPECT_FALSE(result);
        EXPECT_TRUE(co_await this->wait_state(client, RedisState::down));
        EXPECT_EQ(client.why(), RedisDown::refused);
      });
    }
    EXPECT_TRUE(port_is_free());
  });
  if (!ran) GTEST_SKIP() << "a network of its own takes rights that this process has not";
}

}  // namespace
}  // namespace ganglion::net
