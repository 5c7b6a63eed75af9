#pragma once
// Reading a ledger directory: verify, export, usage. Needs no lock and works beside a running gateway: a live tail ends
// the reading, it is no error. Blocking file I/O; for the command line and the admin side, never for a worker.

#include <chrono>
#include <cstdint>
#include <functional>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "metering/record.hpp"

namespace ganglion::metering {

struct VerifyReport {
  bool ok = false;
  std::uint64_t segments = 0;
  std::uint64_t records = 0;  // all types
  std::uint64_t terminals = 0;
  std::uint64_t open_intents = 0;  // in flight, or not yet closed by a recovery
  std::uint64_t torn_bytes = 0;    // unreadable bytes after the last good record of the last segment
  std::string bad_segment;         // when !ok: file name,
  std::uint64_t bad_offset = 0;    // first bad byte's record offset,
  std::string problem;             // and what is wrong
};

// Every record of every segment: length, CRC32C, sequence, hash chain, one terminal per intent. Result fails only if
// the directory cannot be read.
core::Result<VerifyReport> verify(const std::string& directory);

// Half-open [from, to) on the record's time; unset is open.
struct TimeRange {
  std::optional<std::chrono::microseconds> from;  // since 1970-01-01 UTC
  std::optional<std::chrono::microseconds> to;
};

// "2026-11-22", "2026-11-22T10:00:00Z" (UTC); invalid_value otherwise.
core::Result<std::chrono::microseconds> parse_time(std::string_view text);

// Calls `visit` with every terminal record in order. Stops with ledger_unavailable at corruption.
core::Result<void> for_each_record(const std::string& directory, const TimeRange& range,
                                   const std::function<void(const LedgerRecord&)>& visit);

// One JSON object a line; `id` is the request id, so a second export can be deduplicated.
core::Result<std::uint64_t> export_records(const std::string& directory, const TimeRange& range, std::ostream& out);

enum class UsageKey : std::uint8_t { key, model, tier, tenant, gateway, day };
std::string_view name(UsageKey key);
core::Result<std::vector<UsageKey>> parse_usage_keys(std::string_view comma_separated);

struct UsageQuery {
  std::vector<UsageKey> by;  // empty: one row
  TimeRange range;
  std::uint64_t daily_free_neurons = 0;  // for the invoice lines; whole days give whole allocations
};

struct UsageRow {
  std::vector<std::string> group;  // values of `by`, in its order
  std::uint64_t records = 0;
  std::uint64_t cache_hits = 0;
  std::uint64_t estimated = 0;  // records whose units we counted
  Units units;
  NeuronParts exact = 0;
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
  std::vector<UsageKey> by;
  std::vector<UsageRow> rows;  // sorted by group
  UsageRow total;
  std::vector<InvoiceLine> invoices;  // sorted by tenant
};

core::Result<UsageReport> usage(const std::string& directory, const UsageQuery& query);

std::string format_table(const UsageReport& report);
std::string format_json(const UsageReport& report);

}  // namespace ganglion::metering
