#pragma once
// Who caused how much of a step's time: a step is computed for many at once, and each gets its share of the device's
// time by its tokens and by the keys and values that they look back on. An estimate from the model's shapes: products
// are bound by arithmetic or, in small steps, by reading the weights, whose cost all tokens of the step share;
// attention is bound by arithmetic (prompts) or by reading keys and values (one token after a long text).

#include <cstdint>
#include <span>
#include <vector>

#include "backends/local/weights/model_config.hpp"

namespace ganglion::local {

class WorkShare {
 public:
  struct Machine {
    double weight_bytes = 0;      // read by a step
    double kv_token_bytes = 0;    // keys and values of one token, all layers
    double operations_byte = 15;  // that the device does in the time of reading one byte
  };
  WorkShare() = default;
  WorkShare(const ModelConfig& config, const Machine& machine);

  struct Part {
    int position = 0;  // tokens before it
    int tokens = 0;
  };
  // One share for each part; they add up to 1. Valid until the next call.
  std::span<const double> of(std::span<const Part> parts);

 private:
  Machine machine_;
  double operations_token_ = 1;  // of the products, per token
  double operations_pair_ = 0;   // of attention, per query and key
  std::vector<double> shares_;
};

}  // namespace ganglion::local
