// The limiter: all-or-nothing, honest Retry-After, settling, reload, bounds, and many threads at once.

#include "ratelimit/limiter.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace ganglion::ratelimit {
namespace {

using namespace std::chrono_literals;

class LimiterTest : public ::testing::Test {
 protected:
  LimiterHandle resolve(std::vector<ScopedLimits> limits) { return limiter_.resolve(limits, version_).value(); }

  core::ManualClock clock_;
  Limiter limiter_{LimiterOptions{}, clock_};
  std::uint64_t version_ = 1;  // of the configuration that resolves
};

TEST_F(LimiterTest, SixtyFirstRequestOfAMinuteWaitsAndThenPasses) {
  const auto handle = resolve({{Scope::key, "k", {.requests = {.amount = 60, .period_s = 60}}}});
  for (int i = 0; i < 60; ++i) ASSERT_TRUE(limiter_.admit(handle, {}));
  const auto refused = limiter_.admit(handle, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::rate_limited);
  EXPECT_EQ(refused.error().retry_after, 1s);
  EXPECT_EQ(refused.error().param, "key.requests");
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("60 requests per minute"));
  clock_.advance(refused.error().retry_after);
  EXPECT_TRUE(limiter_.admit(handle, {}));
}

TEST_F(LimiterTest, NoMoreRunAtOnceThanMay) {
  const auto handle =
      resolve({{Scope::key, "k", {.requests = {.amount = 10}, .running = 2}}, {Scope::tenant, "t", {.running = 3}}});
  const auto other = resolve({{Scope::key, "other", {}}, {Scope::tenant, "t", {.running = 3}}});
  auto first = limiter_.admit(handle, {}).value();
  auto second = limiter_.admit(handle, {}).value();
  const auto refused = limiter_.admit(handle, {});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::rate_limited);
  EXPECT_EQ(refused.error().param, "key.running");
  EXPECT_EQ(refused.error().retry_after, 1s);
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("at once for this key: 2 may run"));
  EXPECT_EQ(limiter_.view(handle).requests.remaining, 8U) << "who is refused is not counted";
  auto third = limiter_.admit(other, {}).value();
  EXPECT_EQ(limiter_.admit(other, {}).error().param, "tenant.running");
  first.settle(0, 0);
  first.settle(0, 0);  // once is enough
  EXPECT_TRUE(limiter_.admit(handle, {})) << "and gone again at once";
  {
    const Permit moved = std::move(second);
  }
  auto again = limiter_.admit(handle, {}).value();
  auto last = limiter_.admit(handle, {});
  EXPECT_EQ(last.error().param, "tenant.running") << "three of the tenant run, one of them another key's";
}

TEST_F(LimiterTest, WhatRunsIsCountedAcrossAReload) {
  const auto before = resolve({{Scope::key, "k", {.requests = {.amount = 10}}}});
  auto first = limiter_.admit(before, {}).value();
  auto second = limiter_.admit(before, {}).value();
  ++version_;
  const auto handle = resolve({{Scope::key, "k", {.requests = {.amount = 10}, .running = 2}}});
  EXPECT_FALSE(limiter_.admit(handle, {}));
  first.settle(0, 0);
  EXPECT_TRUE(limiter_.admit(handle, {}));
  ++version_;
  const auto wider = resolve({{Scope::key, "k", {.requests = {.amount = 10}}}});
  std::vector<Permit> many;
  for (int i = 0; i < 5; ++i) many.push_back(limiter_.admit(wider, {}).value());
}

TEST_F(LimiterTest, RefusedRequestTakesNothingFromAnyBucket) {
  const auto handle = resolve({{Scope::key, "k", {.requests = {.amount = 10}, .tokens = {.amount = 1000}}},
                               {Scope::tenant, "t", {.tokens = {.amount = 50}}}});
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(limiter_.admit(handle, {.tokens = 51}));
  EXPECT_EQ(limiter_.view(handle).requests.remaining, 10U);
  EXPECT_EQ(limiter_.view(handle).tokens.remaining, 50U);  // the tenant's bucket is the tightest
}

TEST_F(LimiterTest, RetryAfterIsTheLongestOfAllWaits) {
  const auto handle = resolve({{Scope::key, "k", {.requests = {.amount = 1, .period_s = 1}}},
                               {Scope::model, "m", {.tokens = {.amount = 60, .period_s = 60}}}});
  auto permit = limiter_.admit(handle, {.tokens = 30}).value();
  permit.settle(30, 0);
  const auto refused = limiter_.admit(handle, {.tokens = 45});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().retry_after, 15s);
  EXPECT_EQ(refused.error().param, "model.tokens") << "the bucket that is waited for longest";
  clock_.advance(15s);
  EXPECT_TRUE(limiter_.admit(handle, {.tokens = 45}));
}

TEST_F(LimiterTest, ObeyedRetryAfterAlwaysSucceeds) {
  std::mt19937_64 random{3};
  for (int round = 0; round < 300; ++round) {
    const RateSpec tokens{.amount = 1 + random() % 5000,
                          .period_s = static_cast<std::uint32_t>(1 + random() % 90),
                          .burst = 1 + random() % 700};
    const RateSpec neurons{.amount = 1 + random() % 50, .period_s = 60, .burst = 1 + random() % 9};
    const std::string id = std::to_string(round);
    const auto handle =
        resolve({{Scope::key,
                  id,
                  {.requests = {.amount = 1 + random() % 7, .period_s = 3}, .tokens = tokens, .neurons = neurons}}});
    for (int i = 0; i < 30; ++i) {
      const Estimate estimate{
          .tokens = random() % (tokens.burst + 1),
          .nano_neurons = static_cast<api::NanoNeurons>(random() % (neurons.burst * 1'000'000'000))};
      auto permit = limiter_.admit(handle, estimate);
      if (!permit) {
        ASSERT_GT(permit.error().retry_after, 0ms);
        clock_.advance(permit.error().retry_after);
        permit = limiter_.admit(handle, estimate);
      }
      ASSERT_TRUE(permit);
      permit->settle(random() % 1000, static_cast<api::NanoNeurons>(random() % 5'000'000'000));
    }
  }
}

TEST_F(LimiterTest, RequestLargerThanTheBucketIsToldSo) {
  const auto handle = resolve({{Scope::tenant, "t", {.tokens = {.amount = 100, .period_s = 60, .burst = 40}}}});
  const auto refused = limiter_.admit(handle, {.tokens = 41});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().retry_after, 0ms);
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("(40)"));
  EXPECT_EQ(refused.error().param, "tenant.tokens");
  EXPECT_TRUE(limiter_.admit(handle, {.tokens = 40}));
}

TEST_F(LimiterTest, SettleGivesBackAndTakesTheDifference) {
  const auto handle = resolve({{Scope::key, "k", {.tokens = {.amount = 1000}, .neurons = {.amount = 10}}}});
  auto permit = limiter_.admit(handle, {.tokens = 600, .nano_neurons = 4'000'000'000}).value();
  EXPECT_EQ(limiter_.view(handle).tokens.remaining, 400U);
  permit.settle(100, 12'000'000'000);
  EXPECT_EQ(limiter_.view(handle).tokens.remaining, 900U);
  permit.settle(900, 0);  // a second settle is nothing
  EXPECT_EQ(limiter_.view(handle).tokens.remaining, 900U);
  const auto refused = limiter_.admit(handle, {.tokens = 1});  // neurons are 2 in debt at 10 a minute
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().retry_after, 12s);
}

TEST_F(LimiterTest, DroppedPermitRefundsTokensButNotTheRequest) {
  const auto handle = resolve({{Scope::key, "k", {.requests = {.amount = 10}, .tokens = {.amount = 1000}}}});
  {
    auto permit = limiter_.admit(handle, {.tokens = 700});
    ASSERT_TRUE(permit);
    Permit moved = std::move(*permit);
    Permit again;
    again = std::move(moved);
    EXPECT_EQ(limiter_.view(handle).tokens.remaining, 300U);
  }
  EXPECT_EQ(limiter_.view(handle).tokens.remaining, 1000U);
  EXPECT_EQ(limiter_.view(handle).requests.remaining, 9U);
}

TEST_F(LimiterTest, ViewIsThatOfTheTightestBucket) {
  const auto handle = resolve({{Scope::key, "k", {.requests = {.amount = 60}}},
                               {Scope::gateway, "g", {.requests = {.amount = 30, .period_s = 60, .burst = 5}}}});
  ASSERT_TRUE(limiter_.admit(handle, {}));
  const auto view = limiter_.view(handle);
  EXPECT_EQ(view.requests.limit, 5U);
  EXPECT_EQ(view.requests.remaining, 4U);
  EXPECT_EQ(view.requests.reset, 2s);
  EXPECT_FALSE(view.tokens.limited);
}

TEST_F(LimiterTest, ReloadKeepsStateAndChangedLimitsKeepWhatWasUsed) {
  auto handle = resolve({{Scope::key, "k", {.requests = {.amount = 10}}}});
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(limiter_.admit(handle, {}));
  EXPECT_EQ(limiter_.view(resolve({{Scope::key, "k", {.requests = {.amount = 10}}}})).requests.remaining, 6U);
  const auto wider = resolve({{Scope::key, "k", {.requests = {.amount = 100}}}});
  EXPECT_EQ(limiter_.view(wider).requests.remaining, 96U);
  EXPECT_EQ(limiter_.view(handle).requests.remaining, 96U);  // the old handle sees the same buckets
}

TEST_F(LimiterTest, ARequestOfAnOlderConfigurationDoesNotBringItsLimitsBack) {
  version_ = 2;
  const auto reloaded = resolve({{Scope::key, "k", {.requests = {.amount = 5}}}});
  version_ = 1;
  const auto late = resolve({{Scope::key, "k", {.requests = {.amount = 100}}}});
  EXPECT_EQ(limiter_.view(reloaded).requests.limit, 5U);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(limiter_.admit(late, {}));
  const auto refused = limiter_.admit(late, {});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("5 requests per minute"));
  version_ = 3;
  EXPECT_EQ(limiter_.view(resolve({{Scope::key, "k", {.requests = {.amount = 100}}}})).requests.remaining, 95U);
}

TEST_F(LimiterTest, ScopesWithTheSameIdAreApart) {
  const auto key = resolve({{Scope::key, "x", {.requests = {.amount = 1}}}});
  const auto tenant = resolve({{Scope::tenant, "x", {.requests = {.amount = 1}}}});
  EXPECT_TRUE(limiter_.admit(key, {}));
  EXPECT_TRUE(limiter_.admit(tenant, {}));
  EXPECT_FALSE(limiter_.admit(key, {}));
}

TEST_F(LimiterTest, SameHolderTwiceCountsOnce) {
  const ScopedLimits same{Scope::key, "k", {.requests = {.amount = 2}}};
  const auto handle = resolve({same, same});
  EXPECT_TRUE(limiter_.admit(handle, {}));
  EXPECT_TRUE(limiter_.admit(handle, {}));
  EXPECT_FALSE(limiter_.admit(handle, {}));
}

TEST_F(LimiterTest, NoLimitsAlwaysAdmit) {
  const auto handle = resolve({{Scope::key, "k", {}}});
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(limiter_.admit(handle, {.tokens = ~0ULL}));
  EXPECT_EQ(limiter_.holders(), 0U);
}

TEST_F(LimiterTest, HoldersAreBoundedAndIdleFullOnesForgottenFirst) {
  Limiter limiter{{.buckets_max = 3}, clock_};
  const auto limits = [](std::string_view id) {
    return std::vector<ScopedLimits>{{Scope::key, id, {.requests = {.amount = 2}}}};
  };
  const auto held = limiter.resolve(limits("a"), 1).value();
  auto used = limiter.resolve(limits("b"), 1).value();
  ASSERT_TRUE(limiter.admit(used, {}));
  used = {};                                     // nobody holds b, but it is not full
  ASSERT_TRUE(limiter.resolve(limits("c"), 1));  // idle and full
  ASSERT_TRUE(limiter.resolve(limits("d"), 1));  // forgets c
  EXPECT_EQ(limiter.holders(), 3U);
  EXPECT_EQ(limiter.view(limiter.resolve(limits("b"), 1).value()).requests.remaining, 1U);
  const auto d = limiter.resolve(limits("d"), 1).value();
  const auto b = limiter.resolve(limits("b"), 1).value();
  const auto refused = limiter.resolve(limits("e"), 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::overloaded);
}

TEST(LimiterThreads, ContendedBucketsNeverOverAdmit) {
  const core::SystemClock clock;
  Limiter limiter{LimiterOptions{}, clock};
  constexpr std::uint64_t kBurst = 500;
  const LimitSet limits{.requests = {.amount = 1000, .period_s = 1, .burst = kBurst},
                        .tokens = {.amount = 1'000'000'000, .period_s = 1}};
  const std::vector<ScopedLimits> scoped{
      {Scope::key, "k", limits}, {Scope::tenant, "t", limits}, {Scope::model, "m", limits}};
  const std::vector<ScopedLimits> turned{
      {Scope::model, "m", limits}, {Scope::key, "k", limits}, {Scope::tenant, "t", limits}};
  std::atomic<std::uint64_t> admitted{0};
  const auto start = clock.steady();
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&, t] {
        const auto handle = limiter.resolve(t % 2 == 0 ? scoped : turned, 1).value();
        for (int i = 0; i < 4000; ++i) {
          auto permit = limiter.admit(handle, {.tokens = 10});
          if (!permit) continue;
          admitted.fetch_add(1);
          if (i % 3 == 0) permit->settle(5, 0);
          if (i % 64 == 0) static_cast<void>(limiter.view(handle));
        }
      });
    }
  }
  const auto elapsed = std::chrono::duration<double>(clock.steady() - start).count();
  EXPECT_LE(static_cast<double>(admitted.load()), kBurst + 1000 * elapsed + 1);
  EXPECT_GE(admitted.load(), kBurst);
}

TEST_F(LimiterTest, AnotherProcessGoesOnWithWhatWasTaken) {
  const std::vector<ScopedLimits> limits{
      {Scope::key, "k", {.requests = {.amount = 60, .period_s = 60}, .tokens = {.amount = 600}}},
      {Scope::tenant, "t", {.requests = {.amount = 1000}}}};
  const auto handle = resolve(limits);
  for (int i = 0; i < 50; ++i) ASSERT_TRUE(limiter_.admit(handle, {.tokens = 2}));
  Limiter next{LimiterOptions{}, clock_};
  next.restore(limiter_.taken());
  clock_.advance(5s);  // as if nothing had been in between
  const auto there = next.resolve(limits, 1).value();
  EXPECT_EQ(next.view(there).requests.remaining, 15U);
  for (int i = 0; i < 15; ++i) ASSERT_TRUE(next.admit(there, {}));
  EXPECT_FALSE(next.admit(there, {}));
  EXPECT_EQ(Limiter(LimiterOptions{}, clock_).taken().size(), 0U);
}

}  // namespace
}  // namespace ganglion::ratelimit
