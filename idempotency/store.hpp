#pragma once
// The database on a thread of its own: writes that arrive together share one transaction and one sync. Callers on
// workers wait as coroutines; stop() before their io_contexts die. Jobs run in the order in which they were given.

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/deadline.hpp"
#include "core/error.hpp"
#include "idempotency/database.hpp"

namespace ganglion::idempotency {

class Store {
 public:
  static core::Result<std::unique_ptr<Store>> open(const std::string& path);
  ~Store();  // stop()
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // Every key that is there, by expiry. At start, before anything else.
  core::Result<std::vector<KeyRow>> keys();
  // From when on (ms since 1970) the store has every key that its gateway had; likewise at start. The first `if_new`
  // that a new store is given is remembered; one of an earlier version counts as complete.
  core::Result<std::int64_t> complete_from(std::int64_t if_new);

  // A write that was given and is not yet waited for; of the thread of its executor.
  struct Waiter;
  using Pending = std::shared_ptr<Waiter>;

  // Durable when they end without an error. Errors: ledger_unavailable (disk full, broken, stopped), overloaded (too
  // many wait), deadline_exceeded (the job still runs).
  Pending claim(KeyRow row, const boost::asio::any_io_executor& executor);  // given at once, awaited by written()
  boost::asio::awaitable<core::Result<void>> written(Pending claim, core::Deadline deadline);
  void claim(KeyRow row, std::function<void(core::Result<void>)> done);  // `done` on the store's thread, or here
  boost::asio::awaitable<core::Result<void>> put(Digest key, std::shared_ptr<const StoredAnswer> answer,
                                                 core::Deadline deadline);
  // nullptr: there is none.
  boost::asio::awaitable<core::Result<std::shared_ptr<const StoredAnswer>>> answer(Digest key, core::Deadline deadline);

  boost::asio::awaitable<core::Result<bool>> has(Digest key, core::Deadline deadline);

  // Done when there is time; a failure is counted, and made good by the next start.
  void set_state(const Digest& key, KeyState state);
  void remove(const Digest& key);

  // Called on the store's thread about once a minute, before it shrinks the file.
  void on_tick(std::function<void()> tick);
  void flush();  // blocks until all that was given is done
  void stop();   // finishes what was given; later calls fail

  std::uint64_t errors() const { return errors_.load(std::memory_order_relaxed); }
  std::uint64_t commits() const { return commits_.load(std::memory_order_relaxed); }
  std::uint64_t file_bytes() const { return file_bytes_.load(std::memory_order_relaxed); }

 private:
  struct Job {
    std::function<core::Result<void>(Database&)> work;
    std::function<void(core::Result<void>)> done;  // may be empty
    bool writes = true;
  };

  explicit Store(std::unique_ptr<Database> database);
  Pending begin(std::function<core::Result<void>(Database&)> work, bool writes,
                const boost::asio::any_io_executor& executor);
  boost::asio::awaitable<core::Result<void>> wait(std::function<core::Result<void>(Database&)> work, bool writes,
                                                  core::Deadline deadline);
  core::Error not_taken();
  bool give(Job job, bool bounded);
  void run();
  void run_batch(std::deque<Job>& jobs);
  core::Result<void> transact(std::deque<Job>& jobs);

  std::unique_ptr<Database> database_;
  std::atomic<std::uint64_t> errors_{0}, commits_{0}, file_bytes_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::deque<Job> jobs_;
  std::function<void()> tick_;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace ganglion::idempotency
