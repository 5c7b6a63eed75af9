// See metering/ledger_writer.hpp.

#include "metering/ledger_writer.hpp"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/log.hpp"
#include "metering/calendar.hpp"

namespace ganglion::metering {
namespace {

constexpr std::uint64_t kSegmentBytesMin = 64 * 1024;
// The first segment is small, each next one twice as large: a fresh gateway starts at once, and one that runs for a day
// does not need hundreds of files.
constexpr std::uint64_t kFirstSegmentBytes = 8ULL * 1024 * 1024;
constexpr std::size_t kOpenIntentsMax = 65'536;
constexpr std::chrono::seconds kWriteRetry{1};
constexpr std::uint64_t kClockStepMin = 1'000;  // us; workers read the clock in any order

std::unexpected<core::Error> unavailable(const std::string& why) {
  return core::fail(core::ErrorKind::ledger_unavailable, "usage cannot be recorded: " + why);
}

// Clients are told no more than this: the operator's reason, which the log has, names files.
std::unexpected<core::Error> unavailable(LedgerState state) {
  return unavailable(state == LedgerState::broken ? "a write to disk failed" : "no space is left for more records");
}

}  // namespace

LedgerWriter::LedgerWriter(const LedgerOptions& options, const core::Clock& clock, LedgerHooks& hooks,
                           LedgerStorage& storage)
    : options_(options), clock_(clock), hooks_(hooks), storage_(storage) {}

LedgerWriter::~LedgerWriter() {
  close();
  supply_.reset();  // its thread uses the members below it
  commit_.reset();
}

std::uint64_t LedgerWriter::now_us() const {
  const auto since = clock_.wall().time_since_epoch();
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(since).count();
  const std::uint64_t now = us > 0 ? static_cast<std::uint64_t>(us) : 0;
  if (now + kClockStepMin < last_us_ && !clock_behind_) {
    clock_behind_ = true;
    core::log(
        core::LogLevel::error, "ledger_clock_behind",
        {{"clock", format_time(std::chrono::microseconds{now})},
         {"last_record", format_time(std::chrono::microseconds{last_us_})},
         {"problem", "the clock is before the last record; records keep its time until the clock has caught up"}});
  } else if (now >= last_us_ && clock_behind_) {
    clock_behind_ = false;
    core::log(core::LogLevel::info, "ledger_clock_caught_up", {{"clock", format_time(std::chrono::microseconds{now})}});
  }
  last_us_ = std::max(last_us_, now);
  return last_us_;
}

// Never more than a segment: small segments (tests) keep a small reserve.
std::uint64_t LedgerWriter::reserve_bytes() const {
  return std::min(options_.reserve_bytes, std::clamp(options_.segment_bytes, kSegmentBytesMin, kSegmentBytesMax));
}

std::uint64_t LedgerWriter::file_bytes(std::uint64_t epoch) const {
  return segment_bytes(epoch) + reserve_bytes() + reserve_bytes() / 2;
}

std::uint64_t LedgerWriter::segment_bytes(std::uint64_t epoch) const {
  const std::uint64_t grown = kFirstSegmentBytes << std::min<std::uint64_t>(epoch - 1, 7);
  return std::min(grown, std::clamp(options_.segment_bytes, kSegmentBytesMin, kSegmentBytesMax));
}

core::Result<void> LedgerWriter::start(Recovered&& recovered, const LedgerId& id, bool keep_open) {
  ledger_ = id;
  reopened_ = keep_open;
  report_ = recovered.report;
  const std::uint64_t durable = recovered.state.next_sequence - 1;
  commit_ =
      std::make_unique<GroupCommit>(options_.commit_interval_max, durable, hooks_,
                                    GroupCommit::Mending{.failed = [this] { note_failed_sync(options_.directory); },
                                                         .mend = [this] { return mend(); },
                                                         .mended = [this] { after_mending(); }});
  supply_ = std::make_unique<SegmentSupply>(storage_, options_.directory, [this](const auto& error) {
    const std::lock_guard lock(mutex_);
    supply_full_ = error.has_value();
    settle_state(error ? error->message : "space for the next segment is there");
  });
  chain_ = recovered.state;
  last_us_ = recovered.replay.last_us();
  totals_ = recovered.replay.totals();
  for (const auto& [sequence, open] : recovered.replay.open()) {
    Slot slot{.open = open, .used = true};
    if (LedgerRecord of; keep_open && decode_subject(open, of)) {
      slot.tenant = std::move(of.tenant);
      slot.tier = of.tier;
    }
    slots_.push_back(std::move(slot));
  }
  free_slots_.reserve(slots_.size());
  const std::uint64_t next = recovered.fresh ? 1 : recovered.epoch + 1;
  std::shared_ptr<LedgerFile> spare;
  std::error_code error;
  if (recovered.spare) {
    // A filling that was cut short leaves a short file.
    const bool whole = recovered.spare->epoch == next &&
                       std::filesystem::file_size(recovered.spare->path, error) == file_bytes(next) && !error;
    auto opened = whole ? storage_.open(recovered.spare->path)
                        : core::Result<std::unique_ptr<LedgerFile>>{std::unexpected(core::Error{})};
    if (opened)
      spare = std::move(*opened);
    else
      std::filesystem::remove(recovered.spare->path, error);
  }
  {
    const std::lock_guard lock(mutex_);
    if (recovered.fresh) {
      if (!spare) {
        auto created = create_segment(next);
        if (!created) return std::unexpected(created.error());
        spare = std::move(*created);
      }
      closed_ = false;
      buffer_ = std::make_unique<WriteBuffer>(options_.directory, storage_);
      if (auto begun = begin_segment(next, std::move(spare)); !begun) return begun;
    } else if (auto resumed = resume(recovered, std::move(spare)); !resumed) {
      return resumed;
    }
  }
  if (!keep_open) {
    if (auto aborted = abort_open(); !aborted) return aborted;
  }
  return flush();
}

core::Result<std::shared_ptr<LedgerFile>> LedgerWriter::create_segment(std::uint64_t epoch) {
  const std::atomic<bool> go_on{false};
  return storage_.create(segment_path(options_.directory, epoch), file_bytes(epoch), go_on);
}

// Goes on where recovery found the end. Lock held.
core::Result<void> LedgerWriter::resume(const Recovered& recovered, std::shared_ptr<LedgerFile> spare) {
  auto opened = storage_.open(segment_path(options_.directory, recovered.epoch));
  if (!opened) return std::unexpected(opened.error());
  file_ = std::move(*opened);
  epoch_ = recovered.epoch;
  offset_ = recovered.offset;
  // By the file itself: settings change, and older versions kept no reserve.
  std::error_code error;
  const std::uint64_t size = std::filesystem::file_size(segment_path(options_.directory, epoch_), error);
  const std::uint64_t reserve = reserve_bytes() + reserve_bytes() / 2;
  capacity_ = !error && size > reserve ? size - reserve : 0;
  closed_ = false;
  // What was read may still be in the page cache only (the last process was killed).
  if (auto synced = file_->sync(); !synced) return synced;
  if (auto before = storage_.open(segment_path(options_.directory, epoch_ - 1)))
    if (auto synced = (*before)->sync(); !synced) return synced;
  // Only now: what was in the buffer's file is in the segment, durably.
  buffer_ = std::make_unique<WriteBuffer>(options_.directory, storage_);
  file_ = buffered(std::move(file_), epoch_);
  if (offset_ >= capacity_ && !spare) {
    // Into the reserve already: requests may begin only in a new segment. Without space for it the supply goes on
    // trying.
    if (auto created = create_segment(epoch_ + 1)) spare = std::move(*created);
  }
  if (spare)
    supply_->offer(std::move(spare));
  else
    supply_->want(epoch_ + 1, file_bytes(epoch_ + 1));
  return {};
}

// Recovered intents get the terminal record that their process could not write. They cost nothing: what the upstream
// made of them is not known.
core::Result<void> LedgerWriter::abort_open() {
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    if (auto done = abort(i, "process_ended"); !done) return done;
    ++report_.intents_aborted;
  }
  return {};
}

core::Result<void> LedgerWriter::abort(std::uint32_t slot, std::string_view reason) {
  OpenIntent open;
  {
    const std::lock_guard lock(mutex_);
    open = slots_[slot].open;
  }
  const std::vector<std::string> backends = decode_backends(open);
  std::vector<Attempt> attempts;
  for (const std::string& backend : backends) attempts.push_back({.backend = backend, .reason = "aborted"});
  const auto done =
      terminal({.slot = slot, .sequence = open.sequence},
               {.outcome = Outcome::aborted, .reason = reason, .charge = {.schedule = "none"}, .attempts = attempts},
               Urgency::lazy);
  if (!done) return std::unexpected(done.error());
  return {};
}

core::Result<void> LedgerWriter::abort(IntentId id, std::string_view reason) {
  std::optional<std::uint32_t> at;
  {
    const std::lock_guard lock(mutex_);
    if (const Slot* const slot = find(id)) at = static_cast<std::uint32_t>(slot - slots_.data());
  }
  return at ? abort(*at, reason) : core::fail(core::ErrorKind::internal, "a request has two ends");
}

std::vector<IntentId> LedgerWriter::open_ids() const {
  std::vector<IntentId> out;
  const std::lock_guard lock(mutex_);
  for (std::uint32_t i = 0; i < slots_.size(); ++i)
    if (slots_[i].used) out.push_back({.slot = i, .sequence = slots_[i].open.sequence});
  return out;
}

core::Result<void> LedgerWriter::hand_over() {
  std::uint64_t last = 0;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return unavailable("the ledger is closed");
    if (state_ == LedgerState::broken || commit_->failed()) return unavailable("a write to disk failed");
    // First: whoever finds it closed from here on sees why.
    handed_over_.store(true, std::memory_order_release);
    closed_ = true;
    last = chain_.next_sequence - 1;
  }
  auto durable = commit_->wait_blocking(last);
  supply_->stop();
  commit_->stop();
  return durable;
}

void LedgerWriter::close() {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return;
  }
  if (flush()) {
    const std::lock_guard lock(mutex_);
    frame_.clear();
    begin_frame(frame_);
    if (const auto done = append(RecordType::close, Urgency::now, open_intents()); !done)
      core::log(core::LogLevel::error, "ledger_close_failed", {{"error", done.error().message}});
  }
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  supply_->stop();
  commit_->stop();
}

void LedgerWriter::set_state(LedgerState state, std::string_view why) {
  if (state_ == state) return;
  state_ = state;
  core::log(state == LedgerState::ok ? core::LogLevel::info : core::LogLevel::error, "ledger_state",
            {{"state", state == LedgerState::ok     ? "ok"
                       : state == LedgerState::full ? "full"
                                                    : "broken"},
             {"why", why}});
  hooks_.state_changed(state, why);
}

void LedgerWriter::settle_state(std::string_view why) {
  if (state_ == LedgerState::broken) return;
  set_state(supply_full_ || write_full_ ? LedgerState::full : LedgerState::ok, why);
}

core::Result<void> LedgerWriter::usable(bool starts_request) {
  if (closed_) return unavailable("the ledger is closed");
  if (commit_->failed()) return unavailable("a write to disk failed");
  if (state_ == LedgerState::broken) return unavailable(state_);
  if (!starts_request || state_ == LedgerState::ok) return {};
  // The supply finds out by itself when space returns; a failed write is tried again by a request a second.
  if (supply_full_ || clock_.steady() < write_retry_at_) return unavailable(state_);
  write_retry_at_ = clock_.steady() + kWriteRetry;
  return {};
}

// `file` as appends see it.
std::shared_ptr<LedgerFile> LedgerWriter::buffered(std::shared_ptr<LedgerFile> file, std::uint64_t epoch) const {
  std::error_code error;
  const std::uint64_t bytes = std::filesystem::file_size(segment_path(options_.directory, epoch), error);
  return buffer_->wrap(std::move(file), error ? 0 : bytes);
}

// On the commit thread, after a failed sync, until it succeeds. Whoever had the lock when the sync failed may have
// appended; nobody does after that.
core::Result<void> LedgerWriter::mend() {
  std::uint64_t epoch = 0;
  std::uint64_t offset = 0;
  ChainState chain;
  {
    const std::lock_guard lock(mutex_);
    if (closed_ || state_ == LedgerState::broken) return unavailable("it is closed");
    epoch = epoch_;
    offset = offset_;
    chain = chain_;
  }
  if (auto flushed = buffer_->flush(); !flushed) return flushed;
  auto file = write_anew_while_running(options_.directory, epoch, offset, chain, storage_);
  if (!file) return std::unexpected(file.error());
  const std::lock_guard lock(mutex_);
  if (chain_.next_sequence != chain.next_sequence) return unavailable("a record came in between");
  file_ = buffered(std::move(*file), epoch);
  return {};
}

// Ends that were refused meanwhile: as after a restart, such requests cost nothing.
void LedgerWriter::after_mending() {
  std::vector<std::uint32_t> refused;
  {
    const std::lock_guard lock(mutex_);
    core::log(core::LogLevel::warn, "ledger_mended", {{"why", "a sync had failed; the segments were written anew"}});
    hooks_.state_changed(state_, "written anew after a failed sync");
    for (std::uint32_t i = 0; i < slots_.size(); ++i)
      if (slots_[i].used && slots_[i].refused) refused.push_back(i);
  }
  for (const std::uint32_t slot : refused)
    if (const auto done = abort(slot, "ledger_unavailable"); !done)
      core::log(core::LogLevel::error, "ledger_record_lost", {{"error", done.error().message}});
}

core::Result<void> LedgerWriter::write(std::uint64_t offset, std::string_view data) {
  bool out_of_space = false;
  auto wrote = file_->write(offset, data, out_of_space);
  // What a failed write left behind lies after the last record and is overwritten by the next one.
  if (!wrote && !out_of_space) {
    set_state(LedgerState::broken, wrote.error().message);
  } else if (write_full_ != !wrote) {
    write_full_ = !wrote;
    write_retry_at_ = clock_.steady() + kWriteRetry;
    settle_state(wrote ? "writes succeed again" : wrote.error().message);
  }
  return wrote;
}

// Header and checkpoint of segment `epoch`, then records go there.
core::Result<void> LedgerWriter::begin_segment(std::uint64_t epoch, std::shared_ptr<LedgerFile> file) {
  const std::vector<TenantTotal> totals = totals_.snapshot();
  std::uint64_t carries = 0;
  for (const Slot& slot : slots_) carries += slot.used ? 1 : 0;
  std::string out;
  ChainState chain = chain_;
  const std::uint64_t durable = commit_->durable();
  std::size_t start = begin_frame(out);
  encode_segment(out, {.epoch = epoch,
                       .time_us = now_us(),
                       .previous = chain.chain,
                       .carries = carries,
                       .totals = totals.size(),
                       .ledger = ledger_});
  finish_frame(out, start, RecordType::segment, durable, chain, hasher_);
  for (const Slot& slot : slots_) {
    if (!slot.used) continue;
    start = begin_frame(out);
    encode_open(out, slot.open);
    finish_frame(out, start, RecordType::carry, durable, chain, hasher_);
  }
  for (const TenantTotal& total : totals) {
    start = begin_frame(out);
    encode_total(out, total);
    finish_frame(out, start, RecordType::total, durable, chain, hasher_);
  }
  file = buffered(std::move(file), epoch);
  std::swap(file_, file);
  if (auto wrote = write(0, out); !wrote) {
    std::swap(file_, file);
    set_state(LedgerState::broken, wrote.error().message);
    return wrote;
  }
  if (file) supply_->trim(std::move(file), offset_);
  chain_ = chain;
  epoch_ = epoch;
  offset_ = out.size();
  // A checkpoint larger than the segment must not make every record begin a new one.
  capacity_ = std::max(segment_bytes(epoch), offset_ + segment_bytes(epoch) / 2);
  commit_->appended(file_, chain_.next_sequence - 1, out.size(), Urgency::lazy, open_intents());
  supply_->want(epoch_ + 1, file_bytes(epoch_ + 1));
  return {};
}

// Finishes frame_ (begun and filled by the caller) and writes it. Lock held. While the next segment is not ready
// records go into the preallocated reserve; ends of requests also past it, as long as the disk takes them.
core::Result<std::uint64_t> LedgerWriter::append(RecordType type, Urgency urgency, std::size_t open_after) {
  if (offset_ + frame_.size() > capacity_) {
    if (auto next = supply_->take()) {
      if (auto begun = begin_segment(epoch_ + 1, std::move(next)); !begun) return unavailable(state_);
    } else if (const bool ends = type == RecordType::terminal || type == RecordType::close;
               offset_ + frame_.size() > (ends ? 2 * (capacity_ + reserve_bytes()) : capacity_ + reserve_bytes() / 2)) {
      return unavailable("the next segment is not ready");
    }
  }
  ChainState chain = chain_;
  finish_frame(frame_, 0, type, commit_->durable(), chain, hasher_);
  if (auto wrote = write(offset_, frame_); !wrote) return unavailable(state_);
  const std::uint64_t sequence = chain_.next_sequence;
  chain_ = chain;
  offset_ += frame_.size();
  commit_->appended(file_, sequence, frame_.size(), urgency, open_after);
  return sequence;
}

LedgerWriter::Slot* LedgerWriter::find(IntentId id) {
  const auto is = [&](const Slot& slot) { return slot.used && slot.open.sequence == id.sequence; };
  if (id.slot < slots_.size() && is(slots_[id.slot])) return &slots_[id.slot];
  // Begun by another writer of this ledger, before it was handed over.
  const auto found = id.slot == IntentId::kForeign || reopened_ ? std::ranges::find_if(slots_, is) : slots_.end();
  return found == slots_.end() ? nullptr : &*found;
}

core::Result<IntentId> LedgerWriter::intent(const Subject& subject, std::string_view backend) {
  const std::lock_guard lock(mutex_);
  if (auto fine = usable(true); !fine) return std::unexpected(fine.error());
  if (free_slots_.empty()) {
    if (slots_.size() >= kOpenIntentsMax) return core::fail(core::ErrorKind::overloaded, "too many requests in flight");
    // In this order: what cannot be allocated leaves nothing behind, and giving a slot back never allocates.
    free_slots_.reserve(slots_.size() + 1);
    slots_.emplace_back();
    free_slots_.push_back(static_cast<std::uint32_t>(slots_.size() - 1));
  }
  const std::uint32_t index = free_slots_.back();
  Slot& slot = slots_[index];
  slot.open.subject.clear();
  encode_subject(slot.open.subject, subject);
  slot.open.backends.clear();
  Encoder{slot.open.backends}.text(backend);
  slot.open.attempts = 1;
  slot.refused = false;
  slot.tenant = subject.tenant.substr(0, kNameBytesMax);
  slot.tier = subject.tier;
  frame_.clear();
  begin_frame(frame_);
  encode_intent(frame_, now_us(), slot.open.subject, backend);
  const auto sequence = append(RecordType::intent, Urgency::none, open_intents() + 1);
  if (!sequence) return std::unexpected(sequence.error());
  slot.open.sequence = *sequence;
  slot.used = true;
  free_slots_.pop_back();
  return IntentId{.slot = index, .sequence = *sequence};
}

core::Result<void> LedgerWriter::attempt(IntentId id, std::uint32_t number, std::string_view backend) {
  const std::lock_guard lock(mutex_);
  if (auto fine = usable(true); !fine) return fine;
  Slot* const slot = find(id);
  if (slot == nullptr) return core::fail(core::ErrorKind::internal, "attempt of a request that has ended");
  frame_.clear();
  begin_frame(frame_);
  encode_attempt(frame_, id.sequence, number, backend);
  if (const auto sequence = append(RecordType::attempt, Urgency::none, open_intents()); !sequence)
    return std::unexpected(sequence.error());
  if (slot->open.attempts < kAttemptsMax) {
    ++slot->open.attempts;
    Encoder{slot->open.backends}.text(backend);
  }
  return {};
}

core::Result<std::uint64_t> LedgerWriter::terminal(IntentId id, const Terminal& terminal, Urgency urgency) {
  const std::lock_guard lock(mutex_);
  Slot* const slot = find(id);
  if (auto fine = usable(false); !fine) {
    if (slot != nullptr) slot->refused = true;
    return std::unexpected(fine.error());
  }
  if (slot == nullptr) return core::fail(core::ErrorKind::internal, "a request has two ends");
  const std::uint64_t time = now_us();
  frame_.clear();
  begin_frame(frame_);
  encode_terminal(frame_, id.sequence, time, slot->open.subject, terminal);
  auto sequence = append(RecordType::terminal, urgency, open_intents() - (slot->end_lost ? 0 : 1));
  if (!sequence) {  // the intent stays open in the file: recovery will close it
    ends_lost_ += slot->end_lost ? 0 : 1;
    slot->end_lost = true;
    return sequence;
  }
  ends_lost_ -= slot->end_lost ? 1 : 0;
  slot->end_lost = false;
  slot->used = false;  // first: the request has its end now, whatever fails below
  free_slots_.push_back(static_cast<std::uint32_t>(slot - slots_.data()));
  totals_.add(time, slot->tenant, slot->tier, terminal.charge.exact);
  return sequence;
}

core::Result<std::uint64_t> LedgerWriter::record(const Subject& subject, const Terminal& terminal) {
  const std::lock_guard lock(mutex_);
  if (auto fine = usable(false); !fine) return std::unexpected(fine.error());
  const std::uint64_t time = now_us();
  std::string encoded;
  encode_subject(encoded, subject);
  frame_.clear();
  begin_frame(frame_);
  encode_terminal(frame_, 0, time, encoded, terminal);
  auto sequence = append(RecordType::terminal, Urgency::lazy, open_intents());
  if (sequence) totals_.add(time, subject.tenant, subject.tier, terminal.charge.exact);
  return sequence;
}

core::Result<void> LedgerWriter::flush() {
  std::uint64_t last = 0;
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return unavailable("the ledger is closed");
    last = chain_.next_sequence - 1;
  }
  return commit_->wait_blocking(last);
}

LedgerStats LedgerWriter::stats() const {
  const std::lock_guard lock(mutex_);
  return {.state = commit_->failed() ? LedgerState::broken : state_,
          .next_sequence = chain_.next_sequence,
          .durable_sequence = commit_->durable(),
          .open_intents = open_intents(),
          .commits = commit_->commits(),
          .segments = epoch_,
          .next_segment_ready = supply_->ready()};
}

DayTotal LedgerWriter::today(std::string_view tenant) const {
  const std::lock_guard lock(mutex_);
  return totals_.get(now_us(), tenant);
}

}  // namespace ganglion::metering
