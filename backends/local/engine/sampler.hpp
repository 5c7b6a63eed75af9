#pragma once
// Chooses the next token from one row of logits. Stateless but for the history it is given: the random number is a
// function of seed and token index, so a choice does not depend on what else runs, nor on being computed twice.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "backends/local/engine/events.hpp"
#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {

// What penalties look back on.
struct TokenHistory {
  std::unordered_map<std::int32_t, int> generated;  // token -> times
  std::unordered_set<std::int32_t> prompt;          // filled only when repetition_penalty is used
};

struct Choice {
  bool ok = false;  // false: the logits hold no usable number
  std::int32_t id = 0;
  float logprob = 0;                                // of the model's own distribution
  std::vector<std::pair<std::int32_t, float>> top;  // likeliest first, ties by lowest id
  bool no_room = false;                             // not ok, for the device could not take the row's adjustments
};

// Temperatures below this are greedy: dividing by them would overflow.
inline constexpr float kGreedyTemperature = 1e-5f;

// `logits` is overwritten. `index` counts the sequence's generated tokens from 0. `mask`: one bit a token, those that
// may be chosen; null: all. Where it allows none the choice is not ok.
Choice choose_token(const Kernels& kernels, std::span<float> logits, const SamplingParams& params,
                    const TokenHistory& history, std::uint64_t seed, std::uint64_t index,
                    const std::uint32_t* mask = nullptr);

// Uniform in [0, 1), from seed and index alone.
double uniform_at(std::uint64_t seed, std::uint64_t index);

}  // namespace ganglion::local
