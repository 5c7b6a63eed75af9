#pragma once
// Keeps the next segment ready: a helper thread fills it with zeros ahead of need, trims segments that are full, and
// tries again every second while the disk has no room. Between, it looks four times a second whether there still is
// any.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/error.hpp"
#include "metering/storage.hpp"

namespace ganglion::metering {

class SegmentSupply {
 public:
  // nullopt: there is room; else why there is none: no next segment could be made, or the volume is full. Called on the
  // helper thread.
  using Changed = std::function<void(const std::optional<core::Error>&)>;

  SegmentSupply(LedgerStorage& storage, std::string directory, Changed changed);
  ~SegmentSupply();  // stop()
  SegmentSupply(const SegmentSupply&) = delete;
  SegmentSupply& operator=(const SegmentSupply&) = delete;

  // A preallocated segment found by recovery.
  void offer(std::shared_ptr<LedgerFile> ready);
  // Starts preparing segment `epoch`.
  void want(std::uint64_t epoch, std::uint64_t bytes);
  // The ready segment, or nullptr.
  std::shared_ptr<LedgerFile> take();
  bool ready() const;
  // Cuts a full segment to what it holds, when there is time.
  void trim(std::shared_ptr<LedgerFile> file, std::uint64_t bytes);
  void stop();

 private:
  void run();
  void serve();
  void look_at_space();
  void tell();

  LedgerStorage& storage_;
  const std::string directory_;
  const Changed changed_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::shared_ptr<LedgerFile> ready_;
  std::uint64_t epoch_ = 0;  // wanted; 0: none
  std::uint64_t bytes_ = 0;
  std::vector<std::pair<std::shared_ptr<LedgerFile>, std::uint64_t>> trims_;
  // The helper thread's own.
  std::optional<core::Error> failed_;  // to make the next segment
  std::optional<core::Error> no_space_;
  std::optional<std::string> told_;
  std::thread thread_;
};

}  // namespace ganglion::metering
