#pragma once
// One worker's working set under one configuration: its authenticator, its backends with their pools, its limiter
// handles. Made on the worker when a snapshot arrives; requests hold it, so the old one dies with its last request.

#include <boost/asio/any_io_executor.hpp>
#include <memory>
#include <unordered_map>
#include <vector>

#include "backends/backend_set.hpp"
#include "gateway/auth.hpp"
#include "gateway/services.hpp"
#include "gateway/snapshot.hpp"

namespace ganglion::gateway {

class Runtime {
 public:
  // Throws std::invalid_argument where a provider's base_url or CA file cannot be used.
  Runtime(const boost::asio::any_io_executor& executor, Services& services, std::shared_ptr<const Snapshot> snapshot);

  const Snapshot& snapshot() const { return *snapshot_; }
  Authenticator& auth() { return auth_; }
  backends::BackendSet& backends_of(const ModelEntry& model);
  // The buckets that bind this principal on this model; resolved once, then a look-up. Error: overloaded.
  core::Result<ratelimit::LimiterHandle> limits(const Principal& who, const ModelEntry& model);
  // The budgets that bind a request, likewise.
  core::Result<metering::BudgetHandle> budgets(const Principal& who, const ModelEntry& model, const api::Tags& tags);

 private:
  struct PairHash {
    std::size_t operator()(const std::pair<const void*, const void*>& pair) const {
      return std::hash<const void*>{}(pair.first) * 31 + std::hash<const void*>{}(pair.second);
    }
  };
  Services& services_;
  std::shared_ptr<const Snapshot> snapshot_;
  Authenticator auth_;
  std::vector<std::unique_ptr<backends::Backend>> remotes_;
  std::vector<std::unique_ptr<backends::Backend>> locals_;
  std::vector<std::unique_ptr<backends::BackendSet>> sets_;  // as snapshot_->models()
  std::unordered_map<std::pair<const void*, const void*>, ratelimit::LimiterHandle, PairHash> handles_;
  std::unordered_map<std::pair<const void*, const void*>, metering::BudgetHandle, PairHash> budgets_;
};

}  // namespace ganglion::gateway
