// See gateway/redis_metrics.hpp.

#include "gateway/redis_metrics.hpp"

#include "core/log.hpp"

namespace ganglion::gateway {

using metrics::Family;
using net::RedisDown;
using net::RedisFailure;
using net::RedisState;

ratelimit::LeaseMetrics lease_metrics(metrics::Registry& registry) {
  metrics::Shard& shard = registry.shared();
  return {.granted = shard.counter(Family::limiter_exchanges_total, {"granted"}),
          .refused = shard.counter(Family::limiter_exchanges_total, {"refused"}),
          .failed = shard.counter(Family::limiter_exchanges_total, {"failed"}),
          .wait = shard.histogram(Family::limiter_wait_seconds)};
}

RedisMetrics::RedisMetrics(metrics::Registry& registry) {
  metrics::Shard& shard = registry.shared();
  for (std::size_t i = 0; i < states_.size(); ++i) {
    states_[i] = shard.gauge(Family::redis_connections, {net::name(static_cast<RedisState>(i))});
  }
  for (std::size_t i = 1; i < reasons_.size(); ++i) {
    reasons_[i] = shard.gauge(Family::redis_circuits_open, {net::name(static_cast<RedisDown>(i))});
  }
  for (std::size_t i = 0; i < errors_.size(); ++i) {
    errors_[i] = shard.counter(Family::redis_errors_total, {net::name(static_cast<RedisFailure>(i))});
  }
  redirects_ = {shard.counter(Family::redis_redirects_total, {"moved"}),
                shard.counter(Family::redis_redirects_total, {"ask"})};
  refreshes_ = {shard.counter(Family::redis_slot_refreshes_total, {"failed"}),
                shard.counter(Family::redis_slot_refreshes_total, {"ok"})};
  scripts_ = shard.counter(Family::redis_script_loads_total);
  latency_ = shard.histogram(Family::redis_command_seconds);
}

void RedisMetrics::count(RedisState state, RedisDown why, int by) {
  if (state == RedisState::kCount) return;
  states_[static_cast<std::size_t>(state)].add(by);
  if (state == RedisState::down) reasons_[static_cast<std::size_t>(why)].add(by);
}

void RedisMetrics::node_state(std::string_view node, const Was& was, RedisState to, RedisDown why,
                              std::string_view detail) {
  count(was.state, was.why, -1);
  count(to, why, 1);
  if (to != RedisState::connecting) log_change(node, to, why, detail);
}

void RedisMetrics::node_forgotten(const Was& was) {
  count(was.state, was.why, -1);
}

void RedisMetrics::log_change(std::string_view node, RedisState to, RedisDown why, std::string_view detail) {
  {
    const std::scoped_lock lock(mutex_);
    auto& last = logged_[std::string{node}];
    if (last == std::pair{to, why}) return;
    last = {to, why};
  }
  if (to == RedisState::up) {
    core::log(core::LogLevel::info, "redis_up", {{"node", node}});
    return;
  }
  const bool login = why == RedisDown::denied;
  core::log(core::LogLevel::error, "redis_down",
            {{"node", node},
             {"reason", net::name(why)},
             {"detail", detail},
             {"what", login ? "check redis.username and redis.password; until then this gateway enforces its own part "
                              "of the limits"
                            : "this gateway enforces its own part of the limits until Redis answers"}});
}

}  // namespace ganglion::gateway
