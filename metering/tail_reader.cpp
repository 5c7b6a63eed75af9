// See metering/tail_reader.hpp.

#include "metering/tail_reader.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace ganglion::metering {
namespace {

constexpr std::size_t kReadBytes = 256 * 1024;  // more than any frame

}  // namespace

TailReader::TailReader(std::string directory, std::uint64_t after)
    : directory_(std::move(directory)), position_(after) {}

TailReader::~TailReader() {
  if (fd_ >= 0) ::close(fd_);
}

std::unexpected<core::Error> TailReader::broken(const std::string& what) const {
  return core::fail(core::ErrorKind::ledger_unavailable, "ledger segment " + std::to_string(epoch_) + " at offset " +
                                                             std::to_string(offset_) + ": " + what +
                                                             ". Run `ganglion ledger verify`.");
}

core::Result<void> TailReader::open_segment(std::uint64_t epoch) {
  const std::string path = segment_path(directory_, epoch);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return core::fail(core::ErrorKind::ledger_unavailable,
                      "cannot open " + path + ": " + std::system_category().message(errno));
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
  epoch_ = epoch;
  offset_ = 0;
  buffer_.clear();
  buffer_at_ = 0;
  return {};
}

// Opens the newest segment that begins at or before the record behind position_. False: nothing is there yet.
core::Result<bool> TailReader::open_first(std::uint64_t limit) {
  const auto files = list_segments(directory_);
  if (!files) return std::unexpected(files.error());
  std::uint64_t oldest = 0;
  for (auto file = files->rbegin(); file != files->rend(); ++file) {
    const auto start = read_segment_start(*file);
    // The header of the newest may be being written right now; what was durable is whole.
    if (!start && limit == kNoLimit && oldest == 0) continue;
    if (!start) return std::unexpected(start.error());
    if (start->sequence == 0) continue;
    oldest = start->sequence;
    if (position_ != 0 && oldest > position_ + 1) continue;
    if (position_ == 0 && std::next(file) != files->rend()) continue;
    if (auto opened = open_segment(file->epoch); !opened) return std::unexpected(opened.error());
    next_sequence_ = oldest;
    return true;
  }
  if (position_ != 0)
    return core::fail(core::ErrorKind::ledger_unavailable,
                      oldest == 0 ? "the ledger in " + directory_ + " is empty, yet record " +
                                        std::to_string(position_) + " was read from it before"
                                  : "records " + std::to_string(position_ + 1) + " to " + std::to_string(oldest - 1) +
                                        " are no longer in the ledger in " + directory_);
  return false;
}

// A segment that was written anew after a failed sync has its name and another file: on in that one.
core::Result<bool> TailReader::reopen_if_replaced() {
  const std::string path = segment_path(directory_, epoch_);
  struct stat ours{};
  struct stat named{};
  if (::fstat(fd_, &ours) != 0 || ::stat(path.c_str(), &named) != 0) return false;
  if (ours.st_ino == named.st_ino && ours.st_dev == named.st_dev) return false;
  const std::uint64_t offset = offset_;
  if (auto opened = open_segment(epoch_); !opened) return std::unexpected(opened.error());
  offset_ = buffer_at_ = offset;
  return true;
}

core::Result<void> TailReader::refill() {
  auto read = read_bytes(fd_, offset_, kReadBytes, segment_path(directory_, epoch_));
  if (!read) return std::unexpected(read.error());
  buffer_ = std::move(*read);
  buffer_at_ = offset_;
  return {};
}

// Whether the next segment has records: then this one gets no more.
core::Result<bool> TailReader::next_begun() const {
  const SegmentFile next{.epoch = epoch_ + 1, .path = segment_path(directory_, epoch_ + 1)};
  const auto there = [&] { return ::access(next.path.c_str(), F_OK) == 0; };
  if (!there()) {
    const auto files = list_segments(directory_);
    if (!files) return std::unexpected(files.error());
    if (files->empty() || files->back().epoch <= epoch_ + 1) return false;
    // The writer may have come two segments further between the two looks.
    if (!there()) return broken("the segment after it is missing");
  }
  const auto unused = is_unused(next.path);
  if (!unused) return std::unexpected(unused.error());
  return !*unused;
}

core::Result<TailReader::Step> TailReader::step(std::uint64_t limit, Frame& frame) {
  while (true) {
    FrameStatus status = FrameStatus::end;
    if (offset_ < buffer_at_ + buffer_.size())
      status = parse_frame(std::string_view{buffer_}.substr(offset_ - buffer_at_), frame);
    bool sealed = false;
    if (status != FrameStatus::ok) {
      // In this order: what was written before the next segment began is seen by the read that follows.
      const auto begun = buffer_at_ == offset_ && !buffer_.empty() ? next_begun() : core::Result<bool>{false};
      if (!begun) return std::unexpected(begun.error());
      sealed = *begun;
      if (auto read = refill(); !read) return std::unexpected(read.error());
      status = parse_frame(buffer_, frame);
      if (status != FrameStatus::ok && !sealed) {
        const auto again = next_begun();
        if (!again) return std::unexpected(again.error());
        sealed = *again;
        if (sealed) {
          if (auto read = refill(); !read) return std::unexpected(read.error());
          status = parse_frame(buffer_, frame);
        }
      }
    }
    if (status == FrameStatus::ok) return Step::frame;
    if (status == FrameStatus::newer) return broken("written by a newer version of ganglion");
    if (status == FrameStatus::end && sealed) {
      if (auto opened = open_segment(epoch_ + 1); !opened) return std::unexpected(opened.error());
      continue;
    }
    const auto replaced = reopen_if_replaced();
    if (!replaced) return std::unexpected(replaced.error());
    if (*replaced) continue;
    // A frame that is being written right now is not yet whole; one that was durable is.
    if (sealed || limit != kNoLimit) return broken("record " + std::to_string(next_sequence_) + " is not readable");
    if (position_ >= next_sequence_)
      return broken("the ledger ends at record " + std::to_string(next_sequence_ - 1) + ", yet record " +
                    std::to_string(position_) + " was read before: an older copy, or another ledger");
    return Step::end;
  }
}

core::Result<std::size_t> TailReader::poll(std::uint64_t limit, std::size_t records_max, const Visitor& visit) {
  if (limit < position_)
    return core::fail(core::ErrorKind::ledger_unavailable,
                      "the ledger in " + directory_ + " ends at record " + std::to_string(limit) + ", yet record " +
                          std::to_string(position_) + " was read before: an older copy, or another ledger");
  if (limit == position_) return 0;
  if (fd_ < 0) {
    const auto opened = open_first(limit);
    if (!opened) return std::unexpected(opened.error());
    if (!*opened) return 0;
  }
  buffer_.clear();  // what follows the last record was zeros then
  buffer_at_ = offset_;
  std::size_t visited = 0;
  while (visited < records_max && next_sequence_ <= limit) {
    Frame frame;
    const auto stepped = step(limit, frame);
    if (!stepped) return std::unexpected(stepped.error());
    if (*stepped == Step::end) break;
    if (frame.sequence != next_sequence_)
      return broken("record " + std::to_string(frame.sequence) + " where " + std::to_string(next_sequence_) +
                    " is due");
    if (frame.type == RecordType::terminal && frame.sequence > position_) {
      std::uint64_t intent = 0;
      if (!decode_terminal(frame.payload, frame.version, record_, intent)) return broken("not a terminal record");
      record_.sequence = frame.sequence;
      visit(record_);
      ++visited;
    }
    position_ = std::max(position_, frame.sequence);
    offset_ += frame.bytes;
    ++next_sequence_;
  }
  return visited;
}

}  // namespace ganglion::metering
