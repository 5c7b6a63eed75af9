// See metering/recovery.hpp.

#include "metering/recovery.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "core/log.hpp"
#include "metering/anchors.hpp"
#include "metering/write_buffer.hpp"

namespace ganglion::metering {
namespace {

struct Scanned {
  std::string bytes;
  ChainState state;
  Replay replay;
  ScanEnd end;
};

core::Result<Scanned> scan_one(const SegmentFile& file) {
  auto bytes = read_segment(file.path);
  if (!bytes) return std::unexpected(bytes.error());
  Scanned out;
  out.bytes = std::move(*bytes);
  out.end = scan_segment(out.bytes, true, out.state, out.replay);
  if (out.end.newer)
    return core::fail(core::ErrorKind::ledger_unavailable,
                      "ledger segment " + file.name() + " at offset " + std::to_string(out.end.offset) +
                          " was written by a newer version of ganglion; start that one. Nothing was changed.");
  return out;
}

std::unexpected<core::Error> corrupt(const SegmentFile& file, const ScanEnd& end) {
  return core::fail(core::ErrorKind::ledger_unavailable,
                    "ledger segment " + file.name() + " is corrupt at offset " + std::to_string(end.offset) + ": " +
                        end.problem +
                        "; records after it exist, so this is no torn tail. Run `ganglion ledger verify`.");
}

// Overwrites [from, to) with zeros and syncs.
core::Result<void> wipe(LedgerStorage& storage, const SegmentFile& file, std::uint64_t from, std::uint64_t to) {
  if (from >= to) return {};
  auto opened = storage.open(file.path);
  if (!opened) return std::unexpected(opened.error());
  const std::string zeros(1024 * 1024, '\0');
  // From the end to the front: a crash in between leaves a torn tail again, never a gap with records after it.
  while (to > from) {
    const std::uint64_t part = std::min<std::uint64_t>(zeros.size(), to - from);
    to -= part;
    bool out_of_space = false;
    auto wrote = (*opened)->write(to, std::string_view{zeros}.substr(0, part), out_of_space);
    if (!wrote) return wrote;
  }
  return (*opened)->sync();
}

// Moves a file that holds nothing readable out of the way. What it is, is for people to say: a crash may have cut a
// segment's very beginning, or somebody put the file there.
core::Result<void> set_aside(const SegmentFile& file) {
  std::error_code error;
  std::string to = file.path + std::string{kSetAsideSuffix};
  for (int i = 1; std::filesystem::exists(to, error) && i < 1000; ++i)
    to = file.path + "." + std::to_string(i) + std::string{kSetAsideSuffix};
  std::filesystem::rename(file.path, to, error);
  if (error)
    return core::fail(core::ErrorKind::ledger_unavailable, "cannot rename " + file.path + ": " + error.message());
  core::log(core::LogLevel::warn, "ledger_segment_set_aside", {{"file", to}});
  return {};
}

// Whether everything before this segment is known to have been durable while it was written.
bool previous_durable(const Scanned& scanned) {
  return scanned.end.first_sequence > 0 && scanned.end.durable_sequence + 1 >= scanned.end.first_sequence;
}

// The segment before the last, checked against the last one's beginning.
bool continues(const Scanned& previous, const Scanned& last) {
  if (previous.end.kind != ScanEnd::Kind::end || last.end.records == 0) return false;
  SegmentHeader header;
  Frame frame;
  return parse_frame(last.bytes, frame) == FrameStatus::ok && decode_segment(frame.payload, frame.version, header) &&
         frame.sequence == previous.state.next_sequence && header.previous == previous.state.chain;
}

void fill(Recovered& out, const SegmentFile& file, Scanned& scanned) {
  out.epoch = file.epoch;
  out.offset = scanned.end.offset;
  out.state = scanned.state;
  out.replay = std::move(scanned.replay);
  out.report.records_scanned += scanned.end.records;
}

// Cuts the tail of `file` after its last good record; corruption if that had been durable.
core::Result<void> cut(LedgerStorage& storage, const SegmentFile& file, const Scanned& scanned, Recovered& out) {
  if (scanned.end.kind == ScanEnd::Kind::end) return {};
  if (was_durable(scanned.bytes, scanned.end.offset, scanned.state.next_sequence)) return corrupt(file, scanned.end);
  const std::uint64_t used = used_bytes(scanned.bytes);
  out.report.torn_bytes += used - scanned.end.offset;
  return wipe(storage, file, scanned.end.offset, used);
}

}  // namespace

namespace {

std::string note_path(const std::string& directory) {
  return directory + "/sync-failed";
}

// The note is this file under another name: a disk that is full has no room for a new one, and needs none for that.
std::string blank_note_path(const std::string& directory) {
  return directory + "/sync-ok";
}

// After all was written anew, and at every start.
void lay_out_note(const std::string& directory) {
  std::error_code error;
  std::filesystem::rename(note_path(directory), blank_note_path(directory), error);
  if (!error || std::filesystem::exists(blank_note_path(directory), error)) return;
  const int fd = ::open(blank_note_path(directory).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd >= 0) ::close(fd);
}

// Puts `bytes` on new blocks and in the place of the file, durably. The new file.
core::Result<std::unique_ptr<LedgerFile>> write_anew(const SegmentFile& file, std::string_view bytes,
                                                     LedgerStorage& storage) {
  const std::string copy = file.path + ".anew";
  std::error_code error;
  std::filesystem::remove(copy, error);
  const std::atomic<bool> go_on{false};
  auto made = storage.create(copy, bytes.size(), go_on);
  if (!made) return made;
  bool out_of_space = false;
  auto done = (*made)->write(0, bytes, out_of_space);
  if (done) done = (*made)->sync();
  if (!done) return std::unexpected(done.error());
  std::filesystem::rename(copy, file.path, error);
  if (error) return core::fail(core::ErrorKind::ledger_unavailable, "cannot rename " + copy + ": " + error.message());
  if (auto named = sync_directory(std::filesystem::path{file.path}.parent_path().string()); !named)
    return std::unexpected(named.error());
  return made;
}

core::Result<void> write_anew(const SegmentFile& file, LedgerStorage& storage) {
  const auto bytes = read_segment(file.path);
  if (!bytes) return std::unexpected(bytes.error());
  if (auto made = write_anew(file, *bytes, storage); !made) return std::unexpected(made.error());
  return {};
}

core::Result<void> write_anew_after_failed_sync(const std::string& directory, LedgerStorage& storage) {
  std::error_code error;
  if (!std::filesystem::exists(note_path(directory), error)) return {};
  const auto files = list_segments(directory);
  if (!files) return std::unexpected(files.error());
  constexpr std::size_t kLast = 3;  // two with records, and a prepared one
  for (std::size_t i = files->size() - std::min(files->size(), kLast); i < files->size(); ++i)
    if (auto done = write_anew((*files)[i], storage); !done) return done;
  core::log(core::LogLevel::warn, "ledger_written_anew", {{"why", "a sync had failed"}});
  return {};
}

}  // namespace

void note_failed_sync(const std::string& directory) {
  std::error_code error;
  std::filesystem::rename(blank_note_path(directory), note_path(directory), error);
  const int fd = ::open(note_path(directory).c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
  [[maybe_unused]] const auto synced = sync_directory(directory);  // nothing more can be done
}

core::Result<std::unique_ptr<LedgerFile>> write_anew_while_running(const std::string& directory, std::uint64_t epoch,
                                                                   std::uint64_t offset, const ChainState& state,
                                                                   LedgerStorage& storage) {
  const auto gone = [](const SegmentFile& file) {
    return core::fail(core::ErrorKind::ledger_unavailable,
                      file.name() + " can no longer be read as it was written; restart the gateway");
  };
  const SegmentFile file{.epoch = epoch, .path = segment_path(directory, epoch)};
  auto scanned = scan_one(file);
  if (!scanned) return std::unexpected(scanned.error());
  // The chain's hash covers every byte of every record: what was read is what the writer wrote, or this differs.
  if (scanned->end.offset != offset || scanned->state.next_sequence != state.next_sequence ||
      scanned->state.chain != state.chain)
    return gone(file);
  const SegmentFile before{.epoch = epoch - 1, .path = segment_path(directory, epoch - 1)};
  std::error_code error;
  if (epoch > 1 && std::filesystem::exists(before.path, error)) {
    const auto previous = scan_one(before);
    if (!previous) return std::unexpected(previous.error());
    if (!continues(*previous, *scanned)) return gone(before);
    if (auto made = write_anew(before, previous->bytes, storage); !made) return made;
  }
  auto made = write_anew(file, scanned->bytes, storage);
  if (!made) return made;
  lay_out_note(directory);
  return made;
}

namespace {

core::Result<Recovered> recover_segments(const std::string& directory, LedgerStorage& storage) {
  if (auto done = write_anew_after_failed_sync(directory, storage); !done) return std::unexpected(done.error());
  lay_out_note(directory);
  Recovered out;
  auto listed = list_segments(directory);
  if (!listed) return std::unexpected(listed.error());
  std::vector<SegmentFile> files = std::move(*listed);
  for (std::size_t i = 1; i < files.size(); ++i)
    if (files[i].epoch != files[i - 1].epoch + 1)
      return core::fail(core::ErrorKind::ledger_unavailable,
                        "ledger segment " + segment_path(directory, files[i - 1].epoch + 1) + " is missing");
  // At most one unused segment stands at the end; a process killed while filling it leaves a short one, which the
  // caller replaces.
  if (!files.empty()) {
    const auto unused = is_unused(files.back().path);
    if (!unused) return std::unexpected(unused.error());
    if (*unused) {
      out.spare = files.back();
      files.pop_back();
    }
  }
  out.report.segments = files.size();
  if (files.empty()) {
    out.fresh = true;
    return out;
  }
  auto last = scan_one(files.back());
  if (!last) return std::unexpected(last.error());
  const bool whole = last->end.records > 0 && last->replay.checkpoint_complete();
  if (whole && (files.size() == 1 || previous_durable(*last))) {
    if (auto done = cut(storage, files.back(), *last, out); !done) return std::unexpected(done.error());
    fill(out, files.back(), *last);
    return out;
  }
  // The crash came right after a new segment was begun: the one before decides.
  if (files.size() == 1) {
    // Not even the first segment's header was whole. In a ledger that has had records it is more than a crash.
    if (files.back().epoch != 1 || std::filesystem::exists(anchors_path(directory)) ||
        was_durable(last->bytes, last->end.offset, last->state.next_sequence))
      return corrupt(files.back(), last->end);
    if (auto done = set_aside(files.back()); !done) return std::unexpected(done.error());
    out.report.torn_bytes += used_bytes(last->bytes);
    out.fresh = true;
    return out;
  }
  const SegmentFile& before = files[files.size() - 2];
  auto previous = scan_one(before);
  if (!previous) return std::unexpected(previous.error());
  if (whole && continues(*previous, *last)) {
    if (auto done = cut(storage, files.back(), *last, out); !done) return std::unexpected(done.error());
    fill(out, files.back(), *last);
    return out;
  }
  const std::uint64_t due = last->end.records > 0 ? last->state.next_sequence : previous->state.next_sequence;
  if (was_durable(last->bytes, last->end.offset, due)) return corrupt(files.back(), last->end);
  if (last->end.durable_sequence >= previous->state.next_sequence) return corrupt(before, previous->end);
  // Nothing of the last segment was ever acknowledged: go on in the one before, and use the last one again later.
  if (auto done = cut(storage, before, *previous, out); !done) return std::unexpected(done.error());
  out.report.torn_bytes += used_bytes(last->bytes);
  if (auto done = set_aside(files.back()); !done) return std::unexpected(done.error());
  if (out.spare) {
    std::error_code ignored;
    std::filesystem::remove(out.spare->path, ignored);
    out.spare.reset();
  }
  fill(out, before, *previous);
  return out;
}

// What a killed process had appended and not yet written goes where it would have.
core::Result<void> take_unwritten(const std::string& directory, LedgerStorage& storage, Recovered& out) {
  const std::string bytes = read_unwritten(directory, out.state);
  std::string_view left = bytes;
  Frame frame;
  LedgerRecord record;
  while (parse_frame(left, frame) == FrameStatus::ok) {
    if (const std::string wrong = out.replay.apply(frame, record); !wrong.empty()) {
      core::log(core::LogLevel::error, "ledger_buffer_refused", {{"sequence", frame.sequence}, {"problem", wrong}});
      break;
    }
    out.state = {.next_sequence = frame.sequence + 1, .chain = frame.chain};
    ++out.report.records_scanned;
    left.remove_prefix(frame.bytes);
  }
  const std::string_view taken = std::string_view{bytes}.substr(0, bytes.size() - left.size());
  if (taken.empty()) return {};
  auto file = storage.open(segment_path(directory, out.epoch));
  if (!file) return std::unexpected(file.error());
  bool out_of_space = false;
  if (auto wrote = (*file)->write(out.offset, taken, out_of_space); !wrote) return wrote;
  out.offset += taken.size();
  return (*file)->sync();
}

}  // namespace

core::Result<Recovered> recover(const std::string& directory, LedgerStorage& storage) {
  auto out = recover_segments(directory, storage);
  if (!out || out->fresh) return out;
  if (auto taken = take_unwritten(directory, storage, *out); !taken) return std::unexpected(taken.error());
  return out;
}

}  // namespace ganglion::metering
