// The table of metric families, in the order of the enum. Longer than other files because it is a table.

#include "metrics/catalog.hpp"

#include "core/assert.hpp"

namespace ganglion::metrics {
namespace {

constexpr double kNano = 1e-9;

// Whole requests: a cache hit is well below 1 ms, a long generation takes minutes.
constexpr double kRequestBuckets[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                      0.5,    1,     2.5,    5,     10,   30,    60,   120, 300};
// Waits for a first token or for an upstream's first byte.
constexpr double kFirstBuckets[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60};
// Cosines: what an operator sets a threshold between.
constexpr double kScoreBuckets[] = {0.5,  0.6,  0.7,  0.75, 0.8,  0.85, 0.875, 0.9, 0.92,
                                    0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 1};
// Between two events of a stream.
constexpr double kGapBuckets[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10};
// What the gateway itself adds: tens of microseconds when healthy.
constexpr double kOverheadBuckets[] = {0.00001, 0.00002, 0.00003, 0.00005, 0.000075, 0.0001, 0.00015, 0.00025,
                                       0.0005,  0.001,   0.0025,  0.005,   0.01,     0.025,  0.1};
// One group commit of the ledger (write + fdatasync).
constexpr double kCommitBuckets[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1};
// A look into Redis or onto the disk.
constexpr double kTierBuckets[] = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1};
constexpr double kBatchBuckets[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};

constexpr FamilySpec counter(Family f, std::string_view name, std::string_view unit, Labels labels,
                             std::string_view help) {
  return {f, name, Type::counter, unit, 1, labels, {}, help};
}
constexpr FamilySpec gauge(Family f, std::string_view name, std::string_view unit, Labels labels,
                           std::string_view help) {
  return {f, name, Type::gauge, unit, 1, labels, {}, help};
}
constexpr FamilySpec seconds(Family f, std::string_view name, Labels labels, std::span<const double> buckets,
                             std::string_view help) {
  return {f, name, Type::histogram, "seconds", kNano, labels, buckets, help};
}

using enum Family;

constexpr FamilySpec kCatalog[] = {
    // Requests.
    counter(requests_total, "ganglion_requests_total", "", {"endpoint", "model", "tenant", "tier", "code", "cache"},
            "Requests that ended, by HTTP status sent (0: none was) and cache outcome (off, skip, miss, hit, follower, "
            "stale)."),
    seconds(request_duration_seconds, "ganglion_request_duration_seconds", {"endpoint", "model", "tier"},
            kRequestBuckets, "From the first byte of the request's head to the last byte of its answer."),
    seconds(request_time_to_first_token_seconds, "ganglion_request_time_to_first_token_seconds", {"model", "tier"},
            kFirstBuckets, "Streams: from the request's first byte to the first content byte sent to the client."),
    seconds(request_inter_token_seconds, "ganglion_request_inter_token_seconds", {"model"}, kGapBuckets,
            "Streams: time between two content events sent to the client."),
    seconds(request_upstream_seconds, "ganglion_request_upstream_seconds", {"endpoint", "model"}, kRequestBuckets,
            "Part of a request's duration spent waiting for its backend."),
    seconds(request_overhead_seconds, "ganglion_request_overhead_seconds", {"endpoint", "cache"}, kOverheadBuckets,
            "Part of a request's duration that the gateway itself added: neither backend nor client was waited for."),
    counter(request_body_bytes_total, "ganglion_request_body_bytes_total", "bytes", {"endpoint"},
            "Body bytes received from clients."),
    counter(response_body_bytes_total, "ganglion_response_body_bytes_total", "bytes", {"endpoint"},
            "Body bytes sent to clients."),
    gauge(requests_in_flight, "ganglion_requests_in_flight", "", {}, "Requests being served now."),
    counter(
        requests_rejected_total, "ganglion_requests_rejected_total", "", {"reason"},
        "Requests refused before any backend was asked, by error kind (rate_limited, unauthorized, overloaded, ...)."),
    counter(requests_failed_total, "ganglion_requests_failed_total", "", {"reason"},
            "Requests that ended in an error after a backend was asked, by error kind (upstream_timeout, ...)."),
    counter(requests_cancelled_total, "ganglion_requests_cancelled_total", "", {"reason"},
            "Requests called off before their end (client_gone, slow_client, deadline, shutdown, superseded)."),
    // Connections.
    gauge(connections, "ganglion_connections", "", {"listener"}, "Open client connections (listener: proxy or admin)."),
    counter(connections_accepted_total, "ganglion_connections_accepted_total", "", {"listener"},
            "Client connections accepted."),
    counter(connections_refused_total, "ganglion_connections_refused_total", "", {"listener", "reason"},
            "Client connections closed before their first request (limit, address, tls, accept)."),
    // Cache.
    counter(cache_lookups_total, "ganglion_cache_lookups_total", "", {"result"},
            "Requests by cache outcome (skip, miss, hit, follower, stale); requests that cannot be cached are not "
            "counted."),
    gauge(cache_entries, "ganglion_cache_entries", "", {}, "Answers held in memory."),
    gauge(cache_bytes, "ganglion_cache_bytes", "bytes", {}, "Memory taken by the answers held, overhead included."),
    gauge(cache_bytes_max, "ganglion_cache_bytes_max", "bytes", {}, "Configured bound of ganglion_cache_bytes."),
    counter(cache_stores_total, "ganglion_cache_stores_total", "", {}, "Answers put into the cache."),
    counter(cache_evictions_total, "ganglion_cache_evictions_total", "", {}, "Answers dropped to make room."),
    counter(cache_expirations_total, "ganglion_cache_expirations_total", "", {},
            "Answers dropped because their TTL passed."),
    counter(singleflight_followers_total, "ganglion_singleflight_followers_total", "", {},
            "Requests that joined the upstream call of an identical request instead of making their own."),
    counter(cache_tier_lookups_total, "ganglion_cache_tier_lookups_total", "", {"tier", "result"},
            "Looks into a tier (memory, redis, disk) by result: hit, stale, miss, purged, foreign (another tenant's or "
            "another version's), corrupt, timeout, failed, off (known to be lost, so not asked)."),
    seconds(cache_tier_lookup_seconds, "ganglion_cache_tier_lookup_seconds", {"tier"}, kTierBuckets,
            "Time of one look into a tier below memory."),
    counter(cache_tier_stores_total, "ganglion_cache_tier_stores_total", "", {"tier", "result"},
            "Answers on their way into a tier below memory by result: stored, fenced (another gateway had taken over), "
            "refused (too large, purged or expired meanwhile), failed."),
    counter(cache_tier_bytes_total, "ganglion_cache_tier_bytes_total", "bytes", {"tier", "direction"},
            "Bytes read from and written to a tier below memory, compressed."),
    gauge(cache_tier_up, "ganglion_cache_tier_up", "", {"tier"},
          "1 while a configured tier below memory can be used, else 0."),
    gauge(cache_disk_entries, "ganglion_cache_disk_entries", "", {}, "Answers held on disk."),
    gauge(
        cache_disk_ready, "ganglion_cache_disk_ready", "", {},
        "1 once all that an earlier process left on disk is found again; 0 before, and while another process has it."),
    gauge(cache_disk_bytes, "ganglion_cache_disk_bytes", "bytes", {}, "Bytes of the disk tier's files."),
    gauge(cache_disk_bytes_max, "ganglion_cache_disk_bytes_max", "bytes", {},
          "Configured bound of ganglion_cache_disk_bytes."),
    counter(cache_disk_evictions_total, "ganglion_cache_disk_evictions_total", "", {},
            "Answers dropped from disk to make room."),
    counter(cache_disk_errors_total, "ganglion_cache_disk_errors_total", "", {"operation"},
            "Reads and writes of the disk tier that failed, damaged records included (operation: read or write)."),
    gauge(cache_queue_bytes, "ganglion_cache_queue_bytes", "bytes", {},
          "Memory taken by answers on their way to tiers below memory."),
    counter(cache_queue_dropped_total, "ganglion_cache_queue_dropped_total", "", {},
            "Answers that no tier below memory got because too many were on their way."),
    counter(cache_shared_flights_total, "ganglion_cache_shared_flights_total", "", {"result"},
            "Misses that Redis coordinated between gateways: led (made the call for all), waited (got another "
            "gateway's answer), took_over (the other gateway lost or gave up its call), gave_up (waited too long)."),
    counter(cache_purges_total, "ganglion_cache_purges_total", "", {"source"},
            "Purges by where they came from (admin: made here; cluster: made at another gateway)."),
    gauge(cache_purges_untold, "ganglion_cache_purges_untold", "", {},
          "Purges made here that other gateways could not be told of yet."),
    counter(cache_purged_entries_total, "ganglion_cache_purged_entries_total", "", {},
            "Answers that purges dropped from memory."),
    // Idempotency keys.
    counter(
        idempotency_requests_total, "ganglion_idempotency_requests_total", "", {"result"},
        "Requests with an Idempotency-Key: new, followed (one with this key ran), replayed, conflict (other request, "
        "or billed without an answer to repeat), refused (the store cannot be used or is full of keys)."),
    gauge(idempotency_keys, "ganglion_idempotency_keys", "", {}, "Idempotency keys remembered."),
    gauge(idempotency_answer_bytes, "ganglion_idempotency_answer_bytes", "bytes", {},
          "Bytes of the answers kept for them."),
    counter(idempotency_answers_let_go_total, "ganglion_idempotency_answers_let_go_total", "", {},
            "Answers let go before their time because idempotency.max_size was reached; their keys are refused."),
    counter(idempotency_store_errors_total, "ganglion_idempotency_store_errors_total", "", {},
            "Reads and writes of the store of idempotency keys that failed."),
    counter(idempotency_alone_total, "ganglion_idempotency_alone_total", "", {},
            "Requests with a key that ran without the other gateways' knowledge, because Redis did not answer."),
    counter(idempotency_untold_total, "ganglion_idempotency_untold_total", "", {},
            "Ends of keys that the other gateways learn only when they ask, because too many waited for Redis."),
    // Semantic cache.
    counter(semantic_lookups_total, "ganglion_semantic_lookups_total", "", {"result"},
            "Looks for a similar question (hit, too_far, length, numbers, empty, gone, timed_out, failed, busy)."),
    {semantic_score,
     "ganglion_semantic_score",
     Type::histogram,
     "",
     1e-6,
     {"outcome"},
     kScoreBuckets,
     "Cosine between the question asked and the nearest stored one, by outcome (hit, refused)."},
    seconds(semantic_embedding_seconds, "ganglion_semantic_embedding_seconds", {}, kFirstBuckets,
            "Time of one embedding for the semantic cache, failed ones included."),
    counter(semantic_embedding_tokens_total, "ganglion_semantic_embedding_tokens_total", "tokens", {"model"},
            "Tokens embedded for the semantic cache: the operator's cost, billed to nobody."),
    gauge(semantic_entries, "ganglion_semantic_entries", "", {}, "Questions in the semantic index."),
    counter(semantic_evictions_total, "ganglion_semantic_evictions_total", "", {}, "Questions dropped to make room."),
    // Limits.
    counter(limiter_admitted_total, "ganglion_limiter_admitted_total", "", {}, "Requests that every bucket admitted."),
    counter(limiter_limited_total, "ganglion_limiter_limited_total", "", {"scope", "kind"},
            "Requests refused with 429 by scope (key, tenant, gateway, model) and kind (requests, tokens, neurons, "
            "running)."),
    gauge(limiter_buckets, "ganglion_limiter_buckets", "", {}, "Token buckets held in memory."),
    gauge(limiter_leased_buckets, "ganglion_limiter_leased_buckets", "", {"mode"},
          "Keys, tenants, gateways and models whose limits are shared through Redis, by mode: shared (on leases), "
          "local_share (Redis cannot be used: this gateway's part of the limit is enforced here)."),
    gauge(limiter_gateways, "ganglion_limiter_gateways", "", {},
          "Gateways that share the limits, as counted in Redis or configured."),
    counter(limiter_exchanges_total, "ganglion_limiter_exchanges_total", "", {"result"},
            "Exchanges of leases with Redis: granted, refused (the bucket has too little), failed."),
    seconds(limiter_wait_seconds, "ganglion_limiter_wait_seconds", {}, kOverheadBuckets,
            "Time that requests waited for a lease; those that found one are not counted."),
    counter(limiter_local_share_total, "ganglion_limiter_local_share_total", "", {"result"},
            "Requests decided by the local share because Redis could not be used (admitted, limited)."),
    // Redis.
    gauge(redis_connections, "ganglion_redis_connections", "", {"state"},
          "Redis nodes as this gateway's workers see them, each worker for itself: connecting, up, down."),
    gauge(redis_circuits_open, "ganglion_redis_circuits_open", "", {"reason"},
          "Nodes that are down, by reason: refused, hung, closed, tls, denied (password or user), loading, read_only, "
          "protocol."),
    seconds(redis_command_seconds, "ganglion_redis_command_seconds", {}, kOverheadBuckets,
            "From a command's sending to its answer; its count is the number of answers."),
    counter(redis_errors_total, "ganglion_redis_errors_total", "", {"kind"},
            "Commands that failed: unavailable (circuit open), busy, timed_out, closed, protocol, loading, read_only, "
            "no_memory, denied, redirected, refused."),
    counter(redis_redirects_total, "ganglion_redis_redirects_total", "", {"kind"},
            "Redirections followed in a cluster (moved, ask)."),
    counter(redis_script_loads_total, "ganglion_redis_script_loads_total", "", {},
            "Scripts sent in full because the server did not know them (NOSCRIPT)."),
    counter(redis_slot_refreshes_total, "ganglion_redis_slot_refreshes_total", "", {"result"},
            "Questions for the cluster's slots (ok, failed)."),
    // Tiers.
    gauge(tier_in_flight, "ganglion_tier_in_flight", "", {"tier"}, "Calls to backends that hold a place."),
    gauge(tier_waiting, "ganglion_tier_waiting", "", {"tier"}, "Requests waiting for a place."),
    seconds(tier_wait_seconds, "ganglion_tier_wait_seconds", {"tier"}, kFirstBuckets,
            "Time waited for a place, of requests that had to wait and got one."),
    counter(
        tier_shed_total, "ganglion_tier_shed_total", "", {"tier", "reason"},
        "Requests refused for want of capacity (queue_full, displaced by a fast one, waited_too_long, upstream_busy, "
        "memory)."),
    // Budgets.
    counter(budget_refused_total, "ganglion_budget_refused_total", "", {"budget"},
            "Reservations that a budget had no room for: requests refused with 429, and streams cut."),
    counter(budget_overruns_total, "ganglion_budget_overruns_total", "", {"budget"},
            "Requests that cost more than was reserved and took a budget past its limit (a provider that exceeds "
            "max_tokens or max_output, or on_exceed: finish)."),
    counter(budget_alerts_total, "ganglion_budget_alerts_total", "", {"budget", "percent"},
            "Percentages of budgets that were passed, once a window."),
    counter(budget_webhook_calls_total, "ganglion_budget_webhook_calls_total", "", {"outcome"},
            "Alerts at the webhook: sent, retried, given_up, dropped (too many were waiting)."),
    counter(budget_leases_total, "ganglion_budget_leases_total", "", {"result"},
            "Slices of shared budgets that a waiting request asked for: granted, short (others hold or have spent the "
            "rest); and exchanges with Redis that failed."),
    counter(budget_rebuilds_total, "ganglion_budget_rebuilds_total", "", {},
            "Times that this gateway registered all its spending in Redis: at start, and after Redis lost its data."),
    gauge(budget_shared, "ganglion_budget_shared", "", {},
          "1: budgets are shared through Redis; 0: Redis does not answer, slices and local shares are in force."),
    gauge(budget_spent_ratio, "ganglion_budget_spent_ratio", "", {"budget"},
          "Share of a budget that is spent in the running window; of a `per` budget, the fullest one's."),
    gauge(budget_reserved_ratio, "ganglion_budget_reserved_ratio", "", {"budget"},
          "Share of a budget that running requests hold; of a `per` budget, the largest."),
    // Metering.
    {neurons_total,
     "ganglion_neurons_total",
     Type::counter,
     "neurons",
     kNano,
     {"tier", "model", "tenant"},
     {},
     "Neurons billed. Bills come from the ledger; this is their live picture."},
    gauge(neuron_price_usd, "ganglion_neuron_price_usd", "USD", {"tier"},
          "USD for one neuron under the schedule in force; times ganglion_neurons_total it gives the cost."),
    counter(tokens_total, "ganglion_tokens_total", "tokens", {"kind", "tier", "model", "tenant"},
            "Tokens billed by kind: input (without cached ones), cached_input, output."),
    counter(usage_estimated_total, "ganglion_usage_estimated_total", "", {"model"},
            "Requests whose usage the backend did not report, so that the gateway counted it itself."),
    // Ledger.
    counter(ledger_records_total, "ganglion_ledger_records_total", "", {"type"},
            "Records appended (intent, terminal)."),
    counter(ledger_bytes_total, "ganglion_ledger_bytes_total", "bytes", {}, "Bytes appended to the ledger."),
    seconds(ledger_commit_seconds, "ganglion_ledger_commit_seconds", {}, kCommitBuckets,
            "Time of one group commit (write and fdatasync); its count is the number of commits."),
    {ledger_batch_records,
     "ganglion_ledger_batch_records",
     Type::histogram,
     "records",
     1,
     {},
     kBatchBuckets,
     "Records made durable by one group commit."},
    counter(ledger_commits_in_place_total, "ganglion_ledger_commits_in_place_total", "", {},
            "Commits made by the worker of a request that was alone, and not by the ledger's thread."),
    counter(ledger_errors_total, "ganglion_ledger_errors_total", "", {},
            "Writes or syncs that failed; while they do, billable requests get 503."),
    gauge(ledger_pending_records, "ganglion_ledger_pending_records", "", {}, "Records waiting for their group commit."),
    gauge(ledger_oldest_pending_seconds, "ganglion_ledger_oldest_pending_seconds", "seconds", {},
          "Age of the oldest record that is not durable yet."),
    gauge(ledger_open_intents, "ganglion_ledger_open_intents", "", {},
          "Requests with an intent record and no terminal record yet."),
    gauge(
        ledger_state, "ganglion_ledger_state", "", {"state"},
        "1 for the ledger's state: ok; full (no space, new billable requests get 503); broken (a write or sync failed, "
        "nothing is acknowledged)."),
    gauge(ledger_rollup_lag_records, "ganglion_ledger_rollup_lag_records", "", {},
          "Durable records that the rollups do not hold yet."),
    counter(ledger_keeper_failures_total, "ganglion_ledger_keeper_failures_total", "", {},
            "Times that summing up, anchoring or dropping segments failed; it is tried again within a second or so."),
    counter(ledger_segments_dropped_total, "ganglion_ledger_segments_dropped_total", "", {},
            "Segments that retention dropped."),
    // Sinks.
    gauge(sink_up, "ganglion_sink_up", "", {"sink"}, "1 while the last delivery to the sink worked, else 0."),
    counter(sink_records_total, "ganglion_sink_records_total", "", {"sink"}, "Ledger records that the sink has taken."),
    counter(sink_errors_total, "ganglion_sink_errors_total", "", {"sink"},
            "Failed tries to connect or deliver; each is tried again, nothing is left out."),
    gauge(sink_lag_records, "ganglion_sink_lag_records", "", {"sink"},
          "Durable ledger records (of every type) behind the last one that the sink has taken."),
    gauge(sink_lag_seconds, "ganglion_sink_lag_seconds", "seconds", {"sink"},
          "Age of the oldest record that waits for the sink; 0: none waits."),
    // Upstream.
    counter(upstream_attempts_total, "ganglion_upstream_attempts_total", "", {"backend", "code"},
            "Attempts by the status that the backend answered (0: it gave none)."),
    counter(upstream_errors_total, "ganglion_upstream_errors_total", "", {"backend", "kind"},
            "Failed attempts by error kind (upstream_connect, upstream_timeout, upstream_closed, ...)."),
    counter(upstream_retries_total, "ganglion_upstream_retries_total", "", {"backend"},
            "Attempts that were not the first of their request, by the backend tried."),
    seconds(upstream_first_byte_seconds, "ganglion_upstream_first_byte_seconds", {"backend"}, kFirstBuckets,
            "From sending an attempt to the first byte of the backend's answer."),
    counter(upstream_connects_total, "ganglion_upstream_connects_total", "", {"backend"}, "Connections opened."),
    counter(upstream_connection_reuses_total, "ganglion_upstream_connection_reuses_total", "", {"backend"},
            "Attempts sent on a pooled connection."),
    gauge(upstream_connections, "ganglion_upstream_connections", "", {"backend", "state"},
          "Pooled connections (state: active or idle)."),
    gauge(upstream_waiting, "ganglion_upstream_waiting", "", {"backend", "tier"},
          "Requests waiting for a connection to the backend."),
    gauge(
        upstream_latency_seconds, "ganglion_upstream_latency_seconds", "seconds", {"backend", "model", "tier"},
        "Moving mean of the time to first byte that the choice of a backend for fast requests goes by; `model` is the "
        "backend's own name."),
    gauge(upstream_healthy, "ganglion_upstream_healthy", "", {"backend"},
          "1 while the backend is in rotation, else 0."),
    // Engine.
    gauge(engine_queue_length, "ganglion_engine_queue_length", "", {"model", "tier"},
          "Requests waiting for a place in the batch."),
    gauge(engine_running_requests, "ganglion_engine_running_requests", "", {"model", "tier"},
          "Requests in the running batch."),
    gauge(engine_kv_pages_used, "ganglion_engine_kv_pages_used", "", {"model"},
          "Pages of the key-value store that running requests use."),
    gauge(engine_kv_pages_cached, "ganglion_engine_kv_pages_cached", "", {"model"},
          "Pages that are kept for requests that begin alike, and given up when there is need."),
    gauge(engine_kv_pages, "ganglion_engine_kv_pages", "", {"model"}, "Pages of the key-value store, all."),
    counter(engine_kv_evictions_total, "ganglion_engine_kv_evictions_total", "", {"model"},
            "Kept pages that were given up."),
    counter(engine_prefix_tokens_total, "ganglion_engine_prefix_tokens_total", "tokens", {"model"},
            "Prompt tokens that were found computed and not computed again."),
    counter(engine_steps_total, "ganglion_engine_steps_total", "", {"model"}, "Steps of the batch loop."),
    counter(engine_step_seconds_total, "ganglion_engine_step_seconds_total", "seconds", {"model"},
            "Time spent inside steps."),
    counter(
        engine_step_part_seconds_total, "ganglion_engine_step_part_seconds_total", "seconds", {"model", "part"},
        "Of it, what is not the model (part: plan, deciding what to compute; text, text and events; draft, the draft "
        "model)."),
    counter(engine_device_seconds_total, "ganglion_engine_device_seconds_total", "seconds", {"model"},
            "Time that the model's device computed: its rate is the share of time that the device is busy, and neurons "
            "over it are neurons per second of the device."),
    counter(engine_step_tokens_total, "ganglion_engine_step_tokens_total", "tokens", {"model", "tier"},
            "Tokens that steps computed."),
    gauge(engine_step_tokens_max, "ganglion_engine_step_tokens_max", "tokens", {"model"},
          "Tokens that one step may compute: its budget."),
    counter(engine_tokens_total, "ganglion_engine_tokens_total", "tokens", {"model", "phase"},
            "Tokens computed (phase: prompt or generated), work redone after a preemption included; tokens that "
            "speculation "
            "guessed (guessed), and those of them that were then generated (guessed_right); of both, a draft model's "
            "(drafted, drafted_right); and what the draft model computed for them, prompts included (draft)."),
    counter(engine_requests_total, "ganglion_engine_requests_total", "", {"model", "result"},
            "Requests that ended in the engine (done, cancelled, failed)."),
    counter(engine_rejected_total, "ganglion_engine_rejected_total", "", {"model", "reason"},
            "Requests that the engine refused (queue_full, context_length)."),
    counter(
        engine_preemptions_total, "ganglion_engine_preemptions_total", "", {"model"},
        "Running requests put back into the queue because the key-value store was full or a fast one needed the room."),
    gauge(engine_in_service, "ganglion_engine_in_service", "", {"model"},
          "0 while the model's device has failed and its requests are refused, else 1."),
    counter(engine_device_failures_total, "ganglion_engine_device_failures_total", "", {"model"},
            "Steps that the device failed; their requests were answered 503 or went to another backend."),
    counter(engine_restarts_total, "ganglion_engine_restarts_total", "", {"model"},
            "Times that a failed device was back in service."),
    // Process, build and configuration.
    counter(config_reloads_total, "ganglion_config_reloads_total", "", {"result"},
            "Configuration loads after the start (ok, failed); a failed one leaves the old configuration in force."),
    counter(tls_reloads_total, "ganglion_tls_reloads_total", "", {"listener", "result"},
            "Certificates read again after a change or a reload (ok, failed); a failed one leaves the old one in use."),
    gauge(config_last_success_timestamp_seconds, "ganglion_config_last_success_timestamp_seconds", "seconds", {},
          "Unix time at which the configuration in force was loaded."),
    gauge(config_info, "ganglion_config_info", "", {"hash"},
          "1, labelled with the hash of the configuration in force."),
    gauge(config_version, "ganglion_config_version", "", {},
          "Number of the configuration in force; each that is put into force has a higher one, over upgrades too."),
    gauge(process_info, "ganglion_process_info", "", {"pid", "generation"},
          "1, labelled with the process that serves: its number in the system, and its generation, which is 1 after a "
          "start and one more after each upgrade."),
    gauge(process_serving_timestamp_seconds, "ganglion_process_serving_timestamp_seconds", "seconds", {},
          "Unix time since which this process serves: it was started then, or took over from the one before."),
    counter(access_log_dropped_total, "ganglion_access_log_dropped_total", "", {},
            "Access log lines lost because the log could not keep up."),
    counter(label_overflow_total, "ganglion_label_overflow_total", "", {"label"},
            "Observations counted under \"other\" because metrics.max_label_values values of the label were known."),
    gauge(draining, "ganglion_draining", "", {}, "1 from the first stop signal on, else 0."),
    gauge(build_info, "ganglion_build_info", "", {"version", "commit", "compiler"}, "1, labelled with the build."),
    gauge(process_resident_memory_bytes, "process_resident_memory_bytes", "bytes", {}, "Resident memory."),
    gauge(process_open_fds, "process_open_fds", "", {}, "Open file descriptors."),
    gauge(process_max_fds, "process_max_fds", "", {}, "Limit of open file descriptors (soft)."),
    gauge(process_threads, "process_threads", "", {}, "Threads of the process."),
    counter(process_cpu_seconds_total, "process_cpu_seconds_total", "seconds", {}, "User and system CPU time."),
    gauge(process_start_time_seconds, "process_start_time_seconds", "seconds", {}, "Unix time of the process's start."),
};

constexpr bool in_enum_order() {
  if (std::size(kCatalog) != kFamilyCount) return false;
  for (std::size_t i = 0; i < kFamilyCount; ++i) {
    if (kCatalog[i].family != static_cast<Family>(i)) return false;
  }
  return true;
}
static_assert(in_enum_order(), "one row per Family, in the enum's order");

}  // namespace

std::string_view name(Type type) {
  switch (type) {
    case Type::counter:
      return "counter";
    case Type::gauge:
      return "gauge";
    case Type::histogram:
      return "histogram";
  }
  return "unknown";
}

std::span<const FamilySpec> catalog() {
  return kCatalog;
}

const FamilySpec& spec(Family family) {
  GW_ASSERT(family < Family::kCount);
  return kCatalog[static_cast<std::size_t>(family)];
}

}  // namespace ganglion::metrics
