// The part of Budgets that is about leases: see metering/budget_lease.hpp. The rule that makes a budget hard across
// machines: what a gateway may have spent and reserved, its cap, is registered in the store before it may be used, the
// registered caps together never pass the limit, and a gateway lowers its cap before it says so.

#include "core/digest.hpp"
#include "metering/budget_account.hpp"
#include "metering/budgets.hpp"

namespace ganglion::metering {
namespace {

// A gateway that was not asked for so long gives its slack back.
constexpr std::chrono::seconds kIdle{10};

BudgetAmount of_units(BudgetUnit unit, LeaseUnits units) {
  return units <= 0 ? 0 : BudgetAmount(units) * lease_unit(unit);
}

std::int64_t lifetime_s(const WindowSpec& window, std::int64_t slot, core::WallTime now) {
  constexpr std::int64_t kMargin_s = 2 * 86'400;
  if (window.kind == WindowKind::sliding) return 2 * window.length.count() + kMargin_s;
  const auto left = std::chrono::ceil<std::chrono::seconds>(slot_start(window, slot + 1) - now);
  return std::max<std::int64_t>(left.count(), 0) + kMargin_s;
}

}  // namespace

BudgetAmount lease_unit(BudgetUnit unit) {
  return unit == BudgetUnit::neurons ? BudgetAmount{kPartsPerNanoNeuron} * 1'000
                                     : BudgetAmount{kPartsPerNeuron} * 1'000;
}

LeaseUnits lease_units_up(BudgetUnit unit, BudgetAmount amount) {
  constexpr LeaseUnits kMost = LeaseUnits{1} << 53;
  const BudgetAmount scale = lease_unit(unit);
  const BudgetAmount units = amount / scale + (amount % scale != 0 ? 1 : 0);
  return units > BudgetAmount(kMost) ? kMost : static_cast<LeaseUnits>(units);
}

namespace detail {

std::int64_t BudgetAccount::lease_slot(core::WallTime now) const {
  return window.kind == WindowKind::sliding ? 0 : slot_of(window, now);
}

BudgetAmount BudgetAccount::allowed(core::WallTime now, Sharing sharing, std::uint32_t gateways) const {
  const BudgetAmount whole = limit_at(now);
  if (sharing == Sharing::off) return whole;
  if (lease.slot == lease_slot(now)) return std::min(whole, lease.cap);
  return sharing == Sharing::alone ? whole / std::max(gateways, 1U) : 0;
}

bool BudgetAccount::may_be_granted(BudgetAmount more, core::WallTime now) const {
  BudgetAmount used = add_saturating(spent.total(now), reserved);
  if (lease.slot == lease_slot(now)) used = add_saturating(used, lease.others_spent);
  return add_saturating(used, more) <= limit_at(now);
}

}  // namespace detail

void Budgets::share(Sharing sharing, std::uint32_t gateways) {
  gateways_.store(gateways, std::memory_order_relaxed);
  sharing_.store(sharing, std::memory_order_relaxed);
}

std::vector<LeaseAsk> Budgets::lease_asks(bool all) {
  std::vector<LeaseAsk> out;
  const core::SteadyTime steady = clock_.steady();
  const std::lock_guard lock(mutex_);
  out.reserve(accounts_.size());
  for (const auto& [key, account] : accounts_) {
    const std::lock_guard account_lock(account->mutex);
    const core::WallTime now = clock_.wall();
    detail::BudgetAccount::Lease& lease = account->lease;
    const std::int64_t slot = account->lease_slot(now);
    const BudgetAmount used = add_saturating(account->spent.total(now), account->reserved);
    if (lease.slot != slot) lease = {.need = lease.need, .published = kBudgetAmountMax, .asked_at = lease.asked_at};
    const bool idle = steady - lease.asked_at > kIdle;
    const bool holds_slack = lease.cap > add_saturating(used, lease.slack);
    const bool give_back = lease.need == 0 && (idle || lease.others_are_short || holds_slack);
    const bool due = lease.need != 0 || used != lease.published || (give_back && lease.cap > used) ||
                     (all && (used != 0 || lease.cap != 0)) || !idle || account->reserved != 0;
    if (!due) continue;
    LeaseAsk ask;
    try {
      ask = {.account = key, .digest = account->digest + ":" + std::to_string(slot), .slot = slot};
    } catch (const std::bad_alloc&) {
      continue;  // it is due still the next time
    }
    ask.used = lease_units_up(account->unit, used);
    if (give_back) {
      const BudgetAmount slack = idle || lease.others_are_short ? 0 : lease.slack;
      lease.cap = std::min(lease.cap, of_units(account->unit, lease_units_up(account->unit, used + slack)));
    }
    // More may be in use than was granted: reservations of the window before, and history found at start.
    ask.keep = std::max(ask.used, lease_units_up(account->unit, lease.cap));
    ask.limit = lease_units_up(account->unit, account->limit_at(now));
    ask.spent = lease_units_up(account->unit, account->spent.total(now));
    ask.need = lease.need == 0 ? 0 : lease_units_up(account->unit, lease.need);
    ask.kept_s = lifetime_s(account->window, slot, now);
    out.push_back(std::move(ask));
    lease.need = 0;
    lease.published = used;
  }
  return out;
}

void Budgets::leased(const LeaseAsk& ask, const LeaseGrant& grant) {
  std::shared_ptr<Account> account;
  {
    const std::lock_guard lock(mutex_);
    const auto it = accounts_.find(ask.account);
    if (it == accounts_.end()) return;
    account = it->second;
  }
  const std::lock_guard lock(account->mutex);
  if (account->lease_slot(clock_.wall()) != ask.slot) return;  // its window is over
  account->lease.slot = ask.slot;
  // Only ever up: it was lowered before it was asked with.
  account->lease.cap = std::max(account->lease.cap, of_units(account->unit, grant.cap));
  account->lease.others_spent = of_units(account->unit, grant.others_spent);
  account->lease.slack = of_units(account->unit, grant.slack);
  account->lease.others_are_short = grant.others_are_short;
}

void Budgets::lease_failed(const LeaseAsk& ask) {
  const std::lock_guard lock(mutex_);
  const auto it = accounts_.find(ask.account);
  if (it == accounts_.end()) return;
  const std::lock_guard account_lock(it->second->mutex);
  it->second->lease.published = kBudgetAmountMax;  // tell it again
}

}  // namespace ganglion::metering
