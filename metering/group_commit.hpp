#pragma once
// Makes appended records durable. A thread of its own syncs at once when it is idle, and what is appended meanwhile
// shares the next sync; waiters are resumed on their own executors, one post per worker and commit. Where a request is
// alone, its worker may sync by itself, which saves two changes of thread (docs/adr/0018-who-syncs.md).

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/error.hpp"
#include "core/event_rate.hpp"
#include "metering/ledger.hpp"
#include "metering/storage.hpp"

namespace ganglion::metering {

enum class Urgency : std::uint8_t {
  none,  // durable whenever a commit happens (intents)
  lazy,  // within the commit interval
  now,   // somebody waits
};

class GroupCommit {
 public:
  // committed() is called by whoever syncs, one at a time. Records up to `durable` are so already.
  // On the commit thread, after a sync has failed: `failed` once, then `mend` again and again until it has made
  // durable, in other files, all that was appended - nothing is appended meanwhile -, then `mended`.
  struct Mending {
    std::function<void()> failed;
    std::function<core::Result<void>()> mend;
    std::function<void()> mended;
  };
  GroupCommit(std::chrono::microseconds interval_max, std::uint64_t durable, LedgerHooks& hooks, Mending mending = {});
  ~GroupCommit();  // stop()
  GroupCommit(const GroupCommit&) = delete;
  GroupCommit& operator=(const GroupCommit&) = delete;

  // Record `sequence` (and all before it) has been written to `file`. Calls come in sequence order. `open_intents`:
  // how many requests have begun and not ended, this record counted.
  void appended(const std::shared_ptr<LedgerFile>& file, std::uint64_t sequence, std::uint64_t bytes, Urgency urgency,
                std::size_t open_intents);

  // Whoever asks now blocks for one sync, and is told how it ended. Nothing: it is not worth it (more than this request
  // is under way, the disk was slow, another syncs), or cannot be done here; to be awaited then. `sequence` was
  // appended with Urgency::none.
  std::optional<core::Result<void>> commit_here(std::uint64_t sequence);

  // Ends when `sequence` is durable, or with ledger_unavailable once a sync has failed, or with cancelled.
  boost::asio::awaitable<core::Result<void>> wait(std::uint64_t sequence);
  core::Result<void> wait_blocking(std::uint64_t sequence);

  // Syncs what is left and ends the thread; waiters are answered.
  void stop();

  std::uint64_t durable() const { return durable_.load(std::memory_order_acquire); }
  std::uint64_t commits() const { return commits_.load(std::memory_order_relaxed); }
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  core::Error failure() const;

  // One suspended caller. Owned by the list it is in; completed or cancelled on its executor's (single) thread.
  struct Waiter {
    virtual ~Waiter() = default;
    virtual void complete(const core::Result<void>& result) = 0;  // deletes itself
    std::unique_ptr<Waiter> next;
    std::uint64_t sequence = 0;
    boost::asio::any_io_executor executor;
  };

 private:
  template <class Handler>
  struct HandlerWaiter;

  void run();
  bool commit(std::unique_lock<std::mutex>& lock,
              Commit by) noexcept;  // out of memory in here ends the process, as on its thread
  bool sleep(std::unique_lock<std::mutex>& lock);
  // Under load, lets the ends of more of the running requests come into the next commit.
  void gather(std::unique_lock<std::mutex>& lock);
  void mend(std::unique_lock<std::mutex>& lock);
  // Answers those of waiters_ that are due. Called with the lock held; gives it up meanwhile.
  void answer(std::unique_lock<std::mutex>& lock);
  // Takes the waiter unless its answer is known already.
  std::optional<core::Result<void>> enlist(std::unique_ptr<Waiter>& waiter);

  const std::chrono::microseconds interval_max_;
  LedgerHooks& hooks_;
  const Mending mending_;
  std::atomic<std::uint64_t> durable_;
  std::atomic<std::uint64_t> commits_{0};
  std::atomic<bool> failed_{false};

  mutable std::mutex mutex_;
  std::condition_variable wake_;                    // the commit thread
  std::condition_variable settled_;                 // wait_blocking()
  std::vector<std::shared_ptr<LedgerFile>> files_;  // with records not yet synced, in order
  std::uint64_t appended_;
  std::uint64_t records_ = 0;  // since the last commit
  std::uint64_t bytes_ = 0;
  bool now_ = false;
  std::optional<std::chrono::steady_clock::time_point> lazy_due_;
  bool asleep_ = false;
  bool committing_ = false;                // by whichever thread
  bool mend_due_ = false;                  // a sync has failed
  std::chrono::nanoseconds last_sync_{0};  // how long it took
  bool gathering_ = false;
  std::size_t open_intents_ = 0;
  bool stop_ = false;
  std::size_t last_answered_ = 0;  // waiters of the last commit
  core::EventRate ends_;           // of requests, those that are waited for
  core::Error failure_;
  std::unique_ptr<Waiter> waiters_;  // newest first
  std::thread thread_;
};

}  // namespace ganglion::metering
