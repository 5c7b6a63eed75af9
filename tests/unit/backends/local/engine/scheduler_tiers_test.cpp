// Fast and regular requests in one batch: places, pages, tokens of a step; that regular ones never starve; and, in
// virtual time, how long fast ones take under a flood.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "backends/local/engine/scheduler.hpp"
#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {
namespace {

std::unique_ptr<Sequence> make(std::uint64_t id, int tokens, Priority priority = Priority::regular) {
  auto s = std::make_unique<Sequence>();
  s->id = id;
  s->priority = priority;
  s->tokens.assign(static_cast<std::size_t>(tokens), 7);
  return s;
}

void advance(std::span<const Scheduler::Work> work) {
  for (const auto& [sequence, tokens] : work) {
    sequence->computed += tokens;
    if (sequence->computed == static_cast<int>(sequence->tokens.size())) sequence->tokens.push_back(7);
  }
}

int tokens_of(std::span<const Scheduler::Work> work, Priority priority) {
  int total = 0;
  for (const auto& item : work) total += item.sequence->priority == priority ? item.tokens : 0;
  return total;
}

TEST(SchedulerTiers, SomePlacesInTheBatchAreForFast) {
  PagePool pages(100);
  Scheduler s(pages, {.batch_max = 4, .step_tokens_max = 64, .batch_regular = 3});
  for (std::uint64_t id = 1; id <= 4; ++id) s.add(make(id, 4));
  advance(s.plan());
  EXPECT_EQ(s.running(), 3);
  s.add(make(5, 4, Priority::fast));
  advance(s.plan());
  EXPECT_EQ(s.running(Priority::fast), 1);
  EXPECT_EQ(s.running(Priority::regular), 3);
  s.remove(5);
  advance(s.plan());
  EXPECT_EQ(s.running(), 3) << "its place stays free for the next fast one";
}

TEST(SchedulerTiers, AFastOneTakesThePagesOfRegularOnes) {
  PagePool pages(8);
  Scheduler s(pages, {.batch_max = 8, .step_tokens_max = 256});
  s.add(make(1, 2 * kPageTokens));
  s.add(make(2, 2 * kPageTokens));
  advance(s.plan());
  advance(s.plan());  // three pages each
  ASSERT_EQ(pages.free(), 2);
  s.add(make(3, 3 * kPageTokens, Priority::fast));
  advance(s.plan());
  EXPECT_EQ(s.running(Priority::fast), 1);
  EXPECT_EQ(s.running(Priority::regular), 1) << "one gave way, the later one; not both";
  EXPECT_EQ(s.preempted(), 1U);
}

TEST(SchedulerTiers, NoneGivesWayInVain) {
  PagePool pages(8);
  Scheduler s(pages, {.batch_max = 8, .step_tokens_max = 256});
  s.add(make(1, 4 * kPageTokens, Priority::fast));
  s.add(make(2, kPageTokens));
  advance(s.plan());
  advance(s.plan());
  ASSERT_EQ(s.running(), 2);
  s.add(make(3, 6 * kPageTokens, Priority::fast));  // even without the regular one there is no room
  advance(s.plan());
  EXPECT_EQ(s.running(Priority::regular), 1);
  EXPECT_EQ(s.preempted(), 0U);
}

TEST(SchedulerTiers, WhoGaveWayOftenEnoughStays) {
  PagePool pages(6);
  Scheduler s(pages, {.batch_max = 8, .step_tokens_max = 256});
  s.add(make(1, 2 * kPageTokens - 1));
  std::uint64_t next = 2;
  for (int i = 0; i < Scheduler::kGaveWayMax; ++i) {
    advance(s.plan());
    ASSERT_EQ(s.running(Priority::regular), 1);
    s.add(make(next, 5 * kPageTokens, Priority::fast));
    s.plan();
    ASSERT_EQ(s.running(Priority::regular), 0) << "time " << i;
    s.remove(next++);
  }
  advance(s.plan());
  s.add(make(next, 5 * kPageTokens, Priority::fast));
  s.plan();
  EXPECT_EQ(s.running(Priority::regular), 1);
  EXPECT_EQ(s.running(Priority::fast), 0) << "it waits its turn";
}

TEST(SchedulerTiers, BesideFastRegularTakesOnlyWhatIsSpare) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 16, .step_tokens_max = 256, .batch_regular = 12, .fast_slowdown = 0.2});
  for (std::uint64_t id = 1; id <= 8; ++id) s.add(make(id, 100));
  s.add(make(9, 4, Priority::fast));
  int regular = 0, fast = 0;
  constexpr int kSteps = 200;
  for (int i = 0; i < kSteps; ++i) {
    const auto work = s.plan(/*free_tokens=*/9);
    regular += tokens_of(work, Priority::regular);
    fast += tokens_of(work, Priority::fast);
    ASSERT_GE(tokens_of(work, Priority::fast), 1) << "fast goes on in every step";
    advance(work);
  }
  // 0.2 * (9 + 1) tokens a step, and a little more for the fast prompt.
  EXPECT_NEAR(regular, 2 * kSteps, 5);
  EXPECT_EQ(fast, kSteps + 3);
}

TEST(SchedulerTiers, WithNothingToSpareRegularStillGoesOnAndInTurn) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 16, .step_tokens_max = 256, .batch_regular = 12, .fast_slowdown = 0.2});
  for (std::uint64_t id = 1; id <= 4; ++id) s.add(make(id, 1));
  advance(s.plan(0));
  s.add(make(9, 1, Priority::fast));
  std::map<std::uint64_t, int> got;
  for (int i = 0; i < 200; ++i) {
    const auto work = s.plan(0);
    for (const auto& item : work) got[item.sequence->id] += item.tokens;
    advance(work);
  }
  for (std::uint64_t id = 1; id <= 4; ++id) EXPECT_NEAR(got[id], 10, 1) << id;
  EXPECT_EQ(got[9], 200);
}

TEST(SchedulerTiers, RegularTakesTheWholeStepWhenNoFastOneIsThere) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 4, .step_tokens_max = 64, .batch_regular = 3, .fast_slowdown = 0.2});
  s.add(make(1, 300));
  EXPECT_EQ(tokens_of(s.plan(0), Priority::regular), 64);
}

TEST(SchedulerTiers, AfterSomeFastAdmissionsARegularOneIsAdmitted) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 1, .step_tokens_max = 64, .batch_regular = 1});
  s.add(make(1, 4));
  std::uint64_t next = 2;
  s.add(make(next++, 4, Priority::fast));
  int fast_before = 0;
  for (; fast_before < 100; ++fast_before) {
    const auto work = s.plan();
    ASSERT_EQ(work.size(), 1U);
    if (work[0].sequence->priority == Priority::regular) break;
    const std::uint64_t done = work[0].sequence->id;
    s.add(make(next++, 4, Priority::fast));  // there is always another
    s.remove(done);
  }
  EXPECT_EQ(fast_before, Scheduler::kPassedOverMax);
}

// An engine in virtual time: a step lasts fixed + per_token * tokens. As the engine does it, a step of regular requests
// alone is given up when a fast one arrives, at the next of `layers` boundaries, and not twice in a row.
class Simulation {
 public:
  Simulation(std::uint32_t seed, double fixed, double per_token)
      : random_(seed), fixed_(fixed), per_token_(per_token) {}

  // p99 of the fast requests' times to their last token. `flood`: regular requests that always wait.
  double fast_p99(bool flood) {
    std::exponential_distribution<double> gap(0.25 / service_time());  // a quarter of what one at a time could do
    double now = 0, next_fast = gap(random_);
    std::vector<double> took;
    std::map<std::uint64_t, std::pair<double, std::size_t>> running;  // fast: arrival, length at the end
    bool gave_up = false;
    while (took.size() < 400) {
      while (flood && scheduler_.waiting(Priority::regular) < 20) {
        const int prompt = 20 + static_cast<int>(random_() % 400);
        ends_[id_] = static_cast<std::size_t>(prompt + 100);
        scheduler_.add(make(id_++, prompt));
      }
      while (next_fast <= now) {
        running[id_] = {next_fast, kPrompt + kAnswer};
        ends_[id_] = kPrompt + kAnswer;
        scheduler_.add(make(id_++, kPrompt, Priority::fast));
        next_fast += gap(random_);
      }
      if (scheduler_.empty()) {
        now = next_fast;
        continue;
      }
      const auto work = scheduler_.plan(fixed_ / per_token_);
      int tokens = 0;
      for (const auto& item : work) tokens += item.tokens;
      const double end = now + fixed_ + per_token_ * tokens;
      const bool may_give_up = scheduler_.running(Priority::fast) == 0 && !std::exchange(gave_up, false);
      if (may_give_up && next_fast < end) {
        const double layer = (end - now) / kLayers;
        const double boundary = now + std::ceil((next_fast - now) / layer) * layer;
        if (boundary < end) {
          now = boundary;
          gave_up = true;
          continue;
        }
      }
      now = end;
      regular_tokens += tokens_of(work, Priority::regular);
      advance(work);
      std::vector<std::uint64_t> finished;
      for (const auto& item : work) {
        if (item.sequence->tokens.size() >= ends_[item.sequence->id]) finished.push_back(item.sequence->id);
      }
      for (const std::uint64_t id : finished) {
        if (const auto at = running.find(id); at != running.end()) {
          took.push_back(now - at->second.first);
          running.erase(at);
        }
        scheduler_.remove(id);
      }
    }
    std::ranges::sort(took);
    return took[took.size() * 99 / 100];
  }

  std::int64_t regular_tokens = 0;

 private:
  static constexpr int kPrompt = 40, kAnswer = 40, kLayers = 22;
  double service_time() const { return fixed_ * (kAnswer + 1) + per_token_ * (kPrompt + kAnswer); }

  std::mt19937 random_;
  const double fixed_, per_token_;
  PagePool pages_{400};
  Scheduler scheduler_{pages_, {.batch_max = 16, .step_tokens_max = 256, .batch_regular = 13, .fast_slowdown = 0.2}};
  std::uint64_t id_ = 1;
  std::map<std::uint64_t, std::size_t> ends_;
};

TEST(SchedulerTiers, FastP99UnderAFloodStaysWithinHalfOfIdle) {
  struct Machine {
    const char* what;
    double fixed, per_token;
  };
  for (const Machine& m : {Machine{"bound by memory", 0.033, 0.002}, Machine{"bound by computing", 0.0005, 0.002}}) {
    for (std::uint32_t seed = 1; seed <= 3; ++seed) {
      Simulation idle(seed, m.fixed, m.per_token), flood(seed, m.fixed, m.per_token);
      const double calm = idle.fast_p99(false), crowded = flood.fast_p99(true);
      EXPECT_LE(crowded, 1.5 * calm) << m.what << ", seed " << seed;
      EXPECT_GT(flood.regular_tokens, 400 * 40) << "the flood was served too";
    }
  }
}

}  // namespace
}  // namespace ganglion::local
