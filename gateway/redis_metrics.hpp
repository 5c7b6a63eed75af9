#pragma once
// What the Redis clients of the process report, as metrics and log lines. One for all of them; thread-safe.

#include <array>
#include <mutex>
#include <string>
#include <unordered_map>

#include "metrics/registry.hpp"
#include "net/redis_hooks.hpp"
#include "ratelimit/lease_broker.hpp"

namespace ganglion::gateway {

ratelimit::LeaseMetrics lease_metrics(metrics::Registry& registry);

class RedisMetrics final : public net::RedisHooks {
 public:
  explicit RedisMetrics(metrics::Registry& registry);

  void node_state(std::string_view node, const Was& was, net::RedisState to, net::RedisDown why,
                  std::string_view detail) override;
  void node_forgotten(const Was& was) override;
  void answered(std::chrono::nanoseconds latency) override { latency_.observe(latency); }
  void failed(net::RedisFailure failure) override { errors_[static_cast<std::size_t>(failure)].add(); }
  void redirected(bool ask) override { redirects_[ask ? 1 : 0].add(); }
  void script_loaded() override { scripts_.add(); }
  void slots_refreshed(bool ok) override { refreshes_[ok ? 1 : 0].add(); }

 private:
  void count(net::RedisState state, net::RedisDown why, int by);
  void log_change(std::string_view node, net::RedisState to, net::RedisDown why, std::string_view detail);

  std::array<metrics::Gauge, static_cast<std::size_t>(net::RedisState::kCount)> states_;
  std::array<metrics::Gauge, static_cast<std::size_t>(net::RedisDown::kCount)> reasons_;
  std::array<metrics::Counter, static_cast<std::size_t>(net::RedisFailure::kCount)> errors_;
  std::array<metrics::Counter, 2> redirects_, refreshes_;
  metrics::Counter scripts_;
  metrics::Histogram latency_;

  std::mutex mutex_;
  // What was logged of each node last, so that many workers say it once.
  std::unordered_map<std::string, std::pair<net::RedisState, net::RedisDown>> logged_;
};

}  // namespace ganglion::gateway
