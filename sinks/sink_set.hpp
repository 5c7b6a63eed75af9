#pragma once
// All sinks of the process: made from their settings, started and stopped together, told about together.

#include <memory>
#include <string>
#include <vector>

#include "core/clock.hpp"
#include "metrics/registry.hpp"
#include "sinks/options.hpp"
#include "sinks/sink_runner.hpp"

namespace ganglion::sinks {

class SinkSet {
 public:
  // Positions are kept in `ledger_directory`/sinks. Throws std::invalid_argument where a URL or CA file cannot be used.
  SinkSet(const std::vector<SinkOptions>& options, const std::string& ledger_directory, const std::string& ledger_id,
          const SinkRunner::Durable& durable, const core::Clock& clock);

  void start();
  void stop();
  bool empty() const { return runners_.empty(); }
  // Every sink has taken everything up to here; UINT64_MAX without sinks. The ledger keeps what comes behind.
  std::uint64_t min_position() const;
  // For GET /admin/sinks.
  std::string json() const;
  void scrape(metrics::Scrape& out) const;

 private:
  const std::string ledger_id_;
  std::vector<std::unique_ptr<SinkRunner>> runners_;
};

}  // namespace ganglion::sinks
