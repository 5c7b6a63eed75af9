#pragma once
// Sums over the ledger: from the rollups, and from the records behind them. Blocking; for the command line and the
// admin side, never for a worker.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "metering/bill.hpp"
#include "metering/ledger_reader.hpp"
#include "metering/rollup_store.hpp"

namespace ganglion::metering {

enum class UsageKey : std::uint8_t { key, model, tier, tenant, gateway, day, hour, schedule, tag };

// What to group by: a key, or the value of a tag ("tag:team").
struct UsageColumn {
  UsageColumn(UsageKey k, std::string of = {}) : key(k), tag(std::move(of)) {}  // NOLINT: a key is a column
  UsageKey key;
  std::string tag;
  std::string name() const;
  friend bool operator==(const UsageColumn&, const UsageColumn&) = default;
};
core::Result<std::vector<UsageColumn>> parse_usage_columns(std::string_view comma_separated);

struct UsageFilter {
  UsageColumn column;
  std::string value;
};

struct UsageQuery {
  std::vector<UsageColumn> by;  // empty: one row
  TimeRange range;
  std::vector<UsageFilter> filters;        // all must hold
  FreeAllocation daily_free_neurons = {};  // for the invoice lines; whole days give whole allocations
};

// Sets one option as a user writes it: by, from, to, or a filter: key, tenant, gateway, model, tier, tag
// ("team=search"). False: there is no such option. invalid_value: the value is wrong; the message says what would be
// right.
core::Result<bool> set_usage_option(UsageQuery& query, std::string_view name, std::string_view value);

struct UsageRow {
  std::vector<std::string> group;  // values of `by`, in its order
  UsageCounts counts;
  std::string neurons;  // exact total rounded once to 9 decimals, trailing zeros cut
  std::string usd;      // gross, rounded once to 12 decimals
};

// What a tenant owes: per UTC day the free allocation is taken from regular neurons first, then from fast ones.
struct InvoiceLine {
  std::string tenant;
  std::string neurons;
  std::string free_neurons;
  std::string billable_neurons;
  std::string usd;
};

struct UsageReport {
  std::vector<UsageColumn> by;
  std::vector<UsageRow> rows;  // sorted by group
  UsageRow total;
  std::vector<InvoiceLine> invoices;  // sorted by tenant; none where filters leave out a part of a tenant's usage
  std::string note;                   // what the sums lack, "" if nothing
};

// Times that are whole hours (or unset) are answered from the rollups and the records behind them, so retention loses
// nothing; others from the records alone, which must still be there.
core::Result<UsageReport> usage(const std::string& directory, const UsageQuery& query);

// Calls `visit` with everything used in [hour_from, hour_to) in steps of hours or days: rollups first, then what is not
// yet in them. Returns a note, "" if nothing is lacking.
using UsageVisitor = std::function<void(std::int64_t hour, const UsageDimensions&, const UsageCounts&)>;
core::Result<std::string> for_each_slice(const std::string& directory, const RollupRange& range,
                                         const UsageVisitor& visit);

std::string format_table(const UsageReport& report);
std::string format_json(const UsageReport& report);
std::string format_csv(const UsageReport& report);  // RFC 4180, one line a row, no total

// For people and programs, shared with the invoice.
std::string align_columns(const std::vector<std::vector<std::string>>& lines, std::size_t left);
std::string csv_line(const std::vector<std::string>& cells);

}  // namespace ganglion::metering
