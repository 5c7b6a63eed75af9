// See metering/ledger.hpp: lock, recover, then the writer does the work.

#include "metering/ledger.hpp"

#include <atomic>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "core/log.hpp"
#include "metering/ledger_heir.hpp"
#include "metering/ledger_id.hpp"
#include "metering/ledger_writer.hpp"
#include "metering/storage.hpp"

namespace ganglion::metering {

class Ledger::Impl {
 public:
  Impl(DirectoryLock lock, std::unique_ptr<LedgerStorage> own, LedgerStorage& storage, const LedgerOptions& options,
       const core::Clock& clock, LedgerHooks& hooks)
      : lock_(std::move(lock)),
        own_(std::move(own)),
        storage_(storage),
        options_(options),
        clock_(clock),
        hooks_(hooks) {}

  core::Result<void> start(Recovered&& recovered, bool keep_open) {
    auto fresh = std::make_unique<LedgerWriter>(options_, clock_, hooks_, storage_);
    if (auto started = fresh->start(std::move(recovered), ledger_id_bytes(id), keep_open); !started) return started;
    writer_.store(fresh.get(), std::memory_order_release);
    writers_.push_back(std::move(fresh));
    return {};
  }

  LedgerWriter& writer() const { return *writer_.load(std::memory_order_acquire); }

  // Runs `here` with the writer, or `there` with the heir once the ledger has one.
  template <class Here, class There>
  auto call(const Here& here, const There& there) -> decltype(here(std::declval<LedgerWriter&>())) {
    for (;;) {
      LedgerWriter& now = writer();
      auto done = here(now);
      if (done || !now.handed_over()) return done;
      if (LedgerHeir* const heir = settled(now)) return there(*heir);
      if (&writer() == &now) return done;  // given up
    }
  }

  // Waits while nobody has the ledger. nullptr: another writer has, of this process.
  LedgerHeir* settled(const LedgerWriter& before) {
    std::unique_lock lock(mutex_);
    settled_.wait(lock, [&] { return heir_ != nullptr || given_up_ || &writer() != &before; });
    return heir_;
  }

  core::Result<void> thaw();
  core::Result<void> reopen();
  void follow(LedgerHeir& heir) {
    open_elsewhere = writer().stats().open_intents;
    {
      const std::lock_guard lock(mutex_);
      heir_ = &heir;
    }
    settled_.notify_all();
  }
  bool follows() {
    const std::lock_guard lock(mutex_);
    return heir_ != nullptr;
  }
  void unlock() { lock_.reset(); }

  std::string id;
  std::atomic<std::uint64_t> open_elsewhere{0};  // requests of this process that the heir keeps

 private:
  std::optional<DirectoryLock> lock_;
  std::unique_ptr<LedgerStorage> own_;
  LedgerStorage& storage_;
  const LedgerOptions options_;
  const core::Clock& clock_;
  LedgerHooks& hooks_;
  std::atomic<LedgerWriter*> writer_{nullptr};
  std::vector<std::unique_ptr<LedgerWriter>> writers_;  // one, and those that were handed over and taken back

  std::mutex mutex_;
  std::condition_variable settled_;
  LedgerHeir* heir_ = nullptr;
  bool given_up_ = false;
};

// Nobody took it over.
core::Result<void> Ledger::Impl::thaw() {
  if (!writer().handed_over()) return {};
  auto done = reopen();
  {
    const std::lock_guard lock(mutex_);
    given_up_ = !done;
  }
  settled_.notify_all();
  return done;
}

core::Result<void> Ledger::Impl::reopen() {
  auto lock = DirectoryLock::take(options_.directory);
  if (!lock) return std::unexpected(lock.error());
  lock_.emplace(std::move(*lock));
  auto recovered = recover(options_.directory, storage_);
  if (!recovered) return std::unexpected(recovered.error());
  return start(std::move(*recovered), true);
}

Ledger::Ledger(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Ledger::~Ledger() {
  close();
}

core::Result<std::unique_ptr<Ledger>> Ledger::open(const LedgerOptions& options, const core::Clock& clock,
                                                   LedgerHooks& hooks, LedgerStorage* storage, OpenIntents open) {
  const auto start = std::chrono::steady_clock::now();
  auto lock = DirectoryLock::take(options.directory);
  if (!lock) return std::unexpected(lock.error());
  std::unique_ptr<LedgerStorage> own;
  if (storage == nullptr) {
    own = std::make_unique<PosixStorage>();
    storage = own.get();
  }
  auto recovered = recover(options.directory, *storage);
  if (!recovered) return std::unexpected(recovered.error());
  recovered->report.intents_aborted = 0;
  auto impl = std::make_unique<Impl>(std::move(*lock), std::move(own), *storage, options, clock, hooks);
  recovered->report.took =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - start);
  const LedgerId of_segments = recovered->replay.ledger();
  auto id =
      of_segments == LedgerId{} ? ensure_ledger_id(options.directory) : adopt_ledger_id(options.directory, of_segments);
  if (!id) return std::unexpected(id.error());
  impl->id = std::move(*id);
  if (auto started = impl->start(std::move(*recovered), open == OpenIntents::keep); !started)
    return std::unexpected(started.error());
  const RecoveryReport& report = impl->writer().recovery();
  if (report.torn_bytes != 0 || report.intents_aborted != 0)
    core::log(core::LogLevel::warn, "ledger_recovered",
              {{"torn_bytes", report.torn_bytes}, {"intents_aborted", report.intents_aborted}});
  return std::unique_ptr<Ledger>{new Ledger{std::move(impl)}};
}

core::Result<IntentId> Ledger::intent(const Subject& subject, std::string_view backend) {
  return impl_->call([&](LedgerWriter& writer) { return writer.intent(subject, backend); },
                     [&](LedgerHeir& heir) -> core::Result<IntentId> {
                       std::string encoded, payload;
                       encode_subject(encoded, subject);
                       encode_intent(payload, 0, encoded, backend);
                       const auto sequence = heir.intent(payload);
                       if (!sequence) return std::unexpected(sequence.error());
                       ++impl_->open_elsewhere;
                       return IntentId{.slot = IntentId::kForeign, .sequence = *sequence};
                     });
}

core::Result<void> Ledger::attempt(IntentId id, std::uint32_t number, std::string_view backend) {
  return impl_->call([&](LedgerWriter& writer) { return writer.attempt(id, number, backend); },
                     [&](LedgerHeir& heir) {
                       std::string payload;
                       encode_attempt(payload, id.sequence, number, backend);
                       return heir.attempt(payload);
                     });
}

namespace {

boost::asio::awaitable<core::Result<void>> told(core::Result<void> done) {
  co_return done;
}

// The subject of a dispatched request is the intent's.
std::string terminal_payload(std::uint64_t intent, const Subject& subject, const Terminal& terminal) {
  std::string encoded, payload;
  encode_subject(encoded, subject);
  encode_terminal(payload, intent, 0, encoded, terminal);
  return payload;
}

boost::asio::awaitable<core::Result<void>> end_elsewhere(LedgerHeir& heir, std::string payload,
                                                         std::atomic<std::uint64_t>& open) {
  const auto executor = co_await boost::asio::this_coro::executor;
  co_return co_await boost::asio::async_initiate<const boost::asio::use_awaitable_t<>&, void(core::Result<void>)>(
      [&](auto handler) {
        auto shared = std::make_shared<decltype(handler)>(std::move(handler));
        heir.terminal(payload, [shared, executor, &open](core::Result<void> done) {
          --open;
          boost::asio::post(executor, [shared, done = std::move(done)]() mutable { (*shared)(std::move(done)); });
        });
      },
      boost::asio::use_awaitable);
}

}  // namespace

boost::asio::awaitable<core::Result<void>> Ledger::terminal(IntentId id, const Terminal& terminal, Commit commit) {
  LedgerHeir* heir = nullptr;
  LedgerWriter* writer = nullptr;
  const auto sequence = impl_->call(
      [&](LedgerWriter& now) {
        writer = &now;
        return now.terminal(id, terminal, commit == Commit::apart ? Urgency::now : Urgency::none);
      },
      [&](LedgerHeir& other) -> core::Result<std::uint64_t> {
        heir = &other;
        return 0;
      });
  if (!sequence) return told(std::unexpected(sequence.error()));
  if (heir != nullptr) return end_elsewhere(*heir, terminal_payload(id.sequence, {}, terminal), impl_->open_elsewhere);
  if (commit == Commit::in_place) {
    if (auto done = writer->commit().commit_here(*sequence)) return told(std::move(*done));
  }
  return writer->commit().wait(*sequence);
}

void Ledger::terminal_async(IntentId id, const Terminal& terminal) {
  const auto done = impl_->call(
      [&](LedgerWriter& writer) { return writer.terminal(id, terminal, Urgency::lazy); },
      [&](LedgerHeir& heir) -> core::Result<std::uint64_t> {
        heir.terminal(terminal_payload(id.sequence, {}, terminal), [open = &impl_->open_elsewhere](const auto& ended) {
          --*open;
          if (!ended) core::log(core::LogLevel::error, "ledger_record_lost", {{"error", ended.error().message}});
        });
        return 0;
      });
  if (!done) core::log(core::LogLevel::error, "ledger_record_lost", {{"error", done.error().message}});
}

void Ledger::record_async(const Subject& subject, const Terminal& terminal) {
  const auto done = impl_->call([&](LedgerWriter& writer) { return writer.record(subject, terminal); },
                                [&](LedgerHeir& heir) -> core::Result<std::uint64_t> {
                                  heir.terminal(terminal_payload(0, subject, terminal), [](const auto&) {});
                                  return 0;
                                });
  if (!done)
    core::log(core::LogLevel::error, "ledger_record_lost",
              {{"request_id", subject.request_id}, {"error", done.error().message}});
}

core::Result<void> Ledger::flush() {
  if (impl_->follows()) return {};  // the heir's business
  return impl_->writer().flush();
}

core::Result<void> Ledger::freeze() {
  auto done = impl_->writer().hand_over();
  if (done || impl_->writer().handed_over()) impl_->unlock();
  return done;
}

core::Result<void> Ledger::thaw() {
  return impl_->thaw();
}

void Ledger::follow(LedgerHeir& heir) {
  impl_->follow(heir);
}

std::vector<IntentId> Ledger::open_ids() const {
  return impl_->writer().open_ids();
}

core::Result<void> Ledger::abort(IntentId id, std::string_view reason) {
  return impl_->writer().abort(id, reason);
}

void Ledger::close() {
  if (!impl_) return;
  impl_->writer().close();
  impl_->unlock();
}

const std::string& Ledger::id() const {
  return impl_->id;
}

LedgerStats Ledger::stats() const {
  LedgerStats stats = impl_->writer().stats();
  if (impl_->follows()) stats.open_intents = impl_->open_elsewhere;
  return stats;
}

const RecoveryReport& Ledger::recovery() const {
  return impl_->writer().recovery();
}

DayTotal Ledger::today(std::string_view tenant) const {
  return impl_->writer().today(tenant);
}

}  // namespace ganglion::metering
