// A real cluster of three masters on loopback: slots learned, MOVED and ASK followed while a slot migrates, a dead
// master hurting only its own keys.

#include <gtest/gtest.h>

#include <set>

#include "net/redis_client.hpp"
#include "tests/support/redis_server.hpp"
#include "tests/unit/net/redis_fixture.hpp"

namespace ganglion::net {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

class RedisClusterTest : public test::RedisTest {
 protected:
  RedisOptions options() {
    return {.addresses = {servers_.node(0).address()}, .command_timeout = 3s, .hung_after = 2s};
  }
  // A key of the slots that a node owns.
  std::string key_at(std::size_t node, int number = 0) const {
    for (int i = 0;; ++i) {
      std::string key = "k" + std::to_string(number * 1000 + i);
      if (servers_.owner_of(redis_slot(key)) == node) return key;
    }
  }
  test::RedisClusterServers servers_;
};

TEST_F(RedisClusterTest, KeysGoToTheirOwnersWithoutRedirection) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  run([&]() -> asio::awaitable<void> {
    for (int i = 0; i < 200; ++i) {
      const std::string key = "key" + std::to_string(i);
      EXPECT_TRUE(co_await client.command(RedisCommand{"SET", key, key}));
      const auto got = co_await client.command(RedisCommand{"GET", key});
      EXPECT_TRUE(got && got->text == key);
    }
  });
  EXPECT_TRUE(client.cluster());
  EXPECT_EQ(client.state(), RedisState::up);
  EXPECT_EQ(hooks_.moves, 0);
  EXPECT_EQ(hooks_.open, 3);  // the seed's own connection has gone
}

TEST_F(RedisClusterTest, SlotThatMovedIsFollowedAndLearned) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  const std::string key = key_at(0);
  const unsigned slot = redis_slot(key);
  run([&]() -> asio::awaitable<void> {
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", key, "v"}));
    servers_.begin_migration(slot, 0, 2);
    servers_.move_keys(slot, 0, 2);
    servers_.end_migration(slot, 2);
    for (int i = 0; i < 10; ++i) {
      const auto got = co_await client.command(RedisCommand{"GET", key});
      EXPECT_TRUE(got && got->text == "v");
    }
  });
  EXPECT_EQ(hooks_.moves, 1);
  EXPECT_GE(hooks_.refreshes, 1);
}

TEST_F(RedisClusterTest, SlotOnItsWayAnswersThroughAskForCommandsAndScripts) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  const std::string key = key_at(1);
  const unsigned slot = redis_slot(key);
  const RedisScript script{"return redis.call('INCR', KEYS[1])"};
  const std::string_view keys[] = {key};
  run([&]() -> asio::awaitable<void> {
    EXPECT_TRUE(co_await client.command(RedisCommand{"SET", key, "41"}));
    servers_.begin_migration(slot, 1, 0);
    servers_.move_keys(slot, 1, 0);
    const auto got = co_await client.command(RedisCommand{"GET", key});  // not at 1 any more, 0 does not own it yet
    EXPECT_TRUE(got && got->text == "41");
    const auto more = co_await client.eval(script, keys, {});
    EXPECT_TRUE(more && more->integer == 42);
    EXPECT_EQ(hooks_.moves, 0);
    EXPECT_GE(hooks_.asks, 2);
    servers_.end_migration(slot, 0);
    const auto after = co_await client.eval(script, keys, {});
    EXPECT_TRUE(after && after->integer == 43);
  });
  EXPECT_EQ(hooks_.moves, 1);
}

TEST_F(RedisClusterTest, KeysHalfwayMovedAreTriedAgain) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  const std::string base = "{" + key_at(0) + "}";
  const unsigned slot = redis_slot(base);
  run([&]() -> asio::awaitable<void> {
    co_await client.command(RedisCommand{"SET", base + "a", "1"});
    co_await client.command(RedisCommand{"SET", base + "b", "2"});
    servers_.begin_migration(slot, 0, 1);
    servers_.node(0).say({"MIGRATE", "127.0.0.1", std::to_string(servers_.node(1).port()), base + "a", "0", "2000"});
    std::optional<RedisResult> both;
    client.send(RedisCommand{"MGET", base + "a", base + "b"}, {},
                [&](RedisResult result) { both = std::move(result); });
    co_await pause(50ms);
    EXPECT_FALSE(both);
    servers_.move_keys(slot, 0, 1);
    servers_.end_migration(slot, 1);
    while (!both) co_await pause(1ms);
    EXPECT_TRUE(*both);
    if (*both) EXPECT_EQ((**both).items.at(1).text, "2");
  });
}

TEST_F(RedisClusterTest, DeadMasterHurtsItsOwnKeysOnlyAndComesBack) {
  auto quick = options();
  quick.addresses.push_back(servers_.node(1).address());
  quick.command_timeout = 5s;
  quick.hung_after = 1s;
  RedisClient client(io_.get_executor(), quick, hooks_);
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
    servers_.node(2).stop();
    while (client.available(key_at(2))) co_await client.command(RedisCommand{"GET", key_at(2)});
    EXPECT_EQ(client.state(), RedisState::down);
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(co_await client.command(RedisCommand{"GET", key_at(0, i)}, core::Deadline::after(20s)));
      EXPECT_TRUE(client.available(key_at(1)));
      const auto dead = co_await client.command(RedisCommand{"GET", key_at(2)});
      EXPECT_TRUE(!dead && dead.error().failure == RedisFailure::unavailable);
    }
    servers_.node(2).resume();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
  });
}

TEST_F(RedisClusterTest, SubscriptionHearsWhatWasPublishedAtAnotherNode) {
  RedisClient client(io_.get_executor(), options(), hooks_);
  std::set<std::string> heard;
  int gaps = 0;
  run([&]() -> asio::awaitable<void> {
    client.start();
    EXPECT_TRUE(co_await wait_state(client, RedisState::up));
    const auto subscription =
        client.subscribe("c", [&](std::string_view node) { heard.emplace(node); }, [&] { ++gaps; });
    while (gaps == 0) co_await pause(1ms);
    // Again and again: between nodes whose link is just being made Redis drops what is published.
    while (heard.size() < servers_.size()) {
      for (std::size_t i = 0; i < servers_.size(); ++i) servers_.node(i).say({"PUBLISH", "c", std::to_string(i)});
      co_await pause(50ms);
    }
  });
}

TEST_F(RedisClusterTest, ClusterOffTakesNoRedirection) {
  auto plain = options();
  plain.cluster = RedisCluster::off;
  RedisClient client(io_.get_executor(), plain, hooks_);
  run([&]() -> asio::awaitable<void> {
    const auto elsewhere = co_await client.command(RedisCommand{"GET", key_at(1)});
    EXPECT_FALSE(elsewhere);
    if (!elsewhere) EXPECT_EQ(elsewhere.error().failure, RedisFailure::redirected);
  });
}

}  // namespace
}  // namespace ganglion::net
