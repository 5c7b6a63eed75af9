#pragma once
// What a token costs on this machine: a loaded model is driven as full as asked, and the device's time is divided by
// the tokens.

#include <vector>

#include "backends/local/local_backend.hpp"
#include "core/error.hpp"

namespace ganglion::backends {

struct CalibrateOptions {
  int batch = 8;            // requests at once: a device that works for few makes each dearer
  int prompt_tokens = 512;  // at most a quarter of the context
  int output_tokens = 64;
  int rounds = 3;  // the median counts
};

// Microseconds of the device for one token.
struct TokenCost {
  double input_us = 0;
  double cached_us = 0;  // an input token that was found computed: those after it still look back on it
  double output_us = 0;  // 0 for models that make embeddings
  int batch = 0;
  int prompt_tokens = 0;
};

// Blocks; nobody else should use the model meanwhile. Errors: that of the first request that failed; typical_cost's.
core::Result<TokenCost> measure_token_cost(const LocalModel& model, const CalibrateOptions& options);

// The medians of `rounds` (at least one). Error: overloaded where a token that is made, or read, would cost nothing, as
// it comes out of too short a measurement on a busy machine.
core::Result<TokenCost> typical_cost(const std::vector<TokenCost>& rounds, bool generates);

}  // namespace ganglion::backends
