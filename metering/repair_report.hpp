#pragma once
// What crashes and damage left in a ledger, what recovery made of it, and what the next start will do. Reads only.

#include <cstdint>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "metering/ledger_reader.hpp"

namespace ganglion::metering {

// A dispatched request without an end.
struct OpenRequest {
  std::uint64_t sequence = 0;
  std::string request_id, tenant, model;
  std::vector<std::string> backends;
};

struct RepairReport {
  VerifyReport verify;
  std::vector<OpenRequest> open;
  std::uint64_t aborted = 0;               // requests that recovery closed, ever (while their segments are there)
  std::vector<LedgerRecord> aborted_last;  // at most 1,000 of them
  std::vector<std::string> set_aside;      // files that were no segments (recovery.hpp)
};

core::Result<RepairReport> repair_report(const std::string& directory);
std::string format_text(const RepairReport& report);
std::string format_json(const RepairReport& report);

}  // namespace ganglion::metering
