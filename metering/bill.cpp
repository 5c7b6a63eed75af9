// See metering/bill.hpp.

#include "metering/bill.hpp"

#include <algorithm>

#include "metering/decimal.hpp"

namespace ganglion::metering {
namespace {

constexpr NeuronParts kPicoPerCent = 10'000'000'000;
constexpr std::int64_t kDayUs = kHourUs * kHoursPerDay;

}  // namespace

void ExactUsd::carry() {
  whole_ += rest_ / kPartsPerNeuron;
  rest_ %= kPartsPerNeuron;
}

void ExactUsd::add(NeuronParts parts, std::uint64_t pico_per_neuron) {
  whole_ += parts / kPartsPerNeuron * pico_per_neuron;
  rest_ += parts % kPartsPerNeuron * pico_per_neuron;
  carry();
}

void ExactUsd::add(const ExactUsd& other) {
  whole_ += other.whole_;
  rest_ += other.rest_;
  carry();
}

std::string ExactUsd::text() const {
  return format_decimal(whole_ + (rest_ >= (kPartsPerNeuron + 1) / 2 ? 1 : 0), 12);
}

std::string ExactUsd::cents() const {
  const NeuronParts cents = whole_ / kPicoPerCent + (whole_ % kPicoPerCent >= kPicoPerCent / 2 ? 1 : 0);
  const auto rest = static_cast<unsigned>(cents % 100);
  return format_decimal(cents / 100, 0) + (rest < 10 ? ".0" : ".") + std::to_string(rest);
}

std::string neurons_text(NeuronParts parts) {
  const NeuronParts nano =
      parts / kPartsPerNanoNeuron + (parts % kPartsPerNanoNeuron >= kPartsPerNanoNeuron / 2 ? 1 : 0);
  return format_decimal(nano, 9);
}

std::uint64_t FreeAllocation::on_day(std::int64_t days_since_1970) const {
  std::uint64_t neurons = 0;
  for (const auto& [from, amount] : steps_)
    if (from.count() <= days_since_1970 * kDayUs) neurons = amount;
  return neurons;
}

std::uint64_t FreeAllocation::most() const {
  std::uint64_t neurons = 0;
  for (const auto& [from, amount] : steps_) neurons = std::max(neurons, amount);
  return neurons;
}

bool Bill::add(std::int64_t day, const UsageDimensions& dimensions, const UsageCounts& counts) {
  const Price price{
      .tier = dimensions.tier, .usd_pico_per_neuron = dimensions.usd_pico_per_neuron, .schedule = dimensions.schedule};
  if (!items_[price].add(counts)) return false;
  if (counts.exact != 0) days_[day][price] += counts.exact;  // at most the item's sum
  return true;
}

Bill::Settled Bill::settle(const FreeAllocation& free) const {
  std::map<Price, Item> items;
  for (const auto& [price, counts] : items_) items[price] = {.price = price, .counts = counts};
  for (const auto& [day, used] : days_) {
    NeuronParts left = NeuronParts{free.on_day(day)} * kPartsPerNeuron;
    for (const auto& [price, parts] : used) {
      const NeuronParts given = std::min(left, parts);
      left -= given;
      Item& item = items[price];
      item.free += given;
      item.usd.add(parts - given, price.usd_pico_per_neuron);
    }
  }
  Settled out;
  for (auto& [price, item] : items) {
    out.counts.add(item.counts);
    out.free += item.free;
    out.usd.add(item.usd);
    out.items.push_back(std::move(item));
  }
  return out;
}

}  // namespace ganglion::metering
