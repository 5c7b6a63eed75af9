#pragma once
// Reading segment files: which there are, their frames in order with sequence and chain checked, and the state that
// replaying them leaves. Shared by recovery and by the offline readers.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "metering/day_totals.hpp"
#include "metering/record_codec.hpp"

namespace ganglion::metering {

inline constexpr std::uint64_t kSegmentBytesMax = 1024ULL * 1024 * 1024;

// Recovery renames what is no segment but stands in a segment's place; it never overwrites it.
inline constexpr std::string_view kSetAsideSuffix = ".set-aside";

struct SegmentFile {
  std::uint64_t epoch = 0;
  std::string path;
  std::string name() const { return path.substr(path.rfind('/') + 1); }
};

// "000000000001.segment"
std::string segment_path(const std::string& directory, std::uint64_t epoch);
core::Result<std::vector<SegmentFile>> list_segments(const std::string& directory);  // by epoch
core::Result<std::string> read_segment(const std::string& path);
// A segment without a first record: preallocated, not used yet.
core::Result<bool> is_unused(const std::string& path);

// Up to `bytes` from `offset` on, fewer at the end of the file. `path` is for the error.
core::Result<std::string> read_bytes(int fd, std::uint64_t offset, std::size_t bytes, const std::string& path);

// A segment's first record; sequence 0: it has none yet. ledger_unavailable: unreadable, or something else stands
// there.
struct SegmentStart {
  std::uint64_t sequence = 0;
  SegmentHeader header;
};
core::Result<SegmentStart> read_segment_start(const SegmentFile& file);
// Of the first record that is still in the directory; 0: there is none.
core::Result<std::uint64_t> oldest_sequence(const std::string& directory);

// Applies records in order; says what cannot be.
class Replay {
 public:
  // "" or what is wrong with it. `record` is filled for terminal records.
  std::string apply(const Frame& frame, LedgerRecord& record);

  const std::map<std::uint64_t, OpenIntent>& open() const { return open_; }
  const DayTotals& totals() const { return totals_; }
  bool checkpoint_complete() const { return checkpoint_left_ == 0; }
  bool closed() const { return closed_; }
  std::uint64_t last_us() const { return last_us_; }  // the latest time of a record
  const LedgerId& ledger() const { return ledger_; }  // zero until a segment of version 2

 private:
  std::string apply_checkpoint(const Frame& frame);

  std::map<std::uint64_t, OpenIntent> open_;  // by intent sequence
  std::map<std::uint64_t, OpenIntent> carried_;
  DayTotals totals_;
  std::uint64_t last_us_ = 0;
  LedgerId ledger_{};
  std::uint64_t epoch_ = 0;
  std::uint64_t carries_left_ = 0;
  std::uint64_t checkpoint_left_ = 0;
  bool first_segment_ = true;
  bool closed_ = false;
};

// How a segment's records end.
struct ScanEnd {
  enum class Kind : std::uint8_t { end, bad } kind = Kind::end;
  std::uint64_t offset = 0;  // after the last good record
  std::string problem;       // of the bad one
  bool newer = false;        // which is whole, but of a format that only a newer program knows
  bool whole = false;        // likewise, but not what can stand there
  std::uint64_t records = 0;
  std::uint64_t first_sequence = 0;
  std::uint64_t durable_sequence = 0;  // the highest that a record states
};

using FrameVisitor = std::function<void(const Frame&, const LedgerRecord&)>;

// Walks a segment's records. `state` continues the previous segment's (or is taken from the segment's own header when
// `adopt`); it is left after the last good record, like `replay`. `from`: where an earlier scan of the segment ended,
// of which more has been read since.
ScanEnd scan_segment(std::string_view bytes, bool adopt, ChainState& state, Replay& replay,
                     const FrameVisitor& visit = {}, ScanEnd from = {});

// Whether the bytes after a bad record at `offset` prove that it had been durable: then this is corruption; otherwise
// it is a write that a crash cut short. `sequence` is the bad record's.
bool was_durable(std::string_view bytes, std::uint64_t offset, std::uint64_t sequence);

// Offset after the last byte that is not zero.
std::uint64_t used_bytes(std::string_view bytes);

}  // namespace ganglion::metering
