// See sinks/sink_set.hpp.

#include "sinks/sink_set.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/log.hpp"
#include "sinks/cloudevents_sink.hpp"
#include "sinks/file_sink.hpp"
#include "sinks/postgres_sink.hpp"

namespace ganglion::sinks {
namespace {

std::unique_ptr<Sink> make_sink(const SinkOptions& options, const std::string& ledger_id,
                                const PositionFile& position) {
  if (options.type == "postgres") return std::make_unique<PostgresSink>(options, ledger_id);
  if (options.type == "cloudevents") return std::make_unique<CloudEventsSink>(options, ledger_id, position);
  return std::make_unique<FileSink>(options, ledger_id);
}

}  // namespace

SinkSet::SinkSet(const std::vector<SinkOptions>& options, const std::string& ledger_directory,
                 const std::string& ledger_id, const SinkRunner::Durable& durable, const core::Clock& clock)
    : ledger_id_(ledger_id) {
  for (const SinkOptions& one : options) {
    const PositionFile position(ledger_directory + "/sinks", one.name, ledger_id);
    runners_.push_back(std::make_unique<SinkRunner>(one, make_sink(one, ledger_id, position), ledger_directory,
                                                    position, durable, clock));
  }
}

void SinkSet::start() {
  for (const auto& runner : runners_) runner->start();
}

void SinkSet::stop() {
  for (const auto& runner : runners_) runner->stop();
}

std::uint64_t SinkSet::min_position() const {
  std::uint64_t out = UINT64_MAX;
  for (const auto& runner : runners_) out = std::min(out, runner->position());
  return out;
}

std::string SinkSet::json() const {
  std::string out = R"({"ledger":)";
  core::append_json_string(out, ledger_id_);
  out += R"(,"sinks":[)";
  for (const auto& runner : runners_) {
    const SinkStatus status = runner->status();
    out += runner == runners_.front() ? R"({"name":)" : R"(,{"name":)";
    core::append_json_string(out, status.name);
    out += R"(,"type":)";
    core::append_json_string(out, status.type);
    out += std::string{R"(,"up":)"} + (status.up ? "true" : "false") + R"(,"problem":)";
    core::append_json_string(out, status.problem);
    out += R"(,"position":)" + std::to_string(status.position);
    out += R"(,"lag_records":)" + std::to_string(status.behind);
    out += R"(,"lag_seconds":)" + std::to_string(std::llround(status.lag_seconds));
    out += R"(,"sent":)" + std::to_string(status.sent);
    out += R"(,"errors":)" + std::to_string(status.errors) + "}";
  }
  return out + "]}\n";
}

void SinkSet::scrape(metrics::Scrape& out) const {
  using metrics::Family;
  for (const auto& runner : runners_) {
    const SinkStatus status = runner->status();
    out.set(Family::sink_up, {status.name}, status.up ? 1 : 0);
    out.set(Family::sink_records_total, {status.name}, static_cast<double>(status.sent));
    out.set(Family::sink_errors_total, {status.name}, static_cast<double>(status.errors));
    out.set(Family::sink_lag_records, {status.name}, static_cast<double>(status.behind));
    out.set(Family::sink_lag_seconds, {status.name}, status.lag_seconds);
  }
}

}  // namespace ganglion::sinks
