// See step_cost.hpp. A least-squares line with exponential forgetting.

#include "backends/local/engine/step_cost.hpp"

#include <algorithm>

namespace ganglion::local {
namespace {

constexpr double kKeep = 0.99;            // of the older steps' weight, at each step: about the last 100 count
constexpr double kVarianceMin = 1.0;      // of tokens: steps of one size tell nothing about the slope
constexpr double kFreeTokensMax = 4'096;  // a slope lost in noise must not promise the moon

}  // namespace

void StepCost::observe(int tokens, double seconds) {
  const double x = tokens, y = seconds;
  weight_ = weight_ * kKeep + 1;
  tokens_ = tokens_ * kKeep + x;
  seconds_ = seconds_ * kKeep + y;
  tokens2_ = tokens2_ * kKeep + x * x;
  cross_ = cross_ * kKeep + x * y;
  const double mean_x = tokens_ / weight_, mean_y = seconds_ / weight_;
  const double variance = tokens2_ / weight_ - mean_x * mean_x;
  if (variance < kVarianceMin) return;
  const double slope = (cross_ / weight_ - mean_x * mean_y) / variance;
  if (slope <= 0) return;  // noise: more tokens do not cost less
  const double fixed = std::max(mean_y - slope * mean_x, 0.0);
  free_tokens_ = std::min(fixed / slope, kFreeTokensMax);
}

}  // namespace ganglion::local
