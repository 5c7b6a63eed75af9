#pragma once
// What a step costs, learnt from the steps: seconds = fixed + per_token * tokens. The fixed part is the reading of the
// weights, so a step can take some tokens more and last hardly longer; how many is what tells spare capacity. Engine
// thread only.

namespace ganglion::local {

class StepCost {
 public:
  void observe(int tokens, double seconds);
  // How many tokens take as long as a step's fixed part: 0 on a machine that is bound by computing alone.
  double free_tokens() const { return free_tokens_; }

 private:
  // Sums over the recent steps, older ones fading.
  double weight_ = 0, tokens_ = 0, seconds_ = 0, tokens2_ = 0, cross_ = 0;
  double free_tokens_ = 1;  // until the first steps of different sizes: a careful guess
};

}  // namespace ganglion::local
