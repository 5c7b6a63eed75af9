#pragma once
// Records as JSON lines in a directory, a new file per day and size. The files are their own position: the last whole
// line of the newest one is the last record taken. A batch is durable (fdatasync) when deliver() returns.

#include <cstdint>
#include <string>

#include "sinks/options.hpp"
#include "sinks/sink.hpp"

namespace ganglion::sinks {

class FileSink final : public Sink {
 public:
  FileSink(const SinkOptions& options, std::string ledger_id);
  ~FileSink() override;

  // Cuts a torn last line. Errors: another process writes here, or the files are another ledger's.
  core::Result<std::uint64_t> open() override;
  core::Result<void> deliver(std::span<const metering::LedgerRecord> records, std::uint64_t upto) override;
  void release() override;

 private:
  core::Result<void> lock_directory();
  core::Result<std::uint64_t> take_tail(const std::string& path);
  core::Result<void> begin_file(const metering::LedgerRecord& first, const std::string& day);
  core::Result<void> flush();
  void close();

  const std::string directory_;
  const std::uint64_t rotate_bytes_;
  const bool rotate_daily_;
  const std::string ledger_id_;
  int lock_fd_ = -1;
  int fd_ = -1;
  std::string path_;
  std::string day_;          // of the open file
  std::uint64_t bytes_ = 0;  // of it, durable
  std::string pending_;
};

}  // namespace ganglion::sinks
