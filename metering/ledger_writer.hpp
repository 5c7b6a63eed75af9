#pragma once
// The writing half of the ledger: records into segments, open intents, running totals, state. Ledger (ledger.hpp) is
// its public face. Thread-safe; an append is one short critical section without a system call (metering/write_buffer).

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.hpp"
#include "metering/day_totals.hpp"
#include "metering/group_commit.hpp"
#include "metering/recovery.hpp"
#include "metering/segment_supply.hpp"
#include "metering/write_buffer.hpp"

namespace ganglion::metering {

class LedgerWriter {
 public:
  LedgerWriter(const LedgerOptions& options, const core::Clock& clock, LedgerHooks& hooks, LedgerStorage& storage);
  ~LedgerWriter();
  LedgerWriter(const LedgerWriter&) = delete;
  LedgerWriter& operator=(const LedgerWriter&) = delete;

  // Takes over what recovery found, closes open intents, waits until that is durable.
  // `keep_open`: the open intents are of another process, which goes on with them.
  core::Result<void> start(Recovered&& recovered, const LedgerId& id, bool keep_open = false);
  void close();
  // Makes all durable and writes nothing any more, so that another process may go on with the files.
  core::Result<void> hand_over();
  bool handed_over() const { return handed_over_.load(std::memory_order_acquire); }
  std::vector<IntentId> open_ids() const;
  // Ends an open intent as aborted, at no cost.
  core::Result<void> abort(IntentId id, std::string_view reason);

  core::Result<IntentId> intent(const Subject& subject, std::string_view backend);
  core::Result<void> attempt(IntentId id, std::uint32_t number, std::string_view backend);
  // The sequence to wait for.
  core::Result<std::uint64_t> terminal(IntentId id, const Terminal& terminal, Urgency urgency);
  core::Result<std::uint64_t> record(const Subject& subject, const Terminal& terminal);
  core::Result<void> flush();

  GroupCommit& commit() { return *commit_; }
  LedgerStats stats() const;
  const RecoveryReport& recovery() const { return report_; }
  DayTotal today(std::string_view tenant) const;

 private:
  struct Slot {
    OpenIntent open;
    std::string tenant;
    api::Tier tier = api::Tier::regular;
    bool used = false;
    bool end_lost = false;  // its end could not be written: recovery will close it
    bool refused = false;   // its end, while nothing could be written
  };

  std::uint64_t now_us() const;  // never before an earlier record; lock held
  std::uint64_t segment_bytes(std::uint64_t epoch) const;
  std::uint64_t reserve_bytes() const;
  std::uint64_t file_bytes(std::uint64_t epoch) const;
  core::Result<void> resume(const Recovered& recovered, std::shared_ptr<LedgerFile> spare);
  core::Result<std::shared_ptr<LedgerFile>> create_segment(std::uint64_t epoch);
  core::Result<void> begin_segment(std::uint64_t epoch, std::shared_ptr<LedgerFile> file);
  std::shared_ptr<LedgerFile> buffered(std::shared_ptr<LedgerFile> file, std::uint64_t epoch) const;
  core::Result<void> usable(bool starts_request);
  core::Result<std::uint64_t> append(RecordType type, Urgency urgency, std::size_t open_after);
  // Requests that have not ended; those whose end was lost have. Lock held.
  std::size_t open_intents() const { return slots_.size() - free_slots_.size() - ends_lost_; }
  core::Result<void> write(std::uint64_t offset, std::string_view data);
  Slot* find(IntentId id);
  void set_state(LedgerState state, std::string_view why);
  void settle_state(std::string_view why);
  core::Result<void> abort_open();
  core::Result<void> abort(std::uint32_t slot, std::string_view reason);
  core::Result<void> mend();
  void after_mending();

  const LedgerOptions options_;
  const core::Clock& clock_;
  LedgerHooks& hooks_;
  LedgerStorage& storage_;
  std::unique_ptr<WriteBuffer> buffer_;
  std::unique_ptr<GroupCommit> commit_;
  std::unique_ptr<SegmentSupply> supply_;
  RecoveryReport report_;

  mutable std::mutex mutex_;  // guards all below
  LedgerState state_ = LedgerState::ok;
  bool supply_full_ = false;  // no room for the next segment
  bool write_full_ = false;   // no room in this one
  core::SteadyTime write_retry_at_{};
  bool closed_ = true;
  std::atomic<bool> handed_over_{false};
  bool reopened_ = false;  // goes on where another writer left off, with its open intents
  LedgerId ledger_{};
  ChainHasher hasher_;
  ChainState chain_;
  std::shared_ptr<LedgerFile> file_;
  std::uint64_t epoch_ = 0;
  std::uint64_t offset_ = 0;
  // Where the next segment is due. Behind it lies the reserve: half as much again for requests that begin while the
  // next segment is not quite ready, the whole for the ends of those that run.
  std::uint64_t capacity_ = 0;
  mutable std::uint64_t last_us_ = 0;  // the latest time of a record
  mutable bool clock_behind_ = false;
  std::string frame_;  // scratch: the frame being built
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::size_t ends_lost_ = 0;
  DayTotals totals_;
};

}  // namespace ganglion::metering
