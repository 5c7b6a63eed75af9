// Process-wide families: build, configuration, neuron prices, and what /proc says about this process.

#include "metrics/metrics.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace ganglion::metrics {
namespace {

std::string slurp(const char* path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

// The number after `name:` in /proc/self/status; 0 where there is none.
double status_value(const std::string& status, std::string_view name) {
  const std::size_t at = status.find(name);
  if (at == std::string::npos) return 0;
  const std::size_t digit = status.find_first_of("0123456789", at + name.size());
  double value = 0;
  if (digit != std::string::npos) std::from_chars(status.data() + digit, status.data() + status.size(), value);
  return value;
}

double seconds(const timeval& t) {
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
}

void report_process(Scrape& scrape) {
  using enum Family;
  const std::string status = slurp("/proc/self/status");
  scrape.set(process_resident_memory_bytes, status_value(status, "VmRSS:") * 1024);
  scrape.set(process_threads, status_value(status, "Threads:"));
  std::error_code ignored;
  const std::filesystem::directory_iterator fds("/proc/self/fd", ignored);
  // The iterator's own descriptor is in the list.
  const auto open = std::distance(begin(fds), end(fds));
  scrape.set(process_open_fds, static_cast<double>(std::max<std::ptrdiff_t>(open - 1, 0)));
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) scrape.set(process_max_fds, static_cast<double>(limit.rlim_cur));
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    scrape.set(process_cpu_seconds_total, seconds(usage.ru_utime) + seconds(usage.ru_stime));
  }
}

std::int64_t unix_seconds(const core::Clock& clock) {
  return std::chrono::duration_cast<std::chrono::seconds>(clock.wall().time_since_epoch()).count();
}

}  // namespace

Metrics::Metrics(const MetricsOptions& options, BuildInfo build, const core::Clock& clock)
    : clock_(clock),
      bounds_(options.label_values_max),
      reloads_ok_(registry_.shared().counter(Family::config_reloads_total, {"ok"})),
      reloads_failed_(registry_.shared().counter(Family::config_reloads_total, {"failed"})),
      draining_(registry_.shared().gauge(Family::draining)),
      build_(std::move(build)),
      start_s_(unix_seconds(clock)),
      own_source_(registry_.add_source([this](Scrape& scrape) { report_own(scrape); })) {}

void Metrics::config_loaded(std::string_view hash, std::uint64_t version) {
  const std::lock_guard lock(mutex_);
  if (!config_hash_.empty()) reloads_ok_.add();  // the load at start is no reload
  config_hash_ = hash;
  config_version_ = version;
  config_success_s_ = unix_seconds(clock_);
}

void Metrics::process_serves(std::uint64_t generation) {
  const std::lock_guard lock(mutex_);
  generation_ = generation;
  serves_since_s_ = unix_seconds(clock_);
}

void Metrics::set_neuron_price(std::string_view tier, double usd) {
  const std::lock_guard lock(mutex_);
  const auto found = std::ranges::find(neuron_prices_, tier, &std::pair<std::string, double>::first);
  if (found != neuron_prices_.end()) {
    found->second = usd;
  } else {
    neuron_prices_.emplace_back(tier, usd);
  }
}

void Metrics::report_own(Scrape& scrape) const {
  using enum Family;
  report_process(scrape);
  scrape.set(process_start_time_seconds, static_cast<double>(start_s_));
#if defined(__clang__)
  constexpr std::string_view compiler = "clang " __clang_version__;
#else
  constexpr std::string_view compiler = "gcc " __VERSION__;
#endif
  scrape.set(build_info, {build_.version, build_.commit, compiler}, 1);
  scrape.set(label_overflow_total, {"model"}, static_cast<double>(bounds_.model.overflows()));
  scrape.set(label_overflow_total, {"tenant"}, static_cast<double>(bounds_.tenant.overflows()));
  const std::lock_guard lock(mutex_);
  for (const auto& [tier, usd] : neuron_prices_) scrape.set(neuron_price_usd, {tier}, usd);
  if (generation_ != 0) {
    scrape.set(process_info, {std::to_string(::getpid()), std::to_string(generation_)}, 1);
    scrape.set(process_serving_timestamp_seconds, static_cast<double>(serves_since_s_));
  }
  if (config_hash_.empty()) return;
  scrape.set(config_info, {config_hash_}, 1);
  scrape.set(config_version, static_cast<double>(config_version_));
  scrape.set(config_last_success_timestamp_seconds, static_cast<double>(config_success_s_));
}

}  // namespace ganglion::metrics
