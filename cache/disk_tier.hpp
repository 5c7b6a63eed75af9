#pragma once
// The disk tier: encoded entries appended to segment files of one directory, found through an index in memory. The
// oldest segment goes when room is needed; what was read from it lately is carried over. A torn or damaged record is
// noticed by its head's checksum or by the entry's seal and is a miss. Nothing is synced but purges: losing the newest
// answers in a power cut is no loss.
//
// holds() and stats() from any thread; all else from one thread, which may block on the disk.

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cache/disk_purges.hpp"
#include "cache/options.hpp"
#include "cache/store_key.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"

namespace ganglion::cache {

struct DiskStats {
  std::uint64_t reads = 0;
  std::uint64_t writes = 0;
  std::uint64_t read_errors = 0;  // of the system, and records that are not what the index says
  std::uint64_t write_errors = 0;
  std::uint64_t refused = 0;  // too large, or writing pauses after an error
  std::uint64_t evicted = 0;  // entries that went with their segment
  std::uint64_t carried = 0;  // entries kept beyond their segment
  std::uint64_t bytes_read = 0;
  std::uint64_t bytes_written = 0;
  std::uint64_t entries_now = 0;
  std::uint64_t bytes_now = 0;  // of the files
  bool scanned = false;         // everything that an earlier process left is found again
  bool writing = true;          // false while it pauses after an error
};

class DiskTier {
 public:
  static constexpr std::size_t kEntriesMax = 2'000'000;  // of the index, about 200 bytes each

  // Takes the directory (made if absent, readable by its owner only) for this process; reads no segment yet. The
  // error's message is for the operator.
  static core::Result<std::unique_ptr<DiskTier>> open(const DiskOptions& options, const core::Clock& clock);
  ~DiskTier();
  DiskTier(const DiskTier&) = delete;
  DiskTier& operator=(const DiskTier&) = delete;

  bool holds(const StoreKey& key) const;
  DiskStats stats() const;

  // Finds a bounded number of records again that an earlier process left, newest first. False: there are no more.
  bool scan_some();

  struct Record {
    std::string bytes;
    std::uint64_t position = 0;
  };
  std::optional<Record> read(const StoreKey& key);
  // Was an entry that lies there purged since it was written?
  bool purged(std::uint64_t position, const Entry& entry) const;
  void forget(const StoreKey& key);

  // False if refused or failed; after a failure writing pauses, for longer each time.
  bool write(const StoreKey& key, std::string_view encoded, core::WallTime expires);
  // Durable when it returns. An error means that a restart may bring the purged entries back.
  core::Result<void> purge(const PurgeScope& scope);
  // The installation's purges up to this generation were made here; 0: not known. Outlives restarts.
  std::uint64_t generation() const { return purges_.generation(); }
  void caught_up(std::uint64_t generation) { purges_.caught_up(generation); }

 private:
  struct Segment {
    std::uint32_t number = 0;
    int fd = -1;
    std::uint64_t bytes = 0;
    std::vector<StoreKey> keys;
  };
  struct Place {
    std::uint32_t segment = 0;
    std::uint32_t offset = 0;
    std::uint32_t bytes = 0;    // of the encoded entry
    std::uint32_t expires = 0;  // unix seconds
    bool used = false;
  };
  struct Scan;

  DiskTier(const DiskOptions& options, const core::Clock& clock);
  core::Result<void> take_directory();
  core::Result<void> find_segments();
  core::Result<void> load_purges();
  bool roll();
  void make_room(std::size_t bytes);
  void evict_oldest();
  bool append(const StoreKey& key, std::string_view encoded, std::uint32_t expires);
  void publish(const StoreKey& key, Place place, Segment& segment);
  void write_failed(std::string_view what, int error);
  Segment* segment_of(std::uint32_t number);
  std::string path(std::uint32_t number) const;
  std::uint64_t position_now() const;

  const DiskOptions options_;
  const core::Clock& clock_;
  std::uint64_t segment_bytes_ = 0;
  int lock_fd_ = -1;
  std::deque<Segment> segments_;  // oldest first; the last one is written if writable_
  bool writable_ = false;
  std::uint32_t next_number_ = 1;
  std::unique_ptr<Scan> scan_;
  DiskPurges purges_;
  core::SteadyTime paused_until_{};
  std::chrono::seconds pause_{0};

  mutable std::mutex lock_;  // index_ and stats_
  std::unordered_map<StoreKey, Place, StoreKeyHash> index_;
  DiskStats stats_;
};

}  // namespace ganglion::cache
