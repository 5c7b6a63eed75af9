#pragma once
// What a tenant owes for what it used: the daily free allocation taken off, each rest times its own recorded price, all
// exact. Amounts are rounded once, where they are shown.

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "metering/usage_slice.hpp"

namespace ganglion::metering {

// An exact amount of USD: whole pico-USD and a rest in kPartsPerNeuron-ths of one.
class ExactUsd {
 public:
  // A rate is at most 1e15 (USD 1,000,000 per 1,000 neurons), so rest * rate stays below 1.2e34.
  void add(NeuronParts parts, std::uint64_t pico_per_neuron);
  void add(const ExactUsd& other);
  std::string text() const;   // rounded half up to 12 decimals, trailing zeros cut
  std::string cents() const;  // rounded half up to 2 decimals, which are always there
  friend bool operator==(const ExactUsd&, const ExactUsd&) = default;

 private:
  void carry();
  NeuronParts whole_ = 0;
  NeuronParts rest_ = 0;
};

std::string neurons_text(NeuronParts parts);  // rounded half up to 9 decimals, trailing zeros cut

// Free neurons a tenant gets each UTC day. A change counts from the first day that begins after it.
class FreeAllocation {
 public:
  FreeAllocation() = default;
  FreeAllocation(std::uint64_t neurons) : steps_{{std::chrono::microseconds{0}, neurons}} {}  // NOLINT: a plain number
  // From that instant on; in order of time.
  void change(std::chrono::microseconds from, std::uint64_t neurons) { steps_.emplace_back(from, neurons); }
  std::uint64_t on_day(std::int64_t days_since_1970) const;
  std::uint64_t most() const;  // of any day

 private:
  std::vector<std::pair<std::chrono::microseconds, std::uint64_t>> steps_;
};

class Bill {
 public:
  // One price: free neurons go to the regular tier first, within a tier to the cheapest price - this order.
  struct Price {
    api::Tier tier = api::Tier::regular;
    std::uint64_t usd_pico_per_neuron = 0;
    std::string schedule;
    friend auto operator<=>(const Price&, const Price&) = default;
  };
  struct Item {
    Price price;
    UsageCounts counts;
    NeuronParts free = 0;
    ExactUsd usd;  // of the rest
  };
  struct Settled {
    std::vector<Item> items;
    UsageCounts counts;
    NeuronParts free = 0;
    ExactUsd usd;
  };

  // False: a sum does not fit 128 bits.
  bool add(std::int64_t day, const UsageDimensions& dimensions, const UsageCounts& counts);
  Settled settle(const FreeAllocation& free) const;

 private:
  std::map<Price, UsageCounts> items_;
  std::map<std::int64_t, std::map<Price, NeuronParts>> days_;
};

}  // namespace ganglion::metering
