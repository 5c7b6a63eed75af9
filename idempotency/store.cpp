// See idempotency/store.hpp.

#include "idempotency/store.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "core/log.hpp"
#include "core/thread.hpp"

namespace ganglion::idempotency {
namespace {

namespace asio = boost::asio;

constexpr std::size_t kJobsMax = 4096;
constexpr std::size_t kBatchMax = 256;
constexpr std::chrono::seconds kTick{60};

std::unexpected<core::Error> stopped() {
  return core::fail(core::ErrorKind::ledger_unavailable, "the store of idempotency keys is closed");
}

}  // namespace

// What a coroutine sleeps on: owned by its thread. The store's thread fills the result and only sends the wake-up.
struct Store::Waiter {
  explicit Waiter(const asio::any_io_executor& executor) : timer(executor) {}
  asio::steady_timer timer;
  std::optional<core::Result<void>> result;
};

core::Result<std::unique_ptr<Store>> Store::open(const std::string& path) {
  auto database = Database::open(path);
  if (!database) return std::unexpected(std::move(database.error()));
  return std::unique_ptr<Store>{new Store{std::move(*database)}};
}

Store::Store(std::unique_ptr<Database> database)
    : database_(std::move(database)), thread_(core::start_thread("idempotency", [this] { run(); })) {}

Store::~Store() {
  stop();
}

void Store::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Store::flush() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return jobs_.empty() && !busy_; });
}

void Store::on_tick(std::function<void()> tick) {
  const std::lock_guard lock(mutex_);
  tick_ = std::move(tick);
}

bool Store::give(Job job, bool bounded) {
  {
    const std::lock_guard lock(mutex_);
    if (stop_ || (bounded && jobs_.size() >= kJobsMax)) return false;
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  return true;
}

core::Result<std::vector<KeyRow>> Store::keys() {
  core::Result<std::vector<KeyRow>> out = stopped();
  give({.work = [&](Database& database) -> core::Result<void> {
          out = database.keys();
          return {};
        },
        .writes = false},
       false);
  flush();
  return out;
}

core::Result<std::int64_t> Store::complete_from(std::int64_t if_new) {
  core::Result<std::int64_t> out = stopped();
  give({.work = [&](Database& database) -> core::Result<void> {
          out = database.complete_from(if_new);
          return {};
        },
        .writes = false},
       false);
  flush();
  return out;
}

// nullptr: the job was not taken.
Store::Pending Store::begin(std::function<core::Result<void>(Database&)> work, bool writes,
                            const asio::any_io_executor& executor) {
  auto waiter = std::make_shared<Waiter>(executor);
  Job job{.work = std::move(work),
          .done =
              [executor, weak = std::weak_ptr(waiter)](core::Result<void> result) {
                if (weak.expired()) return;
                asio::post(executor, [weak, result = std::move(result)]() mutable {
                  const auto alive = weak.lock();
                  if (!alive) return;
                  alive->result = std::move(result);
                  alive->timer.cancel();
                });
              },
          .writes = writes};
  return give(std::move(job), true) ? waiter : nullptr;
}

core::Error Store::not_taken() {
  const std::lock_guard lock(mutex_);
  if (stop_) return stopped().error();
  return core::make_error(core::ErrorKind::overloaded, "too many requests wait for the store of idempotency keys");
}

asio::awaitable<core::Result<void>> Store::wait(std::function<core::Result<void>(Database&)> work, bool writes,
                                                core::Deadline deadline) {
  co_return co_await written(begin(std::move(work), writes, co_await asio::this_coro::executor), deadline);
}

asio::awaitable<core::Result<void>> Store::written(Pending waiter, core::Deadline deadline) {
  if (!waiter) co_return std::unexpected(not_taken());
  waiter->timer.expires_at(deadline.at());
  while (!waiter->result) {
    co_await waiter->timer.async_wait(asio::as_tuple(asio::use_awaitable));
    if (!waiter->result && deadline.passed()) {
      co_return core::fail(core::ErrorKind::deadline_exceeded, "the store of idempotency keys is too slow");
    }
  }
  co_return *std::move(waiter->result);
}

Store::Pending Store::claim(KeyRow row, const asio::any_io_executor& executor) {
  return begin([row = std::move(row)](Database& database) { return database.put_key(row); }, true, executor);
}

void Store::claim(KeyRow row, std::function<void(core::Result<void>)> done) {
  const auto told = std::make_shared<std::function<void(core::Result<void>)>>(std::move(done));
  Job job{.work = [row = std::move(row)](Database& database) { return database.put_key(row); },
          .done = [told](core::Result<void> result) { (*told)(std::move(result)); }};
  if (!give(std::move(job), true)) (*told)(std::unexpected(not_taken()));
}

asio::awaitable<core::Result<void>> Store::put(Digest key, std::shared_ptr<const StoredAnswer> answer,
                                               core::Deadline deadline) {
  return wait([key, answer = std::move(answer)](Database& database) { return database.put_answer(key, *answer); }, true,
              deadline);
}

asio::awaitable<core::Result<std::shared_ptr<const StoredAnswer>>> Store::answer(Digest key, core::Deadline deadline) {
  auto found = std::make_shared<std::shared_ptr<const StoredAnswer>>();
  auto work = [key, found](Database& database) -> core::Result<void> {
    auto answer = database.answer(key);
    if (!answer) return std::unexpected(std::move(answer.error()));
    if (*answer) *found = std::make_shared<const StoredAnswer>(**std::move(answer));
    return {};
  };
  if (auto done = co_await wait(std::move(work), false, deadline); !done) co_return std::unexpected(done.error());
  co_return *found;
}

asio::awaitable<core::Result<bool>> Store::has(Digest key, core::Deadline deadline) {
  auto found = std::make_shared<bool>(false);
  auto work = [key, found](Database& database) -> core::Result<void> {
    const auto has = database.has(key);
    if (!has) return std::unexpected(has.error());
    *found = *has;
    return {};
  };
  if (auto done = co_await wait(std::move(work), false, deadline); !done) co_return std::unexpected(done.error());
  co_return *found;
}

void Store::set_state(const Digest& key, KeyState state) {
  give({.work = [key, state](Database& database) { return database.set_state(key, state); }}, false);
}

void Store::remove(const Digest& key) {
  give({.work = [key](Database& database) { return database.remove(key); }}, false);
}

core::Result<void> Store::transact(std::deque<Job>& jobs) {
  if (database_->sync_failed()) {
    return core::fail(core::ErrorKind::ledger_unavailable,
                      "the store of idempotency keys failed to reach the disk; it is closed until restart");
  }
  bool writes = false;
  for (const Job& job : jobs) writes = writes || job.writes;
  if (writes) {
    if (auto begun = database_->begin(); !begun) return begun;
  }
  for (const Job& job : jobs) {
    if (auto done = job.work(*database_); !done) {
      if (writes) database_->rollback();
      return done;
    }
  }
  if (!writes) return {};
  auto committed = database_->commit();
  if (!committed) database_->rollback();
  if (committed) commits_.fetch_add(1, std::memory_order_relaxed);
  return committed;
}

// All at once; where that fails, one by one, so that one job's failure is its own.
void Store::run_batch(std::deque<Job>& jobs) {
  const bool together = jobs.size() > 1 && transact(jobs).has_value();
  while (!jobs.empty()) {
    std::deque<Job> one;
    one.push_back(std::move(jobs.front()));
    jobs.pop_front();
    auto result = together ? core::Result<void>{} : transact(one);
    if (!result) {
      errors_.fetch_add(1, std::memory_order_relaxed);
      core::log(core::LogLevel::error, "idempotency_store_failed", {{"problem", result.error().message}});
    }
    if (one.front().done) one.front().done(std::move(result));
  }
}

void Store::run() {
  auto tick_at = std::chrono::steady_clock::now() + kTick;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait_until(lock, tick_at, [this] { return stop_ || !jobs_.empty(); });
    if (jobs_.empty() && stop_) break;
    busy_ = true;
    std::deque<Job> batch;
    while (!jobs_.empty() && batch.size() < kBatchMax) {
      batch.push_back(std::move(jobs_.front()));
      jobs_.pop_front();
    }
    const bool ticks = std::chrono::steady_clock::now() >= tick_at;
    const std::function<void()> tick = ticks ? tick_ : nullptr;
    lock.unlock();
    run_batch(batch);
    if (tick) tick();
    if (ticks) {
      database_->shrink();
      tick_at = std::chrono::steady_clock::now() + kTick;
    }
    file_bytes_.store(database_->file_bytes(), std::memory_order_relaxed);
    lock.lock();
    busy_ = false;
    if (jobs_.empty()) idle_.notify_all();
  }
  idle_.notify_all();
}

}  // namespace ganglion::idempotency
