// When what happens is often: by the rate of the last window.

#include "core/event_rate.hpp"

#include <gtest/gtest.h>

namespace ganglion::core {
namespace {

using namespace std::chrono_literals;
using Time = std::chrono::steady_clock::time_point;

bool after(EventRate& rate, Time& now, int ends, std::chrono::microseconds took) {
  for (int i = 0; i < ends; ++i) rate.count();
  now += took;
  return rate.often(now);
}

TEST(EventRate, TellsCrowdsFromOneAfterAnother) {
  EventRate rate;
  Time now{1h};
  EXPECT_FALSE(after(rate, now, 1, 0us)) << "the first ever";
  EXPECT_FALSE(after(rate, now, 11, 2ms));
  EXPECT_TRUE(after(rate, now, 12, 2ms));
  EXPECT_TRUE(after(rate, now, 0, 1ms)) << "a window is not judged before its end";
  EXPECT_FALSE(after(rate, now, 11, 1ms));
  EXPECT_TRUE(after(rate, now, 60, 10ms)) << "a commit may take longer than a window";
  EXPECT_FALSE(after(rate, now, 59, 10ms));
}

TEST(EventRate, ForgetsACrowdThatIsGone) {
  EventRate rate;
  Time now{1h};
  rate.often(now);
  EXPECT_TRUE(after(rate, now, 100, 2ms));
  EXPECT_FALSE(after(rate, now, 1, 24h));
  EXPECT_FALSE(after(rate, now, 1, 100us));
}

}  // namespace
}  // namespace ganglion::core
