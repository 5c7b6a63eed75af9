// The Redis client against a real redis-server: commands, pipelining, scripts, deadlines, subscriptions, users, TLS.

#include "net/redis_client.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>

#include "tests/support/redis_server.hpp"
#include "tests/support/tls_files.hpp"
#include "tests/unit/net/redis_fixture.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
using test::RedisServer;

class RedisClientTest : public test::RedisTest {
 protected:
  RedisOptions options() const { return {.addresses = {server_.address()}, .command_timeout = 2s, .hung_after = 2s}; }
  RedisServer server_;
};

TEST_F(RedisClientTest, FirstCommandConnectsAndIsAnswered) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  run([&]() -> asio::awaitable<void> {
    const auto set = co_await client.command(RedisCommand{"SET", "k", std::string_view{"a\0b\r\n", 5}});
    EXPECT_TRUE(set && set->text == "OK");
    const auto got = co_await client.command(RedisCommand{"GET", "k"});
    EXPECT_TRUE(got && got->text == std::string_view("a\0b\r\n", 5));
    const auto none = co_await client.command(RedisCommand{"GET", "none"});
    EXPECT_TRUE(none && none->is_nil());
  });
  EXPECT_EQ(client.state(), RedisState::up);
  EXPECT_FALSE(client.cluster());
  EXPECT_EQ(hooks_.answers, 3);
}

TEST_F(RedisClientTest, ErrorReplyIsAnErrorAndTheConnectionStays) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  run([&]() -> asio::awaitable<void> {
    const auto wrong = co_await client.command(RedisCommand{"NOSUCH", "k"});
    EXPECT_FALSE(wrong);
    if (!wrong) {
      EXPECT_EQ(wrong.error().failure, RedisFailure::refused);
      EXPECT_FALSE(wrong.error().maybe_done);
    }
    EXPECT_TRUE(co_await client.command(RedisCommand{"PING"}));
  });
  EXPECT_EQ(hooks_.open, 1);
  EXPECT_EQ(hooks_.changes.size(), 2U);  // new, up
}

TEST_F(RedisClientTest, ManyCoroutinesShareOneConnectionAndGetTheirOwnAnswers) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  constexpr int kCount = 2000;
  int right = 0;
  run([&]() -> asio::awaitable<void> {
    int left = kCount;
    asio::steady_timer done(io_, 15s);
    for (int i = 0; i < kCount; ++i) {
      const auto one = [&, i]() -> asio::awaitable<void> {
        const std::string value(static_cast<std::size_t>(i % 900), static_cast<char>('a' + i % 26));
        const auto echo = co_await client.command(RedisCommand{"ECHO", value}.anywhere());
        if (echo && echo->text == value) ++right;
        if (--left == 0) done.cancel();
      };
      asio::co_spawn(io_, one, asio::detached);
    }
    boost::system::error_code ignored;
    co_await done.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  });
  EXPECT_EQ(right, kCount);
  EXPECT_THAT(server_.say({"INFO", "stats"}), ::testing::HasSubstr("total_connections_received:"));
  EXPECT_EQ(hooks_.open, 1);
}

TEST_F(RedisClientTest, LargeValuesPassBothWays) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  run([&]() -> asio::awaitable<void> {
    std::string value(8 * 1024 * 1024, 'v');
    for (std::size_t i = 0; i < value.size(); i += 997) value[i] = static_cast<char>(i);
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", "big", value}));
    const auto got = co_await client.command(RedisCommand{"GET", "big"});
    EXPECT_TRUE(got && got->text == value);
  });
}

TEST_F(RedisClientTest, AnswerOverTheBoundDropsTheConnection) {
  auto small = options();
  small.reply_bytes_max = 1000;
  RedisClient client(io_.get_executor(), small, hooks_);
  run([&]() -> asio::awaitable<void> {
    co_await client.command(RedisCommand{"SET", "big", std::string(5000, 'x')});
    const auto got = co_await client.command(RedisCommand{"GET", "big"});
    EXPECT_FALSE(got);
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
  });
  EXPECT_TRUE(hooks_.was_down(RedisDown::protocol));
}

TEST_F(RedisClientTest, ScriptIsLoadedOnceAndAgainAfterAFlush) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  const RedisScript script{"return {KEYS[1], ARGV[1], ARGV[2]}"};
  const std::string_view keys[] = {"{t}a"};
  const std::string_view args[] = {"x", "y z"};
  run([&]() -> asio::awaitable<void> {
    for (int i = 0; i < 12; ++i) {
      if (i == 5) server_.say({"SCRIPT", "FLUSH"});
      const auto answer = co_await client.eval(script, keys, args);
      EXPECT_TRUE(answer && answer->items.size() == 3 && answer->items[0].text == "{t}a" &&
                  answer->items[2].text == "y z");
    }
  });
  EXPECT_EQ(hooks_.scripts, 1) << "the first time its text goes out unasked";
}

TEST_F(RedisClientTest, CommandPastItsDeadlineFailsAloneAndItsLateAnswerIsDropped) {
  auto patient = options();
  patient.hung_after = 3s;
  RedisClient client(io_.get_executor(), patient, hooks_);
  run([&]() -> asio::awaitable<void> {
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", "k", "v"}));
    server_.say({"CLIENT", "PAUSE", "1500", "ALL"});
    const auto began = std::chrono::steady_clock::now();
    std::optional<RedisResult> patient_one;
    client.send(RedisCommand{"GET", "k"}, core::Deadline::after(2s),
                [&](RedisResult result) { patient_one = std::move(result); });
    const auto late = co_await client.command(RedisCommand{"GET", "other"}, core::Deadline::after(40ms));
    EXPECT_FALSE(late);
    if (!late) {
      EXPECT_EQ(late.error().failure, RedisFailure::timed_out);
      EXPECT_TRUE(late.error().maybe_done);
    }
    EXPECT_LT(Seconds(std::chrono::steady_clock::now() - began), Seconds(1.3)) << "before the pause is over";
    while (!patient_one) co_await pause(1ms);
    EXPECT_TRUE(*patient_one && (**patient_one).text == "v");
    const auto next = co_await client.command(RedisCommand{"GET", "k"});
    EXPECT_TRUE(next && next->text == "v");
  });
  EXPECT_EQ(hooks_.failures[RedisFailure::timed_out], 1);
}

TEST_F(RedisClientTest, WaitingCommandsAreBounded) {
  auto narrow = options();
  narrow.waiting_max = 10;
  RedisClient client(io_.get_executor(), narrow, hooks_);
  int busy = 0;
  int answered = 0;
  run([&]() -> asio::awaitable<void> {
    for (int i = 0; i < 25; ++i) {
      client.send(RedisCommand{"PING"}, {}, [&](RedisResult result) {
        if (result) ++answered;
        if (!result && result.error().failure == RedisFailure::busy) ++busy;
      });
    }
    while (answered + busy < 25) co_await pause(1ms);
  });
  EXPECT_EQ(answered, 10);
  EXPECT_EQ(busy, 15);
}

TEST_F(RedisClientTest, DestroyedClientEndsWhatWaits) {
  auto client = std::make_unique<RedisClient>(io_.get_executor(), options(), hooks_);
  int closed = 0;
  run([&]() -> asio::awaitable<void> {
    EXPECT_TRUE(co_await client->command(RedisCommand{"PING"}));
    for (int i = 0; i < 5; ++i) {
      client->send(RedisCommand{"PING"}, {}, [&](RedisResult result) {
        if (!result && result.error().failure == RedisFailure::closed) ++closed;
      });
    }
    client.reset();
    EXPECT_EQ(closed, 0);  // by a post, not inside
    while (closed < 5) co_await pause(1ms);
  });
  EXPECT_EQ(hooks_.open, 0);
}

TEST_F(RedisClientTest, SubscriptionHearsMessagesAndSaysWhenItMayHaveMissedSome) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  std::vector<std::string> heard;
  int gaps = 0;
  run([&]() -> asio::awaitable<void> {
    auto subscription =
        client.subscribe("purge", [&](std::string_view message) { heard.emplace_back(message); }, [&] { ++gaps; });
    while (gaps == 0) co_await pause(1ms);
    const auto reached = co_await client.command(RedisCommand{"PUBLISH", "purge", "one"}.anywhere());
    EXPECT_TRUE(reached && reached->integer == 1);
    co_await client.command(RedisCommand{"PUBLISH", "other", "two"}.anywhere());
    while (heard.empty()) co_await pause(1ms);
    server_.say({"CLIENT", "KILL", "TYPE", "pubsub"});
    while (gaps < 2) co_await pause(1ms);
    co_await client.command(RedisCommand{"PUBLISH", "purge", "three"}.anywhere());
    while (heard.size() < 2) co_await pause(1ms);
    subscription = {};
    // A channel taken later joins the same connection, and the dead one is given up there.
    auto later =
        client.subscribe("late", [&](std::string_view message) { heard.emplace_back(message); }, [&] { ++gaps; });
    while (gaps < 3) co_await pause(1ms);
    EXPECT_EQ((co_await client.command(RedisCommand{"PUBLISH", "purge", "four"}.anywhere()))->integer, 0);
    EXPECT_EQ((co_await client.command(RedisCommand{"PUBLISH", "late", "five"}.anywhere()))->integer, 1);
    while (heard.size() < 3) co_await pause(1ms);
  });
  EXPECT_THAT(heard, ::testing::ElementsAre("one", "three", "five"));
}

TEST_F(RedisClientTest, DatabaseIsSelectedOnEveryConnection) {
  auto other = options();
  other.database = 3;
  RedisClient client(io_.get_executor(), other, hooks_);
  run([&]() -> asio::awaitable<void> { EXPECT_TRUE(co_await client.command(RedisCommand{"SET", "here", "1"})); });
  EXPECT_EQ(server_.say({"EXISTS", "here"}), ":0\r\n");
}

}  // namespace
}  // namespace ganglion::net
