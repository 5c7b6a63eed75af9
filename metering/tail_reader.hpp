#pragma once
// Follows a ledger that is being written: hands out its terminal records in order, each once, from any sequence on.
// What rollups, sinks and budgets are fed from. Blocking file reads, no lock on the directory; one thread at a time.
//
// A consumer that must not see what a power loss may take back passes the ledger's durable_sequence as the limit
// (Ledger::stats()); then polling at the end costs no system call. Another process has no such number and passes
// kNoLimit.

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "metering/record_codec.hpp"
#include "metering/segment_scan.hpp"

namespace ganglion::metering {

class TailReader {
 public:
  static constexpr std::uint64_t kNoLimit = std::numeric_limits<std::uint64_t>::max();
  using Visitor = std::function<void(const LedgerRecord&)>;

  // Begins behind record `after`; 0: with the oldest record that is there. Touches no file yet.
  TailReader(std::string directory, std::uint64_t after);
  ~TailReader();
  TailReader(const TailReader&) = delete;
  TailReader& operator=(const TailReader&) = delete;

  // Visits at most about `records_max` further terminal records with sequence <= `limit`; how many. 0: none now.
  // ledger_unavailable: records behind position() are gone (retention) or unreadable, or the ledger ends before it (an
  // older copy, or another ledger); the reader stays where it is and may be polled again.
  core::Result<std::size_t> poll(std::uint64_t limit, std::size_t records_max, const Visitor& visit);

  // All records up to here have been passed; what to begin behind after a restart.
  std::uint64_t position() const { return position_; }

 private:
  enum class Step : std::uint8_t { frame, end };
  core::Result<bool> open_first(std::uint64_t limit);
  core::Result<void> open_segment(std::uint64_t epoch);
  core::Result<Step> step(std::uint64_t limit, Frame& frame);
  core::Result<bool> next_begun() const;
  core::Result<bool> reopen_if_replaced();
  core::Result<void> refill();
  std::unexpected<core::Error> broken(const std::string& what) const;

  const std::string directory_;
  std::uint64_t position_;
  int fd_ = -1;
  std::uint64_t epoch_ = 0;
  std::uint64_t next_sequence_ = 0;  // of the frame at the read position
  std::uint64_t offset_ = 0;         // read position in the segment
  std::string buffer_;               // bytes from buffer_at_ on
  std::uint64_t buffer_at_ = 0;
  LedgerRecord record_;
};

}  // namespace ganglion::metering
