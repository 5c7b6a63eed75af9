// See metering/ledger_reader.hpp: export. verify() is in verify.cpp.

#include "metering/ledger_reader.hpp"

#include <charconv>
#include <cstdio>
#include <ostream>

#include "core/log.hpp"
#include "metering/calendar.hpp"
#include "metering/decimal.hpp"
#include "metering/segment_walk.hpp"

namespace ganglion::metering {
namespace {

bool inside(const TimeRange& range, std::chrono::microseconds time) {
  return (!range.from || time >= *range.from) && (!range.to || time < *range.to);
}

void field(std::string& out, std::string_view key, std::string_view value) {
  out.append(",\"").append(key).append("\":");
  core::append_json_string(out, value);
}

void field(std::string& out, std::string_view key, std::uint64_t value) {
  out.append(",\"").append(key).append("\":").append(std::to_string(value));
}

std::string json_line(const LedgerRecord& record) {
  std::string out = "{\"id\":";
  core::append_json_string(out, record.request_id);
  field(out, "sequence", record.sequence);
  field(out, "time", format_time(record.time));
  field(out, "tenant", record.tenant);
  field(out, "key", record.key_id);
  field(out, "gateway", record.gateway);
  field(out, "model", record.model);
  field(out, "endpoint", api::name(record.endpoint));
  field(out, "tier", api::name(record.tier));
  out.append(",\"tags\":");
  api::append_tags_json(out, record.tags);
  field(out, "outcome", name(record.outcome));
  field(out, "reason", record.reason);
  field(out, "http_status", static_cast<std::uint64_t>(record.http_status));
  field(out, "latency_us", static_cast<std::uint64_t>(record.latency.count()));
  field(out, "input_tokens", record.units.input_tokens);
  field(out, "cached_input_tokens", record.units.cached_input_tokens);
  field(out, "output_tokens", record.units.output_tokens);
  field(out, "requests", record.units.requests);
  field(out, "gpu_us", record.units.gpu_us);
  field(out, "llm_responses", record.units.llm_responses);
  field(out, "image_classifications", record.units.image_classifications);
  field(out, "embeddings", record.units.embeddings);
  out.append(",\"estimated\":").append(record.estimated ? "true" : "false");
  // Text, because JSON readers turn long numbers into doubles.
  field(out, "neurons", format_decimal(static_cast<std::uint64_t>(record.nano_neurons), 9));
  field(out, "neuron_parts", format_decimal(record.exact, 0));
  field(out, "usd_per_1000_neurons", format_decimal(record.usd_pico_per_neuron, 9));
  field(out, "schedule", record.schedule);
  field(out, "price_source", name(record.price_source));
  out.append(",\"attempts\":[");
  for (std::size_t i = 0; i < record.attempts.size(); ++i) {
    const LedgerRecord::Try& attempt = record.attempts[i];
    out.append(i == 0 ? "{\"attempt\":" : ",{\"attempt\":").append(std::to_string(i + 1));
    field(out, "backend", attempt.backend);
    field(out, "http_status", static_cast<std::uint64_t>(attempt.http_status));
    field(out, "reason", attempt.reason);
    out.push_back('}');
  }
  out.append("]}\n");
  return out;
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
