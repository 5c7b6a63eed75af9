// What components keep themselves and the registry asks for at scrape: cache, flights, limiter, ledger, backends,
// engine.

#include "app/application.hpp"

namespace ganglion::app {
namespace {

using metrics::Family;

void scrape_engine(metrics::Scrape& out, std::string_view model, const local::EngineStats& stats) {
  out.set(Family::engine_queue_length, {model, "regular"}, stats.queued_now[0]);
  out.set(Family::engine_queue_length, {model, "fast"}, stats.queued_now[1]);
  out.set(Family::engine_running_requests, {model, "regular"}, stats.running_now[0]);
  out.set(Family::engine_running_requests, {model, "fast"}, stats.running_now[1]);
  out.set(Family::engine_kv_pages_used, {model}, static_cast<double>(stats.kv_pages_used_now));
  out.set(Family::engine_kv_pages_cached, {model}, static_cast<double>(stats.kv_pages_cached_now));
  out.set(Family::engine_kv_evictions_total, {model}, static_cast<double>(stats.kv_pages_evicted));
  out.set(Family::engine_prefix_tokens_total, {model}, static_cast<double>(stats.prefix_tokens));
  out.set(Family::engine_kv_pages, {model}, static_cast<double>(stats.kv_pages_total));
  out.set(Family::engine_steps_total, {model}, static_cast<double>(stats.steps));
  out.set(Family::engine_step_seconds_total, {model}, stats.step_seconds);
  out.set(Family::engine_step_part_seconds_total, {model, "plan"}, stats.plan_seconds);
  out.set(Family::engine_step_part_seconds_total, {model, "text"}, stats.text_seconds);
  out.set(Family::engine_device_seconds_total, {model}, stats.device_seconds);
  out.set(Family::engine_in_service, {model}, stats.in_service ? 1 : 0);
  out.set(Family::engine_device_failures_total, {model}, static_cast<double>(stats.device_failures));
  out.set(Family::engine_restarts_total, {model}, static_cast<double>(stats.restarts));
  out.set(Family::engine_step_tokens_total, {model, "regular"}, static_cast<double>(stats.step_tokens[0]));
  out.set(Family::engine_step_tokens_total, {model, "fast"}, static_cast<double>(stats.step_tokens[1]));
  out.set(Family::engine_step_tokens_max, {model}, static_cast<double>(stats.step_tokens_max));
  out.set(Family::engine_tokens_total, {model, "prompt"}, static_cast<double>(stats.prompt_tokens));
  out.set(Family::engine_tokens_total, {model, "generated"}, static_cast<double>(stats.generated_tokens));
  out.set(Family::engine_tokens_total, {model, "guessed"}, static_cast<double>(stats.guessed_tokens));
  out.set(Family::engine_tokens_total, {model, "guessed_right"}, static_cast<double>(stats.guessed_right_tokens));
  out.set(Family::engine_tokens_total, {model, "drafted"}, static_cast<double>(stats.drafted_tokens));
  out.set(Family::engine_tokens_total, {model, "drafted_right"}, static_cast<double>(stats.drafted_right_tokens));
  out.set(Family::engine_tokens_total, {model, "draft"}, static_cast<double>(stats.draft_tokens));
  out.set(Family::engine_step_part_seconds_total, {model, "draft"}, stats.draft_seconds);
  out.set(Family::engine_requests_total, {model, "done"},
          static_cast<double>(stats.finished - stats.cancelled - stats.failed));
  out.set(Family::engine_requests_total, {model, "cancelled"}, static_cast<double>(stats.cancelled));
  out.set(Family::engine_requests_total, {model, "failed"}, static_cast<double>(stats.failed));
  out.set(Family::engine_rejected_total, {model, "queue_full"}, static_cast<double>(stats.rejected_queue_full));
  out.set(Family::engine_rejected_total, {model, "context_length"}, static_cast<double>(stats.rejected_context));
  out.set(Family::engine_preemptions_total, {model}, static_cast<double>(stats.preempted));
}

void scrape_tiers(metrics::Scrape& out, const ratelimit::Admission& admission) {
  for (const api::Tier tier : {api::Tier::regular, api::Tier::fast}) {
    out.set(Family::tier_in_flight, {api::name(tier)}, admission.slots().taken(tier));
    out.set(Family::tier_waiting, {api::name(tier)}, admission.slots().waiting(tier));
    for (std::size_t i = 0; i < static_cast<std::size_t>(ratelimit::Shed::kCount); ++i) {
      const auto why = static_cast<ratelimit::Shed>(i);
      out.set(Family::tier_shed_total, {api::name(tier), ratelimit::name(why)},
              static_cast<double>(admission.shed(tier, why)));
    }
  }
}

template <std::size_t N, class Enum>
void scrape_counts(metrics::Scrape& out, Family family, std::string_view tier,
                   const std::array<std::uint64_t, N>& counts, Enum) {
  for (std::size_t i = 0; i < N; ++i) {
    out.set(family, {tier, name(static_cast<Enum>(i))}, static_cast<double>(counts[i]));
  }
}

void scrape_disk(metrics::Scrape& out, const cache::TierStats& stats, const cache::DiskOptions& options) {
  if (!options.directory.empty()) {
    out.set(Family::cache_tier_up, {"disk"}, stats.disk_on && stats.disk.writing ? 1 : 0);
  }
  if (!stats.disk_on) return;
  out.set(Family::cache_disk_entries, static_cast<double>(stats.disk.entries_now));
  out.set(Family::cache_disk_ready, stats.disk.scanned ? 1 : 0);
  out.set(Family::cache_disk_bytes, static_cast<double>(stats.disk.bytes_now));
  out.set(Family::cache_disk_bytes_max, static_cast<double>(options.bytes_max));
  out.set(Family::cache_disk_evictions_total, static_cast<double>(stats.disk.evicted));
  out.set(Family::cache_disk_errors_total, {"read"}, static_cast<double>(stats.disk.read_errors));
  out.set(Family::cache_disk_errors_total, {"write"}, static_cast<double>(stats.disk.write_errors));
}

void scrape_cache_tiers(metrics::Scrape& out, const cache::TierStats& stats, const cache::DiskOptions& disk) {
  for (const auto tier : {cache::Tier::redis, cache::Tier::disk}) {
    if (!(tier == cache::Tier::redis ? stats.redis_on : stats.disk_on)) continue;
    const auto i = static_cast<std::size_t>(tier);
    scrape_counts(out, Family::cache_tier_lookups_total, name(tier), stats.looks[i], cache::LookResult::hit);
    scrape_counts(out, Family::cache_tier_stores_total, name(tier), stats.stores[i], cache::StoreResult::stored);
    out.set(Family::cache_tier_bytes_total, {name(tier), "read"}, static_cast<double>(stats.bytes_read[i]));
    out.set(Family::cache_tier_bytes_total, {name(tier), "written"}, static_cast<double>(stats.bytes_written[i]));
  }
  if (stats.redis_on) {
    out.set(Family::cache_tier_up, {"redis"}, stats.redis_up ? 1 : 0);
    out.set(Family::cache_purges_untold, static_cast<double>(stats.purges_untold));
    for (std::size_t i = 0; i < stats.shared_flights.size(); ++i) {
      out.set(Family::cache_shared_flights_total, {name(static_cast<cache::SharedFlight>(i))},
              static_cast<double>(stats.shared_flights[i]));
    }
  }
  scrape_disk(out, stats, disk);
  out.set(Family::cache_queue_bytes, static_cast<double>(stats.queue_bytes_now));
  out.set(Family::cache_queue_dropped_total, static_cast<double>(stats.queue_dropped));
  out.set(Family::cache_purges_total, {"admin"}, static_cast<double>(stats.purges_made));
  out.set(Family::cache_purges_total, {"cluster"}, static_cast<double>(stats.purges_heard));
}

}  // namespace

void Application::scrape(metrics::Scrape& out) const {
  const cache::MemoryStats cache = cache_.stats();
  out.set(Family::cache_entries, static_cast<double>(cache.entries_now));
  out.set(Family::cache_bytes, static_cast<double>(cache.bytes_now));
  out.set(Family::cache_bytes_max, static_cast<double>(config_->cache.memory_bytes_max));
  out.set(Family::cache_stores_total, static_cast<double>(cache.inserted));
  out.set(Family::cache_evictions_total, static_cast<double>(cache.evicted));
  out.set(Family::cache_expirations_total, static_cast<double>(cache.expired));
  out.set(Family::cache_tier_lookups_total, {"memory", "hit"}, static_cast<double>(cache.hits));
  out.set(Family::cache_tier_lookups_total, {"memory", "stale"}, static_cast<double>(cache.stale));
  out.set(Family::cache_tier_lookups_total, {"memory", "miss"}, static_cast<double>(cache.misses));
  out.set(Family::cache_purged_entries_total, static_cast<double>(cache.purged));
  scrape_cache_tiers(out, cache_tiers_->stats(), config_->cache.disk);
  out.set(Family::singleflight_followers_total, static_cast<double>(flights_.stats().followed));
  out.set(Family::limiter_buckets, static_cast<double>(limiter_.holders()));
  gateway::scrape_budgets(budgets_, out);
  out.set(Family::limiter_gateways, limiter_.gateways());
  const auto local = static_cast<double>(limiter_.local_holders());
  out.set(Family::limiter_leased_buckets, {"shared"}, static_cast<double>(limiter_.listed_holders()) - local);
  out.set(Family::limiter_leased_buckets, {"local_share"}, local);
  const auto [admitted, limited] = limiter_.local_decisions();
  out.set(Family::limiter_local_share_total, {"admitted"}, static_cast<double>(admitted));
  out.set(Family::limiter_local_share_total, {"limited"}, static_cast<double>(limited));
  const metering::LedgerStats ledger = ledger_->stats();
  out.set(Family::ledger_open_intents, static_cast<double>(ledger.open_intents));
  for (const auto& [state, name] : {std::pair{metering::LedgerState::ok, "ok"},
                                    {metering::LedgerState::full, "full"},
                                    {metering::LedgerState::broken, "broken"}})
    out.set(Family::ledger_state, {name}, ledger.state == state ? 1 : 0);
  const metering::KeeperStatus keeper = keeper_->status();
  out.set(Family::ledger_rollup_lag_records,
          static_cast<double>(ledger.durable_sequence - std::min(keeper.position, ledger.durable_sequence)));
  out.set(Family::ledger_keeper_failures_total, static_cast<double>(keeper.failures));
  out.set(Family::ledger_segments_dropped_total, static_cast<double>(keeper.segments_dropped));
  const std::uint64_t pending = ledger.next_sequence - 1 - ledger.durable_sequence;
  out.set(Family::ledger_pending_records, static_cast<double>(pending));
  // Whatever is pending was written after the last commit began, so its age is at most the time since that ended, plus
  // one commit; with none yet, nothing has waited.
  const core::SteadyTime committed = committed_at_.load(std::memory_order_relaxed);
  const bool waiting = pending > 0 && committed != core::SteadyTime{};
  out.set(Family::ledger_oldest_pending_seconds,
          waiting ? std::chrono::duration<double>(clock_.steady() - committed).count() : 0.0);
  sinks_->scrape(out);
  const gateway::Idempotency::Stats keys = idempotency_->stats();
  out.set(Family::idempotency_keys, static_cast<double>(keys.keys));
  out.set(Family::idempotency_answer_bytes, static_cast<double>(keys.answer_bytes));
  out.set(Family::idempotency_answers_let_go_total, static_cast<double>(keys.let_go));
  out.set(Family::idempotency_store_errors_total, static_cast<double>(keys.errors));
  const core::SteadyTime now = clock_.steady();
  backends_.each([&](std::string_view name, const gateway::BackendRegistry::Backend& backend) {
    out.set(Family::upstream_healthy, {name}, backend.health->available(now) ? 1 : 0);
    for (const auto& [model, of_model] : backend.models) {
      for (const api::Tier tier : {api::Tier::regular, api::Tier::fast}) {
        const double expected = of_model.latency->expected_ns(tier, now) * 1e-9;
        if (expected > 0) out.set(Family::upstream_latency_seconds, {name, model, api::name(tier)}, expected);
      }
    }
  });
  scrape_tiers(out, admission_);
  semantic_.scrape(out);
  for (const auto& [name, model] : services_->local_models) scrape_engine(out, name, model->stats());
}

std::string Application::not_ready() const {
  if (draining_) return "draining";
  if (ledger_->stats().state != metering::LedgerState::ok) return "the ledger is unavailable";
  return {};
}

}  // namespace ganglion::app
