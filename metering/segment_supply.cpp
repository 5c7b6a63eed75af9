// See metering/segment_supply.hpp.

#include "metering/segment_supply.hpp"

#include <chrono>
#include <utility>

#include "core/log.hpp"
#include "core/thread.hpp"
#include "metering/segment_scan.hpp"

namespace ganglion::metering {
namespace {

constexpr std::chrono::seconds kRetry{1};
constexpr std::chrono::milliseconds kLook{250};
// With less than this free the volume counts as full, with twice as much no longer: nothing else on it can be written
// either, and what is preallocated is for the requests that run.
constexpr std::uint64_t kFreeBytesMin = 1024 * 1024;

}  // namespace

SegmentSupply::SegmentSupply(LedgerStorage& storage, std::string directory, Changed changed)
    : storage_(storage), directory_(std::move(directory)), changed_(std::move(changed)) {
  thread_ = core::start_thread("ledger-supply", [this] { run(); });
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

bool SegmentSupply::ready() const {
  const std::lock_guard lock(mutex_);
  return ready_ != nullptr;
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

// Passes on the first reason why there is no room, once.
void SegmentSupply::tell() {
  const std::optional<core::Error>& why = failed_ ? failed_ : no_space_;
  const std::optional<std::string> message = why ? std::optional{why->message} : std::nullopt;
  if (message == told_) return;
  told_ = message;
  changed_(why);
}

void SegmentSupply::look_at_space() {
  const std::uint64_t free = storage_.free_bytes(directory_);
  if (free >= 2 * kFreeBytesMin) {
    no_space_.reset();
  } else if (free < kFreeBytesMin && !no_space_) {
    no_space_ =
        core::make_error(core::ErrorKind::ledger_unavailable, "no space is left on the volume of " + directory_);
  }
  tell();
}

void SegmentSupply::run() {
  for (;;) {
    try {
      return serve();
    } catch (const std::exception& thrown) {  // for want of memory, mostly: what is wanted is still wanted
      core::log(core::LogLevel::error, "ledger_segments_threw", {{"what", thrown.what()}});
    }
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, kRetry, [&] { return stop_.load(); });
  }
}

void SegmentSupply::serve() {
  std::unique_lock lock(mutex_);
  while (true) {
    const bool work = wake_.wait_for(lock, kLook, [&] { return stop_ || epoch_ != 0 || !trims_.empty(); });
    if (stop_) return;
    if (!work) {
      lock.unlock();
      look_at_space();
      lock.lock();
      continue;
    }
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
      failed_.reset();
      tell();
      lock.lock();
      continue;
    }
    if (!stop_) {
      failed_ = made.error();
      tell();
    }
    lock.lock();
    wake_.wait_for(lock, kRetry, [&] { return stop_.load(); });
  }
}

}  // namespace ganglion::metering
