// Picking, retrying and falling back over the backends of a model, with scripted backends.

#include "backends/backend_set.hpp"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <deque>

namespace ganglion::backends {
namespace {

using namespace std::chrono_literals;
using core::ErrorKind;

class FakeAnswer final : public Answer {
 public:
  const AnswerHead& head() const override { return head_; }
  boost::asio::awaitable<core::Result<std::string_view>> next() override { co_return std::string_view{}; }

 private:
  AnswerHead head_;
};

// Gives its scripted outcomes in turn; after the last one it answers.
class FakeBackend final : public Backend {
 public:
  explicit FakeBackend(std::string backend_name) : name_(std::move(backend_name)) {}
  std::string_view name() const override { return name_; }
  boost::asio::awaitable<core::Result<std::unique_ptr<Answer>>> start(const Call& call, Rejection* rejection) override {
    ++calls;
    last_model = call.model;
    std::string spliced;
    last_body = call.body.whole(spliced);
    if (script.empty()) co_return std::make_unique<FakeAnswer>();
    core::Error error = script.front().first;
    *rejection = script.front().second;
    script.pop_front();
    co_return std::unexpected(error);
  }
  void fails(core::Error error, int status = 0) {
    Rejection refused{.status = status};
    if (error.retry_after.count() > 0) refused.retry_after = error.retry_after;
    script.push_back({error, refused});
  }

  std::deque<std::pair<core::Error, Rejection>> script;
  int calls = 0;
  std::string last_model, last_body;

 private:
  std::string name_;
};

// Remembers what it was told.
struct CountingHooks final : AttemptHooks {
  void attempted(const Attempt& attempt, std::chrono::nanoseconds time, bool retry) override {
    EXPECT_GE(time.count(), 0);
    seen.push_back({attempt.outcome, attempt.status, retry});
  }
  struct Seen {
    ErrorKind outcome;
    int status;
    bool retry;
    bool operator==(const Seen&) const = default;
  };
  std::vector<Seen> seen;
};

class BackendSetTest : public testing::Test {
 protected:
  BackendSetTest() { retry.backoff_base = 1ms; }

  void add(FakeBackend& backend, std::uint32_t weight = 1) {
    targets.push_back({.backend = &backend,
                       .health = std::make_shared<Health>(),
                       .latency = std::make_shared<Latency>(),
                       .upstream_model = std::string{backend.name()} + "-model",
                       .weight = weight,
                       .hooks = &counted});
  }

  core::Result<Started> start(api::Tier tier = api::Tier::regular) {
    if (!set) set = std::make_unique<BackendSet>("m", targets);
    attempts.clear();
    core::Result<Started> result = core::fail(ErrorKind::internal);
    Call call{.tier = tier, .deadline = deadline, .cancel = &cancel};
    boost::asio::co_spawn(
        io,
        [&]() -> boost::asio::awaitable<void> {
          result = co_await set->start(
              call, retry, [](const Target& t) { return std::string_view{t.upstream_model}; }, attempts, rejection);
        },
        [](std::exception_ptr) {});
    io.run();
    io.restart();
    return result;
  }

  static core::Error rejected(int status) {
    core::Error error = core::make_error(ErrorKind::upstream_rejected);
    error.retryable = status >= 500 || status == 429;
    return error;
  }

  boost::asio::io_context io;
  core::CancelSource cancel;
  core::Deadline deadline;
  RetryOptions retry;
  std::vector<Target> targets;
  std::unique_ptr<BackendSet> set;
  std::vector<Attempt> attempts;
  Rejection rejection;
  CountingHooks counted;
};

TEST_F(BackendSetTest, TheModelIsCalledByTheBackendsOwnName) {
  FakeBackend a("a");
  add(a);
  ASSERT_TRUE(start());
  EXPECT_EQ(a.last_model, "a-model");
  EXPECT_EQ(a.last_body, "a-model");
  EXPECT_EQ(attempts.size(), 1U);
}

TEST_F(BackendSetTest, HooksAreToldOfEveryTry) {
  FakeBackend a("a");
  a.fails(rejected(503), 503);
  a.fails(core::make_error(ErrorKind::upstream_connect));
  add(a);
  retry.attempts_max = 3;
  ASSERT_TRUE(start());
  const std::vector<CountingHooks::Seen> expected{{ErrorKind::upstream_rejected, 503, false},
                                                  {ErrorKind::upstream_connect, 0, true},
                                                  {ErrorKind::kCount, 200, true}};
  EXPECT_EQ(counted.seen, expected);
}

TEST_F(BackendSetTest, FallsBackToAnotherBackendFirst) {
  FakeBackend a("a");
  FakeBackend b("b");
  a.fails(core::make_error(ErrorKind::upstream_connect));
  b.fails(core::make_error(ErrorKind::upstream_connect));
  add(a);
  add(b);
  retry.attempts_max = 3;
  ASSERT_TRUE(start());
  EXPECT_EQ(attempts.size(), 3U);
  EXPECT_NE(attempts[0].backend, attempts[1].backend);
  EXPECT_EQ(attempts[0].outcome, ErrorKind::upstream_connect);
}

TEST_F(BackendSetTest, DoesNotRetryTheClientsMistake) {
  FakeBackend a("a");
  a.fails(rejected(400), 400);
  add(a);
  const auto result = start();
  ASSERT_FALSE(result);
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(rejection.status, 400);
}

TEST_F(BackendSetTest, NeverMoreTriesThanAllowed) {
  FakeBackend a("a");
  for (int i = 0; i < 10; ++i) a.fails(rejected(500), 500);
  add(a);
  retry.attempts_max = 4;
  EXPECT_FALSE(start());
  EXPECT_EQ(a.calls, 4);
  EXPECT_EQ(attempts.size(), 4U);
}

TEST_F(BackendSetTest, ALongRetryAfterIsNotWaitedOut) {
  FakeBackend a("a");
  core::Error error = rejected(429);
  error.retry_after = 1h;
  a.fails(error, 429);
  add(a);
  const auto result = start();
  ASSERT_FALSE(result);
  EXPECT_EQ(a.calls, 1);
  EXPECT_EQ(result.error().retry_after, 1h) << "the client is told";
}

TEST_F(BackendSetTest, ALimitOfTheProvidersRestsThatModelAndIsTold) {
  FakeBackend a("a");
  core::Error error = rejected(429);
  error.retry_after = 20s;
  a.fails(error, 429);
  add(a);
  ASSERT_FALSE(start());
  const auto again = start();
  ASSERT_FALSE(again);
  EXPECT_EQ(a.calls, 1) << "it said when to ask again";
  EXPECT_EQ(again.error().kind, ErrorKind::upstream_rejected);
  EXPECT_EQ(rejection.status, 429);
  EXPECT_EQ(rejection.retry_after, again.error().retry_after);
  EXPECT_GT(again.error().retry_after, 15s);
  EXPECT_LE(again.error().retry_after, 20s);
  EXPECT_NE(rejection.body.find("rate_limit_exceeded"), std::string::npos);

  Target other = targets[0];  // another model of the same backend
  other.rest = std::make_shared<ModelRest>();
  set = std::make_unique<BackendSet>("other", std::vector{other});
  EXPECT_TRUE(start());
}

TEST_F(BackendSetTest, AnUnavailableBackendThatSaysWhenRestsWhole) {
  FakeBackend a("a");
  core::Error error = rejected(503);
  error.retry_after = 20s;
  a.fails(error, 503);
  add(a);
  ASSERT_FALSE(start());
  Target other = targets[0];
  other.rest = std::make_shared<ModelRest>();
  set = std::make_unique<BackendSet>("other", std::vector{other});
  const auto again = start();
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, ErrorKind::no_backend);
  EXPECT_GT(again.error().retry_after, 15s);
  EXPECT_EQ(a.calls, 1);
}

TEST_F(BackendSetTest, WhatOneProviderRefusesTheGatewayAnotherIsAsked) {
  for (const int status : {401, 402, 403, 404}) {
    FakeBackend a("a");
    FakeBackend b("b");
    a.fails(rejected(status), status);
    a.fails(rejected(status), status);
    targets.clear();
    set.reset();
    add(a, 100);  // preferred by weight
    add(b);
    EXPECT_TRUE(start()) << status;
    EXPECT_EQ(a.calls, 1) << status;
    EXPECT_EQ(b.calls, 1) << status;
    b.fails(rejected(status), status);
    retry.attempts_max = 5;
    const auto refused = start();
    ASSERT_FALSE(refused) << status;
    EXPECT_EQ(a.calls, 2) << "each is asked once";
    EXPECT_EQ(b.calls, 2) << "each is asked once";
    EXPECT_EQ(rejection.status, status);
  }
}

TEST_F(BackendSetTest, WhatOneRefusesDoesNotHideThatTheOtherMayDoItLater) {
  for (const bool first : {true, false}) {
    FakeBackend a("a");
    FakeBackend b("b");
    (first ? a : b).fails(rejected(401), 401);
    (first ? a : b).fails(rejected(401), 401);
    for (int i = 0; i < 5; ++i) (first ? b : a).fails(rejected(503), 503);
    targets.clear();
    set.reset();
    add(a, 100);  // preferred by weight
    add(b);
    retry.attempts_max = 4;
    const auto result = start();
    ASSERT_FALSE(result);
    EXPECT_EQ((first ? a : b).calls, 1) << "it refuses, and is not asked again";
    EXPECT_EQ((first ? b : a).calls, 3);
    EXPECT_TRUE(result.error().retryable);
    EXPECT_EQ(rejection.status, 503);
  }
}

TEST_F(BackendSetTest, AShortRetryAfterIsWaitedOut) {
  FakeBackend a("a");
  core::Error error = rejected(429);
  error.retry_after = 30ms;
  a.fails(error, 429);
  add(a);
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(start());
  EXPECT_GE(std::chrono::steady_clock::now() - began, 30ms);
}

TEST_F(BackendSetTest, CancelStopsRetrying) {
  FakeBackend a("a");
  a.fails(rejected(500), 500);
  add(a);
  cancel.cancel(core::CancelReason::client_gone);
  const auto result = start();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::cancelled);
  EXPECT_EQ(a.calls, 1);
}

TEST_F(BackendSetTest, WeightsShareRegularTraffic) {
  FakeBackend a("a");
  FakeBackend b("b");
  add(a, 1);
  add(b, 3);
  std::vector<core::Result<Started>> running;
  for (int i = 0; i < 40; ++i) running.push_back(start());
  EXPECT_NEAR(b.calls, 30, 3);
}

TEST_F(BackendSetTest, FastGoesWhereItIsQuickest) {
  FakeBackend slow("slow");
  FakeBackend quick("quick");
  add(slow);
  add(quick);
  const auto now = std::chrono::steady_clock::now();
  targets[0].latency->observe(api::Tier::fast, 50ms, now);
  targets[1].latency->observe(api::Tier::fast, 1ms, now);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(start(api::Tier::fast));
  EXPECT_EQ(quick.calls, 10);
}

TEST_F(BackendSetTest, AFloodOfRegularRequestsDoesNotPushFastOffTheQuickestBackend) {
  FakeBackend slow("slow");
  FakeBackend quick("quick");
  add(slow);
  add(quick);
  const auto now = std::chrono::steady_clock::now();
  targets[0].latency->observe(api::Tier::fast, 50ms, now);
  targets[1].latency->observe(api::Tier::fast, 1ms, now);
  std::vector<core::Result<Started>> flood;
  for (int i = 0; i < 200; ++i) flood.push_back(start(api::Tier::regular));
  EXPECT_EQ(slow.calls, 100) << "regular takes what is spare, wherever that is";
  slow.calls = quick.calls = 0;
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(start(api::Tier::fast));
  EXPECT_EQ(quick.calls, 10);
}

TEST_F(BackendSetTest, FastRequestsAlreadyThereCountLikeLatency) {
  FakeBackend a("a");
  FakeBackend b("b");
  add(a);
  add(b);
  const auto now = std::chrono::steady_clock::now();
  targets[0].latency->observe(api::Tier::fast, 10ms, now);
  targets[1].latency->observe(api::Tier::fast, 30ms, now);
  targets[0].latency->in_flight(api::Tier::fast) = 1;  // 20 against 30
  ASSERT_TRUE(start(api::Tier::fast));
  EXPECT_EQ(a.calls, 1);
  targets[0].latency->in_flight(api::Tier::fast) = 4;  // 50 against 30, or less since the quick answer above
  targets[0].latency->observe(api::Tier::fast, 100ms, now);
  ASSERT_TRUE(start(api::Tier::fast));
  EXPECT_EQ(b.calls, 1);
  EXPECT_EQ(targets[1].latency->in_flight(api::Tier::fast), 0U) << "given back with the answer";
}

TEST_F(BackendSetTest, ABackendWhoseTrialIsTakenIsPassedOver) {
  FakeBackend resting("resting");
  FakeBackend healthy("healthy");
  add(resting, 100);  // preferred by weight
  add(healthy);
  const auto past = std::chrono::steady_clock::now() - 1min;
  for (std::uint32_t i = 0; i < Health::kFailuresToEject; ++i) targets[0].health->failed(past);
  ASSERT_TRUE(targets[0].health->claim(std::chrono::steady_clock::now())) << "another worker's trial";
  ASSERT_TRUE(start());
  EXPECT_EQ(healthy.calls, 1);
  EXPECT_EQ(resting.calls, 0);
}

TEST_F(BackendSetTest, OurOwnFullPoolSaysNothingOfTheBackendsHealth) {
  FakeBackend a("a");
  for (int i = 0; i < 10; ++i) a.fails(core::make_error(ErrorKind::overloaded));
  add(a);
  retry.attempts_max = 1;
  for (int i = 0; i < 10; ++i) EXPECT_EQ(start().error().kind, ErrorKind::overloaded);
  EXPECT_TRUE(start());
}

TEST_F(BackendSetTest, WithAllBackendsRestingItSaysSo) {
  FakeBackend a("a");
  add(a);
  for (std::uint32_t i = 0; i < Health::kFailuresToEject; ++i)
    targets[0].health->failed(std::chrono::steady_clock::now());
  const auto result = start();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().kind, ErrorKind::no_backend);
  EXPECT_EQ(result.error().retry_after, 1s) << "clients are told when";
  EXPECT_EQ(a.calls, 0);
}

}  // namespace
}  // namespace ganglion::backends
