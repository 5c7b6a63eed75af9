// See metering/group_commit.hpp.

#include "metering/group_commit.hpp"

#include <algorithm>
#include <utility>

#include "core/log.hpp"
#include "core/thread.hpp"

namespace ganglion::metering {

namespace asio = boost::asio;

namespace {

// A destructor that recurses through `next` would use stack per waiter.
void drop(std::unique_ptr<GroupCommit::Waiter> list) {
  while (list) list = std::move(list->next);
}

// The waiters of one executor's context, answered on its thread in one go.
class Batch {
 public:
  Batch(std::unique_ptr<GroupCommit::Waiter> list, std::shared_ptr<const core::Result<void>> result)
      : list_(std::move(list)), result_(std::move(result)) {}
  Batch(Batch&&) = default;
  Batch& operator=(Batch&&) = delete;
  ~Batch() { drop(std::move(list_)); }

  void operator()() {
    while (list_) {
      auto waiter = std::move(list_);
      list_ = std::move(waiter->next);
      waiter.release()->complete(*result_);
    }
  }

 private:
  std::unique_ptr<GroupCommit::Waiter> list_;
  std::shared_ptr<const core::Result<void>> result_;
};

const void* context_of(const GroupCommit::Waiter& waiter) {
  return &asio::query(waiter.executor, asio::execution::context_as<asio::execution_context&>);
}

// Groups `list` (newest first) by context, oldest first, and posts each group.
void deliver(std::unique_ptr<GroupCommit::Waiter> list, const core::Result<void>& result) {
  const auto shared = std::make_shared<const core::Result<void>>(result);
  while (list) {
    const void* const context = context_of(*list);
    std::unique_ptr<GroupCommit::Waiter> mine;
    std::unique_ptr<GroupCommit::Waiter> others;
    std::unique_ptr<GroupCommit::Waiter>* others_end = &others;
    while (list) {
      auto waiter = std::move(list);
      list = std::move(waiter->next);
      if (context_of(*waiter) == context) {
        waiter->next = std::move(mine);
        mine = std::move(waiter);
      } else {
        *others_end = std::move(waiter);
        others_end = &(*others_end)->next;
      }
    }
    list = std::move(others);
    const asio::any_io_executor executor = mine->executor;
    asio::post(executor, Batch{std::move(mine), shared});
  }
}

}  // namespace

template <class Handler>
struct GroupCommit::HandlerWaiter final : Waiter {
  explicit HandlerWaiter(Handler h) : handler(std::move(h)) {}

  void complete(const core::Result<void>& result) override {
    const std::unique_ptr<HandlerWaiter> self{this};
    if (!handler) return;  // cancelled before; this shell was left for us to free
    asio::get_associated_cancellation_slot(*handler).clear();
    Handler ready = std::move(*handler);
    handler.reset();
    const asio::any_io_executor on = std::move(executor);
    asio::dispatch(on, [ready = std::move(ready), result]() mutable { std::move(ready)(std::move(result)); });
  }

  void cancel() {
    if (!handler) return;
    Handler ready = std::move(*handler);
    handler.reset();
    asio::post(executor, [ready = std::move(ready)]() mutable {
      std::move(ready)(core::Result<void>{core::fail(core::ErrorKind::cancelled, "wait for the ledger called off")});
    });
  }

  std::optional<Handler> handler;
};

GroupCommit::GroupCommit(std::chrono::microseconds interval_max, std::uint64_t durable, LedgerHooks& hooks,
                         Mending mending)
    : interval_max_(interval_max), hooks_(hooks), mending_(std::move(mending)), durable_(durable), appended_(durable) {
  thread_ = core::start_thread("ledger-commit", [this] { run(); });
}

GroupCommit::~GroupCommit() {
  stop();
  drop(std::move(waiters_));
}

void GroupCommit::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

core::Error GroupCommit::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void GroupCommit::appended(const std::shared_ptr<LedgerFile>& file, std::uint64_t sequence, std::uint64_t bytes,
                           Urgency urgency, std::size_t open_intents) {
  bool wake = false;
  {
    const std::lock_guard lock(mutex_);
    open_intents_ = open_intents;
    wake = gathering_ && open_intents == 0;
    if (files_.empty() || files_.back() != file) files_.push_back(file);
    appended_ = sequence;
    ++records_;
    bytes_ += bytes;
    if (urgency == Urgency::now) {
      ends_.count();
      wake = wake || (asleep_ && !now_);
      now_ = true;
    } else if (urgency == Urgency::lazy && !lazy_due_) {
      lazy_due_ = std::chrono::steady_clock::now() + interval_max_;
      wake = wake || (asleep_ && !now_);
    }
  }
  if (wake) wake_.notify_one();
}

// Waits until there is something to sync and nobody else does; false: stopped and nothing left.
bool GroupCommit::sleep(std::unique_lock<std::mutex>& lock) {
  while (true) {
    if (!committing_) {
      if (now_ || mend_due_) return true;
      if (stop_) return appended_ > durable();
      if (lazy_due_ && std::chrono::steady_clock::now() >= *lazy_due_) return true;
    }
    asleep_ = true;
    if (const auto due = lazy_due_; due && !committing_)  // a copy: a worker that syncs resets it
      wake_.wait_until(lock, *due);
    else
      wake_.wait(lock);
    asleep_ = false;
  }
}

void GroupCommit::gather(std::unique_lock<std::mutex>& lock) {
  // Where the last commit answered several at once, or requests end faster than one after another could be synced, more
  // are on their way: a sync and two thread switches for every few records cost more than this short wait, which ends
  // when every request that has begun has ended and would wait too. One request at a time never waits here.
  constexpr std::size_t kBusyWaiters = 4;
  constexpr std::chrono::microseconds kGather{400};
  const bool crowded = ends_.often(std::chrono::steady_clock::now());
  if (last_answered_ < kBusyWaiters && !crowded) return;
  gathering_ = true;
  wake_.wait_for(lock, std::min(kGather, interval_max_), [this] { return stop_ || open_intents_ == 0; });
  gathering_ = false;
}

void GroupCommit::answer(std::unique_lock<std::mutex>& lock) {
  const std::uint64_t durable = this->durable();
  std::size_t answered = 0;
  std::unique_ptr<Waiter> due;
  std::unique_ptr<Waiter>* due_end = &due;
  std::unique_ptr<Waiter> later;
  std::unique_ptr<Waiter>* later_end = &later;
  while (waiters_) {
    auto waiter = std::move(waiters_);
    waiters_ = std::move(waiter->next);
    const bool is_due = failed() || waiter->sequence <= durable;
    answered += is_due ? 1 : 0;
    auto*& end = is_due ? due_end : later_end;
    *end = std::move(waiter);
    end = &(*end)->next;
  }
  waiters_ = std::move(later);
  last_answered_ = answered;
  const core::Result<void> result = failed() ? core::Result<void>{std::unexpected(failure_)} : core::Result<void>{};
  lock.unlock();
  settled_.notify_all();
  deliver(std::move(due), result);
  lock.lock();
}

void GroupCommit::run() {
  std::unique_lock lock(mutex_);
  while (sleep(lock)) {
    if (!mend_due_) {
      gather(lock);
      now_ = false;
      lazy_due_.reset();
      if (failed() || appended_ == durable()) {
        answer(lock);
        if (stop_) break;
        continue;
      }
      commit(lock, Commit::apart);
    }
    if (!std::exchange(mend_due_, false)) continue;
    // After the waiters have their answer: a sick disk may take long.
    lock.unlock();
    if (mending_.failed) mending_.failed();
    lock.lock();
    mend(lock);
    if (stop_) break;
  }
}

std::optional<core::Result<void>> GroupCommit::commit_here(std::uint64_t sequence) {
  // A worker that waits for the disk does nothing else; one that is slow now is left to the thread, which finds out
  // when it is quick again.
  constexpr std::chrono::microseconds kQuickSync{500};
  std::unique_lock lock(mutex_);
  ends_.count();
  if (durable() >= sequence) return core::Result<void>{};
  if (committing_ || gathering_ || now_ || open_intents_ != 0 || failed() || stop_ || last_sync_ > kQuickSync) {
    const bool wake = asleep_ && !now_;
    now_ = true;
    lock.unlock();
    if (wake) wake_.notify_one();
    return std::nullopt;
  }
  lazy_due_.reset();
  const bool synced = commit(lock, Commit::in_place);
  const bool due = now_ || lazy_due_ || mend_due_ || stop_;
  core::Result<void> done = synced ? core::Result<void>{} : std::unexpected(failure_);
  lock.unlock();
  if (due) wake_.notify_one();
  return done;
}

// Syncs all that was appended and answers who waited for it. Called with the lock held; gives it up meanwhile. False:
// it failed, and the thread has to mend that.
bool GroupCommit::commit(std::unique_lock<std::mutex>& lock, Commit by) noexcept {
  committing_ = true;
  const std::uint64_t target = appended_;
  const std::vector<std::shared_ptr<LedgerFile>> files = files_;
  const std::uint64_t records = std::exchange(records_, 0);
  const std::uint64_t bytes = std::exchange(bytes_, 0);
  lock.unlock();
  const auto start = std::chrono::steady_clock::now();
  core::Result<void> synced;
  for (const auto& file : files) {
    synced = file->sync();
    if (!synced) break;
  }
  const auto took = std::chrono::steady_clock::now() - start;
  lock.lock();
  last_sync_ = took;
  if (!synced) {
    // What the kernel did with the pages is unknown and a second fsync would lie: nothing is acknowledged any more
    // until all of it stands in another file.
    // Who waits is told no file's name: it goes on to clients.
    failure_ = core::make_error(synced.error().kind, "usage cannot be recorded: a write to disk failed");
    failed_.store(true, std::memory_order_release);
    mend_due_ = true;
    core::log(core::LogLevel::error, "ledger_sync_failed", {{"error", synced.error().message}});
    hooks_.state_changed(LedgerState::broken, synced.error().message);
  } else {
    durable_.store(target, std::memory_order_release);
    commits_.fetch_add(1, std::memory_order_relaxed);
    // The newest file may have been written to meanwhile; older ones are done.
    files_.erase(files_.begin(), files_.begin() + static_cast<std::ptrdiff_t>(files.size() - 1));
    if (appended_ == target) files_.clear();
  }
  answer(lock);
  if (synced) {
    lock.unlock();
    hooks_.committed({.records = records, .bytes = bytes, .sync = took, .commit = by});
    lock.lock();
  }
  committing_ = false;
  return synced.has_value();
}

void GroupCommit::mend(std::unique_lock<std::mutex>& lock) {
  constexpr std::chrono::milliseconds kFirst{250};
  constexpr std::chrono::milliseconds kAgain{1'000};
  for (auto pause = kFirst; mending_.mend && !stop_; pause = kAgain) {
    if (wake_.wait_for(lock, pause, [this] { return stop_; })) return;
    lock.unlock();
    const auto mended = mending_.mend();
    lock.lock();
    if (!mended) {
      if (pause == kFirst) core::log(core::LogLevel::error, "ledger_not_mended", {{"error", mended.error().message}});
      continue;
    }
    files_.clear();
    durable_.store(appended_, std::memory_order_release);
    records_ = bytes_ = 0;
    now_ = false;
    lazy_due_.reset();
    failed_.store(false, std::memory_order_release);
    lock.unlock();
    mending_.mended();
    lock.lock();
    return;
  }
}

std::optional<core::Result<void>> GroupCommit::enlist(std::unique_ptr<Waiter>& waiter) {
  const std::lock_guard lock(mutex_);
  if (failed()) return std::unexpected(failure_);
  if (waiter->sequence <= durable()) return core::Result<void>{};
  waiter->next = std::move(waiters_);
  waiters_ = std::move(waiter);
  return std::nullopt;
}

asio::awaitable<core::Result<void>> GroupCommit::wait(std::uint64_t sequence) {
  if (durable() >= sequence) co_return core::Result<void>{};
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(core::Result<void>)>(
      [this, sequence](auto handler) {
        using Handler = decltype(handler);
        auto typed = std::make_unique<HandlerWaiter<Handler>>(std::move(handler));
        HandlerWaiter<Handler>* const raw = typed.get();
        raw->sequence = sequence;
        // Keeps the worker's loop running while the disk works.
        raw->executor =
            asio::prefer(asio::get_associated_executor(*raw->handler), asio::execution::outstanding_work.tracked);
        auto slot = asio::get_associated_cancellation_slot(*raw->handler);
        if (slot.is_connected()) slot.assign([raw](asio::cancellation_type) { raw->cancel(); });
        std::unique_ptr<Waiter> waiter = std::move(typed);
        if (const auto known = enlist(waiter)) {
          const asio::any_io_executor executor = waiter->executor;
          asio::post(executor, Batch{std::move(waiter), std::make_shared<const core::Result<void>>(*known)});
        }
      },
      asio::use_awaitable);
}

core::Result<void> GroupCommit::wait_blocking(std::uint64_t sequence) {
  std::unique_lock lock(mutex_);
  if (appended_ < sequence) return core::fail(core::ErrorKind::internal, "waiting for a record that was never written");
  if (durable() < sequence && !failed()) {
    now_ = true;
    wake_.notify_one();
    settled_.wait(lock, [&] { return durable() >= sequence || failed(); });
  }
  if (durable() >= sequence) return {};
  return std::unexpected(failure_);
}

}  // namespace ganglion::metering
