// Bucket arithmetic against plain statements of what a token bucket promises.

#include "ratelimit/bucket.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <random>

namespace ganglion::ratelimit {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

const core::SteadyTime kStart{1h};

bool try_take(Bucket& bucket, std::uint64_t units, core::SteadyTime now) {
  bucket.refill(now);
  if (!bucket.has(units)) return false;
  bucket.take(units);
  return true;
}

TEST(Bucket, StartsFullAndRefillsAtConfiguredRate) {
  Bucket bucket{{.amount = 60, .period = 60s, .burst = 60}, kStart};
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(try_take(bucket, 1, kStart));
  EXPECT_FALSE(try_take(bucket, 1, kStart));
  EXPECT_EQ(bucket.wait_for(1), 1s);
  EXPECT_FALSE(try_take(bucket, 1, kStart + 1s - 1ns));
  EXPECT_TRUE(try_take(bucket, 1, kStart + 1s));
  EXPECT_FALSE(try_take(bucket, 1, kStart + 1s));
}

TEST(Bucket, RateWithoutAFiniteDecimalDoesNotDrift) {
  // 7 per second: one every 142,857,142.857... ns. 600 s of steps, each rounded up to a
  // nanosecond, still give 7 x 600.
  Bucket bucket{{.amount = 7, .period = 1s, .burst = 2}, kStart};
  ASSERT_TRUE(try_take(bucket, 2, kStart));
  core::SteadyTime now = kStart;
  std::uint64_t taken = 0;
  while (true) {
    now += bucket.wait_for(1);
    if (now > kStart + 600s) break;
    ASSERT_TRUE(try_take(bucket, 1, now));
    ++taken;
  }
  EXPECT_EQ(taken, 7U * 600U);
}

TEST(Bucket, WaitIsExactToTheNanosecond) {
  std::mt19937_64 random{7};
  for (int round = 0; round < 2000; ++round) {
    const Rate rate{.amount = 1 + random() % 1'000'000,
                    .period = nanoseconds{1 + random() % 100'000'000'000},
                    .burst = 1 + random() % 1000};
    Bucket bucket{rate, kStart};
    bucket.take(rate.burst + random() % 50);
    const std::uint64_t want = 1 + random() % rate.burst;
    const nanoseconds wait = bucket.wait_for(want);
    ASSERT_GT(wait, 0ns);
    Bucket early = bucket;
    early.refill(kStart + wait - 1ns);
    EXPECT_FALSE(early.has(want));
    bucket.refill(kStart + wait);
    EXPECT_TRUE(bucket.has(want));
  }
}

TEST(Bucket, AdmitsAtMostBurstPlusRateTimesTimeAndUsesNearlyAllOfIt) {
  std::mt19937_64 random{11};
  for (int round = 0; round < 200; ++round) {
    const Rate rate{.amount = 1 + random() % 10'000,
                    .period = nanoseconds{1 + random() % 60'000'000'000},
                    .burst = 1 + random() % 100};
    Bucket bucket{rate, kStart};
    core::SteadyTime now = kStart;
    unsigned __int128 taken = 0;
    for (int step = 0; step < 500; ++step) {
      now += nanoseconds{random() % static_cast<std::uint64_t>(rate.period.count())};
      while (try_take(bucket, 1 + random() % rate.burst % 3, now)) ++taken;
      const auto elapsed = static_cast<unsigned __int128>(nanoseconds{now - kStart}.count());
      ASSERT_LE(taken, rate.burst + elapsed * rate.amount / static_cast<unsigned __int128>(rate.period.count()));
    }
  }
}

TEST(Bucket, ClockGoingBackChangesNothing) {
  Bucket bucket{{.amount = 10, .period = 1s, .burst = 10}, kStart};
  bucket.take(10);
  bucket.refill(kStart - 30min);
  EXPECT_FALSE(bucket.has(1));
  bucket.refill(kStart + 100ms);
  EXPECT_TRUE(bucket.has(1));
  EXPECT_FALSE(bucket.has(2));
}

TEST(Bucket, LongSleepOnlyFillsTheBucket) {
  Bucket bucket{{.amount = 1'000'000'000'000'000'000, .period = 1ns, .burst = 5}, kStart};
  bucket.take(5);
  bucket.refill(core::SteadyTime::max());
  EXPECT_TRUE(bucket.full());
  EXPECT_FALSE(bucket.has(6));
}

TEST(Bucket, DebtIsPaidBeforeAnythingPasses) {
  Bucket bucket{{.amount = 100, .period = 1s, .burst = 100}, kStart};
  bucket.take(350);
  EXPECT_EQ(bucket.view().remaining, 0U);
  EXPECT_EQ(bucket.wait_for(0), 2500ms);
  EXPECT_EQ(bucket.wait_for(1), 2510ms);
}

TEST(Bucket, ExtremesDoNotOverflow) {
  constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();
  Bucket bucket{{.amount = kMax, .period = nanoseconds::max(), .burst = kMax}, kStart};
  for (int i = 0; i < 200; ++i) bucket.take(kMax);
  EXPECT_FALSE(bucket.has(1));
  EXPECT_GT(bucket.wait_for(1), 0ns);
  for (int i = 0; i < 400; ++i) bucket.give(kMax);
  EXPECT_TRUE(bucket.full());
  EXPECT_EQ(bucket.wait_for(kMax), nanoseconds::max());
}

TEST(Bucket, MoreThanTheBurstNeverPasses) {
  const Bucket bucket{{.amount = 10, .period = 1s, .burst = 5}, kStart};
  EXPECT_EQ(bucket.wait_for(6), nanoseconds::max());
  EXPECT_EQ(bucket.wait_for(5), 0ns);
}

TEST(Bucket, ChangeKeepsWhatWasUsed) {
  Bucket bucket{{.amount = 60, .period = 60s, .burst = 60}, kStart};
  bucket.take(50);
  bucket.change({.amount = 100, .period = 1s, .burst = 100}, kStart);
  EXPECT_EQ(bucket.view().remaining, 50U);
  EXPECT_EQ(bucket.view().limit, 100U);
  bucket.change({.amount = 100, .period = 1s, .burst = 20}, kStart);
  EXPECT_EQ(bucket.view().remaining, 0U);
  EXPECT_EQ(bucket.wait_for(1), 310ms);  // 50 used of 20: 30 of debt, and one more
}

TEST(Bucket, UnlimitedHasNoView) {
  Bucket bucket;
  bucket.take(1'000'000);
  EXPECT_TRUE(bucket.has(std::numeric_limits<std::uint64_t>::max()));
  EXPECT_FALSE(bucket.view().limited);
}

}  // namespace
}  // namespace ganglion::ratelimit
