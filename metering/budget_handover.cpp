// Budgets while one process takes another's place: the old one sends what its running requests ask for and end to the
// new one, so that spent + reserved <= limit holds over both. See budgets.hpp.

#include <algorithm>
#include <utility>

#include "metering/budget_account.hpp"
#include "metering/budgets.hpp"

namespace ganglion::metering {

using detail::BudgetAccount;

namespace {

std::string key_of(const BudgetHold& hold) {
  std::string key = hold.identity;
  key += '\0';
  key += hold.value;
  return key;
}

BudgetCost in_unit(BudgetUnit unit, BudgetAmount amount) {
  return unit == BudgetUnit::neurons ? BudgetCost{.neurons = amount} : BudgetCost{.usd = amount};
}

}  // namespace

std::vector<BudgetHold> Budgets::freeze() {
  mode_.store(Mode::frozen, std::memory_order_seq_cst);
  std::vector<BudgetHold> out;
  const std::lock_guard lock(mutex_);
  for (const auto& [key, account] : accounts_) {
    const std::lock_guard held(account->mutex);  // whoever had it has finished; who takes it now finds the mode
    if (account->reserved != 0) out.push_back({account->identity, account->value, account->reserved});
  }
  return out;
}

void Budgets::thaw() {
  {
    const std::lock_guard lock(mode_mutex_);
    mode_ = Mode::here;
  }
  settled_.notify_all();
}

void Budgets::follow(BudgetHeir& heir) {
  {
    const std::lock_guard lock(mode_mutex_);
    heir_ = &heir;
    mode_ = Mode::elsewhere;
  }
  settled_.notify_all();
}

BudgetHeir* Budgets::heir() {
  std::unique_lock lock(mode_mutex_);
  settled_.wait(lock, [this] { return mode_ != Mode::frozen; });
  return mode_ == Mode::elsewhere ? heir_ : nullptr;
}

core::Result<void> Budgets::raise_elsewhere(BudgetReservation& reservation, const BudgetCost& target, bool running) {
  BudgetHeir* const heir = this->heir();
  if (heir == nullptr) return raise(reservation, target, running);
  std::vector<BudgetHold> more;
  for (const auto& account : reservation.handle_.group_->accounts) {
    const BudgetAmount want = target.of(account->unit);
    const BudgetAmount have = reservation.held_.of(account->unit);
    if (want > have) more.push_back({account->identity, account->value, want - have});
  }
  if (!more.empty()) {
    if (auto done = heir->raise(more, running); !done) return done;
  }
  reservation.held_ = target;
  return {};
}

void Budgets::settle_elsewhere(const std::vector<BudgetHold>& released, const BudgetSubject& subject,
                               const BudgetCost& cost, std::string_view request_id) {
  if (BudgetHeir* const heir = this->heir()) return heir->settle(released, subject, cost, request_id);
  // Nobody took over: what did not happen then happens now.
  settle_adopted(released, subject, cost, request_id);
}

// The account of a hold, where the rules still have it. mutex_ is held.
std::shared_ptr<BudgetAccount> Budgets::adopted(const BudgetHold& hold) {
  if (const auto found = accounts_.find(key_of(hold)); found != accounts_.end()) return found->second;
  const auto rule = std::ranges::find(rules_->all(), hold.identity, &BudgetRule::identity);
  return rule == rules_->all().end() ? nullptr : find_or_make(*rule, hold.value);
}

void Budgets::adopt(const std::vector<BudgetHold>& holds) {
  const std::lock_guard lock(mutex_);
  for (const BudgetHold& hold : holds) {
    const auto account = adopted(hold);
    if (!account) continue;
    const std::lock_guard held(account->mutex);
    account->reserved = add_saturating(account->reserved, hold.amount);
    adopted_[key_of(hold)] += hold.amount;
  }
}

core::Result<void> Budgets::raise_adopted(const std::vector<BudgetHold>& more, bool running) {
  BudgetHandle handle;
  auto group = std::make_shared<detail::BudgetGroup>();
  BudgetCost want;
  {
    const std::lock_guard lock(mutex_);
    for (const BudgetHold& hold : more) {
      const auto account = adopted(hold);
      if (!account || account->fresh) continue;
      group->accounts.push_back(account);
      want = larger(want, in_unit(account->unit, hold.amount));
    }
  }
  std::ranges::sort(group->accounts);
  handle.group_ = std::move(group);
  BudgetReservation reservation;
  reservation.budgets_ = this;
  reservation.handle_ = handle;
  auto done = raise(reservation, want, running);
  // It is held for the other process from here on.
  reservation.budgets_ = nullptr;
  if (!done) return done;
  const std::lock_guard lock(mutex_);
  for (const auto& account : handle.group_->accounts) {
    adopted_[key_of({account->identity, account->value, 0})] += want.of(account->unit);
  }
  return {};
}

void Budgets::settle_adopted(const std::vector<BudgetHold>& released, const BudgetSubject& subject,
                             const BudgetCost& cost, std::string_view request_id) {
  const core::WallTime now = clock_.wall();
  std::vector<std::shared_ptr<BudgetAccount>> spending;
  {
    const std::lock_guard lock(mutex_);
    for (const BudgetHold& hold : released) {
      const auto account = adopted(hold);
      if (!account) continue;
      const std::lock_guard held(account->mutex);
      account->reserved -= std::min(account->reserved, hold.amount);
      if (const auto mine = adopted_.find(key_of(hold)); mine != adopted_.end()) {
        mine->second -= std::min(mine->second, hold.amount);
      }
    }
    if (cost == BudgetCost{}) return;
    for (const BudgetRule& rule : rules_->all()) {
      const auto value = rule.value_for(subject);
      if (!value) continue;
      if (auto account = find_or_make(rule, *value)) spending.push_back(std::move(account));
    }
  }
  // Its record may have been there when the history was read.
  const bool counted = counted_by_history(request_id);
  for (const auto& account : spending) {
    if (!counted || !account->has_counted_history()) spend(*account, {}, cost, now);
  }
}

void Budgets::drop_adopted() {
  const std::lock_guard lock(mutex_);
  for (const auto& [key, amount] : adopted_) {
    const auto found = accounts_.find(key);
    if (found == accounts_.end()) continue;
    const std::lock_guard held(found->second->mutex);
    found->second->reserved -= std::min(found->second->reserved, amount);
  }
  adopted_.clear();
}

}  // namespace ganglion::metering
