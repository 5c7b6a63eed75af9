#pragma once
// What has been appended to the ledger's newest segment and not yet written there. Appends cost no system call: they go
// into memory that is mapped from a small file (`unwritten` in the ledger's directory), which outlives the process, and
// are written by whoever syncs the segment, all in one call. A process killed in between leaves them in that file, and
// the next start takes them from there (read_unwritten). Where the file cannot be mapped, or its disk fails, appends
// are written one by one as they come.

#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "core/error.hpp"
#include "metering/guarded_map.hpp"
#include "metering/record_codec.hpp"
#include "metering/storage.hpp"

namespace ganglion::metering {

class WriteBuffer {
 public:
  // `storage` outlives the buffer. What an earlier process left in the file is overwritten: read_unwritten() comes
  // before.
  WriteBuffer(const std::string& directory, LedgerStorage& storage);
  ~WriteBuffer();
  WriteBuffer(const WriteBuffer&) = delete;
  WriteBuffer& operator=(const WriteBuffer&) = delete;

  // A view of `file`, of `bytes` preallocated, through this buffer: write() appends, sync() writes and syncs. The
  // buffer outlives it. Only what lies in the preallocated bytes is held back, because the rest may find no space.
  std::shared_ptr<LedgerFile> wrap(std::shared_ptr<LedgerFile> file, std::uint64_t bytes);

  // Writes what is held back, into its segment. On failure it stays, to be tried again.
  core::Result<void> flush(bool* out_of_space = nullptr);

  bool buffering() const;

 private:
  class Wrapped;
  // Consecutive bytes of one segment.
  struct Stretch {
    std::shared_ptr<LedgerFile> file;
    std::uint64_t offset = 0;
    std::string bytes;
  };

  bool hold(const std::shared_ptr<LedgerFile>& file, std::uint64_t offset, std::string_view data);
  core::Result<void> write_stretch(bool& out_of_space);

  std::unique_ptr<GuardedMap> map_;
  std::mutex flushing_;       // before mutex_
  mutable std::mutex mutex_;  // guards all below
  Stretch held_;              // mirrored in one half of the map
  Stretch leaving_;           // being written, mirrored in the other
  std::size_t half_ = 0;
};

// The whole records in `directory`'s buffer file that continue `state`, in order; "" where there are none. The bytes
// are checked by the hash chain, so that a stale or torn buffer adds nothing.
std::string read_unwritten(const std::string& directory, const ChainState& state);

}  // namespace ganglion::metering
