#pragma once
// The purges of a disk tier, in its directory: each with the position in the segments up to which it applies, and the
// newest of the installation's purges (cache/purge_log.hpp) that was made here, so that a restarted gateway which hears
// of all of them again makes only those that it missed. Every purge is synced. One thread.

#include <cstdint>
#include <deque>
#include <string>

#include "cache/purge_log.hpp"
#include "core/error.hpp"

namespace ganglion::cache {

class DiskPurges {
 public:
  explicit DiskPurges(std::string directory);
  ~DiskPurges();
  DiskPurges(const DiskPurges&) = delete;
  DiskPurges& operator=(const DiskPurges&) = delete;

  // Reads what an earlier process left. False: damaged, and what lies on the disk can not be trusted to be unpurged.
  bool load();
  // After load(), before all else. `oldest`: nothing lies before this position, so purges up to it are over. The
  // error's message is for the operator.
  core::Result<void> begin(std::uint64_t oldest);

  bool purged(std::uint64_t position, const Entry& entry) const;
  // May a purge mean something at this position?
  bool any_after(std::uint64_t position) const;

  // Holds at once, and durably when it returns without an error.
  core::Result<void> add(std::uint64_t position, const PurgeScope& scope);

  // The installation's purges up to this one were made here; 0: not known.
  std::uint64_t generation() const { return generation_; }
  // They were. Not kept while one of them could not be written: then a restart makes them again.
  void caught_up(std::uint64_t generation);

 private:
  struct Mark {
    std::uint64_t position = 0;
    PurgeScope scope;
  };
  bool save() const;
  bool rewrite();
  bool append(const Mark& mark);

  const std::string directory_;
  const std::string file_;
  int fd_ = -1;
  std::deque<Mark> marks_;
  std::uint64_t before_ = 0;  // everything at a position before this is purged
  std::uint64_t generation_ = 0;
  bool unwritten_ = false;  // a purge could not be made durable
};

}  // namespace ganglion::cache
