#pragma once
// What the request path counts: one WorkerMetrics per worker, in its own shard, used on that worker's thread only.
// A finished request is one call, request_done(); a stream's token gaps are one subtraction and two adds an event.

#include <chrono>
#include <cstdint>
#include <memory>
#include <string_view>

#include "core/cancel.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"
#include "metrics/bounded_label.hpp"
#include "metrics/registry.hpp"

namespace ganglion::metrics {

enum class CacheOutcome : std::uint8_t {
  off,       // not a cacheable request, or the cache is disabled
  skip,      // the request or the policy said not to look
  miss,      // looked up, not found: a backend was asked
  hit,       // served from the cache
  follower,  // joined the flight of an identical request
  stale,     // served from the cache although its time was over, because the policy says so
  kCount
};
std::string_view name(CacheOutcome outcome);

// Everything about one request that has ended, however it ended. Views need to live only for the call. A duration
// below zero says "did not happen" and is not counted.
struct RequestSample {
  std::string_view endpoint;  // api::name(endpoint), "unknown" where no route matched; few fixed values
  std::string_view model;     // a name that the gateway knows; empty if it was unknown or never read
  std::string_view tenant;    // empty before the key was checked
  std::string_view tier;      // api::name(tier)
  int http_status = 0;        // as sent; 0: no head was sent
  CacheOutcome cache = CacheOutcome::off;
  bool dispatched = false;             // a backend was asked
  const core::Error* error = nullptr;  // how it ended, if not well
  core::CancelReason cancelled = core::CancelReason::none;

  std::chrono::nanoseconds duration{-1};     // first byte of the head received .. last byte sent
  std::chrono::nanoseconds first_token{-1};  // .. first content byte to the client; streams only
  std::chrono::nanoseconds upstream{-1};     // time spent waiting for the backend
  std::chrono::nanoseconds overhead{-1};     // duration less upstream and less waiting for the client

  std::uint64_t request_body_bytes = 0;
  std::uint64_t response_body_bytes = 0;
};

// What one bill says.
struct BillSample {
  std::uint64_t input_tokens = 0;  // cached ones included
  std::uint64_t cached_input_tokens = 0;
  std::uint64_t output_tokens = 0;
  bool usage_estimated = false;
  std::int64_t nano_neurons = 0;
};

// Where the bills of one (tenant, model, tier) are counted, each once, when it settles: so the counters add up to the
// ledger however the requests behind a bill ended. Handles into the registry; they may outlive the WorkerMetrics.
class BillCounters {
 public:
  void add(const BillSample& bill);

 private:
  friend class WorkerMetrics;
  Counter input_tokens_, cached_input_tokens_, output_tokens_, estimated_, neurons_;
};

// Labels shared by all workers of a process.
struct LabelBounds {
  explicit LabelBounds(std::size_t values_max) : model(values_max), tenant(values_max) {}
  BoundedLabel model;
  BoundedLabel tenant;
};

// The gaps between the events of one stream. Made when a stream starts; on_event() per relayed content event.
class TokenGaps {
 public:
  TokenGaps() = default;
  explicit TokenGaps(Histogram histogram) : histogram_(histogram) {}
  void on_event(core::SteadyTime now) {
    if (last_ != core::SteadyTime{}) histogram_.observe(now - last_);
    last_ = now;
  }

 private:
  Histogram histogram_;
  core::SteadyTime last_{};
};

class WorkerMetrics {
 public:
  // Both outlive this object.
  WorkerMetrics(Registry& registry, LabelBounds& bounds);
  ~WorkerMetrics();
  WorkerMetrics(const WorkerMetrics&) = delete;
  WorkerMetrics& operator=(const WorkerMetrics&) = delete;

  // Guards are members of the session and of the request.
  [[nodiscard]] GaugeGuard connection_opened(std::string_view listener);  // "proxy" or "admin"; counts the accept too
  [[nodiscard]] GaugeGuard request_started();
  void connection_refused(std::string_view listener, std::string_view reason);  // "limit", "tls", "accept"

  void request_done(const RequestSample& sample);
  TokenGaps token_gaps(std::string_view model);
  BillCounters bills(std::string_view tenant, std::string_view model, std::string_view tier);

  // 429 by the limiter, by the scope and kind that was empty: ("key","requests"), ("tenant","tokens"), ...
  void limited(std::string_view scope, std::string_view kind);
  void admitted() { admitted_.add(); }

  // For components of this worker that keep their own handles (pools, backends).
  Shard& shard() { return shard_; }

 private:
  struct Impl;
  void count_end(const RequestSample& sample);

  Shard& shard_;
  Gauge in_flight_;
  Counter admitted_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::metrics
