// Passive health: ejected after repeated failures, one trial at a time, back at the first success.

#include "backends/health.hpp"

#include <gtest/gtest.h>

namespace ganglion::backends {
namespace {

using namespace std::chrono_literals;

class HealthTest : public testing::Test {
 protected:
  void fail(int times) {
    for (int i = 0; i < times; ++i) health.failed(clock.steady());
  }
  core::ManualClock clock;
  Health health;
};

TEST_F(HealthTest, StaysInRotationBelowTheThreshold) {
  fail(Health::kFailuresToEject - 1);
  EXPECT_TRUE(health.available(clock.steady()));
}

TEST_F(HealthTest, RestsLongerTheMoreItFails) {
  fail(Health::kFailuresToEject);
  EXPECT_FALSE(health.available(clock.steady()));
  clock.advance(Health::kRestMin);
  EXPECT_TRUE(health.available(clock.steady()));
  fail(1);
  clock.advance(Health::kRestMin);
  EXPECT_FALSE(health.available(clock.steady()));
  clock.advance(Health::kRestMin);
  EXPECT_TRUE(health.available(clock.steady()));
  fail(20);
  clock.advance(Health::kRestMax);
  EXPECT_TRUE(health.available(clock.steady()));
}

TEST_F(HealthTest, OneTrialAtATime) {
  fail(Health::kFailuresToEject);
  clock.advance(Health::kRestMin);
  EXPECT_TRUE(health.claim(clock.steady()));
  EXPECT_FALSE(health.available(clock.steady()));
  EXPECT_FALSE(health.claim(clock.steady()));
  health.released();
  EXPECT_TRUE(health.claim(clock.steady()));
  health.succeeded();
  EXPECT_TRUE(health.claim(clock.steady()));
  EXPECT_TRUE(health.claim(clock.steady()));
}

TEST_F(HealthTest, ASuccessForgetsFailures) {
  fail(Health::kFailuresToEject - 1);
  health.succeeded();
  fail(Health::kFailuresToEject - 1);
  EXPECT_TRUE(health.available(clock.steady()));
}

TEST_F(HealthTest, RetryAfterRestsItAsAskedButNotForever) {
  health.rest(clock.steady(), 3s);
  EXPECT_FALSE(health.available(clock.steady()));
  clock.advance(3s);
  EXPECT_TRUE(health.available(clock.steady()));
  health.succeeded();
  health.rest(clock.steady(), 1h);
  clock.advance(Health::kRestMax);
  EXPECT_TRUE(health.available(clock.steady()));
}

}  // namespace
}  // namespace ganglion::backends
