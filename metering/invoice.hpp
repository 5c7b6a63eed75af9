#pragma once
// The invoice of one tenant and one calendar month (UTC): exact totals by schedule and tier, the daily free allocation
// taken off, rounded once.

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "metering/bill.hpp"

namespace ganglion::metering {

core::Result<std::chrono::year_month> parse_month(std::string_view text);  // "2026-11"

struct Invoice {
  std::string tenant;
  std::chrono::year_month month;
  std::string ledger_id;
  bool final = false;  // the month is over
  Bill::Settled bill;
  std::string note;  // what the sums lack, "" if nothing
};

core::Result<Invoice> make_invoice(const std::string& directory, const std::string& tenant,
                                   std::chrono::year_month month, const FreeAllocation& free,
                                   std::chrono::system_clock::time_point now);

std::string format_text(const Invoice& invoice);
std::string format_csv(const Invoice& invoice);
std::string format_json(const Invoice& invoice);

}  // namespace ganglion::metering
