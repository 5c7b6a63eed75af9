// A Redis server that dies, hangs, loads, refuses to write, or speaks nonsense: how fast the circuit opens, that
// commands then fail at once, and how fast it closes again. Times are the best of a dozen where they are bounds on us,
// because the machine may be busy.

#include <gtest/gtest.h>

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <thread>

#include "net/redis_client.hpp"
#include "tests/support/redis_server.hpp"
#include "tests/unit/net/redis_fixture.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using test::RedisServer;
using Clock = std::chrono::steady_clock;

class RedisFailureTest : public test::RedisTest {
 protected:
  // A busy machine does not look like a server that hangs.
  static RedisOptions patient(const RedisServer& server) {
    return {.addresses = {server.address()}, .command_timeout = 20s, .connect_timeout = 20s, .hung_after = 20s};
  }
  // Commands go on, each with the default limit of 25 ms; the time until the circuit is open.
  asio::awaitable<std::chrono::duration<double>> time_to_open(RedisClient& client) {
    const auto began = Clock::now();
    while (client.state() != RedisState::down && Clock::now() < began + 30s) {
      const auto sent = Clock::now();
      const auto result = co_await client.command(RedisCommand{"GET", "k"});
      longest_ = std::max<std::chrono::duration<double>>(longest_, Clock::now() - sent);
      if (result) co_await pause(1ms);
    }
    co_return Clock::now() - began;
  }

  asio::awaitable<std::chrono::duration<double>> time_to_close(RedisClient& client) {
    const auto began = Clock::now();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
    co_return Clock::now() - began;
  }

  // Fails without waiting.
  static asio::awaitable<void> expect_fast_failure(RedisClient& client) {
    const auto began = Clock::now();
    for (int i = 0; i < 100; ++i) {
      const auto result = co_await client.command(RedisCommand{"GET", "k"});
      if (client.state() == RedisState::down)
        EXPECT_TRUE(!result && result.error().failure == RedisFailure::unavailable);
    }
    EXPECT_LT(std::chrono::duration<double>(Clock::now() - began).count(), 2.0) << "each would wait for 25 ms";
    EXPECT_FALSE(client.available("k"));
  }

  std::chrono::duration<double> longest_{0};  // one command, while the circuit was not open
};

TEST_F(RedisFailureTest, StoppedServerOpensTheCircuitWithin100msAndClosesItWithin1s) {
  RedisServer server;
  RedisClient client(io_.get_executor(), {.addresses = {server.address()}}, hooks_);
  std::chrono::duration<double> open{9};
  std::chrono::duration<double> close{9};
  run([&]() -> asio::awaitable<void> {
    client.start();
    for (int i = 0; i < 12; ++i) {
      EXPECT_TRUE(co_await wait_state(client, RedisState::up));
      longest_ = {};
      server.stop();
      open = std::min(open, co_await time_to_open(client));
      co_await expect_fast_failure(client);
      co_await pause(700ms);  // probes hang one after the other
      EXPECT_EQ(client.state(), RedisState::down);
      EXPECT_EQ(client.why(), RedisDown::hung);
      server.resume();
      close = std::min(close, co_await time_to_close(client));
      if (open < 100ms && close < 1s && longest_ < 60ms) break;
    }
  });
  EXPECT_LE(open.count(), 0.1);
  EXPECT_LE(close.count(), 1.0);
  EXPECT_LE(longest_.count(), 0.06);
}

TEST_F(RedisFailureTest, KilledServerOpensTheCircuitAtOnceAndComesBack) {
  RedisServer server;
  RedisClient client(io_.get_executor(), patient(server), hooks_);
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
    co_await client.command(RedisCommand{"SET", "k", "v"});
    server.kill();
    EXPECT_LE((co_await time_to_open(client)).count(), 4.0);
    co_await expect_fast_failure(client);
    co_await pause(1500ms);
    EXPECT_EQ(client.why(), RedisDown::refused);
    server.restart();
    EXPECT_TRUE(server.wait_ready());
    EXPECT_LE((co_await time_to_close(client)).count(), 20.0);
    const auto got = co_await client.command(RedisCommand{"GET", "k"}, core::Deadline::after(20s));
    EXPECT_TRUE(got && got->is_nil());  // restarted empty
  });
}

TEST_F(RedisFailureTest, IdleConnectionToAStoppedServerIsFoundOut) {
  RedisServer server;
  RedisClient client(io_.get_executor(), {.addresses = {server.address()}, .ping_interval = 100ms}, hooks_);
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
    server.stop();
    EXPECT_TRUE(co_await wait_state(client, RedisState::down));
    server.resume();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
  });
  EXPECT_EQ(hooks_.answers, 0);  // pings of our own are not commands
}

TEST_F(RedisFailureTest, NothingListeningIsDownFromTheStart) {
  RedisClient client(io_.get_executor(), {.addresses = {"127.0.0.1:" + std::to_string(test::free_port())}}, hooks_);
  run([&]() -> asio::awaitable<void> {
    const auto result = co_await client.command(RedisCommand{"PING"});
    EXPECT_FALSE(result);
    EXPECT_TRUE(co_await wait_state(client, RedisState::down));
    EXPECT_EQ(client.why(), RedisDown::refused);
  });
}

TEST_F(RedisFailureTest, NameThatDoesNotResolveIsDown) {
  RedisClient client(io_.get_executor(), {.addresses = {"no-such-host.invalid:6379"}}, hooks_);
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::down));
  });
}

TEST_F(RedisFailureTest, SecondAddressIsTriedWhenTheFirstIsDown) {
  const RedisServer server;
  RedisClient client(io_.get_executor(),
                     {.addresses = {"127.0.0.1:" + std::to_string(test::free_port()), server.address()}}, hooks_);
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
  });
}

TEST_F(RedisFailureTest, LoadingServerIsDownUntilItHasLoaded) {
  RedisServer server("enable-debug-command yes\nkey-load-delay 3000\nloading-process-events-interval-bytes 1024");
  server.say({"DEBUG", "POPULATE", "500"});
  server.say({"SAVE"});
  RedisClient client(io_.get_executor(), patient(server), hooks_);
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
    server.restart();
    const auto until = Clock::now() + 30s;
    while (!hooks_.was_down(RedisDown::loading) && Clock::now() < until) co_await pause(2ms);
    EXPECT_TRUE(hooks_.was_down(RedisDown::loading));
    EXPECT_TRUE(server.wait_ready());
    EXPECT_LE((co_await time_to_close(client)).count(), 20.0);
    EXPECT_TRUE(co_await client.command(RedisCommand{"GET", "key:1"}, core::Deadline::after(20s)));
  });
}

TEST_F(RedisFailureTest, ServerThatBecomesAReplicaIsDownUntilItIsPromoted) {
  const RedisServer master;
  RedisServer server;
  RedisClient client(io_.get_executor(), patient(server), hooks_);
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
    server.say({"REPLICAOF", "127.0.0.1", std::to_string(master.port())});
    const auto refused = co_await client.command(RedisCommand{"SET", "k", "v"}, core::Deadline::after(20s));
    EXPECT_FALSE(refused);
    if (!refused) EXPECT_EQ(refused.error().failure, RedisFailure::read_only);
    EXPECT_EQ(client.state(), RedisState::down);
    co_await pause(200ms);
    EXPECT_EQ(client.why(), RedisDown::read_only);  // a PING alone would have closed the circuit
    server.say({"REPLICAOF", "NO", "ONE"});
    EXPECT_LE((co_await time_to_close(client)).count(), 20.0);
  });
}

TEST_F(RedisFailureTest, FullServerRefusesWritesAndStillReads) {
  RedisServer server("maxmemory-policy noeviction");
  RedisClient client(io_.get_executor(), {.addresses = {server.address()}, .command_timeout = 20s}, hooks_);
  run([&]() -> asio::awaitable<void> {
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", "k", "v"}));
    server.say({"CONFIG", "SET", "maxmemory", "1"});
    const auto full = co_await client.command(RedisCommand{"SET", "k", "w"});
    EXPECT_FALSE(full);
    if (!full) EXPECT_EQ(full.error().failure, RedisFailure::no_memory);
    const auto got = co_await client.command(RedisCommand{"GET", "k"});
    EXPECT_TRUE(got && got->text == "v");
  });
  EXPECT_EQ(client.state(), RedisState::up);
}

TEST_F(RedisFailureTest, HttpServerInsteadOfRedisIsNamed) {
  const std::uint16_t port = test::free_port();
  asio::ip::tcp::acceptor acceptor(io_, {asio::ip::address_v4::loopback(), port});
  std::vector<asio::ip::tcp::socket> open;
  acceptor.async_accept([&](boost::system::error_code, asio::ip::tcp::socket socket) {
    asio::write(socket, asio::buffer(std::string_view{"HTTP/1.1 400 Bad Request\r\n\r\n"}));
    open.push_back(std::move(socket));
  });
  RedisClient client(io_.get_executor(), {.addresses = {"127.0.0.1:" + std::to_string(port)}}, hooks_);
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::down));
    EXPECT_EQ(client.why(), RedisDown::protocol);
  });
}

TEST_F(RedisFailureTest, SleepOfOurOwnIsNotTakenForTheServers) {
  RedisServer server;
  RedisClient client(io_.get_executor(), {.addresses = {server.address()}, .command_timeout = 20s}, hooks_);
  run([&]() -> asio::awaitable<void> {
    EXPECT_TRUE(co_await client.command(RedisCommand{"PING"}));
    int answered = 0;
    client.send(RedisCommand{"PING"}, {}, [&](RedisResult result) { answered += result ? 1 : 0; });
    co_await pause(1ms);
    std::this_thread::sleep_for(200ms);  // this loop stands still, the answer lies in the socket
    co_await pause(20ms);
    EXPECT_EQ(answered, 1);
  });
  EXPECT_FALSE(hooks_.was_down(RedisDown::hung));
}

}  // namespace
}  // namespace ganglion::net
