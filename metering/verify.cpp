// verify() of metering/ledger_reader.hpp and what a start would do about it (metering/repair_report.hpp).

#include <algorithm>
#include <array>
#include <filesystem>
#include <system_error>

#include "core/log.hpp"
#include "metering/anchors.hpp"
#include "metering/calendar.hpp"
#include "metering/ledger_id.hpp"
#include "metering/ledger_reader.hpp"
#include "metering/repair_report.hpp"
#include "metering/rollup_store.hpp"
#include "metering/segment_walk.hpp"
#include "metering/write_buffer.hpp"

namespace ganglion::metering {
namespace {

constexpr std::size_t kAbortedListed = 1000;

// Anchors are chained to the ledger's id: the file's, or where that is lost, the segments' own.
core::Result<AnchorList> anchors_of(const std::string& directory) {
  LedgerId id{};
  if (const auto text = read_ledger_id(directory)) {
    id = ledger_id_bytes(*text);
  } else if (const auto files = list_segments(directory); files && !files->empty()) {
    if (const auto start = read_segment_start(files->back())) id = start->header.ledger;
  }
  return read_anchors(directory, id);
}

core::Result<Walk> checked_walk(const std::string& directory, const FrameVisitor& visit) {
  const auto anchors = anchors_of(directory);
  if (!anchors) return std::unexpected(anchors.error());
  auto walk = walk_segments(directory, anchors->problem.empty() || anchors->torn ? &*anchors : nullptr, visit);
  if (!walk || !walk->report.ok) return walk;
  VerifyReport& report = walk->report;
  if (!anchors->problem.empty() && !anchors->torn) {
    report.ok = false;
    report.bad_segment = "anchors";
    report.bad_offset = anchors->good_bytes;
    report.problem = anchors->problem;
    return walk;
  }
  auto rollups = RollupStore::open_to_read(directory);
  if (!rollups) return std::unexpected(rollups.error());
  if (!*rollups) return walk;
  const auto position = (*rollups)->position();
  if (!position) return std::unexpected(position.error());
  if (*position >= walk->state.next_sequence) {
    report.ok = false;
    report.bad_segment = "rollups.db";
    report.problem = "holds usage up to record " + std::to_string(*position) + ", but the ledger ends at record " +
                     std::to_string(walk->state.next_sequence - 1) + ": its newest records are missing";
  }
  return walk;
}

// What is not in a segment yet: of a running gateway, or of one that was killed and not started since.
void apply_unwritten(const std::string& directory, Walk& walk) {
  const std::string bytes = read_unwritten(directory, walk.state);
  std::string_view left = bytes;
  Frame frame;
  LedgerRecord record;
  while (parse_frame(left, frame) == FrameStatus::ok && walk.replay.apply(frame, record).empty())
    left.remove_prefix(frame.bytes);
}

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

}  // namespace

core::Result<VerifyReport> verify(const std::string& directory) {
  std::uint64_t terminals = 0;
  auto walk = checked_walk(directory, [&](const Frame& frame, const LedgerRecord&) {
    terminals += frame.type == RecordType::terminal ? 1 : 0;
  });
  if (!walk) return std::unexpected(walk.error());
  walk->report.terminals = terminals;
  return std::move(walk->report);
}

std::string describe(const VerifyReport& report) {
  if (report.problem.empty()) return {};
  std::string out = report.bad_segment + " offset " + std::to_string(report.bad_offset) + ": " + report.problem;
  if (report.wrong_byte) out += "; the wrong byte is at offset " + std::to_string(*report.wrong_byte);
  return out;
}

core::Result<RepairReport> repair_report(const std::string& directory) {
  RepairReport out;
  auto walk = checked_walk(directory, [&](const Frame& frame, const LedgerRecord& record) {
    if (frame.type != RecordType::terminal) return;
    ++out.verify.terminals;
    if (record.outcome != Outcome::aborted) return;
    ++out.aborted;
    out.aborted_last.push_back(record);
    if (out.aborted_last.size() > kAbortedListed) out.aborted_last.erase(out.aborted_last.begin());
  });
  if (!walk) return std::unexpected(walk.error());
  const std::uint64_t terminals = out.verify.terminals;
  out.verify = std::move(walk->report);
  out.verify.terminals = terminals;
  if (out.verify.ok) apply_unwritten(directory, *walk);
  for (const auto& [sequence, open] : walk->replay.open()) {
    LedgerRecord who;
    if (decode_subject(open, who))
      out.open.push_back({.sequence = sequence,
                          .request_id = who.request_id,
                          .tenant = who.tenant,
                          .model = who.model,
                          .backends = decode_backends(open)});
  }
  std::error_code error;
  for (std::filesystem::directory_iterator it{directory, error}, end; !error && it != end; it.increment(error))
    if (const std::string name = it->path().filename().string(); name.ends_with(kSetAsideSuffix))
      out.set_aside.push_back(name);
  std::ranges::sort(out.set_aside);
  return out;
}

std::string format_text(const RepairReport& report) {
  std::string out;
  const VerifyReport& found = report.verify;
  if (!found.ok)
    out += "BAD    " + describe(found) +
           "\n       The gateway does not start on it and changes nothing. Put back that " +
           "file from a backup, or move the\n       directory away and start a new ledger.\n";
  else if (found.torn_bytes != 0)
    out += "torn   " + std::to_string(found.torn_bytes) + " bytes behind " + describe(found) +
           "\n       The next start cuts them: nobody was told that they were durable.\n";
  else
    out += "ok     " + std::to_string(found.records) + " records in " + std::to_string(found.segments) + " segments\n";
  for (const OpenRequest& open : report.open)
    out += "open   " + open.request_id + "  tenant " + open.tenant + "  model " + open.model + "  sent to " +
           joined(open.backends) + "\n";
  if (!report.open.empty())
    out += "       In flight; or, if no gateway is running, closed as aborted and free of charge by the next start.\n";
  for (const LedgerRecord& record : report.aborted_last)
    out += "ended  " + record.request_id + "  aborted at " + format_time(record.time) + "  tenant " + record.tenant +
           "  model " + record.model + "\n";
  if (report.aborted > report.aborted_last.size())
    out += "       and " + std::to_string(report.aborted - report.aborted_last.size()) + " earlier ones\n";
  for (const std::string& name : report.set_aside)
    out += "aside  " + name + ": was no readable segment at a start, and was kept\n";
  return out;
}

std::string format_json(const RepairReport& report) {
  const auto text = [](std::string_view value) {
    std::string out;
    core::append_json_string(out, value);
    return out;
  };
  const VerifyReport& found = report.verify;
  std::string out = std::string{"{\"ok\":"} + (found.ok ? "true" : "false") + ",\"problem\":" + text(describe(found)) +
                    ",\"records\":" + std::to_string(found.records) +
                    ",\"segments\":" + std::to_string(found.segments) +
                    ",\"torn_bytes\":" + std::to_string(found.torn_bytes) + ",\"open\":[";
  for (std::size_t i = 0; i < report.open.size(); ++i) {
    const OpenRequest& open = report.open[i];
    out += std::string{i == 0 ? "" : ","} + "{\"id\":" + text(open.request_id) + ",\"tenant\":" + text(open.tenant) +
           ",\"model\":" + text(open.model) + ",\"backends\":" + text(joined(open.backends)) + "}";
  }
  out += "],\"aborted\":" + std::to_string(report.aborted) + ",\"aborted_last\":[";
  for (std::size_t i = 0; i < report.aborted_last.size(); ++i) {
    const LedgerRecord& record = report.aborted_last[i];
    out += std::string{i == 0 ? "" : ","} + "{\"id\":" + text(record.request_id) +
           ",\"time\":" + text(format_time(record.time)) + ",\"tenant\":" + text(record.tenant) +
           ",\"model\":" + text(record.model) + "}";
  }
  out += "],\"set_aside\":[";
  for (std::size_t i = 0; i < report.set_aside.size(); ++i)
    out += std::string{i == 0 ? "" : ","} + text(report.set_aside[i]);
  return out + "]}\n";
}

}  // namespace ganglion::metering
