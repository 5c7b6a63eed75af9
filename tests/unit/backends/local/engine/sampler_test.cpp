// Each sampling parameter by what it does to the outcome, over exact small distributions.

#include "backends/local/engine/sampler.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "backends/local/kernels/cpu/dispatch.hpp"

namespace ganglion::local {
namespace {

const Kernels& kernels() {
  return kernels_for(best_isa());
}

Choice choose(std::vector<float> logits, const SamplingParams& p, const TokenHistory& h = {}, std::uint64_t seed = 1,
              std::uint64_t index = 0) {
  return choose_token(kernels(), logits, p, h, seed, index);
}

std::map<std::int32_t, double> frequencies(const std::vector<float>& logits, const SamplingParams& p, int n = 20000) {
  std::map<std::int32_t, double> out;
  for (int i = 0; i < n; ++i) out[choose(logits, p, {}, 99, static_cast<std::uint64_t>(i)).id] += 1.0 / n;
  return out;
}

// logits whose softmax is 0.5, 0.25, 0.15, 0.07, 0.03 at ids 3, 1, 4, 0, 2
const std::vector<float> kLogits = {std::log(0.07f), std::log(0.25f), std::log(0.03f), std::log(0.5f), std::log(0.15f)};

TEST(Sampler, GreedyTakesTheLowestIdOfTies) {
  SamplingParams p;
  p.temperature = 0;
  std::vector<float> logits(100, 0.0f);
  logits[17] = logits[42] = logits[99] = 3.0f;
  EXPECT_EQ(choose(logits, p).id, 17);
}

TEST(Sampler, FollowsTheDistributionAndTemperature) {
  SamplingParams p;
  auto f = frequencies(kLogits, p);
  EXPECT_NEAR(f[3], 0.5, 0.015);
  EXPECT_NEAR(f[1], 0.25, 0.015);
  EXPECT_NEAR(f[2], 0.03, 0.006);
  p.temperature = 0.5f;  // squares the ratios
  f = frequencies(kLogits, p);
  EXPECT_NEAR(f[3] / f[1], 4.0, 0.3);
}

TEST(Sampler, TopKTopPAndMinPCutTheTail) {
  SamplingParams p;
  p.top_k = 2;
  auto f = frequencies(kLogits, p);
  EXPECT_EQ(f.size(), 2u);
  EXPECT_NEAR(f[3], 2.0 / 3, 0.015);

  p = {};
  p.top_p = 0.76f;  // 0.5 + 0.25 are not enough, so 0.15 is in
  f = frequencies(kLogits, p);
  EXPECT_EQ(f.size(), 3u);
  EXPECT_NEAR(f[4], 0.15 / 0.9, 0.01);

  p = {};
  p.top_p = 0.0f;  // the likeliest always stays
  EXPECT_EQ(frequencies(kLogits, p, 100).size(), 1u);

  p = {};
  p.min_p = 0.2f;  // at least 0.1
  f = frequencies(kLogits, p);
  EXPECT_EQ(f.size(), 3u);

  p = {};
  p.top_k = 4;
  p.top_p = 0.9f;  // of the four's 0.97: 0.5 + 0.25 + 0.15 = 0.9 of 0.873
  f = frequencies(kLogits, p);
  EXPECT_EQ(f.size(), 3u);
}

TEST(Sampler, TopPIsAShareOfAllThatTopKLeaves) {
  // The fifty likeliest have 0.9757: 0.5 + 0.3 + 0.12 = 0.92 of 0.927 are not enough.
  std::vector<float> logits(104, std::log(0.00045f));
  logits[7] = std::log(0.5f), logits[3] = std::log(0.3f), logits[90] = std::log(0.12f), logits[50] = std::log(0.035f);
  SamplingParams p;
  p.top_k = 50;
  p.top_p = 0.95f;
  EXPECT_EQ(frequencies(logits, p).size(), 4u);
  p.min_p = 0.1f;  // at least 0.05, of those four
  EXPECT_EQ(frequencies(logits, p).size(), 3u);
}

TEST(Sampler, FiltersWorkOnFlatDistributionsOverManyTokens) {
  std::vector<float> logits(5000, 0.0f);
  SamplingParams p;
  p.top_p = 0.5f;
  auto f = frequencies(logits, p, 500);
  EXPECT_LE(f.rbegin()->first, 2500);  // ties go to low ids
  p = {};
  p.top_k = 10;
  f = frequencies(logits, p, 300);
  EXPECT_EQ(f.size(), 10u);
  EXPECT_EQ(f.rbegin()->first, 9);
}

TEST(Sampler, SeedAndIndexAloneDecide) {
  SamplingParams p;
  const std::vector<float> logits(1000, 0.0f);
  EXPECT_EQ(choose(logits, p, {}, 5, 3).id, choose(logits, p, {}, 5, 3).id);
  std::map<std::int32_t, int> seen;
  for (std::uint64_t i = 0; i < 50; ++i) {
    ++seen[choose(logits, p, {}, 5, i).id];
    ++seen[choose(logits, p, {}, i + 100, 3).id];
  }
  EXPECT_GT(seen.size(), 80u);
}

TEST(Sampler, UniformNumbersAreUniform) {
  std::vector<int> bins(10, 0);
  for (std::uint64_t i = 0; i < 10000; ++i) {
    const double u = uniform_at(0, i);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++bins[static_cast<std::size_t>(u * 10)];
  }
  for (int count : bins) EXPECT_NEAR(count, 1000, 150);
}

TEST(Sampler, PenaltiesAndBiasMoveTheChoice) {
  SamplingParams p;
  p.temperature = 0;
  const std::vector<float> logits = {1.0f, 2.0f, 3.0f, -1.0f};
  TokenHistory h;
  h.generated = {{2, 3}, {1, 1}};
  p.frequency_penalty = 0.5f;  // 3 - 1.5 = 1.5 ; 2 - 0.5 = 1.5: a tie, the lower id wins
  EXPECT_EQ(choose(logits, p, h).id, 1);
  p.frequency_penalty = 0;
  p.presence_penalty = 1.5f;  // 1.5 and 0.5 against 1.0
  EXPECT_EQ(choose(logits, p, h).id, 2);
  p.presence_penalty = 2.0f;
  EXPECT_EQ(choose(logits, p, h).id, 0);
  p = {};
  p.temperature = 0;
  p.repetition_penalty = 4.0f;  // 0.75 and 0.5 against 1.0
  EXPECT_EQ(choose(logits, p, h).id, 0);
  h.generated.clear();
  h.prompt = {2};
  EXPECT_EQ(choose(logits, p, h).id, 1);
  p = {};
  p.temperature = 0;
  p.logit_bias = {{3, 100.0f}};
  EXPECT_EQ(choose(logits, p).id, 3);
  p.logit_bias = {{2, -100.0f}};
  EXPECT_EQ(choose(logits, p).id, 1);
}

TEST(Sampler, NegativeLogitsArePushedDownByTheRepetitionPenalty) {
  SamplingParams p;
  p.temperature = 0;
  p.repetition_penalty = 2.0f;
  TokenHistory h;
  h.generated = {{0, 1}};
  EXPECT_EQ(choose({-1.0f, -1.5f}, p, h).id, 1);
}

TEST(Sampler, LogprobsAreTheModelsOwn) {
  SamplingParams p;
  p.temperature = 0;
  p.logprobs = true;
  p.top_logprobs = 3;
  p.logit_bias = {{2, 100.0f}};
  for (float temperature : {0.0f, 0.7f}) {
    p.temperature = temperature;
    const Choice c = choose(kLogits, p);
    EXPECT_EQ(c.id, 2);
    EXPECT_NEAR(c.logprob, std::log(0.03), 1e-5);
    ASSERT_EQ(c.top.size(), 3u);
    EXPECT_EQ(c.top[0].first, 3);
    EXPECT_NEAR(c.top[0].second, std::log(0.5), 1e-5);
    EXPECT_EQ(c.top[2].first, 4);
    EXPECT_NEAR(c.top[2].second, std::log(0.15), 1e-5);
  }
}

TEST(Sampler, NotANumberIsReported) {
  for (float temperature : {0.0f, 1.0f}) {
    SamplingParams p;
    p.temperature = temperature;
    EXPECT_FALSE(choose({1.0f, std::nanf(""), 2.0f}, p).ok);
    EXPECT_FALSE(choose({1.0f, INFINITY}, p).ok);
    EXPECT_FALSE(choose({-INFINITY, -INFINITY}, p).ok);
    const Choice c = choose({-INFINITY, 1.0f, -INFINITY}, p);
    EXPECT_TRUE(c.ok);
    EXPECT_EQ(c.id, 1);
  }
}

TEST(Sampler, TinyTemperatureIsGreedyAndHugeIsFlat) {
  SamplingParams p;
  p.temperature = 1e-30f;
  EXPECT_EQ(choose(kLogits, p).id, 3);
  p.temperature = 100.0f;
  const auto f = frequencies(kLogits, p);
  for (const auto& [id, share] : f) EXPECT_NEAR(share, 0.2, 0.03) << id;
}

}  // namespace
}  // namespace ganglion::local
