#pragma once
// Requests that differ in all that a sampler knows, and the distribution of what many of them got.

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {

// Parameters of request number `i`.
inline void vary(SamplingParams& p, int i) {
  p.temperature = i % 3 == 0 ? 0.0f : i % 3 == 1 ? 0.3f : 0.9f;
  p.seed = static_cast<std::uint64_t>(i);
  p.logprobs = i % 2 == 0;
  p.top_logprobs = i % 2 == 0 ? 2 : 0;
  if (i % 4 == 1) p.frequency_penalty = 0.4f, p.presence_penalty = 0.2f;
  if (i % 4 == 2) p.repetition_penalty = 1.2f;
  if (i % 5 == 3) p.top_k = 5;
  if (i % 5 == 4) p.top_p = 0.6f;
}

using PairCounts = std::map<std::pair<std::int32_t, std::int32_t>, double>;

// The pairs of the fifth and sixth tokens of 3,000 answers to `prompt`, each with its own seed.
inline PairCounts count_pairs(Engine& engine, const std::vector<std::int32_t>& prompt, std::uint64_t first_seed) {
  constexpr int kRuns = 3'000;
  PairCounts times;
  for (int base = 0; base < kRuns; base += 8) {
    std::vector<std::shared_ptr<KeepingSink>> sinks;
    for (int i = 0; i < 8; ++i) {
      auto r = greedy(prompt, 6);
      r.sampling.temperature = 1.0f;
      for (std::int32_t id = 60; id < 63; ++id) r.sampling.logit_bias[id] = 50;
      r.sampling.seed = first_seed + static_cast<std::uint64_t>(base + i);
      sinks.push_back(std::make_shared<KeepingSink>());
      EXPECT_TRUE(engine.submit(std::move(r), sinks.back()));
    }
    for (const auto& sink : sinks) {
      const auto out = sink->wait();
      ++times[{out.tokens.at(4), out.tokens.at(5)}];
    }
  }
  return times;
}

// Chi-square between two samples of one size; `cells` those that have enough.
inline double chi_square(const PairCounts& a, const PairCounts& b, int& cells) {
  double chi = 0;
  PairCounts all = a;
  for (const auto& [pair, n] : b) all[pair] += n;
  for (const auto& [pair, n] : all) {
    const double x = a.contains(pair) ? a.at(pair) : 0, y = b.contains(pair) ? b.at(pair) : 0;
    if (n < 10) continue;
    chi += (x - y) * (x - y) / (x + y);
    ++cells;
  }
  return chi;
}

}  // namespace ganglion::local
