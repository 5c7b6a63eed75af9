// Request ids: fixed length, ordered by time, no collisions.

#include "core/ids.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace ganglion::core {
namespace {

TEST(RequestIds, AreTwentySixCharactersAndUnique) {
  RequestIds ids;
  ManualClock clock;
  std::set<std::string> seen;
  for (int i = 0; i < 10'000; ++i) {
    const std::string id = ids.next(clock.wall()).str();
    ASSERT_EQ(id.size(), 26U);
    ASSERT_TRUE(seen.insert(id).second);
  }
}

TEST(RequestIds, SortByTime) {
  RequestIds ids;
  ManualClock clock;
  std::string previous;
  for (int i = 0; i < 100; ++i) {
    const std::string id = ids.next(clock.wall()).str();
    EXPECT_LT(previous, id);
    previous = id;
    clock.advance(std::chrono::milliseconds{1});
  }
}

TEST(RequestIds, TwoGeneratorsDoNotRepeatEachOther) {
  RequestIds a;
  RequestIds b;
  ManualClock clock;
  EXPECT_NE(a.next(clock.wall()), b.next(clock.wall()));
}

}  // namespace
}  // namespace ganglion::core
