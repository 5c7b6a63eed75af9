#pragma once
// The ledger's view of the disk, small enough to fail on purpose in tests. Blocking; called from the ledger's threads
// and from whoever appends.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/error.hpp"
#include "metering/guarded_map.hpp"

namespace ganglion::metering {

// One open segment. write() and truncate() are serialised by the caller; sync() may run beside them.
class LedgerFile {
 public:
  virtual ~LedgerFile() = default;
  // All of `data` at `offset`, or an error and unknown bytes there. out_of_space tells a full disk from a broken one.
  virtual core::Result<void> write(std::uint64_t offset, std::string_view data, bool& out_of_space) = 0;
  virtual core::Result<void> sync() = 0;  // fdatasync
  virtual core::Result<void> truncate(std::uint64_t bytes) = 0;
};

class LedgerStorage {
 public:
  virtual ~LedgerStorage() = default;
  // A new file of `bytes` written zeros, durable with its name. Leaves nothing behind on failure or once `stop` is set.
  virtual core::Result<std::unique_ptr<LedgerFile>> create(const std::string& path, std::uint64_t bytes,
                                                           const std::atomic<bool>& stop) = 0;
  virtual core::Result<std::unique_ptr<LedgerFile>> open(const std::string& path) = 0;
  // A small file of `bytes` zeros, mapped; what stood in it is gone.
  virtual core::Result<std::unique_ptr<GuardedMap>> map(const std::string& path, std::size_t bytes);
  // Bytes that may still be written on the volume of `directory`; the maximum where that cannot be known.
  virtual std::uint64_t free_bytes(const std::string& directory);
};

class PosixStorage final : public LedgerStorage {
 public:
  core::Result<std::unique_ptr<LedgerFile>> create(const std::string& path, std::uint64_t bytes,
                                                   const std::atomic<bool>& stop) override;
  core::Result<std::unique_ptr<LedgerFile>> open(const std::string& path) override;
};

// Makes names in the directory durable.
core::Result<void> sync_directory(const std::string& directory);

// Exclusive hold on a ledger directory for this process's life or until destroyed.
class DirectoryLock {
 public:
  // Creates the directory if needed; ledger_unavailable naming the holder's pid when it is taken.
  static core::Result<DirectoryLock> take(const std::string& directory);
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&&) = delete;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace ganglion::metering
