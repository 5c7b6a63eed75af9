// See metering/usage.hpp: exact sums over slices, rounded once at the end.

#include "metering/usage.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <utility>

#include "metering/calendar.hpp"
#include "metering/rollup_store.hpp"
#include "metering/segment_scan.hpp"
#include "metering/tail_reader.hpp"

namespace ganglion::metering {
namespace {

constexpr std::array<std::string_view, 8> kKeyNames{"key",     "model", "tier", "tenant",
                                                    "gateway", "day",   "hour", "schedule"};
constexpr std::string_view kTagPrefix = "tag:";
constexpr std::int64_t kHourMax = INT64_MAX / kHourUs;

std::string value_of(const UsageColumn& column, std::int64_t hour, const UsageDimensions& of) {
  switch (column.key) {
    case UsageKey::key:
      return of.key_id;
    case UsageKey::model:
      return of.model;
    case UsageKey::tier:
      return std::string{api::name(of.tier)};
    case UsageKey::tenant:
      return of.tenant;
    case UsageKey::gateway:
      return of.gateway;
    case UsageKey::schedule:
      return of.schedule;
    case UsageKey::tag: {
      const std::string* const value = api::find_tag(of.tags, column.tag);
      return value == nullptr ? std::string{} : *value;
    }
    case UsageKey::hour:
      return format_hour(hour);
    case UsageKey::day:
      break;
  }
  return format_day(static_cast<std::uint64_t>(hour / kHoursPerDay));
}

// Filters that leave out a part of what a tenant used make its free allocation meaningless.
bool whole_tenants(const UsageQuery& query) {
  return std::ranges::all_of(query.filters, [](const UsageFilter& f) { return f.column.key == UsageKey::tenant; });
}

class UsageSums {
 public:
  explicit UsageSums(const UsageQuery& query) : query_(query) {}

  void add(std::int64_t hour, const UsageDimensions& of, const UsageCounts& counts) {
    for (const UsageFilter& filter : query_.filters)
      if (value_of(filter.column, hour, of) != filter.value) return;
    std::vector<std::string> group;
    for (const UsageColumn& column : query_.by) group.push_back(value_of(column, hour, of));
    fits_ = add_to(groups_[std::move(group)], of, counts) && add_to(total_, of, counts) && fits_;
    if (whole_tenants(query_) && counts.exact != 0)
      fits_ = tenants_[of.tenant].add(hour / kHoursPerDay, of, counts) && fits_;
  }

  core::Result<UsageReport> finish(std::string note) {
    if (!fits_) return core::fail(core::ErrorKind::internal, "the sum of neurons does not fit 128 bits");
    UsageReport report{.by = query_.by, .rows = {}, .total = row_of(total_), .invoices = {}, .note = std::move(note)};
    for (auto& [group, sum] : groups_) {
      report.rows.push_back(row_of(sum));
      report.rows.back().group = group;
    }
    for (const auto& [tenant, bill] : tenants_) {
      const Bill::Settled settled = bill.settle(query_.daily_free_neurons);
      report.invoices.push_back({.tenant = tenant,
                                 .neurons = neurons_text(settled.counts.exact),
                                 .free_neurons = neurons_text(settled.free),
                                 .billable_neurons = neurons_text(settled.counts.exact - settled.free),
                                 .usd = settled.usd.text()});
    }
    return report;
  }

 private:
  struct Sum {
    UsageCounts counts;
    ExactUsd usd;
  };
  static bool add_to(Sum& sum, const UsageDimensions& of, const UsageCounts& counts) {
    sum.usd.add(counts.exact, of.usd_pico_per_neuron);
    return sum.counts.add(counts);
  }
  static UsageRow row_of(const Sum& sum) {
    return {.group = {}, .counts = sum.counts, .neurons = neurons_text(sum.counts.exact), .usd = sum.usd.text()};
  }

  const UsageQuery& query_;
  std::map<std::vector<std::string>, Sum> groups_;
  std::map<std::string, Bill> tenants_;
  Sum total_;
  bool fits_ = true;
};

bool has_hour(const UsageQuery& query) {
  const auto hourly = [](const UsageColumn& column) { return column.key == UsageKey::hour; };
  return std::ranges::any_of(query.by, hourly) ||
         std::ranges::any_of(query.filters, [&](const UsageFilter& filter) { return hourly(filter.column); });
}

// Times within an hour are known from records only.
core::Result<UsageReport> usage_of_records(const std::string& directory, const UsageQuery& query) {
  const auto oldest = oldest_sequence(directory);
  if (!oldest) return std::unexpected(oldest.error());
  if (*oldest > 1)
    return core::fail(core::ErrorKind::invalid_value,
                      "the oldest records are no longer there, and their sums are kept by the hour: give --from and "
                      "--to as whole hours");
  UsageSums sums{query};
  const auto done = for_each_record(directory, query.range, [&](const LedgerRecord& record) {
    sums.add(hour_of(record), dimensions_of(record), counts_of(record));
  });
  if (!done) return std::unexpected(done.error());
  return sums.finish({});
}

}  // namespace

core::Result<std::string> for_each_slice(const std::string& directory, const RollupRange& range,
                                         const UsageVisitor& visit) {
  auto store = RollupStore::open_to_read(directory);
  if (!store) return std::unexpected(store.error());
  std::uint64_t position = 0;
  std::string note;
  if (*store) {
    const auto read = (*store)->read(range, visit);
    if (!read) return std::unexpected(read.error());
    position = *read;
  }
  if (position == 0) {
    const auto oldest = oldest_sequence(directory);
    if (!oldest) return std::unexpected(oldest.error());
    if (*oldest > 1)
      note = "records 1 to " + std::to_string(*oldest - 1) + " are neither in the ledger nor in its rollups";
  }
  TailReader tail{directory, position};
  const auto add = [&](const LedgerRecord& record) {
    const std::int64_t hour = hour_of(record);
    if (hour >= range.hour_from && hour < range.hour_to) visit(hour, dimensions_of(record), counts_of(record));
  };
  while (true) {
    const auto read = tail.poll(TailReader::kNoLimit, 1'000'000, add);
    if (!read) return std::unexpected(read.error());
    if (*read == 0) return note;
  }
}

core::Result<UsageReport> usage(const std::string& directory, const UsageQuery& query) {
  if (query.range.empty()) return core::fail(core::ErrorKind::invalid_value, std::string{kEmptyRange}, "from");
  RollupRange range{.hour_from = 0, .hour_to = kHourMax, .by_hour = has_hour(query)};
  for (const auto& [time, hour] :
       {std::pair{query.range.from, &range.hour_from}, std::pair{query.range.to, &range.hour_to}}) {
    if (!time) continue;
    if (time->count() % kHourUs != 0) return usage_of_records(directory, query);
    *hour = time->count() / kHourUs;
  }
  UsageSums sums{query};
  auto note = for_each_slice(
      directory, range,
      [&](std::int64_t hour, const UsageDimensions& of, const UsageCounts& counts) { sums.add(hour, of, counts); });
  if (!note) return std::unexpected(note.error());
  return sums.finish(std::move(*note));
}

std::string UsageColumn::name() const {
  return key == UsageKey::tag ? std::string{kTagPrefix} + tag : std::string{kKeyNames[static_cast<std::size_t>(key)]};
}

core::Result<std::vector<UsageColumn>> parse_usage_columns(std::string_view comma_separated) {
  std::vector<UsageColumn> out;
  while (!comma_separated.empty()) {
    const std::string_view word = comma_separated.substr(0, comma_separated.find(','));
    comma_separated.remove_prefix(std::min(comma_separated.size(), word.size() + 1));
    UsageColumn column{UsageKey::tag, word.starts_with(kTagPrefix) ? std::string{word.substr(kTagPrefix.size())} : ""};
    if (column.tag.empty()) {
      const auto found = std::ranges::find(kKeyNames, word);
      if (found == kKeyNames.end())
        return core::fail(core::ErrorKind::invalid_value,
                          "cannot group usage by \"" + std::string{word.substr(0, 40)} +
                              "\"; use key, model, tier, tenant, gateway, day, hour, schedule, tag:NAME");
      column = static_cast<UsageKey>(found - kKeyNames.begin());
    }
    if (std::ranges::find(out, column) == out.end()) out.push_back(std::move(column));
  }
  return out;
}

core::Result<bool> set_usage_option(UsageQuery& query, std::string_view name, std::string_view value) {
  if (name == "by") {
    auto columns = parse_usage_columns(value);
    if (!columns) return std::unexpected(columns.error());
    query.by = std::move(*columns);
    return true;
  }
  if (name == "from" || name == "to") {
    const auto time = parse_time(value);
    if (!time) return std::unexpected(time.error());
    (name == "from" ? query.range.from : query.range.to) = *time;
    return true;
  }
  if (name == "tag") {
    const std::size_t equals = value.find('=');
    if (equals == 0 || equals == std::string_view::npos)
      return core::fail(core::ErrorKind::invalid_value, "a tag is given as NAME=VALUE, such as team=search");
    query.filters.push_back({.column = {UsageKey::tag, std::string{value.substr(0, equals)}},
                             .value = std::string{value.substr(equals + 1)}});
    return true;
  }
  for (const UsageKey key : {UsageKey::key, UsageKey::tenant, UsageKey::gateway, UsageKey::model, UsageKey::tier}) {
    const UsageColumn column{key};
    if (name != column.name()) continue;
    if (key == UsageKey::tier && !api::parse_tier(value))
      return core::fail(core::ErrorKind::invalid_value, "a tier is regular or fast");
    query.filters.push_back({.column = column, .value = std::string{value}});
    return true;
  }
  return false;
}

}  // namespace ganglion::metering
