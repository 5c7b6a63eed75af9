#pragma once
// The catalog: every metric family that the product shows, once. The table in catalog.cpp drives the registry, the
// exposition, docs/metrics.md and the check of deploy/'s dashboard and rules. A family is added here, then resolved
// into a handle by whoever counts it; nothing is looked up by name on the way.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace ganglion::metrics {

enum class Family : std::uint16_t {
  // Requests, seen from the client's side.
  requests_total,
  request_duration_seconds,
  request_time_to_first_token_seconds,
  request_inter_token_seconds,
  request_upstream_seconds,
  request_overhead_seconds,
  request_body_bytes_total,
  response_body_bytes_total,
  requests_in_flight,
  requests_rejected_total,
  requests_failed_total,
  requests_cancelled_total,
  // Connections of clients.
  connections,
  connections_accepted_total,
  connections_refused_total,
  // Response cache.
  cache_lookups_total,
  cache_entries,
  cache_bytes,
  cache_bytes_max,
  cache_stores_total,
  cache_evictions_total,
  cache_expirations_total,
  singleflight_followers_total,
  cache_tier_lookups_total,
  cache_tier_lookup_seconds,
  cache_tier_stores_total,
  cache_tier_bytes_total,
  cache_tier_up,
  cache_disk_entries,
  cache_disk_ready,
  cache_disk_bytes,
  cache_disk_bytes_max,
  cache_disk_evictions_total,
  cache_disk_errors_total,
  cache_queue_bytes,
  cache_queue_dropped_total,
  cache_shared_flights_total,
  cache_purges_total,
  cache_purges_untold,
  cache_purged_entries_total,
  // Idempotency keys.
  idempotency_requests_total,
  idempotency_keys,
  idempotency_answer_bytes,
  idempotency_answers_let_go_total,
  idempotency_store_errors_total,
  idempotency_alone_total,
  idempotency_untold_total,
  // Semantic cache.
  semantic_lookups_total,
  semantic_score,
  semantic_embedding_seconds,
  semantic_embedding_tokens_total,
  semantic_entries,
  semantic_evictions_total,
  // Rate limits.
  limiter_admitted_total,
  limiter_limited_total,
  limiter_buckets,
  limiter_leased_buckets,
  limiter_gateways,
  limiter_exchanges_total,
  limiter_wait_seconds,
  limiter_local_share_total,
  // Redis.
  redis_connections,
  redis_circuits_open,
  redis_command_seconds,
  redis_errors_total,
  redis_redirects_total,
  redis_script_loads_total,
  redis_slot_refreshes_total,
  // Tiers.
  tier_in_flight,
  tier_waiting,
  tier_wait_seconds,
  tier_shed_total,
  // Budgets.
  budget_refused_total,
  budget_overruns_total,
  budget_alerts_total,
  budget_webhook_calls_total,
  budget_leases_total,
  budget_rebuilds_total,
  budget_shared,
  budget_spent_ratio,
  budget_reserved_ratio,
  // Metering.
  neurons_total,
  neuron_price_usd,
  tokens_total,
  usage_estimated_total,
  // Ledger.
  ledger_records_total,
  ledger_bytes_total,
  ledger_commit_seconds,
  ledger_batch_records,
  ledger_commits_in_place_total,
  ledger_errors_total,
  ledger_pending_records,
  ledger_oldest_pending_seconds,
  ledger_open_intents,
  ledger_state,
  ledger_rollup_lag_records,
  ledger_keeper_failures_total,
  ledger_segments_dropped_total,
  // Sinks of the ledger's records.
  sink_up,
  sink_records_total,
  sink_errors_total,
  sink_lag_records,
  sink_lag_seconds,
  // Backends and the pools of upstream connections.
  upstream_attempts_total,
  upstream_errors_total,
  upstream_retries_total,
  upstream_first_byte_seconds,
  upstream_connects_total,
  upstream_connection_reuses_total,
  upstream_connections,
  upstream_waiting,
  upstream_latency_seconds,
  upstream_healthy,
  // Local engine.
  engine_queue_length,
  engine_running_requests,
  engine_kv_pages_used,
  engine_kv_pages_cached,
  engine_kv_pages,
  engine_kv_evictions_total,
  engine_prefix_tokens_total,
  engine_steps_total,
  engine_step_seconds_total,
  engine_step_part_seconds_total,
  engine_device_seconds_total,
  engine_step_tokens_total,
  engine_step_tokens_max,
  engine_tokens_total,
  engine_requests_total,
  engine_rejected_total,
  engine_preemptions_total,
  engine_in_service,
  engine_device_failures_total,
  engine_restarts_total,
  // Process, build and configuration.
  config_reloads_total,
  tls_reloads_total,
  config_last_success_timestamp_seconds,
  config_info,
  config_version,
  process_info,
  process_serving_timestamp_seconds,
  access_log_dropped_total,
  label_overflow_total,
  draining,
  build_info,
  process_resident_memory_bytes,
  process_open_fds,
  process_max_fds,
  process_threads,
  process_cpu_seconds_total,
  process_start_time_seconds,
  kCount
};
inline constexpr std::size_t kFamilyCount = static_cast<std::size_t>(Family::kCount);

enum class Type : std::uint8_t { counter, gauge, histogram };
std::string_view name(Type type);

inline constexpr std::size_t kLabelsMax = 6;

// Label names of a family, in the order in which values are given.
struct Labels {
  constexpr Labels() = default;
  constexpr Labels(std::initializer_list<std::string_view> list) {
    for (const std::string_view item : list) names[count++] = item;
  }
  constexpr std::span<const std::string_view> view() const { return {names.data(), count}; }

  std::array<std::string_view, kLabelsMax> names{};
  std::size_t count = 0;
};

struct FamilySpec {
  Family family;
  std::string_view name;  // with prefix, as exposed
  Type type;
  std::string_view unit;  // "seconds", "bytes", "neurons", ... ; "" for plain counts
  double scale;           // what one unit of the stored integer is in `unit`: 1e-9 for times and neurons, else 1
  Labels labels;
  std::span<const double> buckets;  // upper bounds in `unit`, ascending, without +Inf; histograms only
  std::string_view help;
};

std::span<const FamilySpec> catalog();
const FamilySpec& spec(Family family);

// docs/metrics.md, whole.
std::string catalog_markdown();
// The catalog as JSON (name, type, unit, labels, buckets, help), for tools that check dashboards and rules.
std::string catalog_json();

}  // namespace ganglion::metrics
