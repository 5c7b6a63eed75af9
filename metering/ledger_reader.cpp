// See metering/ledger_reader.hpp: export. verify() is in verify.cpp.

#include "metering/ledger_reader.hpp"

#include <ostream>

#include "core/log.hpp"
#include "metering/record_json.hpp"
#include "metering/segment_walk.hpp"

namespace ganglion::metering {
namespace {

bool inside(const TimeRange& range, std::chrono::microseconds time) {
  return (!range.from || time >= *range.from) && (!range.to || time < *range.to);
}

std::string json_line(const LedgerRecord& record) {
  std::string out = "{\"id\":";
  core::append_json_string(out, record.request_id);
  append_json_field(out, "sequence", record.sequence);
  append_record_fields(out, record, {});
  return out + "}\n";
}

}  // namespace

core::Result<void> for_each_record(const std::string& directory, const TimeRange& range,
                                   const std::function<void(const LedgerRecord&)>& visit) {
  const auto walk = walk_segments(directory, nullptr, [&](const Frame& frame, const LedgerRecord& record) {
    if (frame.type == RecordType::terminal && inside(range, record.time)) visit(record);
  });
  if (!walk) return std::unexpected(walk.error());
  const VerifyReport& report = walk->report;
  if (!report.ok)
    return core::fail(core::ErrorKind::ledger_unavailable,
                      "ledger segment " + report.bad_segment + " is corrupt at offset " +
                          std::to_string(report.bad_offset) + ": " + report.problem);
  return {};
}

core::Result<std::uint64_t> export_records(const std::string& directory, const TimeRange& range, std::ostream& out) {
  std::uint64_t count = 0;
  const auto done = for_each_record(directory, range, [&](const LedgerRecord& record) {
    out << json_line(record);
    ++count;
  });
  if (!done) return std::unexpected(done.error());
  out.flush();
  if (!out) return core::fail(core::ErrorKind::internal, "cannot write the export");
  return count;
}

}  // namespace ganglion::metering
