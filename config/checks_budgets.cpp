// Checks of budgets across fields.

#include <map>
#include <set>

#include "config/checks_names.hpp"

namespace ganglion::config {
namespace {

// What a budget can count exactly: see metering/budget_rules.cpp.
constexpr double kNeuronsMax = 9e9;
constexpr double kUsdMax = 9e6;

void check_amount(const Place& place, std::size_t i, const metering::BudgetOptions& budget) {
  const Node& node = at(place.root, {"budgets", i});
  const bool neurons = node.find("neurons") != nullptr;
  const bool usd = node.find("usd") != nullptr;
  if (neurons == usd) {
    if (node.kind == Node::Kind::map)
      place.error({"budgets", i}, neurons ? "give `neurons` or `usd`, not both"
                                          : "give the amount that a window allows, as `neurons` or `usd`");
    return;
  }
  const std::string& text = neurons ? budget.limit_neurons : budget.limit_usd;
  if (text.empty()) return;  // reported already
  const std::string_view field = neurons ? "neurons" : "usd";
  const double amount = std::stod(text);
  if (amount == 0) {
    place.error({"budgets", i, field}, "an amount of 0 would refuse every request; revoke the key, or leave it out");
  } else if (amount > (neurons ? kNeuronsMax : kUsdMax)) {
    place.error({"budgets", i, field}, text + " is more than a budget can count; the most is " +
                                           std::to_string(static_cast<std::int64_t>(neurons ? kNeuronsMax : kUsdMax)));
  }
}

// The allocation of a tenant that has nothing else may be dated: 0 then refuses whatever costs anything.
void check_free_only(const Place& place, const Config& config) {
  bool anyone = false;
  bool ever = config.pricing.daily_free_neurons != 0;
  for (const auto& change : config.pricing.changes) ever = ever || change.daily_free_neurons.value_or(0) != 0;
  for (std::size_t i = 0; i < config.gateway.tenants.size(); ++i) {
    if (!config.gateway.tenants[i].free_only) continue;
    anyone = true;
    if (!ever)
      place.error({"tenants", i, "free_only"},
                  "nothing is free (pricing.daily_free_neurons is 0), so every request "
                  "of this tenant would be refused");
  }
  for (std::size_t i = 0; anyone && ever && i < config.pricing.changes.size(); ++i) {
    if (config.pricing.changes[i].daily_free_neurons == 0)
      place.warn(
          {"pricing", "changes", i, "daily_free_neurons"},
          "from the first day that begins after it, tenants with `free_only` are refused whatever costs anything");
  }
}

}  // namespace

void check_budgets(const Place& place, const Config& config, const Names& tenants, const Names& gateways,
                   const Names& models) {
  Names keys;
  for (const auto& key : config.gateway.keys) {
    keys.complete = keys.complete && !key.id.empty();
    keys.all.push_back(key.id);
  }
  const auto& budgets = config.gateway.budgets;
  names_of(place, "budgets", "name", budgets, [](const auto& b) -> const std::string& { return b.name; });
  const auto refer = [&](std::size_t i, std::string_view field, const Names& names, const std::string& name,
                         std::string_view what) {
    if (!name.empty()) check_reference(place, {"budgets", i, field}, names, name, what);
  };
  for (std::size_t i = 0; i < budgets.size(); ++i) {
    const metering::BudgetOptions& budget = budgets[i];
    check_amount(place, i, budget);
    refer(i, "key", keys, budget.key, "key");
    refer(i, "tenant", tenants, budget.tenant, "tenant");
    refer(i, "gateway", gateways, budget.gateway, "gateway");
    refer(i, "model", models, budget.model, "model");
    if (budget.per == "tag" && (budget.tag.empty() || budget.tag.find('=') != std::string::npos))
      place.error({"budgets", i, "per"}, "`per: tag` needs the tag's name, such as `tag: team`");
  }
  check_free_only(place, config);
  if (!config.budget_alerts.webhook.empty() && config.budget_alerts.secret.empty() &&
      at(place.root, {"budget_alerts"}).find("secret") == nullptr) {
    place.error({"budget_alerts", "webhook"}, "`secret: ${NAME}` is missing, which signs the calls");
  }
}

}  // namespace ganglion::config
