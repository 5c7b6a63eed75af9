// What a fast request goes by when it picks a backend.

#include "backends/latency.hpp"

#include <gtest/gtest.h>

namespace ganglion::backends {
namespace {

using namespace std::chrono_literals;
using api::Tier;

TEST(Latency, IsAMovingMeanByTier) {
  core::ManualClock clock;
  Latency latency;
  EXPECT_EQ(latency.expected_ns(Tier::fast, clock.steady()), 0);
  latency.observe(Tier::fast, 8ms, clock.steady());
  latency.observe(Tier::regular, 800ms, clock.steady());
  EXPECT_EQ(latency.expected_ns(Tier::fast, clock.steady()), 8e6);
  latency.observe(Tier::fast, 16ms, clock.steady());
  EXPECT_EQ(latency.expected_ns(Tier::fast, clock.steady()), 9e6);
  EXPECT_EQ(latency.expected_ns(Tier::regular, clock.steady()), 800e6);
}

TEST(Latency, TheOtherTiersMeanStandsInUntilThereIsAnOwn) {
  core::ManualClock clock;
  Latency latency;
  latency.observe(Tier::regular, 20ms, clock.steady());
  EXPECT_EQ(latency.expected_ns(Tier::fast, clock.steady()), 20e6);
}

TEST(Latency, AnOldMeasureFadesSoThatTheTargetIsTriedAgain) {
  core::ManualClock clock;
  Latency latency;
  latency.observe(Tier::fast, 1s, clock.steady());
  clock.advance(Latency::kHalfLife);
  EXPECT_EQ(latency.expected_ns(Tier::fast, clock.steady()), 1e9);
  clock.advance(Latency::kHalfLife);
  EXPECT_NEAR(latency.expected_ns(Tier::fast, clock.steady()), 0.5e9, 1);
  clock.advance(4 * Latency::kHalfLife);
  EXPECT_NEAR(latency.expected_ns(Tier::fast, clock.steady()), 1e9 / 32, 1);
}

}  // namespace
}  // namespace ganglion::backends
