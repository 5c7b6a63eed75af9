// See config/in_force.hpp.

#include "config/in_force.hpp"

#include <algorithm>
#include <functional>
#include <set>
#include <string_view>

#include "config/describe.hpp"
#include "config/fingerprint.hpp"
#include "config/tables.hpp"

namespace ganglion::config {
namespace {

using Names = std::set<std::string, std::less<>>;

Names local_names(const Config& config) {
  Names out;
  for (const backends::LocalModelOptions& model : config.local_models) out.insert(model.name);
  return out;
}

Names provider_names(const Config& config) {
  Names out;
  for (const backends::RemoteOptions& remote : config.remotes) {
    for (const backends::ModelAlias& alias : remote.models) out.insert(alias.name);
  }
  return out;
}

struct Models {
  Names leaving;  // loaded, and named nowhere in the file
  Names coming;   // local models of the file that are not loaded and that no provider of it serves
};

Models differing(const Config& started, const Config& file) {
  const Names loaded = local_names(started);
  const Names wanted = local_names(file);
  const Names provided = provider_names(file);
  Models out;
  for (const std::string& name : loaded) {
    if (!wanted.contains(name) && !provided.contains(name)) out.leaving.insert(name);
  }
  for (const std::string& name : wanted) {
    if (!loaded.contains(name) && !provided.contains(name)) out.coming.insert(name);
  }
  return out;
}

// As a key's list is read on the request path.
bool may_use(const std::vector<std::string>& patterns, std::string_view model) {
  return std::ranges::any_of(patterns, [&](std::string_view pattern) {
    return pattern.ends_with('*') ? model.starts_with(pattern.substr(0, pattern.size() - 1)) : pattern == model;
  });
}

// A key without a list may use everything anyway, and one that gets its first list is narrowed on purpose.
void keep_keys(const Names& leaving, const std::vector<gateway::KeyOptions>& now,
               std::vector<gateway::KeyOptions>& keys) {
  for (gateway::KeyOptions& key : keys) {
    const auto before = std::ranges::find(now, key.id, &gateway::KeyOptions::id);
    if (before == now.end() || key.models.empty()) continue;
    for (const std::string& model : leaving) {
      if (may_use(before->models, model) && !may_use(key.models, model)) key.models.push_back(model);
    }
  }
}

// The model's price at that time, its own or that of all that have none; null: the schedule's.
const metering::ModelPrice* price_at(const metering::PricingOptions& pricing, std::chrono::microseconds time,
                                     std::string_view model) {
  const std::vector<metering::ModelPrice>* list = &pricing.models;
  for (const metering::PriceChange& change : pricing.changes) {
    if (change.from <= time && !change.models.empty()) list = &change.models;
  }
  auto found = std::ranges::find(*list, model, &metering::ModelPrice::model);
  if (found == list->end()) found = std::ranges::find(*list, "*", &metering::ModelPrice::model);
  return found == list->end() ? nullptr : &*found;
}

void keep_prices(const Names& leaving, const metering::PricingOptions& now, std::chrono::microseconds time,
                 metering::PricingOptions& pricing) {
  const auto keep = [&](const std::string& model, std::chrono::microseconds from,
                        std::vector<metering::ModelPrice>& list) {
    const metering::ModelPrice* price = price_at(now, from, model);
    if (price == nullptr) return;
    list.push_back(*price);
    list.back().model = model;
  };
  for (const std::string& model : leaving) {
    keep(model, time, pricing.models);
    for (metering::PriceChange& change : pricing.changes) {
      if (!change.models.empty()) keep(model, std::max(change.from, time), change.models);
    }
  }
}

void keep_budgets(const Models& models, const std::vector<metering::BudgetOptions>& now,
                  std::vector<metering::BudgetOptions>& budgets) {
  for (const metering::BudgetOptions& budget : now) {
    if (!models.leaving.contains(budget.model)) continue;
    const auto same = std::ranges::find(budgets, budget.name, &metering::BudgetOptions::name);
    if (same == budgets.end()) {
      budgets.push_back(budget);
    } else if (models.coming.contains(same->model)) {
      *same = budget;  // the file's own binds nothing yet
    } else {
      metering::BudgetOptions other = budget;  // names are unique
      other.name += " (" + budget.model + ")";
      budgets.push_back(std::move(other));
    }
  }
}

// An embedding model that is not there yet would cost every request of the gateway its semantic cache.
void keep_embedders(const Models& models, const Config& now, InForce& out) {
  Names served = local_names(out.config);
  served.merge(provider_names(out.config));
  for (gateway::GatewayPolicy& policy : out.config.gateway.gateways) {
    cache::SemanticPolicy& semantic = policy.cache.semantic;
    if (!models.coming.contains(semantic.embedding_model)) continue;
    const auto before = std::ranges::find(now.gateway.gateways, policy.name, &gateway::GatewayPolicy::name);
    const bool works = before != now.gateway.gateways.end() && served.contains(before->cache.semantic.embedding_model);
    std::string text = "gateway `" + policy.name + "`: its embedding model `" + semantic.embedding_model +
                       "` is loaded at the next start; until then ";
    if (works) {
      semantic = before->cache.semantic;  // whole: a threshold belongs to its model
      text += "the semantic cache goes on with `" + semantic.embedding_model + "`";
    } else {
      semantic.embedding_model.clear();
      text += "the semantic cache is off";
    }
    out.until_restart.push_back(std::move(text));
  }
}

}  // namespace

void keep_restart_only(const Config& started, Config& loaded) {
  keep_fields(root_table(), started, loaded);
}

std::expected<InForce, Diagnostic> in_force(const Config& started, const Config& now, const Config& file,
                                            std::chrono::microseconds time) {
  const Models models = differing(started, file);
  const Names provided = provider_names(now);
  for (const std::string& name : models.coming) {
    if (!provided.contains(name)) continue;
    return std::unexpected(Diagnostic{
        .file = file.source,
        .message = "`" + name + "` moves from `providers` to `local`, where it is loaded at the next start; " +
                   "a reload would take it away until then. Keep it in `providers` too, or restart"});
  }
  InForce out{.config = file, .needs_restart = changed_not_reloadable(started, file)};
  keep_restart_only(started, out.config);
  for (const std::string& name : models.leaving) {
    out.until_restart.push_back("local model `" + name +
                                "`, which the file no longer has, is served until a restart, " +
                                "with its prices, limits, budgets and keys as they were");
  }
  for (const std::string& name : models.coming) {
    out.until_restart.push_back("local model `" + name + "` is loaded at the next start; nobody can use it before");
  }
  gateway::GatewayOptions& options = out.config.gateway;
  keep_keys(models.leaving, now.gateway.keys, options.keys);
  keep_prices(models.leaving, now.pricing, time, out.config.pricing);
  for (const gateway::ModelLimits& limits : now.gateway.model_limits) {
    if (models.leaving.contains(limits.model)) options.model_limits.push_back(limits);
  }
  keep_budgets(models, now.gateway.budgets, options.budgets);
  keep_embedders(models, now, out);
  out.config.hash = fingerprint(out.config);
  return out;
}

}  // namespace ganglion::config
