#pragma once
// The unit that usage is summed in: what one kind of request used within one hour. A ledger record is one slice of one
// record; a rollup row is a slice of many.

#include <cstdint>
#include <string>
#include <tuple>

#include "metering/record.hpp"

namespace ganglion::metering {

// What may be grouped and filtered by. The price of a neuron belongs to it: it is never derived again later.
struct UsageDimensions {
  std::string tenant, key_id, gateway, model;
  api::Tier tier = api::Tier::regular;
  std::string schedule;
  std::uint64_t usd_pico_per_neuron = 0;
  api::Tags tags;
};

struct UsageCounts {
  std::uint64_t records = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t estimated = 0;  // records whose units we counted
  Units units;
  NeuronParts exact = 0;

  // False: a sum of parts does not fit 128 bits.
  bool add(const UsageCounts& other) {
    records += other.records;
    cache_hits += other.cache_hits;
    estimated += other.estimated;
    units += other.units;
    return !__builtin_add_overflow(exact, other.exact, &exact);
  }
};

inline constexpr std::int64_t kHourUs = 3'600'000'000;
inline constexpr std::int64_t kHoursPerDay = 24;

inline std::int64_t hour_of(const LedgerRecord& record) {
  return record.time.count() / kHourUs;
}

inline UsageDimensions dimensions_of(const LedgerRecord& record) {
  return {.tenant = record.tenant,
          .key_id = record.key_id,
          .gateway = record.gateway,
          .model = record.model,
          .tier = record.tier,
          .schedule = record.schedule,
          .usd_pico_per_neuron = record.usd_pico_per_neuron,
          .tags = record.tags};
}

inline UsageCounts counts_of(const LedgerRecord& record) {
  return {.records = 1,
          .cache_hits = record.outcome == Outcome::cache_hit ? 1U : 0U,
          .estimated = record.estimated ? 1U : 0U,
          .units = record.units,
          .exact = record.exact};
}

}  // namespace ganglion::metering
