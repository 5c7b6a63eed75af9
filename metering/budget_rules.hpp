#pragma once
// The budgets of one configuration, checked and compiled: which of them bind a request, and how much they allow.
// Immutable, shared by all threads.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/tags.hpp"
#include "core/error.hpp"
#include "metering/bill.hpp"
#include "metering/budget_window.hpp"
#include "metering/options.hpp"
#include "metering/units.hpp"

namespace ganglion::metering {

enum class BudgetUnit : std::uint8_t { neurons, usd };
std::string_view name(BudgetUnit unit);
enum class BudgetPer : std::uint8_t { all, key, tenant, gateway, model, tag };

// What budgets know of a request. Borrowed for the call.
struct BudgetSubject {
  std::string_view key;
  std::string_view tenant;
  std::string_view gateway;
  std::string_view model;
  std::span<const api::Tag> tags;
};

// What a request costs, or may cost, in both units of budgets.
struct BudgetCost {
  BudgetAmount neurons = 0;
  BudgetAmount usd = 0;
  BudgetAmount of(BudgetUnit unit) const { return unit == BudgetUnit::neurons ? neurons : usd; }
  friend bool operator==(const BudgetCost&, const BudgetCost&) = default;
};
BudgetCost cost_of(const Charge& charge);
BudgetAmount free_on_day(const FreeAllocation& daily, core::WallTime at);
BudgetCost larger(const BudgetCost& a, const BudgetCost& b);  // of each unit

// "12.5 neurons", "0.3 USD"; rounded half up to 9 decimals.
std::string amount_text(BudgetUnit unit, BudgetAmount amount);    // without the unit
std::string format_amount(BudgetUnit unit, BudgetAmount amount);  // with it

struct BudgetRule {
  std::string name;
  std::string key, tenant, gateway, model, tag_name, tag_value;
  bool any_tag_value = true;
  BudgetPer per = BudgetPer::all;
  BudgetUnit unit = BudgetUnit::neurons;
  BudgetAmount limit = 0;
  std::optional<FreeAllocation> daily;  // the limit is that of the day; 0: nothing that costs anything
  WindowSpec window;
  OnExceed on_exceed = OnExceed::cut;
  std::vector<std::uint32_t> alerts;  // ascending
  BudgetAmount limit_at(core::WallTime at) const;
  // Equal for two configurations while its counts mean the same: everything but limit, on_exceed and alerts.
  std::string identity;

  bool fits_names(const BudgetSubject& subject) const;  // all but the tag
  bool needs_tags() const { return !tag_name.empty(); }
  // The value that this rule counts the request under ("" where per is `all`); nullopt: the rule does not bind it.
  std::optional<std::string_view> value_for(const BudgetSubject& subject) const;
  // Whose money it is: only those who spend it may be told how much is left.
  bool one_tenants() const;
};

inline constexpr std::size_t kBudgetsMax = 10'000;
inline constexpr std::string_view kFreeAllocation = "free-allocation";

class BudgetRules {
 public:
  // `free_only`: tenants that may use their daily free allocation of neurons and nothing more. invalid_value with the
  // message for the operator.
  static core::Result<std::shared_ptr<const BudgetRules>> make(std::span<const BudgetOptions> options,
                                                               std::span<const std::string> free_only,
                                                               const FreeAllocation& daily_free);
  // Those of `rules`, then those of `more` whose identity `rules` has not.
  static std::shared_ptr<const BudgetRules> joined(const BudgetRules& rules, const BudgetRules& more);

  const std::vector<BudgetRule>& all() const { return rules_; }
  bool empty() const { return rules_.empty(); }

 private:
  BudgetRules() = default;
  std::vector<BudgetRule> rules_;
};

// One rule, as make() checks it: "" or what is wrong.
core::Result<BudgetRule> compile_budget(const BudgetOptions& options);

}  // namespace ganglion::metering
