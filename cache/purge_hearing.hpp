#pragma once
// What becomes of purges that the shared store told of: they are entered in the log, and made in memory and on the
// disk.
//
// The disk is its thread's, so its part is posted there; whoever asks it something after hear() finds it done. The
// posted part enters the purge in the log as well, before it marks the disk: whatever that thread writes after the mark
// was checked against a log that knows of the purge. Else an answer asked for before the purge, and checked between the
// mark and the caller's entry, would be written behind the mark and survive.

#include <atomic>
#include <cstdint>
#include <functional>

#include "cache/disk_place.hpp"
#include "cache/memory_cache.hpp"
#include "cache/purge_log.hpp"
#include "cache/shared_store.hpp"

namespace ganglion::cache {

class PurgeHearing {
 public:
  // Runs what it is given on the disk's thread, in order; drops it where that thread has ended.
  using Post = std::function<void(std::function<void()>)>;

  // `disk` may be null. All outlive this object.
  PurgeHearing(PurgeLog& purges, MemoryCache& memory, DiskPlace* disk, Post post);

  // Any thread. When it returns nothing that falls under these purges is in memory, and the disk's part is ahead of
  // whatever is posted later.
  void hear(const SharedStore::Told& told);

  std::uint64_t heard() const { return heard_.load(std::memory_order_relaxed); }

 private:
  void make(std::uint64_t generation, const PurgeScope& scope);
  void enter(std::uint64_t generation, const PurgeScope& scope);
  void make_on_disk(std::uint64_t generation, const PurgeScope& scope);

  PurgeLog& purges_;
  MemoryCache& memory_;
  DiskPlace* const disk_;
  const Post post_;
  std::atomic<std::uint64_t> heard_{0};
};

}  // namespace ganglion::cache
