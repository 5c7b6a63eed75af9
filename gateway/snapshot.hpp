#pragma once
// One configuration as the request path wants it: keys, models, policies and prices, resolved and immutable. Requests
// hold the snapshot they began with; a reload makes a new one.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gateway/auth.hpp"
#include "gateway/options.hpp"
#include "metering/price_book.hpp"

namespace ganglion::gateway {

// Where a model name leads: indexes into remotes or locals, with the backend's own name of the model.
struct Destination {
  bool local = false;
  std::size_t index = 0;
  std::string upstream_model;
  std::uint32_t weight = 1;
  std::uint64_t output_tokens_max = 0;  // 0: not known
};

struct ModelEntry {
  std::string name;
  std::vector<Destination> destinations;
  // Of where the name leads: equal while it means the same, so that a reload that remaps a name forgets its cached
  // answers and any other reload keeps them.
  std::uint64_t version = 0;
  std::uint64_t price_version = 0;  // of what it costs
};

struct SnapshotInput {
  GatewayOptions gateway;
  metering::PricingOptions pricing;
  std::vector<backends::RemoteOptions> remotes;
  std::vector<backends::LocalModelOptions> local_models;
};

class Snapshot {
 public:
  // Fails with invalid_value where the prices do not parse.
  static core::Result<std::shared_ptr<const Snapshot>> make(SnapshotInput input, std::uint64_t version);

  const SnapshotInput& input() const { return input_; }
  const RequestOptions& request() const { return input_.gateway.request; }
  const std::shared_ptr<const KeyRing>& keys() const { return keys_; }
  // In force at that instant, or now. A call is priced by the book of the instant it was dispatched at.
  const metering::PriceBook& prices(core::WallTime at) const { return prices_->at(at); }
  const metering::PriceBook& prices() const { return prices_->at(std::chrono::system_clock::now()); }
  const metering::ReserveOptions& reserve() const { return input_.gateway.reserve; }
  const std::vector<ModelEntry>& models() const { return models_; }  // by name
  const ModelEntry* model(std::string_view name) const;
  const GatewayPolicy& policy(std::string_view gateway) const;
  // What an answer of this model under this gateway's policy is kept as: another value forgets the answers kept so
  // far. The same in every process with the same configuration.
  std::uint64_t cache_version(const GatewayPolicy& policy, const ModelEntry& model) const;
  const ratelimit::LimitSet* tenant_limits(std::string_view tenant) const;
  const ratelimit::LimitSet* model_limits(std::string_view model) const;
  std::uint64_t version() const { return version_; }
  std::int64_t created_s() const { return created_s_; }  // unix time; `created` of GET /v1/models

  // "a, b and c": the models that this principal may use, at most 20 named. For the 404's message.
  std::string names_for(const Principal& principal) const;

 private:
  Snapshot() = default;
  SnapshotInput input_;
  std::shared_ptr<const KeyRing> keys_;
  std::shared_ptr<const metering::PriceTimeline> prices_;
  std::vector<ModelEntry> models_;
  std::map<std::string, std::size_t, std::less<>> by_name_;
  GatewayPolicy default_policy_;
  std::vector<std::uint64_t> policy_versions_;  // as input_.gateway.gateways
  std::uint64_t version_ = 0;
  std::int64_t created_s_ = 0;
};

}  // namespace ganglion::gateway
