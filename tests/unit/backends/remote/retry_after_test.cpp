// Retry-After in its three spellings.

#include <gtest/gtest.h>

#include "backends/remote/remote_backend.hpp"

namespace ganglion::backends {
namespace {

using namespace std::chrono_literals;

const auto kNow = std::chrono::system_clock::from_time_t(1'790'000'000);  // Mon, 21 Sep 2026 14:13:20 GMT

TEST(RetryAfter, SecondsMillisecondsAndDate) {
  EXPECT_EQ(parse_retry_after("7", "", kNow), 7s);
  EXPECT_EQ(parse_retry_after("7", "250", kNow), 250ms) << "the finer one wins";
  EXPECT_EQ(parse_retry_after("Mon, 21 Sep 2026 14:13:50 GMT", "", kNow), 30s);
  EXPECT_EQ(parse_retry_after("Mon, 21 Sep 2026 14:00:00 GMT", "", kNow), 0ms) << "in the past";
}

TEST(RetryAfter, NonsenseIsNothing) {
  EXPECT_EQ(parse_retry_after("", "", kNow), std::nullopt);
  EXPECT_EQ(parse_retry_after("soon", "", kNow), std::nullopt);
  EXPECT_EQ(parse_retry_after("-5", "", kNow), std::nullopt);
}

TEST(RetryAfter, IsBounded) {
  EXPECT_EQ(parse_retry_after("99999999999", "", kNow), 24h);
}

}  // namespace
}  // namespace ganglion::backends
