// The request path's counting. A combination of labels is resolved once into a row of handles; afterwards a request
// costs two hashes of short strings, one of an integer, and about fifteen relaxed adds.

#include "metrics/worker_metrics.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <unordered_map>
#include <vector>

namespace ganglion::metrics {
namespace {

constexpr std::size_t kEndpointsMax = 30;
constexpr std::size_t kRowsMax = 20'000;  // label combinations of one worker; past it model and tenant are "other"
constexpr std::size_t kErrorKinds = static_cast<std::size_t>(core::ErrorKind::kCount);
constexpr std::size_t kCancelReasons = static_cast<std::size_t>(core::CancelReason::kCount);

// All handles of one combination of labels. First token and upstream are resolved at their first observation: most
// rows (hits, refusals, whole answers) never have them.
struct Row {
  std::string_view endpoint;
  std::string_view model;
  std::string_view tier;
  Counter requests;
  Counter cache_lookups;
  Counter request_bytes;
  Counter response_bytes;
  Histogram duration;
  Histogram first_token;
  Histogram upstream;
  Histogram overhead;
};

struct Key {
  std::uint32_t model = 0;
  std::uint32_t tenant = 0;
  std::uint32_t endpoint = 0;  // < 32
  std::uint32_t status = 0;    // < 1024
  bool fast = false;
  bool no_tier = false;
  CacheOutcome cache = CacheOutcome::off;

  // Label ids stay below 2^21: label_values_max is at most a million.
  std::uint64_t packed() const {
    return (std::uint64_t{model} << 43) | (std::uint64_t{tenant} << 22) | (std::uint64_t{status} << 12) |
           (std::uint64_t{endpoint} << 7) | (static_cast<std::uint64_t>(cache) << 4) | (std::uint64_t{fast} << 1) |
           std::uint64_t{no_tier};
  }
};

void observe(Histogram& histogram, std::chrono::nanoseconds time) {
  if (time.count() >= 0) histogram.observe(time);
}

}  // namespace

std::string_view name(CacheOutcome outcome) {
  switch (outcome) {
    case CacheOutcome::off:
      return "off";
    case CacheOutcome::skip:
      return "skip";
    case CacheOutcome::miss:
      return "miss";
    case CacheOutcome::hit:
      return "hit";
    case CacheOutcome::follower:
      return "follower";
    case CacheOutcome::stale:
      return "stale";
    case CacheOutcome::kCount:
      break;
  }
  return "unknown";
}

struct WorkerMetrics::Impl {
  explicit Impl(LabelBounds& bounds) : models(bounds.model), tenants(bounds.tenant) {
    endpoints.reserve(kEndpointsMax + 1);  // rows keep views of them
  }

  std::uint32_t endpoint_id(std::string_view endpoint) {
    if (endpoint.empty()) endpoint = "none";
    const auto found = std::ranges::find(endpoints, endpoint);
    if (found != endpoints.end()) return static_cast<std::uint32_t>(found - endpoints.begin());
    if (endpoints.size() > kEndpointsMax) return kEndpointsMax;
    if (endpoints.size() == kEndpointsMax) endpoint = kOtherLabel;
    endpoints.emplace_back(endpoint);
    return static_cast<std::uint32_t>(endpoints.size() - 1);
  }

  Row& row(Shard& shard, const RequestSample& sample);
  Row make_row(Shard& shard, const Key& key);

  BoundedLabelReader models;
  BoundedLabelReader tenants;
  std::vector<std::string> endpoints;
  std::unordered_map<std::uint64_t, Row> rows;
  std::unordered_map<std::uint64_t, BillCounters> bills;
  std::vector<Histogram> gaps;  // by model id
  std::array<Counter, kErrorKinds> rejected;
  std::array<Counter, kErrorKinds> failed;
  std::array<Counter, kCancelReasons> cancelled;
};

Row& WorkerMetrics::Impl::row(Shard& shard, const RequestSample& sample) {
  Key key{.model = models.id(sample.model),
          .tenant = tenants.id(sample.tenant),
          .endpoint = endpoint_id(sample.endpoint),
          .status =
              sample.http_status >= 0 && sample.http_status < 600 ? static_cast<std::uint32_t>(sample.http_status) : 0U,
          .fast = sample.tier == "fast",
          .no_tier = sample.tier.empty(),
          .cache = sample.cache};
  if (const auto found = rows.find(key.packed()); found != rows.end()) return found->second;
  if (rows.size() >= kRowsMax) {
    key.model = BoundedLabel::kOther;
    key.tenant = BoundedLabel::kOther;
    if (const auto found = rows.find(key.packed()); found != rows.end()) return found->second;
  }
  return rows.emplace(key.packed(), make_row(shard, key)).first->second;
}

Row WorkerMetrics::Impl::make_row(Shard& shard, const Key& key) {
  using enum Family;
  const std::string_view model = models.text(key.model);
  const std::string_view tenant = tenants.text(key.tenant);
  const std::string_view endpoint = endpoints[key.endpoint];
  const std::string_view tier = key.no_tier ? "none" : key.fast ? "fast" : "regular";
  const std::string_view cache = name(key.cache);
  char digits[12];
  const auto end = std::to_chars(digits, digits + sizeof digits, key.status).ptr;
  const std::string_view code(digits, static_cast<std::size_t>(end - digits));

  Row row{.endpoint = endpoint, .model = model, .tier = tier};
  row.requests = shard.counter(requests_total, {endpoint, model, tenant, tier, code, cache});
  row.request_bytes = shard.counter(request_body_bytes_total, {endpoint});
  row.response_bytes = shard.counter(response_body_bytes_total, {endpoint});
  if (key.cache != CacheOutcome::off) row.cache_lookups = shard.counter(cache_lookups_total, {cache});
  row.duration = shard.histogram(request_duration_seconds, {endpoint, model, tier});
  row.overhead = shard.histogram(request_overhead_seconds, {endpoint, cache});
  return row;
}

WorkerMetrics::WorkerMetrics(Registry& registry, LabelBounds& bounds)
    : shard_(registry.make_shard()),
      in_flight_(shard_.gauge(Family::requests_in_flight)),
      admitted_(shard_.counter(Family::limiter_admitted_total)),
      impl_(std::make_unique<Impl>(bounds)) {}

WorkerMetrics::~WorkerMetrics() = default;

GaugeGuard WorkerMetrics::connection_opened(std::string_view listener) {
  shard_.counter(Family::connections_accepted_total, {listener}).add();
  return GaugeGuard{shard_.gauge(Family::connections, {listener})};
}

void WorkerMetrics::connection_refused(std::string_view listener, std::string_view reason) {
  shard_.counter(Family::connections_refused_total, {listener, reason}).add();
}

GaugeGuard WorkerMetrics::request_started() {
  return GaugeGuard{in_flight_};
}

void WorkerMetrics::limited(std::string_view scope, std::string_view kind) {
  shard_.counter(Family::limiter_limited_total, {scope, kind}).add();
}

TokenGaps WorkerMetrics::token_gaps(std::string_view model) {
  const std::uint32_t id = impl_->models.id(model);
  if (impl_->gaps.size() <= id) impl_->gaps.resize(id + 1);
  Histogram& gap = impl_->gaps[id];
  if (!gap) gap = shard_.histogram(Family::request_inter_token_seconds, {impl_->models.text(id)});
  return TokenGaps{gap};
}

void BillCounters::add(const BillSample& bill) {
  input_tokens_.add(bill.input_tokens - std::min(bill.cached_input_tokens, bill.input_tokens));
  cached_input_tokens_.add(bill.cached_input_tokens);
  output_tokens_.add(bill.output_tokens);
  neurons_.add_nano(bill.nano_neurons);
  if (bill.usage_estimated) estimated_.add();
}

BillCounters WorkerMetrics::bills(std::string_view tenant, std::string_view model, std::string_view tier) {
  using enum Family;
  Key key{.model = impl_->models.id(model), .tenant = impl_->tenants.id(tenant), .fast = tier == "fast"};
  if (impl_->bills.size() >= kRowsMax && !impl_->bills.contains(key.packed())) {
    key.model = BoundedLabel::kOther;
    key.tenant = BoundedLabel::kOther;
  }
  const auto [at, fresh] = impl_->bills.try_emplace(key.packed());
  if (!fresh) return at->second;
  BillCounters& counters = at->second;
  const std::string_view known_model = impl_->models.text(key.model);
  const std::string_view known_tenant = impl_->tenants.text(key.tenant);
  counters.input_tokens_ = shard_.counter(tokens_total, {"input", tier, known_model, known_tenant});
  counters.cached_input_tokens_ = shard_.counter(tokens_total, {"cached_input", tier, known_model, known_tenant});
  counters.output_tokens_ = shard_.counter(tokens_total, {"output", tier, known_model, known_tenant});
  counters.neurons_ = shard_.counter(neurons_total, {tier, known_model, known_tenant});
  counters.estimated_ = shard_.counter(usage_estimated_total, {known_model});
  return counters;
}

void WorkerMetrics::request_done(const RequestSample& sample) {
  Row& row = impl_->row(shard_, sample);
  row.requests.add();
  row.cache_lookups.add();
  row.request_bytes.add(sample.request_body_bytes);
  row.response_bytes.add(sample.response_body_bytes);
  observe(row.duration, sample.duration);
  if (sample.first_token.count() >= 0) {
    if (!row.first_token) {
      row.first_token = shard_.histogram(Family::request_time_to_first_token_seconds, {row.model, row.tier});
    }
    row.first_token.observe(sample.first_token);
  }
  if (sample.upstream.count() >= 0) {
    if (!row.upstream) {
      row.upstream = shard_.histogram(Family::request_upstream_seconds, {row.endpoint, row.model});
    }
    row.upstream.observe(sample.upstream);
  }
  observe(row.overhead, sample.overhead);
  count_end(sample);
}

void WorkerMetrics::count_end(const RequestSample& sample) {
  if (sample.error != nullptr && sample.error->kind != core::ErrorKind::cancelled) {
    const auto kind = static_cast<std::size_t>(sample.error->kind);
    Counter& counter = sample.dispatched ? impl_->failed[kind] : impl_->rejected[kind];
    if (!counter) {
      counter = shard_.counter(sample.dispatched ? Family::requests_failed_total : Family::requests_rejected_total,
                               {core::face(sample.error->kind).name});
    }
    counter.add();
  }
  if (sample.cancelled != core::CancelReason::none) {
    Counter& counter = impl_->cancelled[static_cast<std::size_t>(sample.cancelled)];
    if (!counter) counter = shard_.counter(Family::requests_cancelled_total, {core::name(sample.cancelled)});
    counter.add();
  }
}

}  // namespace ganglion::metrics
