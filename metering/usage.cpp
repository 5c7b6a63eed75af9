// usage() of ledger_reader.hpp: exact sums over terminal records, rounded once at the end.

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "metering/calendar.hpp"
#include "metering/decimal.hpp"
#include "metering/ledger_reader.hpp"

namespace ganglion::metering {
namespace {

constexpr std::int64_t kDayUs = 86'400'000'000;
constexpr std::array<std::string_view, 6> kKeyNames{"key", "model", "tier", "tenant", "gateway", "day"};

// An exact amount of pico-USD: whole plus rest / kPartsPerNeuron.
class Usd {
 public:
  // A rate is at most 1e15 (USD 1,000,000 per 1,000 neurons), so rest * rate stays below 1.2e34.
  void add(NeuronParts parts, std::uint64_t pico_per_neuron) {
    whole_ += parts / kPartsPerNeuron * pico_per_neuron;
    rest_ += parts % kPartsPerNeuron * pico_per_neuron;
    whole_ += rest_ / kPartsPerNeuron;
    rest_ %= kPartsPerNeuron;
  }
  std::string text() const { return format_decimal(whole_ + (rest_ >= (kPartsPerNeuron + 1) / 2 ? 1 : 0), 12); }

 private:
  NeuronParts whole_ = 0;
  NeuronParts rest_ = 0;
};

std::string neurons_text(NeuronParts parts) {
  const NeuronParts nano =
      parts / kPartsPerNanoNeuron + (parts % kPartsPerNanoNeuron >= kPartsPerNanoNeuron / 2 ? 1 : 0);
  return format_decimal(nano, 9);
}

struct Sum {
  UsageRow row;
  Usd usd;
};

// What one tenant used on one day, by tier and price of a neuron.
using DayUse = std::map<std::pair<api::Tier, std::uint64_t>, NeuronParts>;

std::string value_of(UsageKey key, const LedgerRecord& record) {
  switch (key) {
    case UsageKey::key:
      return record.key_id;
    case UsageKey::model:
      return record.model;
    case UsageKey::tier:
      return std::string{api::name(record.tier)};
    case UsageKey::tenant:
      return record.tenant;
    case UsageKey::gateway:
      return record.gateway;
    case UsageKey::day:
      break;
  }
  return format_day(static_cast<std::uint64_t>(record.time.count() / kDayUs));
}

bool add(Sum& sum, const LedgerRecord& record) {
  ++sum.row.records;
  sum.row.cache_hits += record.outcome == Outcome::cache_hit ? 1 : 0;
  sum.row.estimated += record.estimated ? 1 : 0;
  sum.row.units += record.units;
  sum.usd.add(record.exact, record.usd_pico_per_neuron);
  return !__builtin_add_overflow(sum.row.exact, record.exact, &sum.row.exact);
}

UsageRow finish(Sum& sum) {
  sum.row.neurons = neurons_text(sum.row.exact);
  sum.row.usd = sum.usd.text();
  return std::move(sum.row);
}

// Free neurons go to the regular tier first, within a tier to the cheapest rate: the map's order.
InvoiceLine invoice(const std::string& tenant, const std::map<std::int64_t, DayUse>& days, std::uint64_t daily_free) {
  NeuronParts all = 0;
  NeuronParts free_used = 0;
  Usd usd;
  for (const auto& [day, use] : days) {
    NeuronParts free = NeuronParts{daily_free} * kPartsPerNeuron;
    for (const auto& [rate, parts] : use) {
      const NeuronParts given = std::min(free, parts);
      free -= given;
      free_used += given;
      all += parts;
      usd.add(parts - given, rate.second);
    }
  }
  return {.tenant = tenant,
          .neurons = neurons_text(all),
          .free_neurons = neurons_text(free_used),
          .billable_neurons = neurons_text(all - free_used),
          .usd = usd.text()};
}

}  // namespace

core::Result<std::vector<UsageKey>> parse_usage_keys(std::string_view comma_separated) {
  std::vector<UsageKey> out;
  while (!comma_separated.empty()) {
    const std::string_view word = comma_separated.substr(0, comma_separated.find(','));
    comma_separated.remove_prefix(std::min(comma_separated.size(), word.size() + 1));
    const auto found = std::ranges::find(kKeyNames, word);
    if (found == kKeyNames.end())
      return core::fail(core::ErrorKind::invalid_value, "cannot group usage by \"" + std::string{word.substr(0, 40)} +
                                                            "\"; use key, model, tier, tenant, gateway, day");
    const auto key = static_cast<UsageKey>(found - kKeyNames.begin());
    if (std::ranges::find(out, key) == out.end()) out.push_back(key);
  }
  return out;
}

std::string_view name(UsageKey key) {
  return kKeyNames[static_cast<std::size_t>(key)];
}

core::Result<UsageReport> usage(const std::string& directory, const UsageQuery& query) {
  std::map<std::vector<std::string>, Sum> groups;
  std::map<std::string, std::map<std::int64_t, DayUse>> tenants;
  Sum total;
  bool fits = true;
  const auto done = for_each_record(directory, query.range, [&](const LedgerRecord& record) {
    std::vector<std::string> group;
    for (const UsageKey key : query.by) group.push_back(value_of(key, record));
    fits = add(groups[std::move(group)], record) && add(total, record) && fits;
    if (record.exact != 0)
      tenants[record.tenant][record.time.count() / kDayUs][{record.tier, record.usd_pico_per_neuron}] += record.exact;
  });
  if (!done) return std::unexpected(done.error());
  if (!fits) return core::fail(core::ErrorKind::internal, "the sum of neurons does not fit 128 bits");
  UsageReport report;
  report.by = query.by;
  for (auto& [group, sum] : groups) {
    sum.row.group = group;
    report.rows.push_back(finish(sum));
  }
  report.total = finish(total);
  for (const auto& [tenant, days] : tenants) report.invoices.push_back(invoice(tenant, days, query.daily_free_neurons));
  return report;
}

}  // namespace ganglion::metering
