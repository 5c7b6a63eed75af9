// See gateway/snapshot.hpp.

#include "gateway/snapshot.hpp"

#include <algorithm>
#include <chrono>

namespace ganglion::gateway {
namespace {

template <class Range, class Field>
auto find_named(const Range& range, Field field, std::string_view name) {
  const auto it = std::ranges::find(range, name, field);
  return it == range.end() ? nullptr : &*it;
}

std::uint64_t version_of(const SnapshotInput& input, const std::vector<Destination>& destinations) {
  std::string text;
  for (const Destination& to : destinations) {
    text += to.local ? input.local_models[to.index].directory : input.remotes[to.index].upstream.base_url;
    text += '\0';
    text += to.upstream_model;
    text += '\0';
  }
  return core::hash128(text).low;
}

// Of what a gateway's policy may change about an answer.
std::uint64_t version_of(const GatewayPolicy& policy) {
  const auto& cache = policy.cache;
  std::string text;
  const auto add = [&text](std::int64_t value) { text += std::to_string(value) + ' '; };
  for (const auto seconds : {cache.ttl, cache.stale_while_revalidate, cache.stale_if_error}) add(seconds.count());
  add(cache.keep_only_asked);
  add(cache.only_deterministic);
  for (const auto& negative : cache.negative) {
    add(negative.status);
    add(negative.ttl.count());
  }
  add(static_cast<std::int64_t>(policy.retry.attempts_max));
  return core::hash128(text).low;
}

std::uint64_t price_version_of(const metering::PricingOptions& pricing, const std::string& model) {
  std::string text = pricing.schedule + '\0' + pricing.usd_per_1000_neurons_regular.value_or("") + '\0' +
                     pricing.usd_per_1000_neurons_fast.value_or("");
  for (const metering::ModelPrice& price : pricing.models) {
    if (price.model != model && price.model != "*") continue;
    for (const auto& part : {price.model, price.unit, price.per_1m_input_tokens, price.per_1m_cached_input_tokens,
                             price.per_1m_output_tokens, price.per_request, price.per_gpu_second}) {
      text += '\0' + part;
    }
  }
  return core::hash128(text).low;
}

}  // namespace

core::Result<std::shared_ptr<const Snapshot>> Snapshot::make(SnapshotInput input, std::uint64_t version) {
  auto prices = metering::PriceTimeline::make(input.pricing);
  if (!prices) return std::unexpected(std::move(prices.error()));
  std::shared_ptr<Snapshot> snapshot(new Snapshot);
  snapshot->keys_ = std::make_shared<const KeyRing>(input.gateway);
  snapshot->prices_ = std::move(*prices);
  std::map<std::string, std::vector<Destination>> by_name;
  for (std::size_t i = 0; i < input.remotes.size(); ++i) {
    for (const backends::ModelAlias& alias : input.remotes[i].models) {
      by_name[alias.name].push_back({.local = false,
                                     .index = i,
                                     .upstream_model = alias.upstream.empty() ? alias.name : alias.upstream,
                                     .weight = input.remotes[i].weight,
                                     .output_tokens_max = alias.output_tokens_max});
    }
  }
  for (std::size_t i = 0; i < input.local_models.size(); ++i) {
    const backends::LocalModelOptions& local = input.local_models[i];
    by_name[local.name].push_back({.local = true, .index = i, .upstream_model = local.name, .weight = local.weight});
  }
  for (auto& [name, destinations] : by_name) {
    snapshot->by_name_.emplace(name, snapshot->models_.size());
    const std::uint64_t meaning = version_of(input, destinations);
    snapshot->models_.push_back({.name = name,
                                 .destinations = std::move(destinations),
                                 .version = meaning,
                                 .price_version = price_version_of(input.pricing, name)});
  }
  for (const GatewayPolicy& policy : input.gateway.gateways) snapshot->policy_versions_.push_back(version_of(policy));
  snapshot->input_ = std::move(input);
  snapshot->version_ = version;
  snapshot->created_s_ =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  return snapshot;
}

const ModelEntry* Snapshot::model(std::string_view name) const {
  const auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &models_[it->second];
}

const GatewayPolicy& Snapshot::policy(std::string_view gateway) const {
  const auto* found = find_named(input_.gateway.gateways, &GatewayPolicy::name, gateway);
  return found != nullptr ? *found : default_policy_;
}

std::uint64_t Snapshot::cache_version(const GatewayPolicy& policy, const ModelEntry& model) const {
  const cache::InvalidateOn on = policy.cache.invalidate_on;
  if (on == cache::InvalidateOn::never) return model.version;
  constexpr std::uint64_t kOdd = 0x9E3779B97F4A7C15ULL;
  std::uint64_t out = model.version;
  if (on != cache::InvalidateOn::price && &policy != &default_policy_) {
    const auto at = static_cast<std::size_t>(&policy - input_.gateway.gateways.data());
    out = out * kOdd + policy_versions_[at];
  }
  if (on != cache::InvalidateOn::policy) out = out * kOdd + model.price_version;
  return out;
}

const ratelimit::LimitSet* Snapshot::tenant_limits(std::string_view tenant) const {
  const auto* found = find_named(input_.gateway.tenants, &TenantOptions::name, tenant);
  return found != nullptr ? &found->limits : nullptr;
}

const ratelimit::LimitSet* Snapshot::model_limits(std::string_view model) const {
  const auto* found = find_named(input_.gateway.model_limits, &ModelLimits::model, model);
  return found != nullptr ? &found->limits : nullptr;
}

std::string Snapshot::names_for(const Principal& principal) const {
  constexpr std::size_t kNamedMax = 20;
  std::string out;
  std::size_t usable = 0;
  for (const ModelEntry& entry : models_) {
    if (!principal.may_use(entry.name) || ++usable > kNamedMax) continue;
    if (!out.empty()) out += ", ";
    out += entry.name;
  }
  if (usable > kNamedMax) out += " and " + std::to_string(usable - kNamedMax) + " more (GET /v1/models)";
  return usable == 0 ? "none" : out;
}

}  // namespace ganglion::gateway
