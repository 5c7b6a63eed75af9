// See metering/budget_rules.hpp.

#include "metering/budget_rules.hpp"

#include <algorithm>
#include <set>

#include "metering/decimal.hpp"

namespace ganglion::metering {
namespace {

using core::ErrorKind;

constexpr unsigned kDecimals = 9;
constexpr std::uint64_t kNano = 1'000'000'000;
// Past these a sum could leave the exact range: a window of 9 billion neurons, or of 9 million USD.
constexpr std::uint64_t kNeuronsMax = 9'000'000'000;
constexpr std::uint64_t kUsdMax = 9'000'000;
constexpr std::uint32_t kAlertPercentMax = 1'000;

std::unexpected<core::Error> wrong(const BudgetOptions& options, std::string_view field, const std::string& problem) {
  return core::fail(ErrorKind::invalid_value, "budget `" + options.name + "`: " + problem, std::string{field});
}

core::Result<BudgetAmount> read_limit(const BudgetOptions& options) {
  const bool neurons = !options.limit_neurons.empty();
  const std::string_view field = neurons ? "neurons" : "usd";
  if (neurons == !options.limit_usd.empty())
    return wrong(options, "neurons", "give exactly one of `neurons` and `usd`, the amount that a window allows");
  const std::string& text = neurons ? options.limit_neurons : options.limit_usd;
  const auto nano = parse_decimal(text, kDecimals);
  const std::uint64_t most = neurons ? kNeuronsMax : kUsdMax;
  if (!nano) return wrong(options, field, "\"" + text + "\" is no amount such as 5000 or 12.50");
  if (*nano == 0)
    return wrong(options, field, "an amount of 0 would refuse every request; revoke the key, or leave the budget out");
  if (*nano > most * kNano)
    return wrong(options, field, text + " is more than a budget can count; the most is " + std::to_string(most));
  return neurons ? BudgetAmount{*nano} * kPartsPerNanoNeuron : BudgetAmount{*nano} * 1'000 * kPartsPerNeuron;
}

core::Result<BudgetPer> read_per(const BudgetOptions& options) {
  if (options.per.empty()) return BudgetPer::all;
  if (options.per == "key") return BudgetPer::key;
  if (options.per == "tenant") return BudgetPer::tenant;
  if (options.per == "gateway") return BudgetPer::gateway;
  if (options.per == "model") return BudgetPer::model;
  if (options.per != "tag")
    return wrong(options, "per", "\"" + options.per + "\" is none of key, tenant, gateway, model, tag");
  if (options.tag.empty() || options.tag.find('=') != std::string::npos)
    return wrong(options, "per", "`per: tag` needs the tag's name, such as `tag: team`");
  return BudgetPer::tag;
}

void append_part(std::string& out, std::string_view text) {
  out += std::to_string(text.size());
  out += ':';
  out += text;
}

std::string identity_of(const BudgetRule& rule, const BudgetOptions& options) {
  std::string out;
  for (const std::string_view part :
       {std::string_view{rule.name}, std::string_view{rule.key}, std::string_view{rule.tenant},
        std::string_view{rule.gateway}, std::string_view{rule.model}, std::string_view{options.tag},
        std::string_view{options.per}, name(rule.unit)}) {
    append_part(out, part);
  }
  append_part(out, format_window(rule.window));
  return out;
}

const api::Tag* find(std::span<const api::Tag> tags, std::string_view name) {
  const auto it = std::ranges::find(tags, name, &api::Tag::name);
  return it == tags.end() ? nullptr : &*it;
}

bool fits(const std::string& selector, std::string_view value) {
  return selector.empty() || selector == value;
}

}  // namespace

std::string_view name(BudgetUnit unit) {
  return unit == BudgetUnit::neurons ? "neurons" : "usd";
}

BudgetCost cost_of(const Charge& charge) {
  BudgetCost cost{.neurons = charge.exact};
  if (charge.exact == 0 || charge.usd_pico_per_neuron == 0) return cost;
  const bool fits = charge.exact <= kBudgetAmountMax / charge.usd_pico_per_neuron;
  cost.usd = fits ? charge.exact * charge.usd_pico_per_neuron : kBudgetAmountMax;
  return cost;
}

BudgetAmount free_on_day(const FreeAllocation& daily, core::WallTime at) {
  const std::int64_t day = slot_of({.kind = WindowKind::day}, at);
  return BudgetAmount{std::min(daily.on_day(day), kNeuronsMax)} * kPartsPerNeuron;
}

BudgetCost larger(const BudgetCost& a, const BudgetCost& b) {
  return {.neurons = std::max(a.neurons, b.neurons), .usd = std::max(a.usd, b.usd)};
}

std::string amount_text(BudgetUnit unit, BudgetAmount amount) {
  const BudgetAmount scale =
      unit == BudgetUnit::neurons ? BudgetAmount{kPartsPerNanoNeuron} : BudgetAmount{kPartsPerNeuron} * 1'000;
  return format_decimal(amount / scale + (amount % scale >= (scale + 1) / 2 ? 1 : 0), kDecimals);
}

std::string format_amount(BudgetUnit unit, BudgetAmount amount) {
  return amount_text(unit, amount) + (unit == BudgetUnit::neurons ? " neurons" : " USD");
}

bool BudgetRule::fits_names(const BudgetSubject& subject) const {
  return fits(key, subject.key) && fits(tenant, subject.tenant) && fits(gateway, subject.gateway) &&
         fits(model, subject.model);
}

std::optional<std::string_view> BudgetRule::value_for(const BudgetSubject& subject) const {
  if (!fits_names(subject)) return std::nullopt;
  const api::Tag* const tag = tag_name.empty() ? nullptr : find(subject.tags, tag_name);
  // Under `per: tag` requests without the tag share one budget, so leaving it out is no way around.
  if (!tag_name.empty() && per != BudgetPer::tag && (tag == nullptr || (!any_tag_value && tag->value != tag_value)))
    return std::nullopt;
  switch (per) {
    case BudgetPer::all:
      break;
    case BudgetPer::key:
      return subject.key;
    case BudgetPer::tenant:
      return subject.tenant;
    case BudgetPer::gateway:
      return subject.gateway;
    case BudgetPer::model:
      return subject.model;
    case BudgetPer::tag:
      return tag == nullptr ? std::string_view{} : std::string_view{tag->value};
  }
  return std::string_view{};
}

BudgetAmount BudgetRule::limit_at(core::WallTime at) const {
  return daily ? free_on_day(*daily, at) : limit;
}

bool BudgetRule::one_tenants() const {
  return !tenant.empty() || !key.empty() || per == BudgetPer::tenant || per == BudgetPer::key;
}

core::Result<BudgetRule> compile_budget(const BudgetOptions& options) {
  BudgetRule rule{.name = options.name,
                  .key = options.key,
                  .tenant = options.tenant,
                  .gateway = options.gateway,
                  .model = options.model,
                  .on_exceed = options.on_exceed,
                  .alerts = options.alerts};
  const auto limit = read_limit(options);
  if (!limit) return std::unexpected(limit.error());
  const auto per = read_per(options);
  if (!per) return std::unexpected(per.error());
  const auto window = parse_window(options.window);
  if (!window)
    return wrong(options, "window",
                 "\"" + options.window +
                     "\" is none of hour, day, week, month, nor a length from 1m to 366d for a sliding window");
  rule.limit = *limit;
  rule.per = *per;
  rule.window = *window;
  rule.unit = options.limit_neurons.empty() ? BudgetUnit::usd : BudgetUnit::neurons;
  const std::size_t equals = options.tag.find('=');
  rule.tag_name = options.tag.substr(0, equals);
  rule.any_tag_value = equals == std::string::npos;
  if (!rule.any_tag_value) rule.tag_value = options.tag.substr(equals + 1);
  if (!options.tag.empty() && rule.tag_name.empty())
    return wrong(options, "tag", "the tag has no name; write `team` or `team=red`");
  std::ranges::sort(rule.alerts);
  const auto [first, last] = std::ranges::unique(rule.alerts);
  rule.alerts.erase(first, last);
  if (!rule.alerts.empty() && (rule.alerts.front() == 0 || rule.alerts.back() > kAlertPercentMax))
    return wrong(options, "alerts", "alerts are percentages from 1 to " + std::to_string(kAlertPercentMax));
  if (rule.alerts.size() > 16) return wrong(options, "alerts", "at most 16 alerts");
  rule.identity = identity_of(rule, options);
  return rule;
}

core::Result<std::shared_ptr<const BudgetRules>> BudgetRules::make(std::span<const BudgetOptions> options,
                                                                   std::span<const std::string> free_only,
                                                                   const FreeAllocation& daily_free) {
  if (options.size() + free_only.size() > kBudgetsMax)
    return core::fail(ErrorKind::invalid_value, "more than " + std::to_string(kBudgetsMax) + " budgets", "budgets");
  std::shared_ptr<BudgetRules> rules(new BudgetRules);
  std::set<std::string_view> names;
  for (const BudgetOptions& budget : options) {
    if (budget.name.empty()) return core::fail(ErrorKind::invalid_value, "a budget has no name", "name");
    if (!names.insert(budget.name).second) return wrong(budget, "name", "this name is given twice");
    auto rule = compile_budget(budget);
    if (!rule) return std::unexpected(std::move(rule.error()));
    rules->rules_.push_back(std::move(*rule));
  }
  for (const std::string& tenant : free_only) {
    BudgetOptions free{.name = std::string{kFreeAllocation} + ":" + tenant,
                       .tenant = tenant,
                       .limit_neurons = std::to_string(std::max<std::uint64_t>(daily_free.most(), 1)),
                       .window = "day"};
    auto rule = compile_budget(free);
    if (!rule) return std::unexpected(std::move(rule.error()));
    rule->daily = daily_free;
    rules->rules_.push_back(std::move(*rule));
  }
  return rules;
}

std::shared_ptr<const BudgetRules> BudgetRules::joined(const BudgetRules& rules, const BudgetRules& more) {
  std::shared_ptr<BudgetRules> out(new BudgetRules);
  std::set<std::string_view> had;
  for (const BudgetRule& rule : rules.rules_) had.insert(rule.identity);
  out->rules_ = rules.rules_;
  for (const BudgetRule& rule : more.rules_) {
    if (!had.contains(rule.identity)) out->rules_.push_back(rule);
  }
  return out;
}

}  // namespace ganglion::metering
