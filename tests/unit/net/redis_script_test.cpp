// Scripts among other commands: each runs in its place, known to the server or not, and through a loss of all scripts;
// and what TLS has begun to send is not taken back.

#include <gtest/gtest.h>

#include <algorithm>

#include "net/redis_client.hpp"
#include "tests/support/redis_server.hpp"
#include "tests/support/tls_files.hpp"
#include "tests/unit/net/redis_fixture.hpp"
#include "tests/unit/net/scripted_redis.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using namespace std::chrono_literals;
using test::RedisServer;
using test::ScriptedRedis;
using test::Words;

class RedisScriptTest : public test::RedisTest {
 protected:
  static RedisOptions options(const std::string& address) {
    return {.addresses = {address}, .command_timeout = 60s, .hung_after = 60s};
  }
  // KEYS[1] gets `value` at its end.
  static void push(RedisClient& client, const RedisScript& script, const std::string& value, int& left) {
    const std::string_view keys[] = {"list"};
    const std::string_view args[] = {value};
    client.send_eval(script, keys, args, {}, [&left](const RedisResult& result) {
      EXPECT_TRUE(result) << result.error().message;
      --left;
    });
  }
  static asio::awaitable<std::vector<std::string>> list(RedisClient& client) {
    std::vector<std::string> out;
    const auto all = co_await client.command(RedisCommand{"LRANGE", "list", "0", "-1"});
    if (all) {
      for (const RedisReply& item : all->items) out.push_back(item.text);
    }
    co_return out;
  }
  static std::vector<std::string> numbers(int count) {
    std::vector<std::string> out;
    for (int i = 0; i < count; ++i) out.push_back(std::to_string(i));
    return out;
  }

  const RedisScript one_{"return redis.call('RPUSH', KEYS[1], ARGV[1])"};
  const RedisScript other_{"local n = redis.call('RPUSH', KEYS[1], ARGV[1]) return n"};
};

TEST_F(RedisScriptTest, AScriptThatTheServerDoesNotKnowRunsInItsPlace) {
  const RedisServer server;
  RedisClient client(io_.get_executor(), options(server.address()), hooks_);
  run([&]() -> asio::awaitable<void> {
    for (int round = 0; round < 2; ++round) {
      EXPECT_TRUE(co_await client.command(RedisCommand{"DEL", "list"}));
      int left = 12;
      for (int i = 0; i < 12; ++i) {
        const std::string value = std::to_string(i);
        if (i % 3 == 1) {
          client.send(RedisCommand{"RPUSH", "list", value}, {}, [&left](const RedisResult&) { --left; });
        } else {
          push(client, i % 3 == 0 ? one_ : other_, value, left);
        }
      }
      while (left > 0) co_await pause(1ms);
      EXPECT_EQ(co_await list(client), numbers(12));
      // A new connection to a server that knows nothing.
      server.say({"SCRIPT", "FLUSH"});
      server.say({"CLIENT", "KILL", "TYPE", "normal"});
      EXPECT_TRUE(co_await wait_state(client, RedisState::up));
      while (!co_await client.command(RedisCommand{"PING"})) co_await pause(1ms);
    }
  });
  EXPECT_EQ(hooks_.scripts, 0) << "its text goes first: the server never has to say that it does not know a script";
}

TEST_F(RedisScriptTest, ScriptsThatWereForgottenOnTheirWayGoAgainBeforeAllThatComesLater) {
  const RedisServer server;
  RedisClient client(io_.get_executor(), options(server.address()), hooks_);
  run([&]() -> asio::awaitable<void> {
    int left = 2;
    push(client, one_, "0", left);
    push(client, other_, "1", left);
    while (left > 0) co_await pause(1ms);
    int next = 2;
    for (int round = 0; round < 20; ++round) {
      server.say({"SCRIPT", "FLUSH"});
      left = 100;
      for (int i = 0; i < 100; ++i, ++next) push(client, i % 2 == 0 ? one_ : other_, std::to_string(next), left);
      while (left > 0) co_await pause(1ms);
    }
    EXPECT_EQ(co_await list(client), numbers(next));
  });
  EXPECT_GE(hooks_.scripts, 40);
}

// The second of two scripts on their way is told that it is unknown only after the first was: what is sent meanwhile
// waits for both.
TEST_F(RedisScriptTest, NothingOvertakesAScriptWhoseRefusalIsStillOnItsWay) {
  bool forgotten = false;
  bool sent_more = false;
  std::vector<std::string> ran;
  ScriptedRedis server(io_, false, [&](tcp::socket& socket, const Words& words) -> asio::awaitable<void> {
    const std::string value = words.back().text;
    if (words.at(0).text == "EVALSHA" && forgotten) {
      if (value == "b") {
        while (!sent_more) co_await pause(1ms);
        co_await pause(30ms);  // for what would go out now
      }
      co_return co_await ScriptedRedis::say(socket, "-NOSCRIPT No matching script. Please use EVAL.\r\n");
    }
    if (words.at(0).text == "EVAL" && forgotten) forgotten = value != "b";  // both are known again
    ran.push_back(words.at(0).text + " " + value);
    co_await ScriptedRedis::say(socket, "+OK\r\n");
  });
  server.start("-ERR This instance has cluster support disabled\r\n");
  RedisClient client(io_.get_executor(), options("127.0.0.1:" + std::to_string(server.port())), hooks_);
  run([&]() -> asio::awaitable<void> {
    int left = 2;
    push(client, one_, "1", left);
    push(client, other_, "2", left);
    while (left > 0) co_await pause(1ms);
    forgotten = true;
    left = 4;
    push(client, one_, "a", left);
    push(client, other_, "b", left);
    while (hooks_.scripts == 0) co_await pause(1ms);
    push(client, one_, "c", left);
    client.send(RedisCommand{"RPUSH", "list", "d"}, {}, [&left](const RedisResult&) { --left; });
    sent_more = true;
    while (left > 0) co_await pause(1ms);
  });
  EXPECT_EQ(ran, (std::vector<std::string>{"EVAL 1", "EVAL 2", "EVAL a", "EVAL b", "EVALSHA c", "RPUSH d"}));
}

// A record that TLS made and could not send goes out as it is; the commands in it count as sent, also past their
// deadline.
TEST_F(RedisScriptTest, WhatTlsHasBegunToSendIsNotTakenBack) {
  const test::TlsFiles files;
  RedisServer server("tls-auth-clients no", files.cert().substr(0, files.cert().rfind('/')));
  RedisOptions secure = options(server.address());
  secure.tls = true;
  secure.tls_client.ca_file = files.cert();
  secure.waiting_max = 1'000'000;
  RedisClient client(io_.get_executor(), secure, hooks_);
  run([&]() -> asio::awaitable<void> {
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", "k", "v"}));
    server.stop();
    // More than the sockets hold, in small commands: each record carries some.
    int ended = 0;
    constexpr int kCommands = 40'000;
    const std::string long_key(400, 'k');
    for (int i = 0; i < kCommands; ++i) {
      client.send(RedisCommand{"GET", long_key}, core::Deadline::after(300ms),
                  [&ended](const RedisResult& result) { ended += result ? 0 : 1; });
    }
    while (ended < kCommands) co_await pause(5ms);
    server.resume();
    for (int i = 0; i < 20; ++i) {
      const auto got = co_await client.command(RedisCommand{"ECHO", std::to_string(i)}.anywhere());
      EXPECT_TRUE(got && got->text == std::to_string(i)) << i << ": " << (got ? got->text : got.error().message);
    }
  });
  EXPECT_FALSE(hooks_.was_down(RedisDown::protocol));
  EXPECT_EQ(hooks_.open, 1);
  EXPECT_EQ(hooks_.changes.size(), 2U) << "the same connection all along";
}

}  // namespace
}  // namespace ganglion::net
