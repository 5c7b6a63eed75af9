// See metering/segment_scan.hpp.

#include "metering/segment_scan.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <system_error>

namespace ganglion::metering {
namespace {

constexpr std::string_view kSuffix = ".segment";
constexpr std::size_t kDigits = 12;
constexpr std::size_t kStartBytes = 512;  // holds a segment's first frame

std::unexpected<core::Error> io_error(const std::string& what, const std::string& path, int error) {
  return core::fail(core::ErrorKind::ledger_unavailable,
                    what + " " + path + ": " + std::system_category().message(error));
}

}  // namespace

std::string segment_path(const std::string& directory, std::uint64_t epoch) {
  std::string digits = std::to_string(epoch);
  digits.insert(0, kDigits - std::min(kDigits, digits.size()), '0');
  return directory + "/" + digits + std::string{kSuffix};
}

core::Result<std::vector<SegmentFile>> list_segments(const std::string& directory) {
  std::vector<SegmentFile> out;
  std::error_code error;
  for (std::filesystem::directory_iterator it{directory, error}, end; !error && it != end; it.increment(error)) {
    const std::string file = it->path().filename().string();
    if (!file.ends_with(kSuffix)) continue;
    const char* const last = file.data() + file.size() - kSuffix.size();
    std::uint64_t epoch = 0;
    const auto parsed = std::from_chars(file.data(), last, epoch);
    if (parsed.ec != std::errc{} || parsed.ptr != last || epoch == 0) continue;
    out.push_back({.epoch = epoch, .path = directory + "/" + file});
  }
  if (error)
    return core::fail(core::ErrorKind::ledger_unavailable, "cannot list " + directory + ": " + error.message());
  std::ranges::sort(out, {}, &SegmentFile::epoch);
  return out;
}

core::Result<std::string> read_segment(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error("cannot open", path, errno);
  struct stat info{};
  if (::fstat(fd, &info) != 0 || static_cast<std::uint64_t>(info.st_size) > 4 * kSegmentBytesMax) {
    ::close(fd);
    return io_error("cannot read", path, EFBIG);
  }
  auto out = read_bytes(fd, 0, static_cast<std::size_t>(info.st_size), path);
  ::close(fd);
  return out;
}

core::Result<std::string> read_bytes(int fd, std::uint64_t offset, std::size_t bytes, const std::string& path) {
  std::string out;
  int failed = 0;
  out.resize_and_overwrite(bytes, [&](char* to, std::size_t size) {
    std::size_t got = 0;
    while (got < size) {
      const ssize_t part = ::pread(fd, to + got, size - got, static_cast<off_t>(offset + got));
      if (part < 0 && errno == EINTR) continue;
      if (part < 0) failed = errno;
      if (part <= 0) break;
      got += static_cast<std::size_t>(part);
    }
    return got;
  });
  if (failed != 0) return io_error("cannot read", path, failed);
  return out;
}

core::Result<SegmentStart> read_segment_start(const SegmentFile& file) {
  const int fd = ::open(file.path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error("cannot open", file.path, errno);
  const auto head = read_bytes(fd, 0, kStartBytes, file.path);
  ::close(fd);
  if (!head) return std::unexpected(head.error());
  SegmentStart out;
  Frame frame;
  const FrameStatus status = parse_frame(*head, frame);
  if (status == FrameStatus::end) return out;
  if (status != FrameStatus::ok || !decode_segment(frame.payload, frame.version, out.header))
    return core::fail(core::ErrorKind::ledger_unavailable,
                      "ledger segment " + file.name() + " has no readable header. Run `ganglion ledger verify`.");
  out.sequence = frame.sequence;
  return out;
}

core::Result<std::uint64_t> oldest_sequence(const std::string& directory) {
  const auto files = list_segments(directory);
  if (!files) return std::unexpected(files.error());
  for (const SegmentFile& file : *files) {
    const auto start = read_segment_start(file);
    if (!start) return std::unexpected(start.error());
    if (start->sequence != 0) return start->sequence;
  }
  return 0;
}

core::Result<bool> is_unused(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return io_error("cannot open", path, errno);
  std::array<char, kFrameHeaderBytes> head{};
  const ssize_t got = ::pread(fd, head.data(), head.size(), 0);
  const int error = errno;
  ::close(fd);
  if (got < 0) return io_error("cannot read", path, error);
  return std::ranges::all_of(head, [](char c) { return c == '\0'; });
}

std::uint64_t used_bytes(std::string_view bytes) {
  const std::size_t last = bytes.find_last_not_of('\0');
  return last == std::string_view::npos ? 0 : last + 1;
}

std::string Replay::apply_checkpoint(const Frame& frame) {
  --checkpoint_left_;
  if (carries_left_ > 0) {
    --carries_left_;
    OpenIntent open;
    if (frame.type != RecordType::carry || !decode_open(frame.payload, frame.version, open))
      return "not a carry record";
    if (!first_segment_ && !open_.contains(open.sequence)) return "carries an intent that is not open";
    carried_[open.sequence] = std::move(open);
  } else {
    TenantTotal total;
    if (frame.type != RecordType::total || !decode_total(frame.payload, total)) return "not a total record";
    totals_.restore(total);
  }
  if (checkpoint_left_ == 0) {
    if (!first_segment_ && carried_.size() != open_.size()) return "checkpoint lacks an open intent";
    open_ = std::move(carried_);
    carried_.clear();
    first_segment_ = false;
  }
  return {};
}

std::string Replay::apply(const Frame& frame, LedgerRecord& record) {
  if (checkpoint_left_ > 0) return apply_checkpoint(frame);
  closed_ = frame.type == RecordType::close;
  switch (frame.type) {
    case RecordType::segment: {
      SegmentHeader header;
      if (!decode_segment(frame.payload, frame.version, header)) return "not a segment header";
      if (ledger_ != LedgerId{} && header.ledger != ledger_) return "a segment of another ledger";
      ledger_ = header.ledger;
      last_us_ = std::max(last_us_, header.time_us);
      if (epoch_ != 0 && header.epoch != epoch_ + 1) return "segment number out of order";
      epoch_ = header.epoch;
      carries_left_ = header.carries;
      checkpoint_left_ = header.carries + header.totals;
      if (checkpoint_left_ == 0) {
        if (!first_segment_ && !open_.empty()) return "checkpoint lacks an open intent";
        first_segment_ = false;
      }
      return {};
    }
    case RecordType::intent: {
      OpenIntent open;
      if (!decode_intent(frame.payload, frame.version, open)) return "not an intent record";
      last_us_ = std::max(last_us_, Decoder{frame.payload}.number());  // begins with its time
      open.sequence = frame.sequence;
      open_[frame.sequence] = std::move(open);
      return {};
    }
    case RecordType::attempt: {
      std::uint64_t intent = 0;
      std::uint32_t number = 0;
      std::string backend;
      if (!decode_attempt(frame.payload, intent, number, backend)) return "not an attempt record";
      const auto found = open_.find(intent);
      if (found == open_.end()) return "attempt of an intent that is not open";
      if (found->second.attempts < kAttemptsMax) {
        ++found->second.attempts;
        Encoder{found->second.backends}.text(backend);
      }
      return {};
    }
    case RecordType::terminal: {
      std::uint64_t intent = 0;
      if (!decode_terminal(frame.payload, frame.version, record, intent)) return "not a terminal record";
      if (intent != 0 && open_.erase(intent) == 0) return "terminal of an intent that is not open";
      record.sequence = frame.sequence;
      last_us_ = std::max(last_us_, static_cast<std::uint64_t>(record.time.count()));
      totals_.add(static_cast<std::uint64_t>(record.time.count()), record.tenant, record.tier, record.exact);
      return {};
    }
    case RecordType::close:
      return frame.payload.empty() ? "" : "not a close record";
    case RecordType::carry:
    case RecordType::total:
      break;
  }
  return "checkpoint record outside a checkpoint";
}

ScanEnd scan_segment(std::string_view bytes, bool adopt, ChainState& state, Replay& replay, const FrameVisitor& visit,
                     ScanEnd from) {
  ScanEnd out = std::move(from);
  out.kind = ScanEnd::Kind::end;
  out.problem.clear();
  out.newer = out.whole = false;
  ChainHasher hasher;
  Frame frame;
  const auto bad = [&](std::string problem) {
    out.kind = ScanEnd::Kind::bad;
    out.problem = std::move(problem);
    return out;
  };
  LedgerRecord record;
  while (true) {
    const std::string_view rest = bytes.substr(out.offset);
    const FrameStatus status = parse_frame(rest, frame);
    if (status == FrameStatus::bad) return bad("bad length, type or checksum");
    if (status == FrameStatus::newer) {
      out.newer = true;
      return bad("written by a newer version of ganglion");
    }
    if (status == FrameStatus::end) {
      if (used_bytes(rest) == 0) return out;
      return bad("bytes after the end");
    }
    const bool first = out.records == 0;
    if (first != (frame.type == RecordType::segment))
      return bad(first ? "does not begin with a segment header" : "segment header inside a segment");
    if (first && adopt) {
      SegmentHeader header;
      if (!decode_segment(frame.payload, frame.version, header)) return bad("not a segment header");
      state = {.next_sequence = frame.sequence, .chain = header.previous};
    }
    if (frame.sequence != state.next_sequence)
      return bad("sequence " + std::to_string(frame.sequence) + " where " + std::to_string(state.next_sequence) +
                 " is due");
    if (chain_of(rest, frame, state.chain, hasher) != frame.chain) return bad("hash chain broken");
    if (std::string problem = replay.apply(frame, record); !problem.empty()) {
      out.whole = true;
      return bad(std::move(problem));
    }
    if (first) out.first_sequence = frame.sequence;
    out.durable_sequence = std::max(out.durable_sequence, frame.durable_sequence);
    state = {.next_sequence = frame.sequence + 1, .chain = frame.chain};
    out.offset += frame.bytes;
    ++out.records;
    if (visit) visit(frame, record);
  }
}

bool was_durable(std::string_view bytes, std::uint64_t offset, std::uint64_t sequence) {
  const std::uint64_t end = used_bytes(bytes);
  Frame frame;
  for (std::uint64_t at = offset + 1; at + kFrameHeaderBytes <= end; ++at) {
    if (parse_frame(bytes.substr(at), frame) != FrameStatus::ok || frame.sequence <= sequence) continue;
    if (frame.durable_sequence >= sequence) return true;
    at += frame.bytes - 1;
  }
  return false;
}

}  // namespace ganglion::metering
