// Process-wide caps: what is taken comes back, whatever way a ticket goes.

#include "ratelimit/admission.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace ganglion::ratelimit {
namespace {

using namespace std::chrono_literals;

TEST(Admission, RefusesPastTheInFlightCapAndTakesTheNextAfterOneLeaves) {
  Admission admission{{.in_flight_max = 2, .body_memory_bytes_max = 100}};
  auto first = admission.enter();
  const auto second = admission.enter();
  ASSERT_TRUE(first && second);
  const auto refused = admission.enter();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::overloaded);
  EXPECT_GE(refused.error().retry_after, 1s);
  *first = Ticket{};
  EXPECT_EQ(admission.in_flight(), 1U);
  EXPECT_TRUE(admission.enter());
}

TEST(Admission, BodyMemoryIsCappedAndReturned) {
  Admission admission{{.in_flight_max = 10, .body_memory_bytes_max = 100}};
  {
    auto ticket = admission.enter(60).value();
    EXPECT_FALSE(admission.enter(41));
    EXPECT_EQ(admission.in_flight(), 1U);  // the refused one left no trace
    EXPECT_TRUE(ticket.reserve_body(40));
    EXPECT_FALSE(ticket.reserve_body(1));
    EXPECT_FALSE(ticket.reserve_body(~0ULL));
    EXPECT_EQ(admission.body_bytes(), 100U);
    ticket.release_body();
    EXPECT_EQ(admission.body_bytes(), 0U);
    EXPECT_TRUE(ticket.reserve_body(7));
    const Ticket moved = std::move(ticket);
    EXPECT_EQ(admission.body_bytes(), 7U);
  }
  EXPECT_EQ(admission.body_bytes(), 0U);
  EXPECT_EQ(admission.in_flight(), 0U);
}

TEST(Admission, ManyThreadsNeverExceedTheCapsAndLeaveNothing) {
  Admission admission{{.in_flight_max = 5, .body_memory_bytes_max = 300}};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 5000; ++i) {
          auto ticket = admission.enter(static_cast<std::uint64_t>(i % 90));
          if (ticket) static_cast<void>(ticket->reserve_body(50));
          EXPECT_LE(admission.body_bytes(), 300U);
        }
      });
    }
  }
  EXPECT_EQ(admission.in_flight(), 0U);
  EXPECT_EQ(admission.body_bytes(), 0U);
}

}  // namespace
}  // namespace ganglion::ratelimit
