// See metering/segment_supply.hpp.

#include "metering/segment_supply.hpp"

#include <chrono>
#include <utility>

#include "core/log.hpp"
#include "metering/segment_scan.hpp"

namespace ganglion::metering {
namespace {

constexpr std::chrono::seconds kRetry{1};

}  // namespace

SegmentSupply::SegmentSupply(LedgerStorage& storage, std::string directory, Changed changed)
    : storage_(storage), directory_(std::move(directory)), changed_(std::move(changed)) {
  thread_ = std::thread([this] { run(); });
}

SegmentSupply::~SegmentSupply() {
  stop();
}

void SegmentSupply::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void SegmentSupply::offer(std::shared_ptr<LedgerFile> ready) {
  const std::lock_guard lock(mutex_);
  ready_ = std::move(ready);
}

void SegmentSupply::want(std::uint64_t epoch, std::uint64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    epoch_ = epoch;
    bytes_ = bytes;
  }
  wake_.notify_one();
}

std::shared_ptr<LedgerFile> SegmentSupply::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(ready_, nullptr);
}

void SegmentSupply::trim(std::shared_ptr<LedgerFile> file, std::uint64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    trims_.emplace_back(std::move(file), bytes);
  }
  wake_.notify_one();
}

void SegmentSupply::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stop_ || epoch_ != 0 || !trims_.empty(); });
    if (stop_) return;
    const auto trims = std::exchange(trims_, {});
    const std::uint64_t epoch = epoch_;
    const std::uint64_t bytes = bytes_;
    lock.unlock();
    for (const auto& [file, used] : trims) {
      // Only space is lost when this fails; readers take the zeros for the end.
      if (const auto trimmed = file->truncate(used); !trimmed)
        core::log(core::LogLevel::warn, "ledger_trim_failed", {{"error", trimmed.error().message}});
    }
    if (epoch == 0) {
      lock.lock();
      continue;
    }
    auto made = storage_.create(segment_path(directory_, epoch), bytes, stop_);
    if (made) {
      {
        const std::lock_guard again(mutex_);
        ready_ = std::move(*made);
        epoch_ = 0;
      }
      changed_(std::nullopt);
      lock.lock();
      continue;
    }
    if (!stop_) changed_(made.error());
    lock.lock();
    wake_.wait_for(lock, kRetry, [&] { return stop_.load(); });
  }
}

}  // namespace ganglion::metering
