// Two gateways share budgets through a real redis-server that is flushed, killed and stopped. What they spend together
// never passes the limit.

#include "gateway/budget_share.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/post.hpp>
#include <cstdlib>
#include <future>
#include <thread>

#include "metering/budget_lease.hpp"
#include "metrics/metrics.hpp"
#include "tests/support/redis_server.hpp"

namespace ganglion::gateway {
namespace {

using namespace std::chrono_literals;
using metering::BudgetCost;
using metering::kPartsPerNeuron;
using test::RedisServer;

BudgetCost neurons(std::uint64_t count) {
  return {.neurons = metering::BudgetAmount{count} * kPartsPerNeuron};
}

constexpr metering::BudgetSubject kSubject{.key = "k", .tenant = "t"};

// One gateway: its budgets, and its share of them on a thread of its own.
class Gateway {
 public:
  Gateway(const std::string& name, const RedisServer& redis, std::uint64_t limit, BudgetShareOptions options,
          std::uint64_t history = 0, net::RedisOptions redis_options = {.command_timeout = 2s, .hung_after = 250ms})
      : metrics_({}, {}, clock_), budgets_(clock_, hooks_) {
    const std::vector<metering::BudgetOptions> rules{
        {.name = "b", .limit_neurons = std::to_string(limit), .window = "month"}};
    budgets_.prepare(metering::BudgetRules::make(rules, {}, 0).value());
    if (history != 0) budgets_.restore(kSubject, neurons(history), clock_.wall(), "old");
    budgets_.ready();
    redis_options.addresses = {redis.address()};
    redis_options.key_prefix = "t:";
    client_ = std::make_unique<net::RedisClient>(io_.get_executor(), std::move(redis_options), redis_hooks_);
    share_ = std::make_unique<BudgetShare>(io_, *client_, budgets_, options, name, metrics_.registry());
    thread_ = std::thread([this] { io_.run(); });
  }
  ~Gateway() {
    if (thread_.joinable()) die();
    share_.reset();
    client_.reset();
  }

  // Reserves as a worker does, waiting for slices up to `patience`.
  std::optional<metering::BudgetReservation> reserve(std::uint64_t amount,
                                                     std::chrono::milliseconds patience = 1'500ms) {
    const auto handle = budgets_.resolve(kSubject).value();
    const auto until = std::chrono::steady_clock::now() + patience;
    for (;;) {
      auto held = budgets_.reserve(handle, neurons(amount));
      if (held) return std::move(*held);
      // To a machine that stands still, the store looks as if it did not answer.
      const bool final = !held.error().retryable && budgets_.sharing() != metering::Sharing::alone;
      if (final || std::chrono::steady_clock::now() >= until) return std::nullopt;
      share_->kick();
      std::this_thread::sleep_for(2ms);
    }
  }
  bool spend(std::uint64_t amount, std::chrono::milliseconds patience = 1'500ms) {
    auto held = reserve(amount, patience);
    if (!held) return false;
    budgets_.settle(*held, kSubject, neurons(amount), "");
    spent_ += amount;
    return true;
  }
  std::uint64_t spent() const { return spent_; }
  metering::BudgetState state() const { return budgets_.states().at(0); }
  // As an ordered end does: what it has not spent is given back.
  bool leave() {
    for (int i = 0; i < 12'000; ++i) {
      std::promise<bool> left;
      boost::asio::post(io_, [&] { left.set_value(share_->farewell()); });
      if (left.get_future().get()) return true;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }
  // As kill -9 does: what it holds stays registered.
  void die() {
    io_.stop();
    thread_.join();
  }
  bool until(metering::Sharing sharing, std::chrono::milliseconds limit = 60s) const {
    const auto end = std::chrono::steady_clock::now() + limit;
    while (budgets_.sharing() != sharing && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(2ms);
    return budgets_.sharing() == sharing;
  }
  bool until_elsewhere(std::uint64_t amount) const {
    for (int i = 0; i < 12'000 && state().spent_elsewhere < neurons(amount).neurons; ++i)
      std::this_thread::sleep_for(5ms);
    return state().spent_elsewhere >= neurons(amount).neurons;
  }

 private:
  core::SystemClock clock_;
  metering::BudgetHooks hooks_;
  metrics::Metrics metrics_;
  metering::Budgets budgets_;
  boost::asio::io_context io_{1};
  net::RedisHooks redis_hooks_;
  std::unique_ptr<net::RedisClient> client_;
  std::unique_ptr<BudgetShare> share_;
  std::thread thread_;
  std::atomic<std::uint64_t> spent_{0};
};

BudgetShareOptions quick() {
  return {.gateways = 2, .interval = 20ms, .lapse = 60s, .rebuild = 3s};
}

// Both gateways spend as fast as they can from several threads, until nothing is granted any more.
std::uint64_t spend_all(Gateway& a, Gateway& b, const std::function<void()>& meanwhile) {
  std::vector<std::thread> threads;
  for (Gateway* gateway : {&a, &a, &b, &b}) {
    threads.emplace_back([gateway] {
      int refused = 0;
      while (refused < 5) {  // a machine that stands still looks like a refusal
        if (gateway->spend(3)) {
          refused = 0;
          std::this_thread::sleep_for(1ms);
        } else {
          ++refused;
        }
      }
    });
  }
  meanwhile();
  for (auto& thread : threads) thread.join();
  return a.spent() + b.spent();
}

TEST(BudgetShare, TwoGatewaysTogetherNeverExceed) {
  RedisServer redis;
  Gateway a("a", redis, 3'000, quick());
  Gateway b("b", redis, 3'000, quick());
  const std::uint64_t total = spend_all(a, b, [] {});
  EXPECT_LE(total, 3'000U);
  EXPECT_GE(total, 2'900U) << "slices shrink near the limit, so it can be used up";
  EXPECT_TRUE(a.until_elsewhere(b.spent()));
  EXPECT_FALSE(a.spend(2'000, 0ms));
}

TEST(BudgetShare, AFlushedStoreIsRegisteredInAgain) {
  RedisServer redis;
  Gateway a("a", redis, 6'000, quick());
  Gateway b("b", redis, 6'000, quick());
  const std::uint64_t total = spend_all(a, b, [&] {
    for (int i = 0; i < 3; ++i) {
      std::this_thread::sleep_for(300ms);
      redis.say({"FLUSHALL"});
    }
  });
  EXPECT_LE(total, 6'000U);
  EXPECT_GE(total, 5'800U);
}

TEST(BudgetShare, AStoreThatIsKilledAndComesBackEmpty) {
  RedisServer redis;
  Gateway a("a", redis, 6'000, quick());
  Gateway b("b", redis, 6'000, quick());
  const std::uint64_t total = spend_all(a, b, [&] {
    std::this_thread::sleep_for(300ms);
    redis.kill();
    std::this_thread::sleep_for(300ms);
    redis.restart();
  });
  EXPECT_LE(total, 6'000U);
  EXPECT_TRUE(a.until(metering::Sharing::leased));
  while (a.spend(3) || b.spend(3)) {
  }
  EXPECT_LE(a.spent() + b.spent(), 6'000U);
  EXPECT_GE(a.spent() + b.spent(), 5'800U) << "nothing was lost either";
}

TEST(BudgetShare, AStoppedStoreLeavesTheSlices) {
  RedisServer redis;
  Gateway a("a", redis, 1'000, quick());
  Gateway b("b", redis, 1'000, quick());
  ASSERT_TRUE(a.spend(10));
  ASSERT_TRUE(b.spend(10));
  redis.stop();
  ASSERT_TRUE(a.until(metering::Sharing::alone));
  ASSERT_TRUE(b.until(metering::Sharing::alone));
  EXPECT_TRUE(a.spend(20, 0ms)) << "no request fails for the store's sake while there is a slice";
  while (a.spend(5, 0ms)) {
  }
  while (b.spend(5, 0ms)) {
  }
  EXPECT_LE(a.spent() + b.spent(), 1'000U);
  redis.resume();
  ASSERT_TRUE(a.until(metering::Sharing::leased));
  while (a.spend(5)) {
  }
  EXPECT_LE(a.spent() + b.spent(), 1'000U);
  EXPECT_GE(a.spent() + b.spent(), 950U);
}

TEST(BudgetShare, AStoreThatNeverAnsweredLeavesAnEvenShare) {
  RedisServer redis;
  redis.kill();
  Gateway a("a", redis, 1'000, quick());
  ASSERT_TRUE(a.until(metering::Sharing::alone));
  while (a.spend(5, 0ms)) {
  }
  EXPECT_EQ(a.spent(), 500U);
  auto strict = quick();
  strict.share_in_outage = false;
  Gateway b("b", redis, 1'000, strict);
  EXPECT_FALSE(b.spend(5, 300ms));
}

// Who has just started does not know what the others have spent.
TEST(BudgetShare, AFirstConnectionThatTakesItsTimeIsNoOutage) {
  RedisServer redis;
  Gateway a("a", redis, 1'000, quick());
  ASSERT_TRUE(a.spend(800, 10s));
  ASSERT_TRUE(a.until(metering::Sharing::leased));
  std::this_thread::sleep_for(100ms);
  redis.stop();
  Gateway b("b", redis, 1'000, quick(), 0, {.connect_timeout = 60s, .hung_after = 60s});
  EXPECT_FALSE(b.until(metering::Sharing::alone, 300ms));
  EXPECT_FALSE(b.spend(450, 50ms));
  redis.resume();
  EXPECT_TRUE(b.spend(150, 10s));
  EXPECT_FALSE(b.spend(100, 500ms));
}

TEST(BudgetShare, ADeadGatewaysSliceLapsesAndItsSpendingStays) {
  RedisServer redis;
  auto options = quick();
  options.lapse = 1s;
  Gateway b("b", redis, 1'000, options);
  {
    Gateway a("a", redis, 1'000, options);
    ASSERT_TRUE(a.spend(100));
    ASSERT_TRUE(b.spend(1));
    ASSERT_TRUE(b.until_elsewhere(100));
    auto held = a.reserve(200);
    ASSERT_TRUE(held);
    std::this_thread::sleep_for(100ms);
    a.die();
    EXPECT_FALSE(b.spend(750, 200ms)) << "what the other holds is not there";
  }
  EXPECT_TRUE(b.spend(750, 30s)) << "what it held lapses with it";
  redis.say({"FLUSHALL"});
  EXPECT_FALSE(b.spend(200, 4s)) << "its spending is told to a store that forgot it";
  EXPECT_TRUE(b.spend(100, 30s));
}

TEST(BudgetShare, AGatewayThatIsStoppedGivesBackWhatItHasNotSpent) {
  RedisServer redis;
  Gateway b("b", redis, 1'000, quick());
  Gateway a("a", redis, 1'000, quick());
  ASSERT_TRUE(a.spend(100, 20s));
  ASSERT_TRUE(b.spend(1, 20s));
  ASSERT_TRUE(b.until_elsewhere(100));
  ASSERT_TRUE(a.leave());  // with slack in its hands: nobody was short
  a.die();
  // Long before the lapse of a minute, and to the last neuron.
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(b.spend(899, 50s));
  EXPECT_LT(std::chrono::steady_clock::now() - began, 40s);
  EXPECT_FALSE(b.spend(1, 200ms));
}

// One process of a gateway takes another's place: what the old one said reaches the store behind what the new one says.
TEST(BudgetShare, OnlyTheProcessThatSpeaksForAGatewayChangesWhatItHolds) {
  RedisServer redis;
  Gateway old_one("a", redis, 1'000, quick());
  ASSERT_TRUE(old_one.spend(100, 20s));
  const auto speaks = [&] { return redis.say({"HGET", "t:{budget}:epoch", "p:a"}); };
  const std::string before = speaks();
  redis.stop();  // what it asks for now lies in its socket, unread
  ASSERT_TRUE(old_one.until(metering::Sharing::alone));
  old_one.die();
  Gateway new_one("a", redis, 1'000, quick(), 100);
  Gateway b("b", redis, 1'000, quick());
  redis.resume();
  ASSERT_TRUE(new_one.spend(10, 20s));
  EXPECT_NE(speaks(), before);
  const std::uint64_t total = 100 + spend_all(new_one, b, [] {});
  EXPECT_LE(total, 1'000U);
  EXPECT_GE(total, 950U);
}

// As after an upgrade that failed: the store has heard of another process, which is no more.
TEST(BudgetShare, AProcessThatIsNotHeardSpeaksForItsGatewayAgain) {
  RedisServer redis;
  Gateway a("a", redis, 1'000, quick());
  ASSERT_TRUE(a.spend(100, 20s));
  redis.say({"HSET", "t:{budget}:epoch", "p:a", "gone"});
  EXPECT_TRUE(a.spend(600, 20s));
  for (const auto until = std::chrono::steady_clock::now() + 60s; std::chrono::steady_clock::now() < until;) {
    if (!redis.say({"HGET", "t:{budget}:epoch", "p:a"}).contains("gone")) break;
    std::this_thread::sleep_for(5ms);
  }
  EXPECT_FALSE(redis.say({"HGET", "t:{budget}:epoch", "p:a"}).contains("gone"));
  EXPECT_TRUE(a.spend(200, 20s));
}

TEST(BudgetShare, HistoryOfALedgerIsRegistered) {
  RedisServer redis;
  Gateway a("a", redis, 1'000, quick(), 400);
  Gateway b("b", redis, 1'000, quick());
  ASSERT_TRUE(b.spend(1, 30s));
  ASSERT_TRUE(b.until_elsewhere(400));
  EXPECT_FALSE(b.spend(601));
  EXPECT_TRUE(b.spend(500));
  EXPECT_FALSE(a.spend(101));
}

bool registered(const RedisServer& redis, const std::string& gateway) {
  for (int i = 0; i < 12'000; ++i) {
    if (!redis.say({"HGET", "t:{budget}:epoch", "g:" + gateway}).starts_with("$-1")) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

// Nothing was granted: the store was being rebuilt.
TEST(BudgetShare, ABudgetThatWasOnlyRegisteredHasItsShareInAnOutage) {
  for (const std::uint32_t gateways : {1U, 2U}) {
    RedisServer redis;
    redis.kill();
    auto options = quick();
    options.gateways = gateways;
    options.rebuild = 60s;
    Gateway a("a", redis, 1'000, options, 4);
    ASSERT_TRUE(a.until(metering::Sharing::alone));
    redis.restart();
    ASSERT_TRUE(registered(redis, "a"));
    ASSERT_TRUE(a.until(metering::Sharing::leased));
    redis.kill();
    ASSERT_TRUE(a.until(metering::Sharing::alone));
    EXPECT_TRUE(a.spend(400, 0ms)) << gateways;
    EXPECT_FALSE(a.spend(597, 0ms)) << gateways;
  }
}

TEST(BudgetShare, AnIdleBudgetMakesNoTrafficAndIsThereForWhoIsShortOfIt) {
  RedisServer redis;
  auto options = quick();
  options.gateways = 1;
  Gateway a("a", redis, 1'000, options, 4);
  ASSERT_TRUE(registered(redis, "a"));
  // The script of a budget is the only one that sets an expiry.
  const auto exchanges = [&redis] {
    const std::string answer = redis.say({"INFO", "commandstats"});
    const std::string name = "cmdstat_expire:calls=";
    const std::size_t at = answer.find(name);
    return at == std::string::npos ? 0 : std::strtoull(answer.c_str() + at + name.size(), nullptr, 10);
  };
  bool silent = false;
  for (int i = 0; i < 20 && !silent; ++i) {
    const auto before = exchanges();
    std::this_thread::sleep_for(500ms);
    silent = before != 0 && exchanges() == before;
  }
  EXPECT_TRUE(silent);
  Gateway b("b", redis, 1'000, options);
  EXPECT_TRUE(b.spend(990, 20s));
}

}  // namespace
}  // namespace ganglion::gateway
