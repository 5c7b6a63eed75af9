// ASK with a command that does not fit into the socket at once: two scripted servers that play a cluster.

#include <gtest/gtest.h>

#include "net/redis_client.hpp"
#include "tests/unit/net/redis_fixture.hpp"
#include "tests/unit/net/scripted_redis.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;
using test::ScriptedRedis;
using test::Words;

class RedisAskingTest : public test::RedisTest {};

TEST_F(RedisAskingTest, AskingIsAnsweredWhileTheCommandBehindItIsStillBeingWritten) {
  const std::string value(16 << 20, 'v');  // more than socket buffers take
  const std::string expected = RedisCommand{"SET", "key", value}.wire();
  std::uint16_t target_port = 0;
  bool as_sent = false;
  ScriptedRedis home(io_, true, [&](tcp::socket& socket, const Words&) -> asio::awaitable<void> {
    const std::string slot = std::to_string(redis_slot("key"));
    co_await ScriptedRedis::say(socket, "-ASK " + slot + " 127.0.0.1:" + std::to_string(target_port) + "\r\n");
  });
  // Answers ASKING, and does not read on before the client has had the time to hear of it.
  ScriptedRedis target(io_, false, [&](tcp::socket& socket, const Words& words) -> asio::awaitable<void> {
    if (words.at(0).text != "ASKING") co_return co_await ScriptedRedis::say(socket, "$5\r\nafter\r\n");
    co_await ScriptedRedis::say(socket, "+OK\r\n");
    if (as_sent) co_return;
    co_await pause(50ms);
    as_sent = co_await ScriptedRedis::read(socket, expected.size()) == expected;
    co_await ScriptedRedis::say(socket, "+DONE\r\n");
  });
  target_port = target.port();
  const std::string port = std::to_string(home.port());
  home.start("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:" + port + "\r\n");
  target.start("-ERR nobody asks it\r\n");
  RedisClient client(io_.get_executor(), {.addresses = {"127.0.0.1:" + port}, .command_timeout = 10s, .hung_after = 5s},
                     hooks_);
  run([&]() -> asio::awaitable<void> {
    const auto large = co_await client.command(RedisCommand{"SET", "key", value});
    EXPECT_TRUE(large && large->text == "DONE") << (large ? large->text : large.error().message);
    const auto next = co_await client.command(RedisCommand{"GET", "key"});
    EXPECT_TRUE(next && next->text == "after") << "each answer is its command's";
  });
  EXPECT_TRUE(as_sent) << "not a byte is sent twice or left out";
  EXPECT_FALSE(hooks_.was_down(RedisDown::protocol));
  EXPECT_EQ(hooks_.asks, 2);
}

}  // namespace
}  // namespace ganglion::net
