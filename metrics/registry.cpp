// Shards of series and their merge at scrape. Cells are heap arrays that never move; the lists that find them are
// guarded by each shard's mutex, which only the making of a series and a scrape take.

#include "metrics/registry.hpp"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <sstream>
#include <unordered_map>

#include "core/assert.hpp"
#include "metrics/bounded_label.hpp"

namespace ganglion::metrics {
namespace {

using Cells = std::unique_ptr<std::atomic<std::uint64_t>[]>;
using Bounds = std::array<std::vector<std::int64_t>, kFamilyCount>;

std::size_t index(Family family) {
  return static_cast<std::size_t>(family);
}

// Bucket bounds in the integer that is stored (nanoseconds, records); constant after its first use.
std::span<const std::int64_t> integer_bounds(Family family) {
  static const Bounds bounds = [] {
    Bounds made;
    for (const FamilySpec& s : catalog()) {
      for (const double bound : s.buckets) made[index(s.family)].push_back(std::llround(bound / s.scale));
    }
    return made;
  }();
  return bounds[index(family)];
}

// Counters and gauges have one cell; a histogram one per bound, +Inf, and the sum.
std::size_t cell_count(Family family) {
  return spec(family).type == Type::histogram ? integer_bounds(family).size() + 2 : 1;
}

std::string join(LabelValues values) {
  std::string key;
  for (const std::string_view value : values) {
    key += value;
    key += '\0';
  }
  return key;
}

bool is_bounded(std::string_view label) {
  return label == "model" || label == "tenant" || label == "backend";
}

}  // namespace

void Histogram::observe_raw(std::int64_t value) {
  if (cells_ == nullptr) return;
  value = std::max<std::int64_t>(value, 0);
  std::size_t bucket = 0;
  while (bucket < bounds_.size() && value > bounds_[bucket]) ++bucket;
  cells_[bucket].fetch_add(1, std::memory_order_relaxed);
  cells_[bounds_.size() + 1].fetch_add(static_cast<std::uint64_t>(value), std::memory_order_relaxed);
}

std::uint64_t Histogram::count() const {
  std::uint64_t total = 0;
  for (std::size_t i = 0; cells_ != nullptr && i <= bounds_.size(); ++i) {
    total += cells_[i].load(std::memory_order_relaxed);
  }
  return total;
}

struct Shard::Impl {
  struct Series {
    std::vector<std::string> labels;
    Cells cells;
  };
  struct Group {
    std::vector<Series> series;
    std::unordered_map<std::string, std::size_t> by_key;
  };
  mutable std::mutex mutex;
  std::array<Group, kFamilyCount> groups;
};

Shard::Shard() : impl_(std::make_unique<Impl>()) {}
Shard::~Shard() = default;

std::atomic<std::uint64_t>* Shard::cells(Family family, Type type, LabelValues values) {
  const FamilySpec& s = spec(family);
  GW_ASSERT(s.type == type);
  GW_ASSERT(s.labels.count == values.size());
  const std::lock_guard lock(impl_->mutex);
  Impl::Group& group = impl_->groups[index(family)];
  std::string key = join(values);
  if (const auto found = group.by_key.find(key); found != group.by_key.end()) {
    return group.series[found->second].cells.get();
  }
  std::vector<std::string> labels(values.begin(), values.end());
  if (group.series.size() >= kSeriesMax) {
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (is_bounded(s.labels.names[i])) labels[i] = kOtherLabel;
    }
    const std::vector<std::string_view> views(labels.begin(), labels.end());
    key = join(views);
    if (const auto found = group.by_key.find(key); found != group.by_key.end()) {
      return group.series[found->second].cells.get();
    }
  }
  auto cells = std::make_unique<std::atomic<std::uint64_t>[]>(cell_count(family));
  std::atomic<std::uint64_t>* const raw = cells.get();
  group.by_key.emplace(std::move(key), group.series.size());
  group.series.push_back({std::move(labels), std::move(cells)});
  return raw;
}

Counter Shard::counter(Family family, std::initializer_list<std::string_view> values) {
  return Counter{cells(family, Type::counter, {values.begin(), values.size()})};
}
Gauge Shard::gauge(Family family, std::initializer_list<std::string_view> values) {
  return Gauge{cells(family, Type::gauge, {values.begin(), values.size()})};
}
Histogram Shard::histogram(Family family, std::initializer_list<std::string_view> values) {
  return Histogram{cells(family, Type::histogram, {values.begin(), values.size()}), integer_bounds(family)};
}

// Collects one scrape: series of all shards and sources, added up by label values.
class Registry::Merge final : public Scrape {
 public:
  void set(Family family, std::initializer_list<std::string_view> values, double value) override {
    const FamilySpec& s = spec(family);
    GW_ASSERT(s.type != Type::histogram);
    GW_ASSERT(s.labels.count == values.size());
    groups_[index(family)][std::vector<std::string>(values.begin(), values.end())].direct += value;
  }

  void add(const Shard& shard) {
    const std::lock_guard lock(shard.impl_->mutex);
    for (std::size_t f = 0; f < kFamilyCount; ++f) {
      const std::size_t cells = cell_count(static_cast<Family>(f));
      for (const Shard::Impl::Series& series : shard.impl_->groups[f].series) {
        Sums& sums = groups_[f][series.labels];
        sums.cells.resize(cells);
        for (std::size_t i = 0; i < cells; ++i) sums.cells[i] += series.cells[i].load(std::memory_order_relaxed);
      }
    }
  }

  std::vector<prometheus::MetricFamily> families() const {
    std::vector<prometheus::MetricFamily> out;
    for (const FamilySpec& s : catalog()) {
      const auto& group = groups_[index(s.family)];
      if (group.empty()) continue;
      prometheus::MetricFamily& family = out.emplace_back();
      family.name = s.name;
      family.help = s.help;
      family.type = s.type == Type::counter ? prometheus::MetricType::Counter
                    : s.type == Type::gauge ? prometheus::MetricType::Gauge
                                            : prometheus::MetricType::Histogram;
      for (const auto& [labels, sums] : group) family.metric.push_back(metric(s, labels, sums));
    }
    return out;
  }

 private:
  struct Sums {
    std::vector<std::uint64_t> cells;
    double direct = 0;
  };

  static prometheus::ClientMetric metric(const FamilySpec& s, const std::vector<std::string>& labels,
                                         const Sums& sums) {
    prometheus::ClientMetric m;
    for (std::size_t i = 0; i < labels.size(); ++i) m.label.push_back({std::string(s.labels.names[i]), labels[i]});
    const std::uint64_t first = sums.cells.empty() ? 0 : sums.cells.front();
    if (s.type == Type::counter) {
      m.counter.value = static_cast<double>(first) * s.scale + sums.direct;
    } else if (s.type == Type::gauge) {
      m.gauge.value = static_cast<double>(static_cast<std::int64_t>(first)) * s.scale + sums.direct;
    } else {
      std::uint64_t cumulative = 0;
      for (std::size_t i = 0; i < s.buckets.size(); ++i) {
        cumulative += sums.cells[i];
        m.histogram.bucket.push_back({cumulative, s.buckets[i]});
      }
      cumulative += sums.cells[s.buckets.size()];
      m.histogram.bucket.push_back({cumulative, std::numeric_limits<double>::infinity()});
      m.histogram.sample_count = cumulative;
      m.histogram.sample_sum = static_cast<double>(sums.cells.back()) * s.scale;
    }
    return m;
  }

  std::array<std::map<std::vector<std::string>, Sums>, kFamilyCount> groups_;
};

Registry::Registry() {
  shards_.push_back(std::make_unique<Shard>());
}
Registry::~Registry() = default;

Shard& Registry::make_shard() {
  const std::lock_guard lock(mutex_);
  return *shards_.emplace_back(std::make_unique<Shard>());
}

Registry::Token Registry::add_source(Source source) {
  const std::lock_guard lock(mutex_);
  sources_.emplace_back(next_source_, std::move(source));
  return Token{this, next_source_++};
}

void Registry::remove_source(std::uint64_t id) {
  const std::lock_guard lock(mutex_);
  std::erase_if(sources_, [id](const auto& entry) { return entry.first == id; });
}

Registry::Token::~Token() {
  if (registry_ != nullptr) registry_->remove_source(id_);
}

Registry::Token& Registry::Token::operator=(Token&& other) noexcept {
  if (this != &other) {
    if (registry_ != nullptr) registry_->remove_source(id_);
    registry_ = std::exchange(other.registry_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

std::vector<prometheus::MetricFamily> Registry::Collect() const {
  Merge merge;
  const std::lock_guard lock(mutex_);
  for (const auto& shard : shards_) merge.add(*shard);
  for (const auto& [id, source] : sources_) source(merge);
  return merge.families();
}

std::string Registry::expose() const {
  std::ostringstream out;
  prometheus::TextSerializer{}.Serialize(out, Collect());
  return std::move(out).str();
}

}  // namespace ganglion::metrics
