#pragma once
// The append-only ledger: an intent before each dispatch, one terminal record per request, durable before the caller
// goes on. Written by any worker thread, made durable by the ledger's own thread (group commit) or,
// where a request is alone, by its worker. The file format, and
// what is promised after a crash, is docs/ledger.md.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/clock.hpp"
#include "core/error.hpp"
#include "metering/options.hpp"
#include "metering/record.hpp"

namespace ganglion::metering {

class LedgerStorage;
class LedgerHeir;

enum class LedgerState : std::uint8_t {
  ok,
  full,    // no space for the next segment: intents are refused, running requests still end; retried every second
  broken,  // a sync failed: nothing is acknowledged until the segments are written anew; a write failed: until restart
};

// What recovery found and did.
struct RecoveryReport {
  std::uint64_t segments = 0;
  std::uint64_t records_scanned = 0;
  std::uint64_t torn_bytes = 0;       // cut at the tail
  std::uint64_t intents_aborted = 0;  // closed as `aborted`
  std::chrono::microseconds took{0};
};

// How the end of a request is made durable.
enum class Commit : std::uint8_t {
  apart,     // on the ledger's thread
  in_place,  // on the caller's, which may block for one sync: nothing else waits for it
};

struct CommitFacts {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;
  std::chrono::nanoseconds sync{0};
  Commit commit = Commit::apart;
};

// For metrics and logs. committed() is called by whoever synced, one at a time, state_changed() by whoever found it;
// neither may block.
class LedgerHooks {
 public:
  virtual ~LedgerHooks() = default;
  virtual void committed(const CommitFacts& /*facts*/) {}
  virtual void state_changed(LedgerState /*state*/, std::string_view /*why*/) {}
};

// A dispatched request that has no terminal record yet. Trivially copyable.
struct IntentId {
  static constexpr std::uint32_t kForeign = UINT32_MAX;  // another process keeps it, or did
  std::uint32_t slot = 0;
  std::uint64_t sequence = 0;  // 0: none
  explicit operator bool() const { return sequence != 0; }
};

struct LedgerStats {
  LedgerState state = LedgerState::ok;
  std::uint64_t next_sequence = 0;
  std::uint64_t durable_sequence = 0;  // all records up to here survive power loss
  std::uint64_t open_intents = 0;
  std::uint64_t commits = 0;
  std::uint64_t segments = 0;
  bool next_segment_ready = false;  // until it is, the current one grows past its size
};

// What becomes of intents that the last writer left open.
enum class OpenIntents : std::uint8_t {
  abort,  // its process died: they are closed, at no cost
  keep,   // it goes on with them and ends them through this ledger
};

class Ledger {
 public:
  // Locks the directory (one writer), recovers, starts the thread. Creates the directory if needed. Errors are
  // ledger_unavailable: held by another process, disk full, or corruption, named by segment and offset.
  // `clock`, `hooks` and `storage` (nullptr: the file system) outlive the ledger.
  static core::Result<std::unique_ptr<Ledger>> open(const LedgerOptions& options, const core::Clock& clock,
                                                    LedgerHooks& hooks, LedgerStorage* storage = nullptr,
                                                    OpenIntents open = OpenIntents::abort);
  ~Ledger();  // close()
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  // Before the first dispatch. Survives kill -9 from the moment it returns; not yet power loss. Fails with
  // ledger_unavailable when the ledger is full, broken or closed: then nothing billable may be dispatched.
  core::Result<IntentId> intent(const Subject& subject, std::string_view backend);

  // Before each further dispatch of the same request; number 2 is the first retry or fallback.
  core::Result<void> attempt(IntentId id, std::uint32_t number, std::string_view backend);

  // Ends a dispatched request. The record is appended before this returns; the awaitable ends when it is durable, on
  // the caller's executor, or with ledger_unavailable (then the answer must not be completed). Cancelling the wait
  // (core::ErrorKind::cancelled) leaves the record in place. Calling twice for one intent is an error, not a second
  // bill.
  boost::asio::awaitable<core::Result<void>> terminal(IntentId id, const Terminal& terminal,
                                                      Commit commit = Commit::apart);

  // Ends a dispatched request that costs nothing, without waiting. Durable with the next commit.
  void terminal_async(IntentId id, const Terminal& terminal);

  // The terminal record of a request that was never dispatched (cache hit, rejection); no waiting.
  void record_async(const Subject& subject, const Terminal& terminal);

  // Blocks until all that was appended is durable. For shutdown and tests.
  core::Result<void> flush();

  // Flushes, stops the thread, unlocks. Later calls fail with ledger_unavailable. Idempotent.
  void close();

  // Handing over to another process, which opens the ledger with OpenIntents::keep. freeze() makes all durable and
  // gives up the directory; every call waits from then on (a worker's thread included), until follow() sends it to the
  // heir, which outlives the ledger, or thaw() opens the directory again. A call that begins a request may find that
  // nothing of it is left here: it ends at the heir.
  core::Result<void> freeze();
  core::Result<void> thaw();
  void follow(LedgerHeir& heir);
  // Of the heir: the open intents of the process before, and the end of those that it did not end.
  std::vector<IntentId> open_ids() const;
  core::Result<void> abort(IntentId id, std::string_view reason);

  LedgerStats stats() const;
  // A UUID, of this directory for ever (ledger_id.hpp): (id, sequence) names a record among all ledgers.
  const std::string& id() const;
  const RecoveryReport& recovery() const;
  DayTotal today(std::string_view tenant) const;  // since 00:00 UTC, restarts included

 private:
  class Impl;
  explicit Ledger(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::metering
