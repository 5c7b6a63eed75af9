#pragma once
// Prices of one configuration snapshot: the operator's own rows, over a built-in schedule, over its fallback row.
// Immutable and shared by all workers.

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/clock.hpp"
#include "core/error.hpp"
#include "metering/bill.hpp"
#include "metering/options.hpp"
#include "metering/units.hpp"

namespace ganglion::metering {

// Exact price of one unit of each kind, in parts.
struct Rates {
  NeuronParts input_token = 0;
  NeuronParts cached_input_token = 0;
  NeuronParts output_token = 0;
  NeuronParts request = 0;
  NeuronParts gpu_us = 0;
  NeuronParts llm_response = 0;
  NeuronParts image_classification = 0;
  NeuronParts embedding = 0;
};

// What tenants get free, as it was, is and will be.
FreeAllocation free_allocation(const PricingOptions& options);

class PriceBook {
 public:
  // Fails with invalid_value (param names the option) on an unknown schedule or a number that is no exact decimal.
  static core::Result<std::shared_ptr<const PriceBook>> make(const PricingOptions& options);

  // The price of a model is the first of: the operator's row for it, the operator's "*" row, the schedule's row, the
  // schedule's "*" row (source fallback). Both tiers count the same neurons; a neuron's USD differs by tier.
  // Units above kUnitsPerRequestMax count as that maximum.
  Charge price(std::string_view model, api::Tier tier, const Units& units) const;

  // A request that costs nothing (cache hit, rejection): schedule and USD rate are set, the amount is 0.
  Charge free(api::Tier tier) const;

  std::string_view schedule() const { return schedule_; }  // id and version, "launch-2023/1"
  std::uint64_t usd_pico_per_neuron(api::Tier tier) const {
    return usd_pico_per_neuron_[static_cast<std::size_t>(tier)];
  }
  std::uint64_t daily_free_neurons() const { return daily_free_neurons_; }

 private:
  struct Row {
    Rates rates;
    PriceSource source = PriceSource::schedule;
  };
  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };
  PriceBook() = default;
  const Row& row(std::string_view model) const;

  std::string_view schedule_;
  std::uint64_t usd_pico_per_neuron_[api::kTierCount] = {};
  std::uint64_t daily_free_neurons_ = 0;
  std::unordered_map<std::string, Row, Hash, std::equal_to<>> rows_;
  Row any_;
};

// All prices of a configuration: those it begins with and the dated changes, each in force from its instant on. What a
// change does not name stays as it was.
class PriceTimeline {
 public:
  // As PriceBook::make; also invalid_value where the changes are not in order of time.
  static core::Result<std::shared_ptr<const PriceTimeline>> make(const PricingOptions& options);

  // Valid while the timeline lives.
  const PriceBook& at(core::WallTime time) const;

 private:
  PriceTimeline() = default;
  std::vector<std::pair<core::WallTime, std::shared_ptr<const PriceBook>>> books_;  // by time; the first has none
};

}  // namespace ganglion::metering
