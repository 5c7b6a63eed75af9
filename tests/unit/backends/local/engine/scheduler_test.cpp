// The step plan without a model: order, budget, admission by pages, preemption, and that work always goes on.

#include "backends/local/engine/scheduler.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

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

// What the engine does after a step: everything computed, one token more where the end was reached.
void advance(std::span<const Scheduler::Work> work) {
  for (const auto& [sequence, tokens] : work) {
    sequence->computed += tokens;
    ASSERT_GE(static_cast<int>(sequence->pages.size()) * kPageTokens, sequence->computed);
    if (sequence->computed == static_cast<int>(sequence->tokens.size())) sequence->tokens.push_back(7);
  }
}

std::vector<std::pair<std::uint64_t, int>> ids(std::span<const Scheduler::Work> work) {
  std::vector<std::pair<std::uint64_t, int>> out;
  for (const auto& [sequence, tokens] : work) out.emplace_back(sequence->id, tokens);
  return out;
}
using Ids = std::vector<std::pair<std::uint64_t, int>>;

TEST(PagePool, CountsReferences) {
  PagePool pool(2);
  const auto a = pool.take(), b = pool.take();
  ASSERT_TRUE(a && b);
  EXPECT_NE(*a, *b);
  EXPECT_FALSE(pool.take());
  pool.retain(*a);
  pool.release(*a);
  EXPECT_EQ(pool.free(), 0);
  pool.release(*a);
  EXPECT_EQ(pool.free(), 1);
  std::vector<std::int32_t> pages{*b};
  pool.release_all(pages);
  EXPECT_TRUE(pages.empty());
  EXPECT_EQ(pool.used(), 0);
}

TEST(Scheduler, LongPromptsAreCutAndDecodesGoOnBesideThem) {
  PagePool pages(100);
  Scheduler s(pages, {.batch_max = 4, .step_tokens_max = 16});
  s.add(make(1, 10));
  EXPECT_EQ(ids(s.plan()), (Ids{{1, 10}}));
  advance(s.plan());
  s.add(make(2, 40));
  EXPECT_EQ(ids(s.plan()), (Ids{{1, 1}, {2, 15}}));
  advance(s.plan());
  advance(s.plan());
  EXPECT_EQ(ids(s.plan()), (Ids{{1, 1}, {2, 10}}));
  advance(s.plan());
  EXPECT_EQ(ids(s.plan()), (Ids{{1, 1}, {2, 1}}));
}

TEST(Scheduler, FastGoesFirstThenArrival) {
  PagePool pages(100);
  Scheduler s(pages, {.batch_max = 2, .step_tokens_max = 64});
  s.add(make(1, 4));
  s.add(make(2, 4));
  s.add(make(3, 4, Priority::fast));
  s.add(make(4, 4, Priority::fast));
  EXPECT_EQ(ids(s.plan()), (Ids{{3, 4}, {4, 4}}));
  EXPECT_EQ(s.waiting(Priority::regular), 2);
  EXPECT_NE(s.remove(3), nullptr);
  EXPECT_EQ(ids(s.plan()), (Ids{{4, 4}, {1, 4}}));
}

TEST(Scheduler, AdmissionWaitsForPages) {
  PagePool pages(4);
  Scheduler s(pages, {.batch_max = 8, .step_tokens_max = 64});
  s.add(make(1, 32));  // two pages
  s.add(make(2, 32));  // two pages and one to spare: must wait
  EXPECT_EQ(ids(s.plan()), (Ids{{1, 32}}));
  EXPECT_EQ(s.waiting(Priority::regular), 1);
  EXPECT_NE(s.remove(1), nullptr);
  EXPECT_EQ(pages.used(), 0);
  EXPECT_EQ(ids(s.plan()), (Ids{{2, 32}}));
}

TEST(Scheduler, TheLastInOrderGivesWayAndKeepsWhatNobodyNeeds) {
  PagePool pages(5);
  Scheduler s(pages, {.batch_max = 8, .step_tokens_max = 64});
  s.add(make(1, 16, Priority::fast));
  s.add(make(2, 16));
  s.add(make(3, 16, Priority::fast));
  advance(s.plan());  // 1 and 3 hold a page each; 2 holds one
  ASSERT_EQ(s.running(), 3);
  advance(s.plan());  // each would need a second page: five are not six
  EXPECT_EQ(s.running(), 2);
  EXPECT_EQ(s.waiting(Priority::regular), 1);
  EXPECT_EQ(s.preempted(), 1u);
  EXPECT_EQ(s.tree().idle(), 1);
  EXPECT_EQ(ids(s.plan()), (Ids{{1, 1}, {3, 1}}));
  s.remove(1);
  EXPECT_EQ(ids(s.plan()), (Ids{{3, 1}, {2, 1}}));  // its prompt is still there
  s.remove(2);
  s.remove(3);
  EXPECT_EQ(pages.used(), 0);
}

TEST(Scheduler, WhatWasThrownOutIsRecomputed) {
  PagePool pages(3);
  Scheduler s(pages, {.batch_max = 8, .step_tokens_max = 64});
  s.add(make(1, 16));
  s.add(make(2, 16));
  advance(s.plan());
  advance(s.plan());  // 1 takes the last page, 2 gives way
  ASSERT_EQ(s.running(), 1);
  EXPECT_EQ(s.tree().idle(), 1);
  for (int i = 0; i < 17; ++i) advance(s.plan());  // 1 needs a third page: 2's
  EXPECT_EQ(s.tree().idle(), 0);
  EXPECT_EQ(s.tree().evicted(), 1u);
  s.remove(1);
  EXPECT_EQ(ids(s.plan()), (Ids{{2, 17}}));  // prompt and the token that it had made
}

TEST(Scheduler, RemoveFindsWaitingOnesToo) {
  PagePool pages(4);
  Scheduler s(pages, {.batch_max = 1, .step_tokens_max = 64});
  s.add(make(1, 4));
  s.add(make(2, 4));
  s.plan();
  EXPECT_EQ(s.remove(9), nullptr);
  EXPECT_EQ(s.remove(2)->id, 2u);
  EXPECT_EQ(s.remove(1)->id, 1u);
  EXPECT_TRUE(s.empty());
  EXPECT_TRUE(s.plan().empty());
}

TEST(Scheduler, RandomLoadAlwaysFinishesWithinMemory) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    const int total = 6 + static_cast<int>(random() % 10), longest = total * kPageTokens;
    PagePool pages(total);
    Scheduler s(pages, {.batch_max = 1 + static_cast<int>(random() % 6),
                        .step_tokens_max = 8 + static_cast<int>(random() % 40)});
    std::map<std::uint64_t, std::size_t> goal;  // length at which a sequence is done
    std::uint64_t next = 1;
    int steps = 0;
    while (next <= 60 || !s.empty()) {
      ASSERT_LT(++steps, 100000) << "no progress, seed " << seed;
      if (next <= 60 && random() % 3 == 0) {
        const int prompt = 1 + static_cast<int>(random() % static_cast<unsigned>(longest - 1));
        goal[next] =
            static_cast<std::size_t>(prompt + 1 + static_cast<int>(random() % static_cast<unsigned>(longest - prompt)));
        s.add(make(next, prompt, random() % 4 == 0 ? Priority::fast : Priority::regular));
        ++next;
      }
      const auto work = s.plan();
      if (s.empty()) continue;
      ASSERT_FALSE(work.empty()) << "stuck, seed " << seed;
      std::set<std::int32_t> owned;
      for (const auto& item : work) {
        for (std::int32_t page : item.sequence->pages) ASSERT_TRUE(owned.insert(page).second) << "page given out twice";
      }
      advance(work);
      std::vector<std::uint64_t> finished;
      for (const auto& item : work) {
        if (item.sequence->tokens.size() >= goal[item.sequence->id]) finished.push_back(item.sequence->id);
      }
      for (std::uint64_t id : finished) ASSERT_NE(s.remove(id), nullptr);
    }
    EXPECT_EQ(pages.used(), 0);
  }
}

}  // namespace
}  // namespace ganglion::local
