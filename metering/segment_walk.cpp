// See metering/segment_walk.hpp.

#include "metering/segment_walk.hpp"

#include <utility>

#include "metering/damage.hpp"

namespace ganglion::metering {
namespace {

constexpr int kReadAgain = 3;

class Walker {
 public:
  Walker(const AnchorList* anchors, const FrameVisitor& visit) : anchors_(anchors), visit_(visit) {
    walk.report.ok = true;
  }

  void bad(const SegmentFile& file, std::uint64_t offset, std::string problem, bool corrupt = true) {
    walk.report.ok = !corrupt;
    walk.report.bad_segment = file.name();
    walk.report.bad_offset = offset;
    walk.report.problem = std::move(problem);
  }

  // False: the walk ends here.
  bool segment(const SegmentFile& file, std::string bytes, bool first, bool sealed) {
    ++walk.report.segments;
    ScanEnd end = scan_segment(bytes, first, walk.state, walk.replay, visit_);
    // A page of the live tail that was read before its record was written, and the next one after: read again.
    const auto torn = [&] { return end.kind == ScanEnd::Kind::bad && !end.newer && !end.whole; };
    for (int i = 0; i < kReadAgain && !sealed && torn(); ++i) {
      auto again = read_segment(file.path);
      if (!again || again->size() < end.offset) break;
      bytes = std::move(*again);
      end = scan_segment(bytes, first, walk.state, walk.replay, visit_, std::move(end));
    }
    walk.report.records += end.records;
    const Anchor* const anchor = anchor_of(file.epoch);
    if (end.kind == ScanEnd::Kind::bad || (sealed && end.records == 0)) {
      const bool corrupt =
          sealed || end.newer || anchor != nullptr || was_durable(bytes, end.offset, walk.state.next_sequence);
      bad(file, end.offset, end.problem.empty() ? "no records" : end.problem, corrupt);
      place(bytes, end, first);
      if (!corrupt) walk.report.torn_bytes = used_bytes(bytes) - end.offset;
      return false;
    }
    return anchor == nullptr || same(file, *anchor, end);
  }

  Walk walk;

 private:
  const Anchor* anchor_of(std::uint64_t epoch) const {
    if (anchors_ == nullptr) return nullptr;
    const auto found = anchors_->segments.find(epoch);
    return found == anchors_->segments.end() ? nullptr : &found->second;
  }

  // Says which byte is wrong, if that can be known.
  void place(const std::string& bytes, const ScanEnd& end, bool first) {
    const std::string_view rest = std::string_view{bytes}.substr(end.offset);
    Frame frame;
    const std::size_t at = rest.find_first_not_of('\0');
    if (at == std::string_view::npos) return;
    if (parse_frame(rest, frame) == FrameStatus::end || used_bytes(rest) == at + 1) {
      walk.report.wrong_byte = end.offset + at;  // nothing but zeros was there
    } else if (!first || end.records > 0) {
      if (const auto wrong = find_wrong_byte(rest, walk.state)) walk.report.wrong_byte = end.offset + *wrong;
    }
  }

  bool same(const SegmentFile& file, const Anchor& anchor, const ScanEnd& end) {
    if (end.first_sequence != anchor.first_sequence)
      bad(file, 0,
          "begins with record " + std::to_string(end.first_sequence) + "; it began with " +
              std::to_string(anchor.first_sequence) + " when it was full");
    else if (end.offset != anchor.bytes)
      bad(file, end.offset,
          "ends with record " + std::to_string(walk.state.next_sequence - 1) + "; it ended with " +
              std::to_string(anchor.last_sequence) + " when it was full");
    else if (walk.state.chain != anchor.chain)
      bad(file, 0, "holds other records than when it was full");
    else
      return true;
    return false;
  }

  const AnchorList* anchors_;
  const FrameVisitor& visit_;
};

// A segment that was full and not dropped on purpose, before the oldest or behind the newest that is there.
const Anchor* missing(const AnchorList& anchors, const std::vector<SegmentFile>& files) {
  for (const auto& [epoch, anchor] : anchors.segments) {
    const bool there = !files.empty() && epoch >= files.front().epoch && epoch <= files.back().epoch;
    if (!anchor.retired && !there) return &anchor;
  }
  return nullptr;
}

}  // namespace

core::Result<Walk> walk_segments(const std::string& directory, const AnchorList* anchors, const FrameVisitor& visit) {
  auto files = list_segments(directory);
  if (!files) return std::unexpected(files.error());
  Walker walker{anchors, visit};
  if (anchors != nullptr) {
    if (const Anchor* const gone = missing(*anchors, *files)) {
      walker.bad({.epoch = gone->epoch, .path = segment_path(directory, gone->epoch)}, 0,
                 "is missing; it held the records " + std::to_string(gone->first_sequence) + " to " +
                     std::to_string(gone->last_sequence));
      return std::move(walker.walk);
    }
  }
  for (std::size_t i = 0; i < files->size(); ++i) {
    const SegmentFile& file = (*files)[i];
    if (i > 0 && file.epoch != (*files)[i - 1].epoch + 1) {
      walker.bad(file, 0, "the segment before it is missing");
      break;
    }
    // Looked at before this one is read: once the next segment is begun, this one gets no more records.
    bool sealed = false;
    if (i + 1 < files->size()) {
      const auto unused = is_unused((*files)[i + 1].path);
      if (!unused) return std::unexpected(unused.error());
      sealed = !*unused;
    }
    auto bytes = read_segment(file.path);
    if (!bytes) return std::unexpected(bytes.error());
    if (!sealed && used_bytes(*bytes) == 0) break;
    if (!walker.segment(file, std::move(*bytes), i == 0, sealed) || !sealed) break;
  }
  walker.walk.report.open_intents = walker.walk.replay.open().size();
  return std::move(walker.walk);
}

}  // namespace ganglion::metering
