// See sinks/sink_runner.hpp.

#include "sinks/sink_runner.hpp"

#include <algorithm>
#include <utility>

#include "core/log.hpp"
#include "core/thread.hpp"

namespace ganglion::sinks {
namespace {

constexpr std::chrono::milliseconds kBackoffFirst{200};
// The lower bound is written this often: it only lets the ledger drop old segments.
constexpr std::chrono::seconds kFloorEvery{10};

}  // namespace

SinkRunner::SinkRunner(SinkOptions options, std::unique_ptr<Sink> sink, std::string ledger_directory,
                       PositionFile position, Durable durable, const core::Clock& clock)
    : options_(std::move(options)),
      sink_(std::move(sink)),
      ledger_directory_(std::move(ledger_directory)),
      floor_(std::move(position)),
      durable_(std::move(durable)),
      clock_(clock),
      random_(std::random_device{}()) {
  // Until the other side can be asked, nothing behind the last position known may be dropped.
  if (const auto floor = floor_.read()) {
    floor_written_ = *floor;
    position_.store(*floor, std::memory_order_release);
  }
}

SinkRunner::~SinkRunner() {
  stop();
}

void SinkRunner::start() {
  thread_ = core::start_thread("sink " + options_.name, [this] { run(); });
}

void SinkRunner::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  sink_->interrupt();
  if (thread_.joinable()) thread_.join();
  sink_->release();  // this process may live on for minutes, until its requests have ended
}

bool SinkRunner::sleep(std::chrono::nanoseconds time) {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, time, [this] { return stop_; });
  return !stop_;
}

void SinkRunner::run() {
  for (;;) {
    const auto moved = step();
    std::chrono::nanoseconds wait{0};
    if (moved) {
      backoff_ = std::chrono::milliseconds{0};
      if (!*moved) wait = options_.interval;
    } else {
      failed(moved.error());
      backoff_ = std::clamp(2 * backoff_, kBackoffFirst, std::max(kBackoffFirst, options_.backoff_max));
      // Half of it at random, so that many gateways do not come back together.
      const double part = 0.5 + 0.5 * std::uniform_real_distribution<double>{}(random_);
      wait = std::max<std::chrono::nanoseconds>(
          std::chrono::duration_cast<std::chrono::nanoseconds>(part * backoff_),
          std::min<std::chrono::milliseconds>(moved.error().retry_after, options_.backoff_max));
    }
    if (!sleep(wait)) return;
  }
}

core::Result<void> SinkRunner::open() {
  const auto position = sink_->open();
  if (!position) return std::unexpected(position.error());
  reader_ = std::make_unique<metering::TailReader>(ledger_directory_, *position);
  batch_.clear();
  position_.store(*position, std::memory_order_release);
  return {};
}

// One batch. True: there may be more at once.
core::Result<bool> SinkRunner::step() {
  if (!reader_) {
    if (auto opened = open(); !opened) return std::unexpected(opened.error());
  }
  const std::uint64_t durable = durable_();
  batch_.clear();
  const auto read = reader_->poll(durable, options_.batch_max,
                                  [this](const metering::LedgerRecord& record) { batch_.push_back(record); });
  if (!read) {
    // The reader may have gone past what it has given: it starts over.
    reader_.reset();
    return std::unexpected(read.error());
  }
  const std::uint64_t upto = reader_->position();
  if (!batch_.empty()) {
    {
      const std::lock_guard lock(mutex_);
      oldest_ = core::WallTime{batch_.front().time};
    }
    if (auto done = sink_->deliver(batch_, upto); !done) {
      reader_.reset();
      return std::unexpected(done.error());
    }
  }
  moved(upto, batch_.size());
  return batch_.size() >= options_.batch_max;
}

void SinkRunner::moved(std::uint64_t to, std::size_t records) {
  position_.store(to, std::memory_order_release);
  sent_.fetch_add(records, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    if (!up_) core::log(core::LogLevel::info, "sink_up", {{"sink", options_.name}, {"position", to}});
    up_ = true;
    problem_.clear();
    oldest_ = {};
    behind_since_ = {};
  }
  const core::SteadyTime now = clock_.steady();
  if (to == floor_written_ || (floor_at_ != core::SteadyTime{} && now - floor_at_ < kFloorEvery)) return;
  floor_at_ = now;
  if (auto wrote = floor_.write(to); !wrote) {
    core::log(core::LogLevel::warn, "sink_position_not_written",
              {{"sink", options_.name}, {"problem", wrote.error().message}});
    return;
  }
  floor_written_ = to;
}

void SinkRunner::failed(const core::Error& error) {
  const std::lock_guard lock(mutex_);
  if (stop_) return;
  errors_.fetch_add(1, std::memory_order_relaxed);
  // Once per kind of trouble, not once per try.
  if (up_ || problem_ != error.message) {
    core::log(core::LogLevel::error, "sink_failed", {{"sink", options_.name}, {"problem", error.message}});
  }
  up_ = false;
  problem_ = error.message;
  if (behind_since_ == core::SteadyTime{}) behind_since_ = clock_.steady();
}

SinkStatus SinkRunner::status() const {
  SinkStatus out{.name = options_.name, .type = options_.type};
  out.position = position();
  const std::uint64_t durable = durable_();
  out.behind = durable > out.position ? durable - out.position : 0;
  out.sent = sent_.load(std::memory_order_relaxed);
  out.errors = errors_.load(std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  out.up = up_;
  out.problem = problem_;
  std::chrono::duration<double> lag{0};
  if (oldest_ != core::WallTime{}) {
    lag = clock_.wall() - oldest_;
  } else if (behind_since_ != core::SteadyTime{} && out.behind > 0) {
    lag = clock_.steady() - behind_since_;
  }
  out.lag_seconds = std::max(0.0, lag.count());
  return out;
}

}  // namespace ganglion::sinks
