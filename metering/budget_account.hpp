#pragma once
// One budget's counts. Internal to Budgets.

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "metering/budgets.hpp"

namespace ganglion::metering::detail {

struct BudgetAccount {
  BudgetAccount(const BudgetRule& rule, std::string_view of);

  // Fixed for the account's life.
  const std::string identity;
  const std::string budget;
  const std::string value;
  const BudgetUnit unit;
  const WindowSpec window;
  const bool shown_to_clients;

  mutable std::mutex mutex;     // guards all below
  bool fresh = false;           // without history: counts, does not bind
  bool counts_history = false;  // was counted from the ledger since the last change of rules
  BudgetAmount limit = 0;
  OnExceed on_exceed = OnExceed::cut;
  std::vector<std::uint32_t> alerts;
  WindowedSpend spent;
  BudgetAmount reserved = 0;
  std::uint32_t alerted = 0;  // bit i: alerts[i] was raised in alerted_slot
  std::int64_t alerted_slot = INT64_MIN;

  bool has_counted_history() const {
    const std::lock_guard lock(mutex);
    return counts_history;
  }
  // The others are called with the mutex held.
  void change(const BudgetRule& rule);
  bool fits(BudgetAmount more, core::WallTime now) const;
  // quota_exceeded for a request that needs `whole` in all and has no room for `more` of it.
  core::Error refusal(BudgetAmount whole, BudgetAmount more, core::WallTime now) const;
  // Appends the alerts that are due now. `refused`: a request found no room.
  void check_alerts(core::WallTime now, bool refused, std::vector<BudgetAlert>& out);
  core::WallTime resets(core::WallTime now) const;
};

}  // namespace ganglion::metering::detail
