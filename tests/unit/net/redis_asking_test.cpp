// ASK with a command that does not fit into the socket at once: two scripted servers that play a cluster.

#include <gtest/gtest.h>

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <functional>

#include "net/redis_client.hpp"
#include "net/redis_resp.hpp"
#include "tests/unit/net/redis_fixture.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;
using Words = std::vector<RedisReply>;

// Answers what a client of a cluster asks when it connects; the rest is `other`'s: it is given each command's words.
class ScriptedRedis {
 public:
  using Other = std::function<asio::awaitable<void>(tcp::socket&, const Words& words)>;

  // `greedy`: reads as much as comes; else byte by byte up to a command's end, so that `other` may read on by itself.
  ScriptedRedis(asio::io_context& io, bool greedy, Other other)
      : acceptor_(io, {asio::ip::address_v4::loopback(), 0}), greedy_(greedy), other_(std::move(other)) {
    // Small, so that a large command certainly has to wait.
    acceptor_.set_option(asio::socket_base::receive_buffer_size(4096));
  }

  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }
  void start(std::string slots) {
    slots_ = std::move(slots);
    asio::co_spawn(acceptor_.get_executor(), accept(), asio::detached);
  }
  static asio::awaitable<void> say(tcp::socket& socket, std::string_view text) {
    co_await asio::async_write(socket, asio::buffer(text), asio::use_awaitable);
  }
  static asio::awaitable<std::string> read(tcp::socket& socket, std::size_t bytes) {
    std::string out(bytes, '\0');
    co_await asio::async_read(socket, asio::buffer(out), asio::use_awaitable);
    co_return out;
  }

 private:
  asio::awaitable<void> accept() {
    for (;;) {
      auto socket = co_await acceptor_.async_accept(asio::use_awaitable);
      asio::co_spawn(acceptor_.get_executor(), serve(std::move(socket)), asio::detached);
    }
  }
  // Commands have the form of replies. Only what is needed is read: the rest is for `other`, or not read at all.
  asio::awaitable<void> serve(tcp::socket socket) {
    redis::RespReader reader(std::size_t{1} << 26);
    std::array<char, 1 << 16> bytes;
    for (std::size_t at_once = 1;;) {
      const std::size_t got = co_await socket.async_read_some(asio::buffer(bytes, at_once), asio::use_awaitable);
      reader.feed({bytes.data(), got});
      const auto command = reader.next();
      at_once = command && !*command && greedy_ ? bytes.size() : 1;
      if (!command || !*command) continue;
      const Words& words = (*command)->items;
      if (words.at(0).text == "PING")
        co_await say(socket, "+PONG\r\n");
      else if (words.at(0).text == "DEL")
        co_await say(socket, ":0\r\n");
      else if (words.at(0).text == "CLUSTER")
        co_await say(socket, slots_);
      else
        co_await other_(socket, words);
    }
  }

  tcp::acceptor acceptor_;
  const bool greedy_;
  const Other other_;
  std::string slots_;
};

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
