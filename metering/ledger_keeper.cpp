// See metering/ledger_keeper.hpp.

#include "metering/ledger_keeper.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

#include "core/digest.hpp"
#include "core/log.hpp"
#include "core/thread.hpp"
#include "metering/ledger_id.hpp"
#include "metering/segment_scan.hpp"

namespace ganglion::metering {
namespace {

constexpr std::chrono::milliseconds kInterval{1000};
constexpr std::size_t kBatchRecords = 20'000;
// Intents alone move the position too, but are not worth a write each second.
constexpr std::uint64_t kQuietRecords = 10'000;
// The one before the current segment may still decide what a recovery does.
constexpr std::uint64_t kSegmentsKept = 2;

}  // namespace

LedgerKeeper::LedgerKeeper(const LedgerOptions& options, const Ledger& ledger, const core::Clock& clock,
                           std::unique_ptr<RollupStore> store, AnchorFile anchors, std::uint64_t position)
    : options_(options),
      ledger_(ledger),
      clock_(clock),
      wall_at_start_(clock.wall()),
      steady_at_start_(clock.steady()),
      store_(std::move(store)),
      anchors_(std::move(anchors)),
      reader_(std::make_unique<TailReader>(options.directory, position)) {
  status_.position = position;
}

core::Result<std::unique_ptr<LedgerKeeper>> LedgerKeeper::open(const LedgerOptions& options, const Ledger& ledger,
                                                               const core::Clock& clock, RollupStore::Between between,
                                                               Holds holds) {
  auto anchors = AnchorFile::open(options.directory, ledger_id_bytes(ledger.id()));
  if (!anchors) return std::unexpected(anchors.error());
  auto store = RollupStore::open(options.directory, ledger.id(), std::move(between));
  if (!store) return std::unexpected(store.error());
  const auto position = (*store)->position();
  if (!position) return std::unexpected(position.error());
  if (*position > ledger.stats().durable_sequence)
    return core::fail(core::ErrorKind::ledger_unavailable,
                      "rollups.db holds usage up to record " + std::to_string(*position) + ", but the ledger in " +
                          options.directory + " ends at " + std::to_string(ledger.stats().durable_sequence) +
                          ": its newest records are missing. Put them back, or move rollups.db away to sum up what is "
                          "left. Nothing was changed.");
  std::unique_ptr<LedgerKeeper> keeper{
      new LedgerKeeper{options, ledger, clock, std::move(*store), std::move(*anchors), *position}};
  keeper->holds_ = std::move(holds);
  keeper->thread_ = core::start_thread("ledger-keeper", [raw = keeper.get()] { raw->run(); });
  return keeper;
}

LedgerKeeper::~LedgerKeeper() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void LedgerKeeper::run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    [[maybe_unused]] const auto done = run_once();  // a failure is in the status and in the log
    lock.lock();
    wake_.wait_for(lock, kInterval, [this] { return stop_; });
  }
}

core::Result<void> LedgerKeeper::run_once() {
  const std::lock_guard working(work_);
  core::Result<void> first;
  for (const auto task : {&LedgerKeeper::sum_up, &LedgerKeeper::seal_full, &LedgerKeeper::drop_old}) {
    core::Result<void> done;
    try {
      done = (this->*task)();
    } catch (const std::exception& thrown) {  // for want of memory, mostly
      reader_.reset();                        // it may be past records that were not stored
      done = core::fail(core::ErrorKind::ledger_unavailable, thrown.what());
    }
    if (!done && first) first = std::move(done);
  }
  const std::lock_guard lock(mutex_);
  const std::string problem = first ? std::string{} : first.error().message;
  if (!first) ++status_.failures;
  if (problem != status_.problem) {
    core::log(first ? core::LogLevel::info : core::LogLevel::error, first ? "ledger_kept_again" : "ledger_not_kept",
              {{"problem", first ? status_.problem : problem}});
    status_.problem = problem;
  }
  return first;
}

core::Result<void> LedgerKeeper::sum_up() {
  const std::uint64_t durable = ledger_.stats().durable_sequence;
  if (!reader_) {
    const std::lock_guard lock(mutex_);
    reader_ = std::make_unique<TailReader>(options_.directory, status_.position);
  }
  while (true) {
    batch_.clear();
    const auto read = reader_->poll(durable, kBatchRecords, [this](const LedgerRecord& record) { batch_.add(record); });
    std::uint64_t stored = 0;
    {
      const std::lock_guard lock(mutex_);
      stored = status_.position;
    }
    if (!read) {
      // It may be past records that were not stored: read them again.
      reader_ = std::make_unique<TailReader>(options_.directory, stored);
      return std::unexpected(read.error());
    }
    if (batch_.empty() && reader_->position() < stored + kQuietRecords) return {};
    if (auto done = store_->apply(batch_, reader_->position()); !done) {
      // Read again what was not stored.
      reader_ = std::make_unique<TailReader>(options_.directory, stored);
      return done;
    }
    const std::lock_guard lock(mutex_);
    status_.position = reader_->position();
    ++status_.batches;
    if (*read < kBatchRecords) return {};
  }
}

// Anchors each segment whose successor's beginning is durable.
core::Result<void> LedgerKeeper::seal_full() {
  const LedgerStats stats = ledger_.stats();
  const auto& sealed = anchors_.segments();
  if (!sealed.empty() && sealed.rbegin()->first + 1 >= stats.segments) return {};
  const auto files = list_segments(options_.directory);
  if (!files) return std::unexpected(files.error());
  for (std::size_t i = 0; i + 1 < files->size(); ++i) {
    const SegmentFile& file = (*files)[i];
    if (!sealed.empty() && file.epoch <= sealed.rbegin()->first) continue;
    const auto next = read_segment_start((*files)[i + 1]);
    if (!next) return std::unexpected(next.error());
    if (next->sequence == 0 || next->sequence > stats.durable_sequence) return {};
    if (auto done = seal(file); !done) return done;
  }
  return {};
}

// Reads the segment once more from the disk, to its last byte, before it is trusted for good.
core::Result<void> LedgerKeeper::seal(const SegmentFile& file) {
  const auto bytes = read_segment(file.path);
  if (!bytes) return std::unexpected(bytes.error());
  ChainState state;
  Replay replay;
  const ScanEnd end = scan_segment(*bytes, true, state, replay);
  std::string problem = end.kind == ScanEnd::Kind::bad ? end.problem : "";
  if (const auto& sealed = anchors_.segments(); problem.empty() && !sealed.empty()) {
    const auto start = read_segment_start(file);
    if (!start) return std::unexpected(start.error());
    const Anchor& before = sealed.rbegin()->second;
    if (file.epoch != before.epoch + 1 || start->sequence != before.last_sequence + 1 ||
        start->header.previous != before.chain)
      problem = "does not continue the segment before it";
  }
  if (!problem.empty())
    return core::fail(core::ErrorKind::ledger_unavailable, "ledger segment " + file.name() + " is corrupt at offset " +
                                                               std::to_string(end.offset) + ": " + problem +
                                                               ". Run `ganglion ledger verify`.");
  const std::string_view used = std::string_view{*bytes}.substr(0, end.offset);
  return anchors_.seal({.epoch = file.epoch,
                        .first_sequence = end.first_sequence,
                        .last_sequence = state.next_sequence - 1,
                        .bytes = end.offset,
                        .chain = state.chain,
                        .sha256 = core::hex(core::sha256(used))});
}

std::uint64_t LedgerKeeper::held_from() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t least = status_.position;
  for (const auto& [reader, position] : holds_) least = std::min(least, position());
  return least;
}

// A wall clock that leaps forward while we run makes nothing old.
core::WallTime LedgerKeeper::now() const {
  const auto ran = clock_.steady() - steady_at_start_;
  return std::min(clock_.wall(), wall_at_start_ + std::chrono::duration_cast<core::WallTime::duration>(ran));
}

core::Result<void> LedgerKeeper::drop_old() {
  if (options_.retention.count() == 0) return {};
  const auto oldest = now() - options_.retention;
  const auto oldest_us = std::chrono::duration_cast<std::chrono::microseconds>(oldest.time_since_epoch()).count();
  const std::uint64_t held = held_from();
  const std::uint64_t current = ledger_.stats().segments;
  const auto files = list_segments(options_.directory);
  if (!files) return std::unexpected(files.error());
  for (std::size_t i = 0; i + 1 < files->size(); ++i) {
    const SegmentFile& file = (*files)[i];
    const auto anchor = anchors_.segments().find(file.epoch);
    if (anchor == anchors_.segments().end() || file.epoch + kSegmentsKept > current) return {};
    // Its records are not younger than the beginning of the next segment.
    const auto next = read_segment_start((*files)[i + 1]);
    if (!next) return std::unexpected(next.error());
    if (anchor->second.last_sequence > held || static_cast<std::int64_t>(next->header.time_us) >= oldest_us) return {};
    if (!anchor->second.retired) {
      if (auto done = anchors_.retire(file.epoch); !done) return done;
    }
    if (::unlink(file.path.c_str()) != 0)
      return core::fail(core::ErrorKind::ledger_unavailable,
                        "cannot remove " + file.path + ": " + std::system_category().message(errno));
    core::log(core::LogLevel::info, "ledger_segment_dropped",
              {{"segment", file.name()}, {"last_sequence", anchor->second.last_sequence}});
    const std::lock_guard lock(mutex_);
    ++status_.segments_dropped;
  }
  return {};
}

void LedgerKeeper::hold(const std::string& reader, std::function<std::uint64_t()> position) {
  const std::lock_guard lock(mutex_);
  holds_.emplace_back(reader, std::move(position));
}

void LedgerKeeper::release(const std::string& reader) {
  const std::lock_guard lock(mutex_);
  std::erase_if(holds_, [&](const auto& hold) { return hold.first == reader; });
}

KeeperStatus LedgerKeeper::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace ganglion::metering
