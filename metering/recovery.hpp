#pragma once
// Bringing a ledger directory back after any kind of end: finds where the records end, cuts what a crash tore, and says
// what was open. Reads only the last segment (sometimes two): each begins with a checkpoint.

#include <optional>

#include "metering/ledger.hpp"
#include "metering/segment_scan.hpp"
#include "metering/storage.hpp"

namespace ganglion::metering {

struct Recovered {
  bool fresh = false;        // nothing was there
  std::uint64_t epoch = 0;   // of the segment to go on in
  std::uint64_t offset = 0;  // where its records end
  ChainState state;
  Replay replay;
  std::optional<SegmentFile> spare;  // the next segment, preallocated and unused
  RecoveryReport report;
};

// After a failed sync the kernel may show pages that are not on the disk. Leaves a note (if the disk takes one) that
// makes the next recovery write the last segments anew before it trusts them. A full disk takes it too.
void note_failed_sync(const std::string& directory);

// The same beside a running writer that appends nothing meanwhile: writes the segment `epoch` and the one before it
// anew, if every record that the writer knows of (`state`, up to `offset`) can still be read. The file to go on in.
// ledger_unavailable: it cannot, or the disk is still sick; nothing is lost by trying again.
core::Result<std::unique_ptr<LedgerFile>> write_anew_while_running(const std::string& directory, std::uint64_t epoch,
                                                                   std::uint64_t offset, const ChainState& state,
                                                                   LedgerStorage& storage);

// Caller holds the DirectoryLock. ledger_unavailable names segment and offset when records that were durable cannot be
// read; nothing is changed then.
core::Result<Recovered> recover(const std::string& directory, LedgerStorage& storage);

}  // namespace ganglion::metering
