// See metering/budget_history.hpp.

#include "metering/budget_history.hpp"

#include <algorithm>
#include <vector>

#include "metering/rollup_store.hpp"
#include "metering/tail_reader.hpp"

namespace ganglion::metering {
namespace {

constexpr std::size_t kBatch = 10'000;

struct Slice {
  core::WallTime at;
  UsageDimensions who;
  NeuronParts exact = 0;
};

struct Sums {
  std::vector<Slice> slices;
  std::uint64_t position = 0;  // of the ledger: later records are not in them
};

BudgetCost cost_of_parts(NeuronParts exact, std::uint64_t usd_pico_per_neuron) {
  return cost_of({.exact = exact, .usd_pico_per_neuron = usd_pico_per_neuron});
}

// An hour's use is filed at its end: a sliding window then counts it a little longer, never too short.
core::WallTime instant_of(std::int64_t hour, core::WallTime now) {
  const core::WallTime begin{std::chrono::hours{hour}};
  const core::WallTime last = begin + std::chrono::hours{1} - std::chrono::seconds{1};
  return last <= now ? last : std::max(begin, now);
}

core::Result<Sums> read_sums(const std::string& directory, core::WallTime from, core::WallTime now) {
  Sums out;
  auto store = RollupStore::open_to_read(directory);
  if (!store) return std::unexpected(std::move(store.error()));
  if (*store == nullptr) return out;
  const auto hour_from = std::chrono::floor<std::chrono::hours>(from).time_since_epoch().count();
  const auto read = (*store)->read({.hour_from = hour_from, .by_hour = true},
                                   [&](std::int64_t hour, const UsageDimensions& who, const UsageCounts& counts) {
                                     if (counts.exact == 0) return;
                                     out.slices.push_back({instant_of(hour, now), who, counts.exact});
                                   });
  if (!read) return std::unexpected(read.error());
  out.position = *read;
  return out;
}

core::Result<void> restore_tail(Budgets& budgets, const std::string& directory, std::uint64_t after,
                                core::WallTime from) {
  TailReader tail(directory, after);
  for (;;) {
    const auto visited = tail.poll(TailReader::kNoLimit, kBatch, [&](const LedgerRecord& record) {
      const core::WallTime at{record.time};
      if (at < from || record.exact == 0) return;
      budgets.restore({.key = record.key_id,
                       .tenant = record.tenant,
                       .gateway = record.gateway,
                       .model = record.model,
                       .tags = record.tags},
                      cost_of_parts(record.exact, record.usd_pico_per_neuron), at, record.request_id);
    });
    if (!visited) return std::unexpected(visited.error());
    if (*visited == 0) return {};
  }
}

}  // namespace

core::Result<void> apply_rules(Budgets& budgets, std::shared_ptr<const BudgetRules> rules, const core::Clock& clock,
                               const std::string& ledger_directory) {
  const core::WallTime now = clock.wall();
  const core::WallTime from = history_from(*rules, now);
  // Read before the rules count: a request that ends from here on is in the tail, or counts by itself, and not in both.
  core::Result<Sums> sums = rules->empty() ? Sums{} : read_sums(ledger_directory, from, now);
  if (!sums) return std::unexpected(std::move(sums.error()));
  if (!budgets.prepare(std::move(rules))) return {};
  for (const Slice& slice : sums->slices) {
    budgets.restore({.key = slice.who.key_id,
                     .tenant = slice.who.tenant,
                     .gateway = slice.who.gateway,
                     .model = slice.who.model,
                     .tags = slice.who.tags},
                    cost_of_parts(slice.exact, slice.who.usd_pico_per_neuron), slice.at, {});
  }
  if (auto done = restore_tail(budgets, ledger_directory, sums->position, from); !done) {
    budgets.take_back();
    return done;
  }
  budgets.ready();
  return {};
}

}  // namespace ganglion::metering
