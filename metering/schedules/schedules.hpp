#pragma once
// The built-in price schedules, dated and versioned: a published table never changes, a new one gets a new version.

#include <span>
#include <string_view>

namespace ganglion::metering {

// Neurons per 1,000,000 units of one model; "" is not priced.
struct ScheduleRow {
  std::string_view model;
  std::string_view input, cached_input, output, images;
};

// Neurons that so many operations cost together: 1,000 for `per`. 0: not priced.
struct OperationRates {
  unsigned llm_responses_per_1000 = 0;
  unsigned image_classifications_per_1000 = 0;
  unsigned embeddings_per_1000 = 0;
};

struct Schedule {
  std::string_view option;  // as the configuration names it
  std::string_view id;      // with its version, as records name it
  std::string_view usd_per_1000_regular, usd_per_1000_fast;
  OperationRates operations;
  std::span<const ScheduleRow> rows;
};

std::span<const Schedule> schedules();

}  // namespace ganglion::metering
