// The line through the steps' times: what is spare is learnt, noise and steps of one size do not mislead it.

#include "backends/local/engine/step_cost.hpp"

#include <gtest/gtest.h>

#include <random>

namespace ganglion::local {
namespace {

TEST(StepCost, LearnsHowManyTokensAreNearlyFree) {
  StepCost cost;
  for (int i = 0; i < 100; ++i) {
    const int tokens = 1 + i % 7;
    cost.observe(tokens, 0.033 + 0.002 * tokens);
  }
  EXPECT_NEAR(cost.free_tokens(), 16.5, 0.5);
}

TEST(StepCost, AMachineBoundByComputingHasNothingToSpare) {
  StepCost cost;
  for (int i = 0; i < 100; ++i) cost.observe(1 + i % 7, 0.002 * (1 + i % 7));
  EXPECT_NEAR(cost.free_tokens(), 0, 0.01);
}

TEST(StepCost, ForgetsTheMachineItRanOnBefore) {
  StepCost cost;
  for (int i = 0; i < 500; ++i) cost.observe(1 + i % 7, 0.033 + 0.002 * (1 + i % 7));
  for (int i = 0; i < 1'500; ++i) cost.observe(1 + i % 7, 0.010 + 0.002 * (1 + i % 7));
  EXPECT_NEAR(cost.free_tokens(), 5, 0.5);
}

TEST(StepCost, StepsOfOneSizeTeachNothing) {
  StepCost cost;
  const double before = cost.free_tokens();
  for (int i = 0; i < 1'000; ++i) cost.observe(1, 0.03 + 0.001 * (i % 5));
  EXPECT_EQ(cost.free_tokens(), before);
}

TEST(StepCost, StaysUsefulUnderNoise) {
  std::mt19937 random(7);
  std::exponential_distribution<double> hiccup(1 / 0.004);
  StepCost cost;
  for (int i = 0; i < 2'000; ++i) {
    const int tokens = 1 + static_cast<int>(random() % 12);
    cost.observe(tokens, 0.033 + 0.002 * tokens + hiccup(random));
    if (i > 200) ASSERT_LE(cost.free_tokens(), 80) << "at step " << i;
  }
}

}  // namespace
}  // namespace ganglion::local
