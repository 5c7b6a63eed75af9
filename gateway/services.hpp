#pragma once
// What all workers of the process share. Owned by the application as members, borrowed here; everything in it is
// thread-safe and outlives the workers.

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "backends/backend_set.hpp"
#include "backends/health.hpp"
#include "backends/local/local_backend.hpp"
#include "cache/memory_cache.hpp"
#include "cache/options.hpp"
#include "cache/single_flight.hpp"
#include "cache/tiers.hpp"
#include "core/clock.hpp"
#include "gateway/semantic.hpp"
#include "metering/budgets.hpp"
#include "metering/ledger.hpp"
#include "metrics/metrics.hpp"
#include "net/hooks.hpp"
#include "ratelimit/admission.hpp"
#include "ratelimit/lease_broker.hpp"
#include "ratelimit/limiter.hpp"

namespace ganglion::gateway {

class BudgetShare;

class Idempotency;
class KeyShare;

// Counts a backend's attempts, by status and by error kind. Thread-safe; the usual outcome is one add.
class UpstreamAttempts final : public backends::AttemptHooks {
 public:
  UpstreamAttempts(metrics::Registry& registry, std::string_view backend);
  void attempted(const backends::Attempt& attempt, std::chrono::nanoseconds time, bool retry) override;

 private:
  metrics::Shard& shard_;
  const std::string backend_;
  metrics::Counter ok_, retries_;
  metrics::Histogram first_byte_;
};

// Health and connection counters of each backend by name: shared by workers and kept across reloads.
class BackendRegistry {
 public:
  // Makes the counters of a backend; called under the registry's lock.
  using HooksMaker = std::function<std::unique_ptr<net::UpstreamHooks>(std::string_view backend)>;
  BackendRegistry(metrics::Registry& registry, HooksMaker make_hooks)
      : registry_(registry), make_hooks_(std::move(make_hooks)) {}

  struct Backend {
    std::shared_ptr<backends::Health> health = std::make_shared<backends::Health>();
    std::unique_ptr<net::UpstreamHooks> hooks;
    std::unique_ptr<UpstreamAttempts> attempts;
    struct Model {
      std::shared_ptr<backends::Latency> latency = std::make_shared<backends::Latency>();
      std::shared_ptr<backends::ModelRest> rest = std::make_shared<backends::ModelRest>();
    };
    std::map<std::string, Model, std::less<>> models;  // by upstream model
  };
  // References stay valid for the registry's life.
  Backend& get(std::string_view name);
  Backend::Model model(std::string_view backend, std::string_view upstream_model);
  void each(const std::function<void(std::string_view name, const Backend&)>& visit) const;

 private:
  metrics::Registry& registry_;
  HooksMaker make_hooks_;
  mutable std::mutex mutex_;
  std::map<std::string, Backend, std::less<>> backends_;
};

struct Services {
  const core::Clock& clock;
  metrics::Metrics& metrics;
  metering::Ledger& ledger;
  ratelimit::Limiter& limiter;
  metering::Budgets& budgets;
  ratelimit::LeaseMetrics lease_metrics;
  BudgetShare* budget_share = nullptr;  // null: budgets are this gateway's own
  ratelimit::Admission& admission;
  cache::CacheOptions cache_options;
  cache::MemoryCache& cache;
  cache::SingleFlight& flights;
  SemanticCache& semantic;
  cache::Tiers& tiers;
  cache::KeySeed cache_seed;
  BackendRegistry& backends;
  metrics::Counter intents_written, terminals_written;
  std::array<metrics::Histogram, ratelimit::kTierCount> tier_wait;
  std::map<std::string, std::shared_ptr<const backends::LocalModel>, std::less<>> local_models;
  Idempotency* idempotency = nullptr;    // null: Idempotency-Key headers are ignored
  KeyShare* key_share = nullptr;         // null: this gateway has its keys to itself
  backends::TokenCounter token_counter;  // for answers whose provider reports no usage
};

}  // namespace ganglion::gateway
