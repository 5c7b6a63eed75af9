#pragma once
// One budget's counts. Internal to Budgets.

#include <cstdint>
#include <mutex>
#include <optional>
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
  const std::string digest;  // names it among gateways

  mutable std::mutex mutex;             // guards all below
  bool fresh = false;                   // without history: counts, does not bind
  bool counts_history = false;          // was counted from the ledger since the last change of rules
  BudgetAmount limit = 0;               // see limit_at()
  std::optional<FreeAllocation> daily;  //
  OnExceed on_exceed = OnExceed::cut;
  std::vector<std::uint32_t> alerts;
  WindowedSpend spent;
  BudgetAmount reserved = 0;
  // What is shared with other gateways; unused while sharing is off. See budget_leases.cpp.
  struct Lease {
    std::int64_t slot = INT64_MIN;              // the window that all below is about
    BudgetAmount cap = 0;                       // spent and reserved may come to this
    bool granted = false;                       // the store granted it, if only nothing; else `cap` is what was kept
    bool unsettled = false;                     // the store was being rebuilt: what it grants is to be asked for
    BudgetAmount others_spent = 0;              // as last heard
    BudgetAmount others_held = 0;               // same
    BudgetAmount slack = 0;                     // what may be held beyond use
    bool others_are_short = false;              //
    BudgetAmount need = 0;                      // the most that a waiting request lacks
    BudgetAmount published = kBudgetAmountMax;  // use, as last told
    core::SteadyTime asked_at{};                // the last request
    core::SteadyTime told_at{};                 // the last exchange
  };
  Lease lease;
  std::uint32_t alerted = 0;  // bit i: alerts[i] was raised in alerted_slot
  std::int64_t alerted_slot = INT64_MIN;

  bool has_counted_history() const {
    const std::lock_guard lock(mutex);
    return counts_history;
  }
  // The others are called with the mutex held.
  void change(const BudgetRule& rule);
  BudgetAmount limit_at(core::WallTime now) const;
  bool fits(BudgetAmount more, core::WallTime now, Sharing sharing, std::uint32_t gateways) const;
  std::int64_t lease_slot(core::WallTime now) const;
  // What spent and reserved may come to.
  BudgetAmount allowed(core::WallTime now, Sharing sharing, std::uint32_t gateways) const;
  // There may be room for it at other gateways.
  bool may_be_granted(BudgetAmount more, core::WallTime now) const;
  BudgetAmount spent_everywhere(core::WallTime now) const;
  // quota_exceeded for a request that needs `whole` in all and has no room for `more` of it.
  core::Error refusal(BudgetAmount whole, BudgetAmount more, core::WallTime now, Sharing sharing) const;
  // Appends the alerts that are due now. `refused`: a request found no room.
  void check_alerts(core::WallTime now, bool refused, std::vector<BudgetAlert>& out);
  core::WallTime resets(core::WallTime now) const;
};

}  // namespace ganglion::metering::detail
