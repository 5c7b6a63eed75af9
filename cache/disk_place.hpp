#pragma once
// The disk tier as one process has it: here, or given up to the process that takes this one's place, or not here yet,
// because the process before this one still has it. Absent, it is a miss for every look and refuses every write; purges
// are remembered and made when it is back.
//
// here(), holds() and stats() from any thread; all else from one thread, which may block on the disk.

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>

#include "cache/disk_tier.hpp"

namespace ganglion::cache {

class DiskPlace {
 public:
  static constexpr std::size_t kMissedMax = 1024;  // purges; beyond that everything is purged

  // Absent until take().
  DiskPlace(const DiskOptions& options, const core::Clock& clock) : options_(options), clock_(clock) {}

  // The directory is this process's from here on, and what lies in it is found again by scan_some(). An error, for the
  // operator, changes nothing: try again.
  core::Result<void> take();
  // All files are closed; another process may take the directory.
  void give_up();

  bool here() const;
  bool holds(const StoreKey& key) const;
  DiskStats stats() const;  // counts go on from one stay to the next

  // As of DiskTier.
  bool scan_some();
  std::optional<DiskTier::Record> read(const StoreKey& key);
  bool purged(std::uint64_t position, const Entry& entry) const;
  void forget(const StoreKey& key);
  bool write(const StoreKey& key, std::string_view encoded, core::WallTime expires);
  // `generation`: the installation's; 0: a purge of this process. One that was made there before is left out.
  core::Result<void> purge(const PurgeScope& scope, std::uint64_t generation = 0);
  void caught_up(std::uint64_t generation);

 private:
  struct Missed {
    std::uint64_t generation = 0;
    PurgeScope scope;
  };
  void make_missed(DiskTier& tier);

  const DiskOptions options_;
  const core::Clock& clock_;
  std::deque<Missed> missed_;
  std::uint64_t missed_generation_ = 0;

  mutable std::mutex lock_;         // the pointer, for other threads than the disk's; and before_
  std::unique_ptr<DiskTier> tier_;  // null: absent
  DiskStats before_;                // counts of earlier stays
};

}  // namespace ganglion::cache
