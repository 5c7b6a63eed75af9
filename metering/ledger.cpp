// See metering/ledger.hpp: lock, recover, then the writer does the work.

#include "metering/ledger.hpp"

#include <utility>

#include "core/log.hpp"
#include "metering/ledger_id.hpp"
#include "metering/ledger_writer.hpp"
#include "metering/storage.hpp"

namespace ganglion::metering {

class Ledger::Impl {
 public:
  Impl(DirectoryLock lock, std::unique_ptr<LedgerStorage> own, LedgerStorage& storage, const LedgerOptions& options,
       const core::Clock& clock, LedgerHooks& hooks)
      : lock_(std::move(lock)), own_(std::move(own)), writer(options, clock, hooks, storage) {}

 private:
  std::optional<DirectoryLock> lock_;
  std::unique_ptr<LedgerStorage> own_;

 public:
  void unlock() { lock_.reset(); }
  LedgerWriter writer;
  std::string id;
};

Ledger::Ledger(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Ledger::~Ledger() {
  close();
}

core::Result<std::unique_ptr<Ledger>> Ledger::open(const LedgerOptions& options, const core::Clock& clock,
                                                   LedgerHooks& hooks, LedgerStorage* storage) {
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
  if (auto started = impl->writer.start(std::move(*recovered), ledger_id_bytes(impl->id)); !started)
    return std::unexpected(started.error());
  const RecoveryReport& report = impl->writer.recovery();
  if (report.torn_bytes != 0 || report.intents_aborted != 0)
    core::log(core::LogLevel::warn, "ledger_recovered",
              {{"torn_bytes", report.torn_bytes}, {"intents_aborted", report.intents_aborted}});
  return std::unique_ptr<Ledger>{new Ledger{std::move(impl)}};
}

core::Result<IntentId> Ledger::intent(const Subject& subject, std::string_view backend) {
  return impl_->writer.intent(subject, backend);
}

core::Result<void> Ledger::attempt(IntentId id, std::uint32_t number, std::string_view backend) {
  return impl_->writer.attempt(id, number, backend);
}

namespace {

boost::asio::awaitable<core::Result<void>> failed(core::Error error) {
  co_return std::unexpected(std::move(error));
}

}  // namespace

boost::asio::awaitable<core::Result<void>> Ledger::terminal(IntentId id, const Terminal& terminal) {
  const auto sequence = impl_->writer.terminal(id, terminal, Urgency::now);
  if (!sequence) return failed(sequence.error());
  return impl_->writer.commit().wait(*sequence);
}

void Ledger::terminal_async(IntentId id, const Terminal& terminal) {
  if (const auto done = impl_->writer.terminal(id, terminal, Urgency::lazy); !done)
    core::log(core::LogLevel::error, "ledger_record_lost", {{"error", done.error().message}});
}

void Ledger::record_async(const Subject& subject, const Terminal& terminal) {
  if (const auto done = impl_->writer.record(subject, terminal); !done)
    core::log(core::LogLevel::error, "ledger_record_lost",
              {{"request_id", subject.request_id}, {"error", done.error().message}});
}

core::Result<void> Ledger::flush() {
  return impl_->writer.flush();
}

void Ledger::close() {
  if (!impl_) return;
  impl_->writer.close();
  impl_->unlock();
}

const std::string& Ledger::id() const {
  return impl_->id;
}

LedgerStats Ledger::stats() const {
  return impl_->writer.stats();
}

const RecoveryReport& Ledger::recovery() const {
  return impl_->writer.recovery();
}

DayTotal Ledger::today(std::string_view tenant) const {
  return impl_->writer.today(tenant);
}

}  // namespace ganglion::metering
