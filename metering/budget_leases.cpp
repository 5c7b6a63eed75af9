// The part of Budgets that is about leases: see metering/budget_lease.hpp. The rule that makes a budget hard across
// machines: what a gateway may have spent and reserved, its cap, is registered in the store before it may be used, the
// registered caps together never pass the limit, and a gateway lowers its cap before it says so.

#include <algorithm>
#include <unordered_map>

#include "core/digest.hpp"
#include "metering/budget_account.hpp"
#include "metering/budgets.hpp"

namespace ganglion::metering {
namespace {

// A budget that was not asked for so long is not told of in every round. It keeps its slice, for an outage of the store
// must not refuse those who were quiet before; whoever is short of it is heard all the same: see others_short().
constexpr std::chrono::seconds kIdle{10};
// What was given back because others were short is asked for again after so long.
constexpr std::chrono::seconds kShortFor{10};

BudgetAmount of_units(BudgetUnit unit, LeaseUnits units) {
  return units <= 0 ? 0 : BudgetAmount(units) * lease_unit(unit);
}

std::int64_t lifetime_s(const WindowSpec& window, std::int64_t slot, core::WallTime now) {
  constexpr std::int64_t kMargin_s = 2 * 86'400;
  if (window.kind == WindowKind::sliding) return 2 * window.length.count() + kMargin_s;
  const auto left = std::chrono::ceil<std::chrono::seconds>(slot_start(window, slot + 1) - now);
  return std::max<std::int64_t>(left.count(), 0) + kMargin_s;
}

// Between half of it and the whole, by budget: so that they do not all come at once.
std::chrono::milliseconds spread(std::chrono::milliseconds refresh, const std::string& digest) {
  constexpr std::size_t kParts = 64;
  const auto part = static_cast<std::int64_t>(std::hash<std::string>{}(digest) % kParts);
  return std::chrono::milliseconds{refresh.count() / 2 + refresh.count() * part / (2 * std::int64_t{kParts})};
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
  const bool known = lease.slot == lease_slot(now);
  const BudgetAmount cap = known ? std::min(whole, lease.cap) : 0;
  if (sharing != Sharing::alone || (known && lease.granted)) return cap;
  // The store granted nothing yet. What others are known to hold is theirs all the same.
  const BudgetAmount left = !known ? whole : whole > lease.others_held ? whole - lease.others_held : 0;
  return std::max(cap, std::min(whole / std::max(gateways, 1U), left));
}

bool BudgetAccount::may_be_granted(BudgetAmount more, core::WallTime now) const {
  BudgetAmount used = add_saturating(spent.total(now), reserved);
  // In a sliding window what others have spent gets less, so it says nothing once it is old.
  const bool heard =
      lease.slot == lease_slot(now) && (window.kind != WindowKind::sliding || lease.asked_at - lease.told_at <= kIdle);
  if (heard) used = add_saturating(used, lease.others_spent);
  return add_saturating(used, more) <= limit_at(now);
}

}  // namespace detail

void Budgets::share(Sharing sharing, std::uint32_t gateways) {
  gateways_.store(gateways, std::memory_order_relaxed);
  sharing_.store(sharing, std::memory_order_relaxed);
}

std::vector<LeaseAsk> Budgets::lease_asks(LeaseRound round, std::chrono::milliseconds refresh) {
  std::vector<LeaseAsk> out;
  const core::SteadyTime steady = clock_.steady();
  const std::lock_guard lock(mutex_);
  if (round != LeaseRound::waiting) out.reserve(accounts_.size());
  for (const auto& [key, account] : accounts_) {
    const std::lock_guard account_lock(account->mutex);
    detail::BudgetAccount::Lease& lease = account->lease;
    if (round == LeaseRound::waiting && lease.need == 0) continue;
    const core::WallTime now = clock_.wall();
    const std::int64_t slot = account->lease_slot(now);
    const BudgetAmount used = add_saturating(account->spent.total(now), account->reserved);
    // As the store counts it, so that a fraction of a unit does not look like slack.
    const BudgetAmount used_up = of_units(account->unit, lease_units_up(account->unit, used));
    if (lease.slot != slot) lease = {.need = lease.need, .published = kBudgetAmountMax, .asked_at = lease.asked_at};
    const BudgetAmount slack = lease.others_are_short ? 0 : lease.slack;
    const bool give_back = lease.need == 0 && lease.cap > add_saturating(used_up, slack);
    const bool in_use = steady - lease.asked_at <= kIdle || account->reserved != 0;
    const std::chrono::milliseconds silence = lease.unsettled ? std::chrono::milliseconds{0}
                                              : lease.others_are_short
                                                  ? std::min<std::chrono::milliseconds>(kShortFor, refresh)
                                                  : spread(refresh, account->digest);
    const bool due = lease.need != 0 || used != lease.published || give_back || in_use ||
                     steady - lease.told_at >= silence || (round == LeaseRound::all && (used != 0 || lease.cap != 0));
    if (!due) continue;
    LeaseAsk ask;
    try {
      ask = {.account = key, .digest = account->digest + ":" + std::to_string(slot), .slot = slot};
    } catch (const std::bad_alloc&) {
      continue;  // it is due still the next time
    }
    ask.used = lease_units_up(account->unit, used);
    if (give_back) lease.cap = add_saturating(used_up, slack);
    // More may be in use than was granted: reservations of the window before, and history found at start.
    ask.keep = std::max(ask.used, lease_units_up(account->unit, lease.cap));
    ask.limit = lease_units_up(account->unit, account->limit_at(now));
    ask.spent = lease_units_up(account->unit, account->spent.total(now));
    ask.need = lease.need == 0 ? 0 : lease_units_up(account->unit, lease.need);
    ask.kept_s = lifetime_s(account->window, slot, now);
    out.push_back(std::move(ask));
    lease.need = 0;
    lease.published = used;
    lease.told_at = steady;
  }
  return out;
}

void Budgets::others_short(const std::vector<std::string>& digests) {
  if (digests.empty()) return;
  // Asked for by the account's part of the name first: most accounts are not among them.
  std::unordered_multimap<std::string_view, std::string_view> wanted;
  for (const std::string& name : digests) wanted.emplace(std::string_view{name}.substr(0, name.find(':')), name);
  const std::lock_guard lock(mutex_);
  for (const auto& [key, account] : accounts_) {
    const auto [first, last] = wanted.equal_range(account->digest);
    if (first == last) continue;
    const std::lock_guard account_lock(account->mutex);
    const std::int64_t slot = account->lease_slot(clock_.wall());
    if (account->lease.slot != slot || account->lease.others_are_short) continue;
    const std::string name = account->digest + ":" + std::to_string(slot);
    if (std::any_of(first, last, [&](const auto& one) { return one.second == name; })) {
      account->lease.others_are_short = true;
    }
  }
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
  detail::BudgetAccount::Lease& lease = account->lease;
  lease.slot = ask.slot;
  // Only ever up: it was lowered before it was asked with.
  lease.cap = std::max(lease.cap, of_units(account->unit, grant.cap));
  // What a store in rebuild lets a gateway keep is no grant; what it granted before it lost its data is one still.
  lease.granted = lease.granted || !grant.rebuilding;
  lease.unsettled = grant.rebuilding;
  lease.others_spent = of_units(account->unit, grant.others_spent);
  lease.others_held = of_units(account->unit, grant.others_held);
  lease.slack = of_units(account->unit, grant.slack);
  lease.others_are_short = grant.others_are_short;
}

void Budgets::lease_failed(const LeaseAsk& ask) {
  const std::lock_guard lock(mutex_);
  const auto it = accounts_.find(ask.account);
  if (it == accounts_.end()) return;
  const std::lock_guard account_lock(it->second->mutex);
  it->second->lease.published = kBudgetAmountMax;  // tell it again
}

}  // namespace ganglion::metering
