#pragma once
// Looks after what the writer leaves behind, on a thread of its own: sums records into the rollups, anchors full
// segments, and drops those that are older than the retention once everybody who reads the ledger is past them.

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.hpp"
#include "metering/anchors.hpp"
#include "metering/ledger.hpp"
#include "metering/rollup_store.hpp"
#include "metering/tail_reader.hpp"

namespace ganglion::metering {

struct KeeperStatus {
  std::uint64_t position = 0;  // records up to here are in the rollups
  std::uint64_t batches = 0;   // stored
  std::uint64_t failures = 0;  // of any of the tasks; each is tried again within a second
  std::uint64_t segments_dropped = 0;
  std::string problem;  // of the last failure, "" once it is over
};

class LedgerKeeper {
 public:
  // Opens the rollups and anchors beside the ledger's segments and starts the thread. ledger_unavailable: one of them
  // is foreign or damaged; nothing is changed then. `ledger` and `clock` outlive the keeper; `between` is for tests;
  // `holds` are in force before anything is dropped.
  using Holds = std::vector<std::pair<std::string, std::function<std::uint64_t()>>>;
  static core::Result<std::unique_ptr<LedgerKeeper>> open(const LedgerOptions& options, const Ledger& ledger,
                                                          const core::Clock& clock, RollupStore::Between between = {},
                                                          Holds holds = {});
  ~LedgerKeeper();
  LedgerKeeper(const LedgerKeeper&) = delete;
  LedgerKeeper& operator=(const LedgerKeeper&) = delete;

  // Whoever reads the ledger names the sequence it has durably taken: later records are kept for it. Thread-safe;
  // called on the keeper's thread until release() has returned.
  void hold(const std::string& reader, std::function<std::uint64_t()> position);
  void release(const std::string& reader);

  // Does all that is due and returns the first failure. For tests and for the end of a process.
  core::Result<void> run_once();
  KeeperStatus status() const;

 private:
  LedgerKeeper(const LedgerOptions& options, const Ledger& ledger, const core::Clock& clock,
               std::unique_ptr<RollupStore> store, AnchorFile anchors, std::uint64_t position);
  void run();
  core::Result<void> sum_up();
  core::Result<void> seal_full();
  core::Result<void> seal(const SegmentFile& file);
  core::Result<void> drop_old();
  std::uint64_t held_from() const;
  core::WallTime now() const;

  const LedgerOptions options_;
  const Ledger& ledger_;
  const core::Clock& clock_;
  const core::WallTime wall_at_start_;
  const core::SteadyTime steady_at_start_;

  std::mutex work_;  // one run at a time; guards the next four
  std::unique_ptr<RollupStore> store_;
  AnchorFile anchors_;
  std::unique_ptr<TailReader> reader_;
  RollupBatch batch_;

  mutable std::mutex mutex_;  // guards all below
  KeeperStatus status_;
  Holds holds_;
  std::condition_variable wake_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ganglion::metering
