// Deadlines: absolute, capped by a stage's limit, never extended.

#include "core/deadline.hpp"

#include <gtest/gtest.h>

namespace ganglion::core {
namespace {

using namespace std::chrono_literals;

TEST(Deadline, LeftShrinksAndEndsAtZero) {
  ManualClock clock;
  const Deadline deadline = Deadline::after(10s, clock.steady());
  clock.advance(4s);
  EXPECT_EQ(deadline.left(clock.steady()), 6s);
  clock.advance(10s);
  EXPECT_EQ(deadline.left(clock.steady()), 0s);
  EXPECT_TRUE(deadline.passed(clock.steady()));
}

TEST(Deadline, ACapNeverExtends) {
  ManualClock clock;
  const Deadline deadline = Deadline::after(10s, clock.steady());
  EXPECT_EQ(deadline.capped(3s, clock.steady()).left(clock.steady()), 3s);
  EXPECT_EQ(deadline.capped(30s, clock.steady()).left(clock.steady()), 10s);
}

TEST(Deadline, DefaultIsNever) {
  EXPECT_TRUE(Deadline{}.never());
  EXPECT_FALSE(Deadline{}.passed());
  ManualClock clock;
  EXPECT_FALSE(Deadline{}.capped(1s, clock.steady()).never());
}

}  // namespace
}  // namespace ganglion::core
