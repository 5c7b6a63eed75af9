// Nearest neighbours inside hard partitions: what is found, what is refused and why, what leaves and when.

#include "cache/semantic_index.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <thread>

namespace ganglion::cache {
namespace {

using namespace std::chrono_literals;

CacheKey key(std::uint64_t n) {
  return {.hash = {n * 0x9E3779B97F4A7C15ULL, n}, .check = {n, ~n}, .bytes = n};
}

// A unit vector at this angle from the x axis, so that two have the cosine of the difference.
std::vector<float> at(double degrees, std::size_t dims = 8) {
  std::vector<float> out(dims, 0.0F);
  out[0] = static_cast<float>(std::cos(degrees * M_PI / 180));
  out[1] = static_cast<float>(std::sin(degrees * M_PI / 180));
  return out;
}

SemanticPoint point(double degrees, std::size_t bytes = 100, std::uint64_t numbers = 0, std::uint64_t partition = 1) {
  return {.partition = key(partition),
          .vector = at(degrees),
          .text_bytes = bytes,
          .numbers = numbers,
          .text_digest = bytes};
}

class SemanticIndexTest : public testing::Test {
 protected:
  SemanticLook look(const SemanticPoint& asked) { return index->look(asked, policy); }

  core::ManualClock clock;
  SemanticPolicy policy{.embedding_model = "e", .threshold = 0.95};
  std::unique_ptr<SemanticIndex> index = std::make_unique<SemanticIndex>(SemanticOptions{}, clock);
};

TEST_F(SemanticIndexTest, FindsTheNearestStoredQuestion) {
  EXPECT_EQ(look(point(0)).result, SemanticResult::empty);
  index->insert(point(0), key(10), 1h);
  index->insert(point(12), key(11), 1h);
  const auto found = look(point(10));
  ASSERT_EQ(found.result, SemanticResult::hit);
  EXPECT_EQ(found.match->answer, key(11));
  EXPECT_NEAR(found.match->score, std::cos(2 * M_PI / 180), 1e-6);
  EXPECT_EQ(index->entries(), 2U);
}

TEST_F(SemanticIndexTest, TheThresholdIsSharp) {
  index->insert(point(0), key(10), 1h);
  policy.threshold = std::cos(10.01 * M_PI / 180);
  EXPECT_EQ(look(point(10)).result, SemanticResult::hit);
  policy.threshold = std::cos(9.99 * M_PI / 180);
  const auto refused = look(point(10));
  EXPECT_EQ(refused.result, SemanticResult::too_far);
  ASSERT_TRUE(refused.match) << "a near miss is told";
  EXPECT_NEAR(refused.match->score, std::cos(10 * M_PI / 180), 1e-6);
}

TEST_F(SemanticIndexTest, AVectorsLengthDoesNotMatter) {
  index->insert(point(0), key(10), 1h);
  SemanticPoint asked = point(3);
  for (float& v : asked.vector) v *= 1e-3F;
  EXPECT_EQ(look(asked).result, SemanticResult::hit);
}

TEST_F(SemanticIndexTest, AnotherPartitionIsNeverFoundHoweverNear) {
  index->insert(point(0, 100, 0, 1), key(10), 1h);
  EXPECT_EQ(look(point(0, 100, 0, 2)).result, SemanticResult::empty);
  EXPECT_EQ(look(point(0, 100, 0, 1)).result, SemanticResult::hit);
}

TEST_F(SemanticIndexTest, MuchLongerOrShorterIsRefused) {
  index->insert(point(0, 100), key(10), 1h);
  policy.length_difference_max_percent = 20;
  EXPECT_EQ(look(point(0, 125)).result, SemanticResult::hit);
  EXPECT_EQ(look(point(0, 126)).result, SemanticResult::length);
  EXPECT_EQ(look(point(0, 80)).result, SemanticResult::hit);
  EXPECT_EQ(look(point(0, 79)).result, SemanticResult::length);
}

TEST_F(SemanticIndexTest, OtherNumbersAreRefusedAndDoNotHideTheNext) {
  index->insert(point(0, 100, 17), key(10), 1h);
  index->insert(point(5, 100, 18), key(11), 1h);
  EXPECT_EQ(look(point(0, 100, 19)).result, SemanticResult::numbers);
  const auto next = look(point(0, 100, 18));
  ASSERT_EQ(next.result, SemanticResult::hit);
  EXPECT_EQ(next.match->answer, key(11));
  policy.same_numbers = false;
  EXPECT_EQ(look(point(0, 100, 19)).result, SemanticResult::hit);
}

TEST_F(SemanticIndexTest, ExpiresWithTheAnswer) {
  index->insert(point(0), key(10), 60s);
  clock.advance(59s);
  EXPECT_EQ(look(point(0)).result, SemanticResult::hit);
  clock.advance(1s);
  EXPECT_EQ(look(point(0)).result, SemanticResult::empty);
}

TEST_F(SemanticIndexTest, AForgottenAnswerIsNotFoundAgain) {
  index->insert(point(0), key(10), 1h);
  index->forget(key(1), key(10));
  EXPECT_EQ(look(point(0)).result, SemanticResult::empty);
  EXPECT_EQ(index->entries(), 0U);
  index->forget(key(1), key(10));
  index->forget(key(9), key(10));
}

TEST_F(SemanticIndexTest, TheSameAnswerAgainReplaces) {
  index->insert(point(0), key(10), 1h);
  index->insert(point(40), key(10), 1h);
  EXPECT_EQ(index->entries(), 1U);
  EXPECT_EQ(look(point(0)).result, SemanticResult::too_far);
  EXPECT_EQ(look(point(40)).result, SemanticResult::hit);
}

TEST_F(SemanticIndexTest, WhatIsNoVectorIsNoMatch) {
  index->insert(point(0), key(10), 1h);
  SemanticPoint zero = point(0), nan = point(0), other = point(0);
  zero.vector.assign(8, 0.0F);
  nan.vector[3] = NAN;
  other.vector = at(0, 4);
  EXPECT_EQ(look(zero).result, SemanticResult::failed);
  EXPECT_EQ(look(nan).result, SemanticResult::failed);
  EXPECT_EQ(look(other).result, SemanticResult::empty) << "another model's vectors";
  index->insert(nan, key(11), 1h);
  EXPECT_EQ(index->entries(), 1U);
  index->insert(other, key(12), 1h);  // the model was changed: the old vectors mean nothing now
  EXPECT_EQ(index->entries(), 1U);
  EXPECT_EQ(look(other).result, SemanticResult::hit);
}

TEST_F(SemanticIndexTest, BoundedInAllByLastUse) {
  index = std::make_unique<SemanticIndex>(SemanticOptions{.entries_max = 3}, clock);
  for (std::uint64_t p = 1; p <= 3; ++p) index->insert(point(0, 100, 0, p), key(10 + p), 1h);
  EXPECT_EQ(look(point(0, 100, 0, 1)).result, SemanticResult::hit);  // used
  index->insert(point(0, 100, 0, 4), key(14), 1h);
  EXPECT_EQ(index->entries(), 3U);
  EXPECT_EQ(index->evicted(), 1U);
  EXPECT_EQ(look(point(0, 100, 0, 2)).result, SemanticResult::empty);
  EXPECT_EQ(look(point(0, 100, 0, 1)).result, SemanticResult::hit);
}

TEST_F(SemanticIndexTest, BoundedPerPartition) {
  index = std::make_unique<SemanticIndex>(SemanticOptions{.partition_entries_max = 5}, clock);
  for (std::uint64_t i = 0; i < 50; ++i) index->insert(point(static_cast<double>(i) * 7), key(100 + i), 1h);
  EXPECT_EQ(index->entries(), 5U);
  EXPECT_EQ(look(point(49 * 7)).match->answer, key(149));
  index->clear();
  EXPECT_EQ(index->entries(), 0U);
}

// Beyond the size at which the graph takes over, against a slow and obvious search; entries come and go, so that the
// graph holds removed nodes and nodes used again.
TEST_F(SemanticIndexTest, TheGraphFindsWhatASearchOfAllFinds) {
  constexpr std::size_t kDims = 32;
  index = std::make_unique<SemanticIndex>(SemanticOptions{.partition_entries_max = 1'500, .graph_min = 256}, clock);
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const auto draw = [&] {
    std::vector<float> v(kDims);
    float square = 0;
    for (float& x : v) {
      x = normal(random);
      square += x * x;
    }
    for (float& x : v) x /= std::sqrt(square);
    return v;
  };
  std::map<std::uint64_t, std::vector<float>> live;
  std::uint64_t next = 1;
  const auto add = [&] {
    live[next] = draw();
    index->insert({.partition = key(1), .vector = live[next], .text_bytes = 10}, key(next), 1h);
    ++next;
  };
  for (int i = 0; i < 1'200; ++i) add();
  for (int i = 0; i < 600; ++i) {
    auto victim = live.begin();
    std::advance(victim, random() % live.size());
    index->forget(key(1), key(victim->first));
    live.erase(victim);
    if (i % 2 == 0) add();
  }
  ASSERT_EQ(index->entries(), live.size());
  policy.threshold = -1;
  int same = 0, asked = 0;
  for (int i = 0; i < 200; ++i, ++asked) {
    const auto query = draw();
    double best = -2;
    std::uint64_t nearest = 0;
    for (const auto& [id, v] : live) {
      double score = 0;
      for (std::size_t d = 0; d < kDims; ++d) score += static_cast<double>(v[d]) * query[d];
      if (score > best) best = score, nearest = id;
    }
    const auto found = look({.partition = key(1), .vector = query, .text_bytes = 10});
    ASSERT_EQ(found.result, SemanticResult::hit);
    ASSERT_LE(found.match->score, best + 1e-5);
    ASSERT_TRUE(std::ranges::any_of(live, [&](const auto& l) { return key(l.first) == found.match->answer; }))
        << "a removed entry was found";
    same += found.match->answer == key(nearest) ? 1 : 0;
  }
  EXPECT_GE(same, asked * 9 / 10) << "recall of the graph";
  // Each stored one finds itself: no node was lost when it moved.
  int itself = 0;
  for (const auto& [id, v] : live) {
    itself += look({.partition = key(1), .vector = v, .text_bytes = 10}).match->answer == key(id) ? 1 : 0;
  }
  EXPECT_GE(itself, static_cast<int>(live.size()) * 99 / 100);
}

TEST_F(SemanticIndexTest, ThreadsDoNotDisturbEachOther) {
  index = std::make_unique<SemanticIndex>(SemanticOptions{.entries_max = 400, .partition_entries_max = 100}, clock);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<std::uint32_t>(t));
      for (int i = 0; i < 3'000; ++i) {
        const std::uint64_t partition = random() % 6, id = random() % 500;
        const SemanticPoint p = point(static_cast<double>(id % 360), 100, 0, partition);
        if (random() % 4 == 0) {
          index->insert(p, key(partition * 1'000 + id), 1h);
        } else if (random() % 10 == 0) {
          index->forget(key(partition), key(partition * 1'000 + id));
        } else if (const auto found = index->look(p, policy); found.result == SemanticResult::hit) {
          EXPECT_EQ(found.match->answer.bytes / 1'000, partition) << "from another partition";
        }
      }
    });
  }
  threads.clear();
  EXPECT_LE(index->entries(), 400U);
}

}  // namespace
}  // namespace ganglion::cache
