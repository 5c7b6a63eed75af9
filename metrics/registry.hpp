#pragma once
// The registry: counters, gauges and histograms of the catalog, sharded by worker and merged at scrape. A handle is
// a pointer to relaxed atomics in its shard: counting is a few nanoseconds and never takes a lock. Series are made
// in constructors or once per label combination, never per request. Scrapes run on any thread.

#include <prometheus/collectable.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "metrics/catalog.hpp"

namespace ganglion::metrics {

// Handles are cheap to copy, valid as long as their registry, and usable from any thread. A default-made handle
// counts nothing, so that a component may be built without metrics in a test.
class Counter {
 public:
  Counter() = default;
  void add(std::uint64_t n = 1) {
    if (cell_ != nullptr) cell_->fetch_add(n, std::memory_order_relaxed);
  }
  // For the one family counted in nano-units (neurons): negative amounts are ignored.
  void add_nano(std::int64_t nano) {
    if (nano > 0) add(static_cast<std::uint64_t>(nano));
  }
  std::uint64_t value() const { return cell_ == nullptr ? 0 : cell_->load(std::memory_order_relaxed); }
  explicit operator bool() const { return cell_ != nullptr; }

 private:
  friend class Shard;
  explicit Counter(std::atomic<std::uint64_t>* cell) : cell_(cell) {}
  std::atomic<std::uint64_t>* cell_ = nullptr;
};

// The exposed value is the sum over the shards, so `set` belongs to exactly one owner and `add` to everyone.
class Gauge {
 public:
  Gauge() = default;
  void add(std::int64_t n) {
    if (cell_ != nullptr) cell_->fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
  }
  void set(std::int64_t value) {
    if (cell_ != nullptr) cell_->store(static_cast<std::uint64_t>(value), std::memory_order_relaxed);
  }
  std::int64_t value() const {
    return cell_ == nullptr ? 0 : static_cast<std::int64_t>(cell_->load(std::memory_order_relaxed));
  }

 private:
  friend class Shard;
  explicit Gauge(std::atomic<std::uint64_t>* cell) : cell_(cell) {}
  std::atomic<std::uint64_t>* cell_ = nullptr;
};

class Histogram {
 public:
  Histogram() = default;
  // Families in seconds: the stored integer is nanoseconds. A negative time counts as 0.
  void observe(std::chrono::nanoseconds time) { observe_raw(time.count()); }
  // Families without a time unit (batch sizes): the value itself.
  void observe_count(std::uint64_t value) { observe_raw(static_cast<std::int64_t>(value)); }
  std::uint64_t count() const;
  explicit operator bool() const { return cells_ != nullptr; }

 private:
  friend class Shard;
  Histogram(std::atomic<std::uint64_t>* cells, std::span<const std::int64_t> bounds) : cells_(cells), bounds_(bounds) {}
  void observe_raw(std::int64_t value);

  std::atomic<std::uint64_t>* cells_ = nullptr;  // one per bound, +Inf, then the sum
  std::span<const std::int64_t> bounds_;
};

// Measures from its making to its death, or to stop(), into one histogram.
class Timer {
 public:
  explicit Timer(Histogram histogram) : histogram_(histogram), start_(std::chrono::steady_clock::now()) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { stop(); }
  void stop() {
    if (!running_) return;
    running_ = false;
    histogram_.observe(std::chrono::steady_clock::now() - start_);
  }
  void discard() { running_ = false; }

 private:
  Histogram histogram_;
  std::chrono::steady_clock::time_point start_;
  bool running_ = true;
};

// Adds one to a gauge for as long as it lives.
class GaugeGuard {
 public:
  GaugeGuard() = default;
  explicit GaugeGuard(Gauge gauge) : gauge_(gauge) { gauge_.add(1); }
  GaugeGuard(GaugeGuard&& other) noexcept : gauge_(std::exchange(other.gauge_, Gauge{})) {}
  GaugeGuard& operator=(GaugeGuard&& other) noexcept {
    if (this != &other) {
      gauge_.add(-1);
      gauge_ = std::exchange(other.gauge_, Gauge{});
    }
    return *this;
  }
  ~GaugeGuard() { gauge_.add(-1); }

 private:
  Gauge gauge_;
};

using LabelValues = std::span<const std::string_view>;

// One writer's share of all series. Making a series takes the shard's mutex; counting does not. The number of values
// must be the family's number of labels (asserted). Asking twice for the same series gives the same cells. Past
// kSeriesMax series of a family in a shard, the values of `model`, `tenant` and `backend` become "other".
class Shard {
 public:
  static constexpr std::size_t kSeriesMax = 10'000;

  Shard();
  ~Shard();
  Shard(const Shard&) = delete;
  Shard& operator=(const Shard&) = delete;

  Counter counter(Family family, std::initializer_list<std::string_view> values = {});
  Gauge gauge(Family family, std::initializer_list<std::string_view> values = {});
  Histogram histogram(Family family, std::initializer_list<std::string_view> values = {});

 private:
  friend class Registry;
  struct Impl;
  std::atomic<std::uint64_t>* cells(Family family, Type type, LabelValues values);
  std::unique_ptr<Impl> impl_;
};

// What a source reports at scrape: current values that a component keeps itself (cache, ledger, pools, engine).
class Scrape {
 public:
  virtual ~Scrape() = default;
  // Counters and gauges. Values for the same series from several sources and shards are added up.
  virtual void set(Family family, std::initializer_list<std::string_view> values, double value) = 0;
  void set(Family family, double value) { set(family, {}, value); }
};

class Registry final : public prometheus::Collectable {
 public:
  Registry();
  ~Registry() override;
  Registry(const Registry&) = delete;
  Registry& operator=(const Registry&) = delete;

  // Series shared by all threads that have no shard of their own.
  Shard& shared() { return *shards_.front(); }
  // A shard for one worker; lives as long as the registry.
  Shard& make_shard();

  // Called at every scrape, on the scraping thread, one scrape at a time; must not block and must outlive its token.
  // Destroying the token removes the source and waits for a scrape that is running.
  using Source = std::function<void(Scrape&)>;
  class Token {
   public:
    Token() = default;
    Token(Token&& other) noexcept : registry_(std::exchange(other.registry_, nullptr)), id_(other.id_) {}
    Token& operator=(Token&& other) noexcept;
    ~Token();

   private:
    friend class Registry;
    Token(Registry* registry, std::uint64_t id) : registry_(registry), id_(id) {}
    Registry* registry_ = nullptr;
    std::uint64_t id_ = 0;
  };
  [[nodiscard]] Token add_source(Source source);

  // Every family that has a series, in the catalog's order; series sorted by label values.
  std::vector<prometheus::MetricFamily> Collect() const override;
  // Prometheus text exposition, version 0.0.4 (`text/plain; version=0.0.4; charset=utf-8`).
  std::string expose() const;

 private:
  class Merge;
  void remove_source(std::uint64_t id);

  mutable std::mutex mutex_;  // shards_ list and sources_; never taken by counting
  std::vector<std::unique_ptr<Shard>> shards_;
  std::vector<std::pair<std::uint64_t, Source>> sources_;
  std::uint64_t next_source_ = 1;
};

inline constexpr std::string_view kExpositionContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace ganglion::metrics
