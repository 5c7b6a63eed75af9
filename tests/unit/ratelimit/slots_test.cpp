// Slots by tier: who gets one, in which order, who is turned away; and that no slot is lost or given twice.

#include "ratelimit/slots.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace ganglion::ratelimit {
namespace {

using api::Tier;
using State = Slots::Waiter::State;

struct Noting final : Slots::Waiter {
  explicit Noting(Tier t) : Waiter(t) {}
  void changed() override { ++calls; }
  int calls = 0;
};

TEST(Slots, RegularLeavesTheReservedShareToFast) {
  Slots slots{{.total = 5, .regular = 3, .queue_max = 0}};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(slots.try_take(Tier::regular));
  EXPECT_FALSE(slots.try_take(Tier::regular));
  EXPECT_TRUE(slots.try_take(Tier::fast));
  EXPECT_TRUE(slots.try_take(Tier::fast));
  EXPECT_FALSE(slots.try_take(Tier::fast));
  slots.give_back(Tier::fast);
  EXPECT_FALSE(slots.try_take(Tier::regular));
  EXPECT_TRUE(slots.try_take(Tier::fast));
}

TEST(Slots, FastMayTakeThemAll) {
  Slots slots{{.total = 2, .regular = 1, .queue_max = 0}};
  EXPECT_TRUE(slots.try_take(Tier::fast));
  EXPECT_TRUE(slots.try_take(Tier::fast));
  EXPECT_FALSE(slots.try_take(Tier::regular));
}

TEST(Slots, AFreeSlotGoesToFastThenByArrival) {
  Slots slots{{.total = 1, .regular = 1, .queue_max = 10}};
  ASSERT_TRUE(slots.try_take(Tier::regular));
  Noting first(Tier::regular), second(Tier::regular), fast(Tier::fast);
  ASSERT_TRUE(slots.enqueue(first));
  ASSERT_TRUE(slots.enqueue(second));
  ASSERT_TRUE(slots.enqueue(fast));
  slots.give_back(Tier::regular);
  EXPECT_EQ(slots.leave(fast), State::granted);
  slots.give_back(Tier::fast);
  EXPECT_EQ(slots.leave(first), State::granted);
  EXPECT_EQ(second.calls, 0);
  slots.give_back(Tier::regular);
  EXPECT_EQ(slots.leave(second), State::granted);
  EXPECT_EQ(first.calls + second.calls + fast.calls, 3);
}

TEST(Slots, NobodyPassesThoseWhoWait) {
  Slots slots{{.total = 2, .regular = 2, .queue_max = 10}};
  ASSERT_TRUE(slots.try_take(Tier::regular));
  ASSERT_TRUE(slots.try_take(Tier::regular));
  Noting waiting(Tier::regular);
  ASSERT_TRUE(slots.enqueue(waiting));
  EXPECT_FALSE(slots.try_take(Tier::regular));
  slots.give_back(Tier::regular);
  EXPECT_EQ(waiting.calls, 1) << "handed over at once, so a newcomer finds nothing";
  EXPECT_FALSE(slots.try_take(Tier::regular));
  EXPECT_EQ(slots.leave(waiting), State::granted);
}

TEST(Slots, AFullQueueTurnsRegularAwayAndFastTakesTheLastOnesPlace) {
  Slots slots{{.total = 1, .regular = 1, .queue_max = 2}};
  ASSERT_TRUE(slots.try_take(Tier::fast));
  Noting early(Tier::regular), late(Tier::regular), later(Tier::regular), fast(Tier::fast), faster(Tier::fast),
      fastest(Tier::fast);
  ASSERT_TRUE(slots.enqueue(early));
  ASSERT_TRUE(slots.enqueue(late));
  EXPECT_FALSE(slots.enqueue(later));
  EXPECT_TRUE(slots.enqueue(fast));
  EXPECT_EQ(late.calls, 1);
  EXPECT_EQ(slots.leave(late), State::displaced);
  EXPECT_TRUE(slots.enqueue(faster));
  EXPECT_EQ(slots.leave(early), State::displaced);
  EXPECT_FALSE(slots.enqueue(fastest)) << "fast is shed last, but it is";
  EXPECT_EQ(slots.leave(fast), State::waiting);
  EXPECT_EQ(slots.leave(faster), State::waiting);
}

TEST(Slots, WhoLeavesTheQueueGetsNothing) {
  Slots slots{{.total = 1, .regular = 1, .queue_max = 2}};
  ASSERT_TRUE(slots.try_take(Tier::regular));
  Noting gone(Tier::regular), stays(Tier::regular);
  ASSERT_TRUE(slots.enqueue(gone));
  ASSERT_TRUE(slots.enqueue(stays));
  EXPECT_EQ(slots.leave(gone), State::waiting);
  slots.give_back(Tier::regular);
  EXPECT_EQ(gone.calls, 0);
  EXPECT_EQ(slots.leave(stays), State::granted);
}

TEST(Slots, AReloadThatMakesRoomWakes) {
  Slots slots{{.total = 1, .regular = 1, .queue_max = 2}};
  ASSERT_TRUE(slots.try_take(Tier::fast));
  Noting waiting(Tier::regular);
  ASSERT_TRUE(slots.enqueue(waiting));
  slots.set_limits({.total = 2, .regular = 1, .queue_max = 2});
  EXPECT_EQ(slots.leave(waiting), State::granted);
}

// Every schedule keeps the caps, gives each slot once, and leaves nothing behind.
TEST(Slots, RandomSchedulesKeepTheCaps) {
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    std::mt19937 random(seed);
    const std::uint32_t total = static_cast<std::uint32_t>(1 + random() % 6),
                        regular = static_cast<std::uint32_t>(1 + random() % total);
    Slots slots{{.total = total, .regular = regular, .queue_max = static_cast<std::uint32_t>(random() % 8)}};
    std::vector<Tier> held;
    std::vector<std::pair<Tier, std::unique_ptr<Noting>>> waiting;
    for (int i = 0; i < 300; ++i) {
      const Tier tier = random() % 3 == 0 ? Tier::fast : Tier::regular;
      if (random() % 2 == 0) {
        if (slots.try_take(tier)) {
          held.push_back(tier);
        } else if (auto w = std::make_unique<Noting>(tier); slots.enqueue(*w)) {
          waiting.emplace_back(tier, std::move(w));
        }
      } else if (!held.empty()) {
        const std::size_t at = random() % held.size();
        slots.give_back(held[at]);
        held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
      }
      for (std::size_t k = 0; k < waiting.size();) {
        if (waiting[k].second->calls == 0 && random() % 20 != 0) {
          ++k;
          continue;
        }
        if (slots.leave(*waiting[k].second) == State::granted) held.push_back(waiting[k].first);
        waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(k));
      }
      const auto regulars = static_cast<std::uint32_t>(std::ranges::count(held, Tier::regular));
      ASSERT_LE(held.size(), total) << "seed " << seed;
      ASSERT_LE(regulars, regular) << "seed " << seed;
      ASSERT_EQ(slots.taken(Tier::regular), regulars);
      ASSERT_EQ(slots.taken(Tier::fast), held.size() - regulars);
      // Nobody waits while there is a slot for it.
      if (held.size() < total) ASSERT_EQ(slots.waiting(Tier::fast), 0U) << "seed " << seed;
    }
  }
}

TEST(Slots, ManyThreadsLoseNoWakeUp) {
  Slots slots{{.total = 2, .regular = 1, .queue_max = 64}};
  struct Blocking final : Slots::Waiter {
    explicit Blocking(Tier t) : Waiter(t) {}
    void changed() override {
      rung = true;
      rung.notify_one();
    }
    std::atomic<bool> rung{false};
  };
  std::atomic<int> inside{0}, served{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 6; ++t) {
      threads.emplace_back([&, tier = t % 3 == 0 ? Tier::fast : Tier::regular] {
        for (int i = 0; i < 2000; ++i) {
          if (!slots.try_take(tier)) {
            Blocking waiter(tier);
            ASSERT_TRUE(slots.enqueue(waiter));
            waiter.rung.wait(false);  // for ever, if a wake-up is lost: the test's own limit ends it
            ASSERT_EQ(slots.leave(waiter), State::granted);
          }
          ASSERT_LE(++inside, 2);
          --inside;
          ++served;
          slots.give_back(tier);
        }
      });
    }
  }
  EXPECT_EQ(served, 12000);
  EXPECT_EQ(slots.taken(Tier::fast) + slots.taken(Tier::regular), 0U);
  EXPECT_EQ(slots.waiting(Tier::fast) + slots.waiting(Tier::regular), 0U);
}

}  // namespace
}  // namespace ganglion::ratelimit
