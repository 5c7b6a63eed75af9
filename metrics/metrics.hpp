#pragma once
// The process's metrics: the registry, the label bounds, and what belongs to no worker (build, configuration,
// process). Owned by the application; everything else borrows. Thread-safe after construction.

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/clock.hpp"
#include "metrics/options.hpp"
#include "metrics/registry.hpp"
#include "metrics/worker_metrics.hpp"

namespace ganglion::metrics {

struct BuildInfo {
  std::string version;
  std::string commit;
};

class Metrics {
 public:
  Metrics(const MetricsOptions& options, BuildInfo build, const core::Clock& clock);

  Registry& registry() { return registry_; }
  LabelBounds& bounds() { return bounds_; }
  std::string expose() const { return registry_.expose(); }

  // `hash`: of the snapshot now in force, hex. `version`: its number, over upgrades.
  void config_loaded(std::string_view hash, std::uint64_t version = 1);
  // From now on, as the so manyth process of this gateway since its start.
  void process_serves(std::uint64_t generation);
  void config_reload_failed() { reloads_failed_.add(); }
  void set_draining(bool draining) { draining_.set(draining ? 1 : 0); }
  // USD for one neuron of a tier, as the schedule in force says.
  void set_neuron_price(std::string_view tier, double usd);

 private:
  void report_own(Scrape& scrape) const;

  const core::Clock& clock_;
  Registry registry_;
  LabelBounds bounds_;
  Counter reloads_ok_;
  Counter reloads_failed_;
  Gauge draining_;
  mutable std::mutex mutex_;  // what is below; written at reload, read at scrape
  std::string config_hash_;
  std::uint64_t config_version_ = 0;
  std::int64_t config_success_s_ = 0;
  std::uint64_t generation_ = 0;  // 0: it does not serve yet
  std::int64_t serves_since_s_ = 0;
  std::vector<std::pair<std::string, double>> neuron_prices_;
  BuildInfo build_;
  std::int64_t start_s_;
  Registry::Token own_source_;
};

}  // namespace ganglion::metrics
