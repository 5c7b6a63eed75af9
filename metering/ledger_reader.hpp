#pragma once
// Reading a ledger directory: verify, export. Needs no lock and works beside a running gateway: a live tail ends
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
  std::uint64_t bad_offset = 0;    // of the first bad record (or of the end, where records are missing),
  std::string problem;             // and what is wrong
  // The offset of the wrong byte itself: where one byte is wrong, which checksum and chain prove, or where bytes stand
  // behind the end. More than one wrong byte of a record cannot be placed.
  std::optional<std::uint64_t> wrong_byte;
};

// Every record of every segment: length, CRC32C, sequence, hash chain, one terminal per intent; every full segment
// against its anchor, so that none was removed, cut or exchanged; and that the rollups are not ahead. Result fails only
// if the directory cannot be read.
core::Result<VerifyReport> verify(const std::string& directory);
std::string describe(const VerifyReport& report);  // "" if nothing is wrong

// Half-open [from, to) on the record's time; unset is open.
struct TimeRange {
  std::optional<std::chrono::microseconds> from;  // since 1970-01-01 UTC
  std::optional<std::chrono::microseconds> to;
  bool empty() const { return from && to && *from >= *to; }  // whatever the records are
};
inline constexpr std::string_view kEmptyRange = "there is no time between from and to: from must be before to";

// "2026-11-22", "2026-11-22T10:00:00Z" (UTC); invalid_value otherwise.
core::Result<std::chrono::microseconds> parse_time(std::string_view text);

// Calls `visit` with every terminal record in order. Stops with ledger_unavailable at corruption.
core::Result<void> for_each_record(const std::string& directory, const TimeRange& range,
                                   const std::function<void(const LedgerRecord&)>& visit);

// One JSON object a line; `id` is the request id, so a second export can be deduplicated.
core::Result<std::uint64_t> export_records(const std::string& directory, const TimeRange& range, std::ostream& out);

}  // namespace ganglion::metering
