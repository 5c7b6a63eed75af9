#pragma once
// Moves one sink along the ledger, on a thread of its own: reads what is durable in batches, delivers, backs off when
// that fails, and tells how far it is. Holds one batch in memory, however long the other side is away.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/clock.hpp"
#include "metering/record.hpp"
#include "metering/tail_reader.hpp"
#include "sinks/options.hpp"
#include "sinks/position_file.hpp"
#include "sinks/sink.hpp"

namespace ganglion::sinks {

struct SinkStatus {
  std::string name, type;
  bool up = false;             // the last thing tried worked
  std::string problem;         // "" when up
  std::uint64_t position = 0;  // taken for good up to here (or, before the other side was asked, at least)
  std::uint64_t behind = 0;    // records of any type between the position and what is durable
  double lag_seconds = 0;      // since the oldest record that is not taken was written; 0: nothing waits
  std::uint64_t sent = 0;      // records, since the start
  std::uint64_t errors = 0;
};

class SinkRunner {
 public:
  // What the ledger says is durable now; thread-safe.
  using Durable = std::function<std::uint64_t()>;

  SinkRunner(SinkOptions options, std::unique_ptr<Sink> sink, std::string ledger_directory, PositionFile position,
             Durable durable, const core::Clock& clock);
  ~SinkRunner();  // stop()
  SinkRunner(const SinkRunner&) = delete;
  SinkRunner& operator=(const SinkRunner&) = delete;

  void start();
  // Interrupts the sink, ends the thread and releases the sink; what was not delivered is, after the next start.
  void stop();

  SinkStatus status() const;
  std::uint64_t position() const { return position_.load(std::memory_order_acquire); }

 private:
  void run();
  core::Result<bool> step();
  core::Result<void> open();
  void moved(std::uint64_t to, std::size_t records);
  void failed(const core::Error& error);
  bool sleep(std::chrono::nanoseconds time);

  const SinkOptions options_;
  const std::unique_ptr<Sink> sink_;
  const std::string ledger_directory_;
  PositionFile floor_;
  const Durable durable_;
  const core::Clock& clock_;

  // The thread's own.
  std::unique_ptr<metering::TailReader> reader_;
  std::vector<metering::LedgerRecord> batch_;
  std::chrono::milliseconds backoff_{0};
  std::uint64_t floor_written_ = 0;
  core::SteadyTime floor_at_{};
  std::minstd_rand random_;

  std::atomic<std::uint64_t> position_{0}, sent_{0}, errors_{0};
  mutable std::mutex mutex_;  // guards all below
  std::condition_variable wake_;
  bool stop_ = false;
  bool up_ = false;
  std::string problem_;
  core::WallTime oldest_{};  // of the batch that is being delivered
  core::SteadyTime behind_since_{};
  std::thread thread_;
};

}  // namespace ganglion::sinks
