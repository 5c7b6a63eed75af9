#pragma once
// Hard budgets of the process: every request reserves the most that it may cost in all budgets that bind it, or in
// none, before it is dispatched; afterwards what it did cost is spent and the rest is free again. So
//   spent in the window + reserved by running requests <= limit
// holds at every instant, under any concurrency, and at the turn of a window (reservations carry over: they will be
// spent in the window in which they end). The counts are rebuilt from the ledger at start; nothing here is durable.

#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "core/clock.hpp"
#include "core/error.hpp"
#include "metering/budget_lease.hpp"
#include "metering/budget_rules.hpp"

namespace ganglion::metering {

// A budget's use passed one of its percentages. The same crossing may be told again after a restart; `id` is then the
// same (calendar windows), which is what makes it an alert once.
struct BudgetAlert {
  std::string id;
  std::string series;  // the same for this percentage of this budget in every window
  std::string budget;
  std::string value;  // of a `per` budget
  std::uint32_t percent = 0;
  bool refused = false;  // 100: a request was refused for want of budget
  BudgetUnit unit = BudgetUnit::neurons;
  BudgetAmount limit = 0;
  BudgetAmount spent = 0;
  WindowSpec window;
  core::WallTime at;
  core::WallTime window_start;
};

// Called without locks held, from the thread that spent or asked; must not block.
class BudgetHooks {
 public:
  virtual ~BudgetHooks() = default;
  virtual void crossed(const BudgetAlert& /*alert*/) {}
  virtual void refused(std::string_view /*budget*/) {}
  // More was spent than had been reserved, and the budget's limit was passed by it.
  virtual void overrun(std::string_view /*budget*/) {}
};

// One budget, for the admin side.
struct BudgetState {
  std::string budget;
  std::string value;
  BudgetUnit unit = BudgetUnit::neurons;
  WindowSpec window;
  OnExceed on_exceed = OnExceed::cut;
  BudgetAmount limit = 0;
  BudgetAmount spent = 0;
  BudgetAmount reserved = 0;
  BudgetAmount spent_elsewhere = 0;  // by other gateways, as last heard
  core::WallTime window_start;
  core::WallTime resets;  // calendar: the window's end; sliding: when the oldest spending stops to count
};

// What running requests hold of one budget.
struct BudgetHold {
  std::string identity;  // of its rule
  std::string value;     // of a `per` budget
  BudgetAmount amount = 0;
};

// Who keeps the budgets once this process has handed them over. Thread-safe; blocks for the answer.
class BudgetHeir {
 public:
  virtual ~BudgetHeir() = default;
  virtual core::Result<void> raise(const std::vector<BudgetHold>& more, bool running) = 0;
  virtual void settle(const std::vector<BudgetHold>& released, const BudgetSubject& subject, const BudgetCost& cost,
                      std::string_view request_id) = 0;
};

// What is left of the tightest budget that may be shown to the client.
struct BudgetView {
  bool limited = false;
  std::string_view budget;  // valid while the handle lives
  BudgetUnit unit = BudgetUnit::neurons;
  BudgetAmount limit = 0;
  BudgetAmount left = 0;
  core::WallTime resets;
};

namespace detail {
struct BudgetAccount;
struct BudgetGroup {
  std::vector<std::shared_ptr<BudgetAccount>> accounts;  // sorted by address, unique
  std::uint64_t generation = 0;                          // of the rules it was resolved under
  bool by_tag = false;                                   // the request's tags had a say
};
}  // namespace detail

// The budgets that bind a request. Cheap to copy; default constructed: none.
class BudgetHandle {
 public:
  BudgetHandle() = default;
  bool empty() const { return !group_ || group_->accounts.empty(); }
  std::uint64_t generation() const { return group_ ? group_->generation : 0; }
  bool by_tag() const { return group_ && group_->by_tag; }  // another request of the same names may have others

 private:
  friend class Budgets;
  std::shared_ptr<const detail::BudgetGroup> group_;
};

class Budgets;

// A request's hold on its budgets. Destroyed unsettled, it is given back whole. Budgets must outlive it; may be used on
// any thread, by one at a time.
class BudgetReservation {
 public:
  BudgetReservation() = default;
  BudgetReservation(BudgetReservation&& other) noexcept;
  BudgetReservation& operator=(BudgetReservation&& other) noexcept;
  ~BudgetReservation();
  const BudgetCost& held() const { return held_; }
  bool binds() const { return !handle_.empty(); }

 private:
  friend class Budgets;
  Budgets* budgets_ = nullptr;
  BudgetHandle handle_;
  BudgetCost held_;
};

// What was spent since then may count in a window of these rules that is running, or that a clock set back returns to.
core::WallTime history_from(const BudgetRules& rules, core::WallTime now);

class Budgets {
 public:
  static constexpr std::size_t kAccountsMax = 100'000;

  Budgets(const core::Clock& clock, BudgetHooks& hooks, std::size_t accounts_max = kAccountsMax);
  ~Budgets();
  Budgets(const Budgets&) = delete;
  Budgets& operator=(const Budgets&) = delete;

  // New rules. Counts of rules that mean the same are kept, also under a new limit. True: some rule has no history yet;
  // then the caller shows restore() all that was spent since history_from() and calls ready(), or take_back() where the
  // history cannot be read. Until then rules without history count and do not bind, and those that the new rules leave
  // out go on. One caller at a time. `request_id` "": a sum, which no request settles.
  bool prepare(std::shared_ptr<const BudgetRules> rules);
  void restore(const BudgetSubject& subject, const BudgetCost& cost, core::WallTime at, std::string_view request_id);
  void ready();
  void take_back();  // the rules from before prepare(), with all that was counted meanwhile

  // Changes whenever handles should be resolved anew.
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  bool any() const { return any_.load(std::memory_order_relaxed); }

  // Cold path. overloaded when accounts_max budgets are in use.
  core::Result<BudgetHandle> resolve(const BudgetSubject& subject);
  // quota_exceeded, naming the budget, its window and when it resets; then nothing is held. Error::retryable: other
  // gateways may have room, which lease_asks() now asks for.
  core::Result<BudgetReservation> reserve(const BudgetHandle& handle, const BudgetCost& cost);
  // Raises what is held to `cost` in each unit, in all budgets or in none. `running`: the answer is on its way, so
  // budgets that let it finish do not refuse.
  core::Result<void> raise(BudgetReservation& reservation, const BudgetCost& cost, bool running);
  // The request ended and its ledger record is written: spends `cost`, gives back the rest. Counts under the rules of
  // now, whatever rules it began under.
  void settle(BudgetReservation& reservation, const BudgetSubject& subject, const BudgetCost& cost,
              std::string_view request_id);

  // Handing over to another process. From freeze() on requests wait for room and with their ends, until follow() sends
  // them to the heir, or thaw() lets them go on here. freeze() returns what running requests hold.
  std::vector<BudgetHold> freeze();
  void thaw();
  void follow(BudgetHeir& heir);
  bool handed_over() const { return mode_.load(std::memory_order_relaxed) != Mode::here; }
  // Of the heir, once its own history is read: what the process before holds, what it asks for and what it ends.
  void adopt(const std::vector<BudgetHold>& holds);
  core::Result<void> raise_adopted(const std::vector<BudgetHold>& more, bool running);
  void settle_adopted(const std::vector<BudgetHold>& released, const BudgetSubject& subject, const BudgetCost& cost,
                      std::string_view request_id);
  void drop_adopted();  // that process is gone

  BudgetView view(const BudgetHandle& handle) const;
  std::vector<BudgetState> states() const;  // by budget, then value

  // Sharing with other gateways. `gateways`: how many there are.
  void share(Sharing sharing, std::uint32_t gateways);
  Sharing sharing() const { return sharing_.load(std::memory_order_relaxed); }
  // What is to be told and asked now. Slack that others need is given back by it. A budget that nobody uses is silent,
  // but for an exchange in every `refresh` that keeps alive what it holds. Each ask is answered by one leased() or
  // lease_failed().
  std::vector<LeaseAsk> lease_asks(LeaseRound round, std::chrono::milliseconds refresh);
  // Other gateways are short of these (LeaseAsk::digest).
  void others_short(const std::vector<std::string>& digests);
  void leased(const LeaseAsk& ask, const LeaseGrant& grant);
  void lease_failed(const LeaseAsk& ask);

 private:
  friend class BudgetReservation;
  using Account = detail::BudgetAccount;
  struct Restoring;
  enum class Mode : std::uint8_t { here, frozen, elsewhere };

  void release(BudgetReservation& reservation);
  std::shared_ptr<Account> find_or_make(const BudgetRule& rule, std::string_view value);  // mutex_ held
  void forget_idle();                                                                     // same
  void use_rules(std::shared_ptr<const BudgetRules> rules);                               // same
  // False: nothing was done, because another process keeps the budgets, or is about to.
  bool spend(Account& account, const BudgetCost& released, const BudgetCost& cost, core::WallTime now);
  BudgetHeir* heir();  // waits until that is settled; nullptr: the budgets are kept here after all
  void settle_elsewhere(const std::vector<BudgetHold>& released, const BudgetSubject& subject, const BudgetCost& cost,
                        std::string_view request_id);
  core::Result<void> raise_elsewhere(BudgetReservation& reservation, const BudgetCost& target, bool running);
  std::shared_ptr<Account> adopted(const BudgetHold& hold);
  bool counted_by_history(std::string_view request_id);

  const core::Clock& clock_;
  BudgetHooks& hooks_;
  const std::size_t accounts_max_;
  std::atomic<std::uint64_t> generation_{1};
  std::atomic<bool> any_{false};
  std::atomic<bool> restoring_now_{false};
  std::atomic<bool> reading_{false};  // some rules do not bind yet, so handles lack their budgets
  std::atomic<Sharing> sharing_{Sharing::off};
  std::atomic<std::uint32_t> gateways_{1};

  std::atomic<Mode> mode_{Mode::here};  // read under an account's mutex, so that no change slips past freeze()
  std::mutex mode_mutex_;               // guards heir_
  std::condition_variable settled_;
  BudgetHeir* heir_ = nullptr;

  mutable std::mutex mutex_;  // guards all below; taken before an account's
  std::shared_ptr<const BudgetRules> rules_;
  // While history is read: what ready() and take_back() make of rules_, which is both.
  std::shared_ptr<const BudgetRules> next_, previous_;
  std::unordered_set<std::string> fresh_;  // identities of rules that do not bind yet
  std::unordered_map<std::string, std::shared_ptr<Account>> accounts_;
  std::unique_ptr<Restoring> restoring_;
  std::unordered_map<std::string, BudgetAmount> adopted_;  // by an account's key: what the process before holds
};

}  // namespace ganglion::metering
