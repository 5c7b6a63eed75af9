// Process-wide caps: what is taken comes back, whatever way it goes; who waits is served in order, shed in time, and
// leaves with its client.

#include "ratelimit/admission.hpp"

#include <gtest/gtest.h>

#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <deque>
#include <optional>
#include <thread>
#include <vector>

#include "tests/support/coroutine.hpp"

namespace ganglion::ratelimit {
namespace {

using namespace std::chrono_literals;
using api::Tier;
using boost::asio::awaitable;
using core::ErrorKind;

constexpr TierOptions kNoReserve{.fast_reserved_percent = 0};

TEST(Admission, BodyMemoryIsCappedAndReturned) {
  Admission admission{{.in_flight_max = 10, .body_memory_bytes_max = 100}, kNoReserve};
  {
    auto ticket = admission.enter(Tier::regular, 60).value();
    const auto refused = admission.enter(Tier::regular, 41);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind, ErrorKind::overloaded);
    EXPECT_GE(refused.error().retry_after, 1s);
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
}

TEST(Admission, APartOfTheBodyMemoryIsForFastRequests) {
  Admission admission{{.in_flight_max = 10, .body_memory_bytes_max = 100}, {.fast_reserved_percent = 25}};
  const auto flood = admission.enter(Tier::regular, 75);
  ASSERT_TRUE(flood);
  EXPECT_FALSE(admission.enter(Tier::regular, 1));
  EXPECT_TRUE(admission.enter(Tier::fast, 25));
}

TEST(Admission, ShortOfMemoryRegularRequestsAreShedFirstAndFastOnesLast) {
  constexpr std::uint64_t kMiB = 1 << 20;
  Admission admission{{.memory_bytes_max = 1000 * kMiB}, kNoReserve};
  const auto enters = [&](Tier tier) {
    const auto ticket = admission.enter(tier, 10);
    if (ticket) return true;
    EXPECT_EQ(ticket.error().kind, ErrorKind::overloaded);
    EXPECT_GE(ticket.error().retry_after, 1s);
    return false;
  };
  EXPECT_TRUE(enters(Tier::regular)) << "nothing was told yet";
  admission.tell_memory(849 * kMiB);
  EXPECT_TRUE(enters(Tier::regular));
  admission.tell_memory(851 * kMiB);
  EXPECT_FALSE(enters(Tier::regular));
  EXPECT_TRUE(enters(Tier::fast));
  admission.tell_memory(951 * kMiB);
  EXPECT_FALSE(enters(Tier::regular));
  EXPECT_FALSE(enters(Tier::fast));
  EXPECT_EQ(admission.shed(Tier::regular, Shed::memory), 2U);
  EXPECT_EQ(admission.shed(Tier::fast, Shed::memory), 1U);
  EXPECT_EQ(admission.body_bytes(), 0U);
  admission.tell_memory(500 * kMiB);
  EXPECT_TRUE(enters(Tier::regular)) << "as soon as there is room";
  admission.tell_memory(5000 * kMiB);
  admission.configure({.memory_bytes_max = 0}, kNoReserve);
  EXPECT_TRUE(enters(Tier::regular)) << "no limit";
}

TEST(Admission, ManyThreadsNeverExceedTheMemoryAndLeaveNothing) {
  Admission admission{{.in_flight_max = 5, .body_memory_bytes_max = 300}, kNoReserve};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 8; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 5000; ++i) {
          auto ticket = admission.enter(Tier::regular, static_cast<std::uint64_t>(i % 90));
          if (ticket) static_cast<void>(ticket->reserve_body(50));
          EXPECT_LE(admission.body_bytes(), 300U);
        }
      });
    }
  }
  EXPECT_EQ(admission.body_bytes(), 0U);
}

class PlaceTest : public testing::Test {
 protected:
  Admission& make(const AdmissionOptions& options, const TierOptions& tiers) {
    admission_ = std::make_unique<Admission>(options, tiers);
    return *admission_;
  }
  // Asks for a place and keeps what comes in results[i].
  void ask(Admission& admission, Tier tier, core::CancelSource& cancel, core::Deadline deadline = {}) {
    const std::size_t i = results.size();
    results.emplace_back();
    boost::asio::co_spawn(
        io,
        [&, tier, deadline, i]() -> awaitable<void> {
          results[i].emplace(co_await admission.place(tier, deadline, cancel));
          order.push_back(i);
        },
        boost::asio::detached);
    io.restart();
    io.poll();
  }
  // Everything that is ready, and what that makes ready; poll() alone may return before the last of it.
  void turn() {
    io.restart();
    while (io.run_one_for(2ms) != 0) {
    }
  }
  // Until the i-th is answered.
  void wait_for(std::size_t i) {
    io.restart();
    const auto until = std::chrono::steady_clock::now() + 10s;
    while (!results[i] && std::chrono::steady_clock::now() < until) io.run_one_for(100ms);
    ASSERT_TRUE(results[i].has_value());
  }

  std::unique_ptr<Admission> admission_;  // outlives every place and everyone who waits
  boost::asio::io_context io{1};
  core::CancelSource never;
  std::deque<std::optional<core::Result<Place>>> results;  // a waiting coroutine keeps its element
  std::vector<std::size_t> order;
};

TEST_F(PlaceTest, WaitsInOrderFastFirst) {
  Admission& admission = make({.in_flight_max = 1}, kNoReserve);
  ask(admission, Tier::regular, never);
  ASSERT_TRUE(results[0] && *results[0]);
  EXPECT_EQ((*results[0])->waited(), 0ns);
  ask(admission, Tier::regular, never);
  ask(admission, Tier::regular, never);
  ask(admission, Tier::fast, never);
  EXPECT_EQ(admission.slots().waiting(Tier::regular), 2U);
  for (int i = 0; i < 3; ++i) {
    for (auto& result : results) {
      if (result && *result && **result) **result = Place{};  // whoever holds the place gives it back
    }
    turn();
  }
  EXPECT_EQ(order, (std::vector<std::size_t>{0, 3, 1, 2}));
  EXPECT_GT((*results[2])->waited(), 0ns);
  results.clear();
  EXPECT_EQ(admission.slots().taken(Tier::regular) + admission.slots().taken(Tier::fast), 0U);
}

TEST_F(PlaceTest, ShedsAfterTheTiersOwnWait) {
  Admission& admission =
      make({.in_flight_max = 1}, {.fast_reserved_percent = 0, .fast_wait_max = 1h, .regular_wait_max = 10ms});
  ask(admission, Tier::regular, never);
  ask(admission, Tier::regular, never);
  wait_for(1);
  ASSERT_FALSE(*results[1]);
  EXPECT_EQ(results[1]->error().kind, ErrorKind::overloaded);
  EXPECT_GE(results[1]->error().retry_after, 1s);
  EXPECT_EQ(admission.shed(Tier::regular, Shed::waited_too_long), 1U);
  EXPECT_EQ(admission.slots().waiting(Tier::regular), 0U);
}

TEST_F(PlaceTest, ShedsAtOnceWhenTheQueueIsFullButRegularForFast) {
  Admission& admission = make({.in_flight_max = 1}, {.fast_reserved_percent = 0, .queue_max = 1});
  ask(admission, Tier::regular, never);
  ask(admission, Tier::regular, never);
  ask(admission, Tier::regular, never);
  ASSERT_TRUE(results[2] && !*results[2]);
  EXPECT_EQ(results[2]->error().kind, ErrorKind::overloaded);
  EXPECT_EQ(admission.shed(Tier::regular, Shed::queue_full), 1U);
  ask(admission, Tier::fast, never);
  ASSERT_TRUE(results[1] && !*results[1]) << "its place in the queue went to the fast one";
  EXPECT_EQ(admission.shed(Tier::regular, Shed::displaced), 1U);
  EXPECT_EQ(admission.slots().waiting(Tier::fast), 1U);
  results[0].reset();
  turn();
  EXPECT_TRUE(results[3] && *results[3]);
}

TEST_F(PlaceTest, AClientThatLeavesLeavesTheQueue) {
  Admission& admission = make({.in_flight_max = 1}, kNoReserve);
  core::CancelSource cancel;
  ask(admission, Tier::regular, never);
  ask(admission, Tier::regular, cancel);
  EXPECT_EQ(admission.slots().waiting(Tier::regular), 1U);
  cancel.cancel(core::CancelReason::client_gone);
  turn();
  ASSERT_TRUE(results[1] && !*results[1]);
  EXPECT_EQ(results[1]->error().kind, ErrorKind::cancelled);
  EXPECT_EQ(admission.slots().waiting(Tier::regular), 0U);
}

TEST_F(PlaceTest, AGrantThatCrossesACancelIsPassedOn) {
  Admission& admission = make({.in_flight_max = 1}, kNoReserve);
  core::CancelSource cancel;
  ask(admission, Tier::regular, never);
  ask(admission, Tier::regular, cancel);
  ask(admission, Tier::regular, never);
  results[0].reset();  // granted to the second, which has not run yet
  cancel.cancel(core::CancelReason::client_gone);
  turn();
  ASSERT_TRUE(results[1] && !*results[1]);
  ASSERT_TRUE(results[2] && *results[2]);
}

TEST_F(PlaceTest, TheRequestsDeadlineEndsTheWait) {
  Admission& admission = make({.in_flight_max = 1}, kNoReserve);
  ask(admission, Tier::regular, never);
  ask(admission, Tier::regular, never, core::Deadline::after(10ms));
  wait_for(1);
  ASSERT_FALSE(*results[1]);
  EXPECT_EQ(results[1]->error().kind, ErrorKind::deadline_exceeded);
}

TEST_F(PlaceTest, RetryAfterGrowsWithTheQueueAndTheTimePlacesAreHeld) {
  Admission& admission =
      make({.in_flight_max = 1}, {.fast_reserved_percent = 0, .regular_wait_max = 1h, .queue_max = 200});
  ask(admission, Tier::regular, never);
  std::this_thread::sleep_for(20ms);
  results[0].reset();  // held for 20 ms at least
  for (int i = 0; i < 201; ++i) ask(admission, Tier::regular, never);
  ask(admission, Tier::regular, never);
  ASSERT_TRUE(results.back() && !*results.back());
  EXPECT_GE(results.back()->error().retry_after, 4s);
  EXPECT_LE(results.back()->error().retry_after, 60s);
}

TEST_F(PlaceTest, ACoroutineDestroyedWhereItWaitsTakesNoPlaceAlong) {
  Admission& admission = make({.in_flight_max = 1}, kNoReserve);
  std::optional<core::Result<Place>> held;
  {
    boost::asio::io_context doomed{1};
    boost::asio::co_spawn(
        io, [&]() -> awaitable<void> { held.emplace(co_await admission.place(Tier::regular, {}, never)); },
        boost::asio::detached);
    turn();
    for (int i = 0; i < 2; ++i) {
      boost::asio::co_spawn(
          doomed,
          [&]() -> awaitable<void> { [[maybe_unused]] auto p = co_await admission.place(Tier::regular, {}, never); },
          boost::asio::detached);
    }
    doomed.poll();
    EXPECT_EQ(admission.slots().waiting(Tier::regular), 2U);
    held.reset();  // granted to the first of them
    EXPECT_EQ(admission.slots().taken(Tier::regular), 1U);
  }
  EXPECT_EQ(admission.slots().taken(Tier::regular), 0U);
  EXPECT_EQ(admission.slots().waiting(Tier::regular), 0U);
}

TEST(Admission, WorkersPassPlacesToEachOther) {
  Admission admission{{.in_flight_max = 3}, {.fast_reserved_percent = 34, .queue_max = 1'000}};
  std::atomic<int> inside{0}, served{0};
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      boost::asio::io_context io{1};
      core::CancelSource never;
      for (int c = 0; c < 8; ++c) {
        boost::asio::co_spawn(
            io,
            [&, tier = c % 4 == 0 ? Tier::fast : Tier::regular]() -> awaitable<void> {
              for (int i = 0; i < 200; ++i) {
                const auto place = co_await admission.place(tier, {}, never);
                if (!place) {
                  ADD_FAILURE() << place.error().message;
                  continue;
                }
                EXPECT_LE(++inside, 3);
                co_await boost::asio::post(io, boost::asio::use_awaitable);
                --inside;
                ++served;
              }
            },
            boost::asio::detached);
      }
      io.run_for(30s);
    });
  }
  threads.clear();
  EXPECT_EQ(served, 4 * 8 * 200);
  EXPECT_EQ(admission.slots().taken(Tier::regular) + admission.slots().taken(Tier::fast), 0U);
}

}  // namespace
}  // namespace ganglion::ratelimit
