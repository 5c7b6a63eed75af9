// Header values: neurons without rounding, OpenAI's reset format, Retry-After rounded up.

#include "gateway/answer_headers.hpp"

#include <gtest/gtest.h>

#include "gateway/access_log.hpp"

namespace ganglion::gateway {
namespace {

using namespace std::chrono_literals;

std::string_view find(const net::ResponseHead& head, std::string_view name) {
  return net::find_header(head.headers.view(), name);
}

TEST(Neurons, ExactDecimalText) {
  EXPECT_EQ(neurons_text(0), "0");
  EXPECT_EQ(neurons_text(1), "0.000000001");
  EXPECT_EQ(neurons_text(1'500'000'000), "1.5");
  EXPECT_EQ(neurons_text(7'692'307'692), "7.692307692");
  EXPECT_EQ(neurons_text(1'000 * api::kNanoPerNeuron), "1000");
  EXPECT_EQ(neurons_text(9'223'372'036'854'775'807), "9223372036.854775807");
}

TEST(AnswerHeaders, RetryAfterNeverSendsTheClientTooEarly) {
  net::ResponseHead head;
  AnswerHeaders headers(head);
  headers.retry_after(1'001ms);
  EXPECT_EQ(find(head, "retry-after"), "2");
  EXPECT_EQ(find(head, "retry-after-ms"), "1001");
}

TEST(AnswerHeaders, NoWaitNoHeader) {
  net::ResponseHead head;
  AnswerHeaders headers(head);
  headers.retry_after(0ms);
  EXPECT_EQ(head.headers.view().size(), 0U);
}

TEST(AnswerHeaders, RateLimitsInOpenAIsFormat) {
  net::ResponseHead head;
  AnswerHeaders headers(head);
  headers.rate_limits({.requests = {.limited = true, .limit = 60, .remaining = 59, .reset = 17ms},
                       .tokens = {.limited = true, .limit = 150'000, .remaining = 149'984, .reset = 361s}});
  EXPECT_EQ(find(head, "x-ratelimit-limit-requests"), "60");
  EXPECT_EQ(find(head, "x-ratelimit-remaining-requests"), "59");
  EXPECT_EQ(find(head, "x-ratelimit-reset-requests"), "17ms");
  EXPECT_EQ(find(head, "x-ratelimit-limit-tokens"), "150000");
  EXPECT_EQ(find(head, "x-ratelimit-reset-tokens"), "6m1s");
}

TEST(AnswerHeaders, UnlimitedSaysNothing) {
  net::ResponseHead head;
  AnswerHeaders headers(head);
  headers.rate_limits({});
  EXPECT_TRUE(head.headers.view().empty());
}

}  // namespace
}  // namespace ganglion::gateway
