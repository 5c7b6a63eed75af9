// See metering/budgets.hpp. Each budget has a mutex of its own; a request locks its budgets in address order, checks
// all, then takes from all, so there is no moment at which a refused request holds anything.

#include "metering/budgets.hpp"

#include <algorithm>
#include <utility>

#include "metering/budget_account.hpp"

namespace ganglion::metering {

using detail::BudgetAccount;
using detail::BudgetGroup;

namespace {

// Locks all budgets of a group in its order; unlocks on destruction.
class LockAll {
 public:
  explicit LockAll(const BudgetGroup& group) : group_(group) {
    for (const auto& account : group_.accounts) account->mutex.lock();
  }
  ~LockAll() {
    for (const auto& account : group_.accounts) account->mutex.unlock();
  }
  LockAll(const LockAll&) = delete;
  LockAll& operator=(const LockAll&) = delete;

 private:
  const BudgetGroup& group_;
};

// A record may be seen by the history scan and be settled a moment later: between its append and its settling lies one
// wait for the disk.
constexpr std::chrono::seconds kSettleLag{60};

// The clock may be set back after a restart: the windows before the running ones are then needed again.
constexpr std::chrono::hours kHistoryMargin{48};

BudgetAmount beyond(BudgetAmount want, BudgetAmount have) {
  return want > have ? want - have : 0;
}

}  // namespace

// While the ledger is read: which requests were counted by it or by their own end, so that none counts twice.
struct Budgets::Restoring {
  core::WallTime began;
  core::SteadyTime ended = core::SteadyTime::max();
  std::unordered_set<std::string> seen;
};

BudgetReservation::BudgetReservation(BudgetReservation&& other) noexcept
    : budgets_(std::exchange(other.budgets_, nullptr)),
      handle_(std::move(other.handle_)),
      held_(std::exchange(other.held_, {})) {}

BudgetReservation& BudgetReservation::operator=(BudgetReservation&& other) noexcept {
  if (this == &other) return *this;
  if (budgets_ != nullptr) budgets_->release(*this);
  budgets_ = std::exchange(other.budgets_, nullptr);
  handle_ = std::move(other.handle_);
  held_ = std::exchange(other.held_, {});
  return *this;
}

BudgetReservation::~BudgetReservation() {
  if (budgets_ != nullptr) budgets_->release(*this);
}

core::WallTime history_from(const BudgetRules& rules, core::WallTime now) {
  core::WallTime from = now;
  for (const BudgetRule& rule : rules.all()) from = std::min(from, window_start(rule.window, now - kHistoryMargin));
  return from;
}

Budgets::Budgets(const core::Clock& clock, BudgetHooks& hooks, std::size_t accounts_max)
    : clock_(clock), hooks_(hooks), accounts_max_(accounts_max), rules_(BudgetRules::make({}, {}, 0).value()) {}

Budgets::~Budgets() = default;

bool Budgets::prepare(std::shared_ptr<const BudgetRules> rules) {
  const std::lock_guard lock(mutex_);
  std::unordered_set<std::string> had;
  for (const BudgetRule& rule : rules_->all()) {
    if (!fresh_.contains(rule.identity)) had.insert(rule.identity);
  }
  fresh_.clear();
  for (const BudgetRule& rule : rules->all()) {
    if (!had.contains(rule.identity)) fresh_.insert(rule.identity);
  }
  // Nobody passes unbound while a budget is replaced by another: until the new one knows its history, both are there.
  previous_ = rules_;
  next_ = rules;
  use_rules(fresh_.empty() ? std::move(rules) : BudgetRules::joined(*rules, *rules_));
  if (!fresh_.empty()) {
    restoring_ = std::make_unique<Restoring>();
    restoring_->began = clock_.wall();
    restoring_now_ = true;
  }
  reading_ = !fresh_.empty();
  ++generation_;
  return reading_;
}

void Budgets::use_rules(std::shared_ptr<const BudgetRules> rules) {
  std::unordered_map<std::string_view, const BudgetRule*> kept;
  for (const BudgetRule& rule : rules->all()) {
    if (!fresh_.contains(rule.identity)) kept.emplace(rule.identity, &rule);
  }
  // Counts of a rule that is not counted any more are worth nothing when it comes back.
  std::erase_if(accounts_, [&](const auto& entry) {
    const auto rule = kept.find(entry.second->identity);
    if (rule == kept.end()) return true;
    const std::lock_guard account(entry.second->mutex);
    entry.second->change(*rule->second);
    return false;
  });
  rules_ = std::move(rules);
  any_ = !rules_->empty();
}

void Budgets::take_back() {
  const std::lock_guard lock(mutex_);
  if (fresh_.empty()) return;
  use_rules(previous_);
  std::unordered_set<std::string_view> known;
  for (const BudgetRule& rule : rules_->all()) known.insert(rule.identity);
  std::erase_if(fresh_, [&](const std::string& identity) { return !known.contains(identity); });
  restoring_.reset();
  restoring_now_ = false;
  ++generation_;
  reading_ = !fresh_.empty();
}

void Budgets::restore(const BudgetSubject& subject, const BudgetCost& cost, core::WallTime at,
                      std::string_view request_id) {
  if (cost == BudgetCost{}) return;
  const std::lock_guard lock(mutex_);
  if (!restoring_) return;
  if (!request_id.empty() && at >= restoring_->began - kSettleLag && !restoring_->seen.emplace(request_id).second)
    return;
  for (const BudgetRule& rule : rules_->all()) {
    if (!fresh_.contains(rule.identity)) continue;
    const auto value = rule.value_for(subject);
    if (!value) continue;
    if (const auto account = find_or_make(rule, *value)) {
      const std::lock_guard account_lock(account->mutex);
      account->spent.add(at, cost.of(rule.unit));
    }
  }
}

void Budgets::ready() {
  std::vector<BudgetAlert> alerts;
  {
    const std::lock_guard lock(mutex_);
    if (!fresh_.empty()) {
      std::unordered_set<std::string_view> known;
      for (const BudgetRule& rule : next_->all()) known.insert(rule.identity);
      std::erase_if(accounts_, [&](const auto& entry) { return !known.contains(entry.second->identity); });
      rules_ = next_;
      any_ = !rules_->empty();
    }
    for (const auto& [key, account] : accounts_) {
      if (!fresh_.contains(account->identity)) continue;
      const std::lock_guard account_lock(account->mutex);
      account->fresh = false;
      account->check_alerts(clock_.wall(), false, alerts);
    }
    fresh_.clear();
    if (restoring_) restoring_->ended = clock_.steady();
    ++generation_;
    reading_ = false;
  }
  for (const BudgetAlert& alert : alerts) hooks_.crossed(alert);
}

// True once for a request that the history scan has counted in the budgets that were without history.
bool Budgets::counted_by_history(std::string_view request_id) {
  const std::lock_guard lock(mutex_);
  if (!restoring_) return false;
  if (restoring_->ended != core::SteadyTime::max() && clock_.steady() - restoring_->ended > kSettleLag) {
    restoring_.reset();
    restoring_now_ = false;
    return false;
  }
  return !restoring_->seen.emplace(request_id).second;
}

std::shared_ptr<BudgetAccount> Budgets::find_or_make(const BudgetRule& rule, std::string_view value) {
  std::string key = rule.identity;
  key += '\0';
  key += value;
  if (const auto it = accounts_.find(key); it != accounts_.end()) return it->second;
  if (accounts_.size() >= accounts_max_) forget_idle();
  if (accounts_.size() >= accounts_max_) return nullptr;
  auto account = std::make_shared<BudgetAccount>(rule, value);
  account->fresh = account->counts_history = fresh_.contains(rule.identity);
  accounts_.emplace(std::move(key), account);
  return account;
}

void Budgets::forget_idle() {
  const core::WallTime now = clock_.wall();
  std::erase_if(accounts_, [&](const auto& entry) {
    if (entry.second.use_count() > 1) return false;
    const std::lock_guard lock(entry.second->mutex);
    return entry.second->reserved == 0 && entry.second->spent.empty(now);
  });
}

core::Result<BudgetHandle> Budgets::resolve(const BudgetSubject& subject) {
  auto group = std::make_shared<BudgetGroup>();
  const std::lock_guard lock(mutex_);
  group->generation = generation_.load(std::memory_order_relaxed);
  for (const BudgetRule& rule : rules_->all()) {
    if (!rule.fits_names(subject)) continue;
    group->by_tag = group->by_tag || rule.needs_tags();
    const auto value = rule.value_for(subject);
    if (!value) continue;
    auto account = find_or_make(rule, *value);
    if (!account) {
      core::Error error = core::make_error(core::ErrorKind::overloaded, "too many different budgets are in use");
      error.retry_after = std::chrono::seconds{60};
      return std::unexpected(std::move(error));
    }
    if (!account->fresh) group->accounts.push_back(std::move(account));
  }
  std::ranges::sort(group->accounts);
  BudgetHandle handle;
  handle.group_ = std::move(group);
  return handle;
}

core::Result<BudgetReservation> Budgets::reserve(const BudgetHandle& handle, const BudgetCost& cost) {
  BudgetReservation reservation;
  reservation.budgets_ = this;
  reservation.handle_ = handle;
  if (auto done = raise(reservation, cost, false); !done) {
    reservation.budgets_ = nullptr;
    return std::unexpected(std::move(done.error()));
  }
  return reservation;
}

core::Result<void> Budgets::raise(BudgetReservation& reservation, const BudgetCost& cost, bool running) {
  const BudgetCost target = larger(reservation.held_, cost);
  if (reservation.handle_.empty()) {
    reservation.held_ = target;
    return {};
  }
  const BudgetGroup& group = *reservation.handle_.group_;
  const BudgetAccount* refusing = nullptr;
  std::vector<BudgetAlert> alerts;
  core::Error error;
  bool elsewhere = false;
  {
    const LockAll lock(group);
    elsewhere = handed_over();
    const core::WallTime now = clock_.wall();
    const Sharing sharing = sharing_.load(std::memory_order_relaxed);
    const std::uint32_t gateways = gateways_.load(std::memory_order_relaxed);
    for (const auto& account : group.accounts) {
      if (elsewhere) break;
      const BudgetAmount more = beyond(target.of(account->unit), reservation.held_.of(account->unit));
      if (sharing != Sharing::off) account->lease.asked_at = clock_.steady();
      if (more == 0 || (running && account->on_exceed == OnExceed::finish)) continue;
      if (account->fits(more, now, sharing, gateways)) continue;
      // Else it is for want of the store or of a slice that it is refused, which says nothing of what is spent.
      const bool used_up = sharing == Sharing::off || !account->may_be_granted(more, now);
      const bool wait = sharing == Sharing::leased && !used_up;
      if (wait) account->lease.need = std::max(account->lease.need, more);
      // A refusal that stands is told before one that waiting may mend.
      if (refusing != nullptr && (wait || !error.retryable)) continue;
      refusing = account.get();
      error = account->refusal(target.of(account->unit), more, now, sharing);
      error.retryable = wait;
      if (more <= account->limit_at(now) && used_up) account->check_alerts(now, true, alerts);
    }
    if (refusing == nullptr && !elsewhere) {
      for (const auto& account : group.accounts) {
        const BudgetAmount more = beyond(target.of(account->unit), reservation.held_.of(account->unit));
        account->reserved = add_saturating(account->reserved, more);
      }
    }
  }
  if (elsewhere) return raise_elsewhere(reservation, target, running);
  if (refusing == nullptr) {
    reservation.held_ = target;
    return {};
  }
  for (const BudgetAlert& alert : alerts) hooks_.crossed(alert);
  if (!error.retryable) hooks_.refused(refusing->budget);
  return std::unexpected(std::move(error));
}

bool Budgets::spend(BudgetAccount& account, const BudgetCost& released, const BudgetCost& cost, core::WallTime now) {
  std::vector<BudgetAlert> alerts;
  bool overrun = false;
  {
    const std::lock_guard lock(account.mutex);
    if (handed_over()) return false;
    const BudgetAmount amount = cost.of(account.unit);
    account.reserved -= std::min(account.reserved, released.of(account.unit));
    account.spent.add(now, amount);
    overrun = amount > released.of(account.unit) && account.spent.total(now) > account.limit_at(now);
    if (amount != 0) account.check_alerts(now, false, alerts);
  }
  for (const BudgetAlert& alert : alerts) hooks_.crossed(alert);
  if (overrun) hooks_.overrun(account.budget);
  return true;
}

void Budgets::release(BudgetReservation& reservation) {
  std::vector<BudgetHold> elsewhere;
  if (!reservation.handle_.empty()) {
    for (const auto& account : reservation.handle_.group_->accounts) {
      const std::lock_guard lock(account->mutex);
      if (handed_over()) {
        elsewhere.push_back({account->identity, account->value, reservation.held_.of(account->unit)});
        continue;
      }
      account->reserved -= std::min(account->reserved, reservation.held_.of(account->unit));
    }
  }
  reservation.budgets_ = nullptr;
  reservation.handle_ = {};
  reservation.held_ = {};
  if (!elsewhere.empty()) settle_elsewhere(elsewhere, {}, {}, {});
}

void Budgets::settle(BudgetReservation& reservation, const BudgetSubject& subject, const BudgetCost& cost,
                     std::string_view request_id) {
  const core::WallTime now = clock_.wall();
  std::vector<std::shared_ptr<Account>> current;
  const bool same = reservation.handle_.generation() == generation() && !reading_;
  if (!same && any() && cost != BudgetCost{}) {
    const std::lock_guard lock(mutex_);
    for (const BudgetRule& rule : rules_->all()) {
      if (const auto value = rule.value_for(subject)) {
        if (auto account = find_or_make(rule, *value)) current.push_back(std::move(account));
      }
    }
  }
  // With `same`, the record was there before the history was read.
  const bool counted =
      !same && restoring_now_.load(std::memory_order_acquire) && cost != BudgetCost{} && counted_by_history(request_id);
  const BudgetCost released = std::exchange(reservation.held_, {});
  const BudgetHandle handle = std::exchange(reservation.handle_, {});
  reservation.budgets_ = nullptr;
  std::vector<BudgetHold> elsewhere;
  bool told = true;
  if (!handle.empty()) {
    for (const auto& account : handle.group_->accounts) {
      if (!spend(*account, released, cost, now)) {
        elsewhere.push_back({account->identity, account->value, released.of(account->unit)});
      }
      std::erase(current, account);
    }
  }
  for (const auto& account : current) {
    if (!counted || !account->has_counted_history()) told = spend(*account, {}, cost, now) && told;
  }
  if (!elsewhere.empty() || !told) settle_elsewhere(elsewhere, subject, cost, request_id);
}

}  // namespace ganglion::metering
