#pragma once
// From what tokens cost on this machine to rows of the configuration's price list.

#include <string>

#include "backends/local/local_calibrate.hpp"

namespace ganglion::app {

// YAML for `pricing.models`, in neurons per million tokens.
std::string price_rows(const std::string& model, const std::string& device, const backends::TokenCost& cost,
                       double neurons_per_second);

}  // namespace ganglion::app
