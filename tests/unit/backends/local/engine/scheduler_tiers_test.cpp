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

TEST(SchedulerTiers, WhileFastOnesComeAndGoRegularStepsAreShort) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 16, .step_tokens_max = 256, .fast_slowdown = 0.2, .alone_length = 2});
  for (std::uint64_t id = 1; id <= 12; ++id) s.add(make(id, 1));
  advance(s.plan(5));
  EXPECT_EQ(tokens_of(s.plan(5), Priority::regular), 12) << "no fast one was ever here";
  s.add(make(99, 1, Priority::fast));
  advance(s.plan(5));
  s.remove(99);
  std::map<std::uint64_t, int> got;
  for (int i = 1; i < Scheduler::kFastRecent; ++i) {
    const auto work = s.plan(5);
    ASSERT_EQ(tokens_of(work, Priority::regular), 5) << "as long again as the fixed part, in step " << i;
    for (const auto& item : work) got[item.sequence->id] += item.tokens;
    advance(work);
  }
  // In turn: nobody is more than a step behind.
  const int each = 5 * (Scheduler::kFastRecent - 1) / 12;
  for (std::uint64_t id = 1; id <= 12; ++id) EXPECT_NEAR(got[id], each, 1) << id;
  EXPECT_EQ(tokens_of(s.plan(5), Priority::regular), 12) << "and whole ones when it is long ago";
}

TEST(SchedulerTiers, AFastPromptsStepIsItsOwnButNotForever) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 16, .step_tokens_max = 32, .fast_slowdown = 0.2, .alone_length = 2});
  for (std::uint64_t id = 1; id <= 4; ++id) s.add(make(id, 1));
  advance(s.plan(50));
  s.add(make(9, 200, Priority::fast));  // seven steps and more
  std::vector<int> regular;
  for (int i = 0; i < 8; ++i) {
    const auto work = s.plan(50);
    regular.push_back(tokens_of(work, Priority::regular));
    advance(work);
  }
  for (int i = 0; i < 8; ++i)
    EXPECT_EQ(regular[static_cast<std::size_t>(i)], i % (Scheduler::kPutOffMax + 1) == Scheduler::kPutOffMax ? 4 : 0)
        << i;
}

std::vector<std::uint64_t> ids_of(std::span<const Scheduler::Work> work) {
  std::vector<std::uint64_t> out;
  for (const auto& item : work) out.push_back(item.sequence->id);
  return out;
}

// Another fast one decodes: it waits for the step that ends in a newcomer's first token, and for no part of a long one.
TEST(SchedulerTiers, AShortFastPromptsStepIsItsAlone) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 16, .step_tokens_max = 64, .fast_slowdown = 0.2, .alone_length = 2});
  for (std::uint64_t id = 1; id <= 4; ++id) s.add(make(id, 1));
  s.add(make(8, 1, Priority::fast));
  auto work = s.plan(50);
  EXPECT_EQ(ids_of(work), (std::vector<std::uint64_t>{8})) << "one token, but its first";
  advance(work);
  advance(s.plan(50));
  s.add(make(9, 20, Priority::fast));
  work = s.plan(50);
  EXPECT_EQ(ids_of(work), (std::vector<std::uint64_t>{9}));
  advance(work);
  work = s.plan(50);
  EXPECT_EQ(work.size(), 6U) << "then everybody";
  advance(work);
  s.add(make(10, 100, Priority::fast));  // longer than a step
  EXPECT_EQ(ids_of(s.plan(50)), (std::vector<std::uint64_t>{8, 9, 10}));
}

TEST(SchedulerTiers, EveryFastRequestsStepIsItsOwnThoughItEndsWithItsFirstToken) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 16, .step_tokens_max = 256, .fast_slowdown = 0.2, .alone_length = 2});
  for (std::uint64_t id = 1; id <= 8; ++id) s.add(make(id, 1));
  advance(s.plan(50));
  for (std::uint64_t id = 20; id < 30; ++id) {
    s.add(make(id, 10, Priority::fast));
    const auto work = s.plan(50);
    EXPECT_EQ(tokens_of(work, Priority::regular), 0) << id;
    advance(work);
    s.remove(id);
    advance(s.plan(50));
  }
}

// The budget of a short step is less than a token for each that decodes.
TEST(SchedulerTiers, ARegularPromptGoesOnBesideMoreDecodersThanAStepTakes) {
  PagePool pages(10'000);
  Scheduler s(pages, {.batch_max = 256, .step_tokens_max = 512, .fast_slowdown = 0.2, .alone_length = 1.5});
  for (std::uint64_t id = 1; id <= 200; ++id) s.add(make(id, 1));
  s.add(make(900, 1, Priority::fast));
  advance(s.plan(150));
  s.remove(900);
  s.add(make(901, 300));
  std::map<std::uint64_t, int> got;
  for (int i = 0; i < 40; ++i) {
    const auto work = s.plan(150);
    ASSERT_EQ(tokens_of(work, Priority::regular), 75) << i;
    for (const auto& item : work) got[item.sequence->id] += item.tokens;
    advance(work);
  }
  EXPECT_GE(got[901], 300) << "a quarter of each step: 18 tokens";
  for (std::uint64_t id = 1; id <= 200; ++id) EXPECT_GE(got[id], 10) << id;
}

TEST(SchedulerTiers, WhatWasPutOffIsNotMadeUpForAtOnceWhereStepsRunToTheirEnd) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 128, .step_tokens_max = 256, .fast_slowdown = 0.2, .alone_length = 2});
  for (std::uint64_t id = 1; id <= 100; ++id) s.add(make(id, 1));
  advance(s.plan(300));
  s.add(make(199, 600, Priority::fast));  // three steps of its own: 180 tokens and more are put off
  for (int i = 0; i < 12; ++i) {
    const auto work = s.plan(300);
    EXPECT_EQ(tokens_of(work, Priority::regular), i < Scheduler::kPutOffMax ? 0 : Scheduler::kBesideMax) << i;
    advance(work);
  }
}

TEST(SchedulerTiers, WhereNothingIsFixedAShortStepStillTakesAnEighth) {
  PagePool pages(1'000);
  Scheduler s(pages, {.batch_max = 16, .step_tokens_max = 256, .alone_length = 2});
  for (std::uint64_t id = 1; id <= 12; ++id) s.add(make(id, 1));
  s.add(make(99, 1, Priority::fast));
  advance(s.plan(0));
  s.remove(99);
  EXPECT_EQ(tokens_of(s.plan(0), Priority::regular), 2);
}

// An engine in virtual time: a step lasts fixed + per_token * tokens. Where the engine can, a step of regular requests
// alone is given up when a fast one arrives, at the next of `layers` boundaries, and not twice in a row.
struct Machine {
  const char* what;
  double fixed, per_token;  // seconds
  int batch, waiting;       // regular requests that always wait
  bool gives_up;
  int prompt = 40, answer = 40;  // of a fast request
};

class Simulation {
 public:
  Simulation(std::uint32_t seed, const Machine& machine, double alone_length = 0)
      : random_(seed),
        machine_(machine),
        scheduler_(pages_, {.batch_max = machine.batch,
                            .step_tokens_max = machine.gives_up ? 256 : 2'048,
                            .batch_regular = machine.batch - machine.batch / 5,
                            .fast_slowdown = 0.2,
                            .alone_length = alone_length}) {}

  // p99 of the fast requests' times to their first and to their last token. `flood`: regular requests always wait.
  struct P99 {
    double first, last;
  };
  P99 fast_p99(bool flood) {
    std::exponential_distribution<double> gap(0.25 / service_time());  // a quarter of what one at a time could do
    double now = 0, next_fast = gap(random_);
    std::vector<double> first, last;
    std::map<std::uint64_t, double> arrived;  // fast
    bool gave_up = false;
    while (last.size() < 400) {
      while (flood && scheduler_.waiting(Priority::regular) < machine_.waiting) {
        const int prompt = 20 + static_cast<int>(random_() % 400);
        ends_[id_] = static_cast<std::size_t>(prompt + 100);
        scheduler_.add(make(id_++, prompt));
      }
      while (next_fast <= now) {
        arrived[id_] = next_fast;
        ends_[id_] = static_cast<std::size_t>(machine_.prompt + machine_.answer);
        scheduler_.add(make(id_++, machine_.prompt, Priority::fast));
        next_fast += gap(random_);
      }
      if (scheduler_.empty()) {
        now = next_fast;
        continue;
      }
      const auto work = scheduler_.plan(machine_.fixed / machine_.per_token);
      int tokens = 0;
      for (const auto& item : work) tokens += item.tokens;
      const double end = now + machine_.fixed + machine_.per_token * tokens;
      const bool may_give_up =
          machine_.gives_up && scheduler_.running(Priority::fast) == 0 && !std::exchange(gave_up, false);
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
        const auto& s = *item.sequence;
        const auto at = arrived.find(s.id);
        if (at != arrived.end() && s.tokens.size() == static_cast<std::size_t>(machine_.prompt) + 1)
          first.push_back(now - at->second);
        if (s.tokens.size() < ends_[s.id]) continue;
        if (at != arrived.end()) last.push_back(now - at->second);
        finished.push_back(s.id);
      }
      for (const std::uint64_t id : finished) {
        arrived.erase(id);
        scheduler_.remove(id);
      }
    }
    seconds = now;
    return {p99(first), p99(last)};
  }

  std::int64_t regular_tokens = 0;
  double seconds = 0;

 private:
  static constexpr int kLayers = 22;
  static double p99(std::vector<double>& of) {
    std::ranges::sort(of);
    return of[of.size() * 99 / 100];
  }
  double service_time() const {
    return machine_.fixed * (machine_.answer + 1) + machine_.per_token * (machine_.prompt + machine_.answer);
  }

  std::mt19937 random_;
  const Machine machine_;
  PagePool pages_{16'000};
  Scheduler scheduler_;
  std::uint64_t id_ = 1;
  std::map<std::uint64_t, std::size_t> ends_;
};

TEST(SchedulerTiers, FastP99UnderAFloodStaysWithinHalfOfIdle) {
  for (const Machine& m : {Machine{"bound by memory", 0.033, 0.002, 16, 20, true},
                           Machine{"bound by computing", 0.0005, 0.002, 16, 20, true}}) {
    for (std::uint32_t seed = 1; seed <= 3; ++seed) {
      Simulation idle(seed, m), flood(seed, m);
      const double calm = idle.fast_p99(false).last, crowded = flood.fast_p99(true).last;
      EXPECT_LE(crowded, 1.5 * calm) << m.what << ", seed " << seed;
      EXPECT_GT(flood.regular_tokens, 400 * 40) << "the flood was served too";
    }
  }
}

// A 7 B model on a GPU (2.5 ms and 16 us a token), which cannot give up a step.
TEST(SchedulerTiers, WhereStepsRunToTheirEndAFirstTokenStillTakesAtMostTwiceItsIdleTime) {
  const Machine gpu{"a GPU", 0.0025, 16e-6, 512, 600, false, 128, 32};
  for (std::uint32_t seed = 1; seed <= 3; ++seed) {
    Simulation idle(seed, gpu, 1.5), flood(seed, gpu, 1.5), any(seed, gpu, 0);
    const double calm = idle.fast_p99(false).first, crowded = flood.fast_p99(true).first;
    const double without = any.fast_p99(true).first;
    EXPECT_LE(crowded, 2 * calm) << "seed " << seed;
    EXPECT_GT(without, 2 * calm) << "what the short steps are for";
    const double rate = static_cast<double>(flood.regular_tokens) / flood.seconds;
    const double rate_any = static_cast<double>(any.regular_tokens) / any.seconds;
    EXPECT_GT(rate, 0.35 * rate_any) << "at a price";
  }
}

}  // namespace
}  // namespace ganglion::local
