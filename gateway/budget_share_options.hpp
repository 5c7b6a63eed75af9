#pragma once
// How budgets are shared by several gateways, as the operator writes it.

#include <chrono>
#include <cstdint>

namespace ganglion::gateway {

struct BudgetShareOptions {
  bool enabled = true;                        // where Redis is configured
  std::uint32_t gateways = 2;                 // that share; what a share is, and whom a rebuild waits for
  bool share_in_outage = true;                // false: what was not granted is refused while Redis does not answer
  std::chrono::milliseconds interval{250};    // between two rounds
  std::chrono::milliseconds lapse{300'000};   // a gateway that has not been heard of for so long holds nothing
  std::chrono::milliseconds rebuild{3'000};   // after the store lost its data: grants wait for all gateways at most
  std::chrono::milliseconds patience{1'500};  // a request waits for a slice at most
};

}  // namespace ganglion::gateway
