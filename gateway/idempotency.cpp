// See gateway/idempotency.hpp.

#include "gateway/idempotency.hpp"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <filesystem>
#include <map>
#include <utility>

#include "core/limits.hpp"
#include "core/log.hpp"
#include "core/private_files.hpp"
#include "metering/segment_scan.hpp"
#include "metering/storage.hpp"
#include "metering/tail_reader.hpp"

namespace ganglion::gateway {
namespace {

using core::ErrorKind;
using idempotency::Digest;
using idempotency::KeyRow;
using idempotency::KeyState;

constexpr std::chrono::seconds kAskSilentAgain{10};

core::Error refusal(std::string message, std::chrono::milliseconds retry_after = {}) {
  core::Error error = core::make_error(ErrorKind::conflict, std::move(message), "idempotency-key");
  error.retry_after = retry_after;
  return error;
}

// How the ledger says that a request ended.
struct Verdict {
  bool completed = false;
  bool billed = false;
};

// The verdicts on `ids`, whose records all come behind `after`.
core::Result<std::map<std::string, Verdict>> verdicts(const std::string& directory, std::uint64_t after,
                                                      const std::map<std::string, std::size_t>& ids) {
  std::map<std::string, Verdict> out;
  const auto visit = [&](const metering::LedgerRecord& record) {
    if (!ids.contains(record.request_id)) return;
    out[record.request_id] = {.completed = record.outcome == metering::Outcome::completed, .billed = record.exact != 0};
  };
  metering::TailReader reader(directory, after);
  for (;;) {
    const auto read = reader.poll(metering::TailReader::kNoLimit, 4096, visit);
    if (!read) return std::unexpected(read.error());
    if (*read == 0) return out;
  }
}

}  // namespace

// --- KeyClaim --------------------------------------------------------------------------------------------------------

KeyClaim::~KeyClaim() {
  if (ended_) return;
  hold_.abandon();
  owner_.end(*this, Idempotency::State::doubt, false);
}

boost::asio::awaitable<core::Result<void>> KeyClaim::write(core::Deadline deadline) {
  if (!writing_) co_return core::Result<void>{};
  co_return co_await owner_.store_->written(std::move(*writing_), deadline);
}

boost::asio::awaitable<void> KeyClaim::keep(std::shared_ptr<const idempotency::StoredAnswer> answer) {
  if (answer->body.size() > owner_.options_.answer_bytes_max) co_return;  // to be buried
  row_.body_bytes = answer->body.size();
  kept_ = true;
  if (hold_) answer_ = answer;
  const auto stored = co_await owner_.store_->put(row_.key, answer, {});
  if (!stored) in_memory_ = std::move(answer);  // until restart; then the key is refused
}

void KeyClaim::settle() {
  if (!kept_) return bury();
  ended_ = true;
  const bool lost = in_memory_ != nullptr;  // to every process but this one
  if (owner_.tell_end(*this, lost ? Idempotency::End::lost : Idempotency::End::settled)) {
    if (hold_) hold_.done(std::move(answer_), [] {});
    return owner_.end(*this, Idempotency::State::answered, false);
  }
  // Not settled here before the others can know: what is found open by the next start is told then.
  const auto here = [owner = &owner_, key = row_.key, bytes = row_.body_bytes, lost] {
    if (!lost) owner->write_end(key, Idempotency::End::settled, bytes);
  };
  if (hold_) {
    hold_.done(std::move(answer_), here);
  } else {
    here();
  }
  owner_.end(*this, Idempotency::State::answered, false);
}

void KeyClaim::bury() {
  ended_ = true;
  if (owner_.tell_end(*this, Idempotency::End::lost)) {
    if (hold_) hold_.lost([] {});
    return owner_.end(*this, Idempotency::State::lost, false);
  }
  const auto here = [owner = &owner_, key = row_.key] { owner->write_end(key, Idempotency::End::lost, 0); };
  if (hold_) {
    hold_.lost(here);
  } else {
    here();
  }
  owner_.end(*this, Idempotency::State::lost, false);
}

void KeyClaim::release() {
  ended_ = true;
  hold_.release();
  if (!owner_.tell_end(*this, Idempotency::End::released)) {
    owner_.write_end(row_.key, Idempotency::End::released, 0);
  }
  owner_.end(*this, Idempotency::State::running, true);
}

// --- Idempotency -----------------------------------------------------------------------------------------------------

Idempotency::Idempotency(const idempotency::IdempotencyOptions& options, const std::string& ledger_directory,
                         metering::Ledger& ledger, const core::Clock& clock, metrics::Registry& registry,
                         metering::OpenIntents open)
    : options_(options),
      ledger_directory_(ledger_directory),
      open_(open),
      ledger_(ledger),
      clock_(clock),
      only_(open == metering::OpenIntents::abort) {
  for (auto [counter, result] :
       {std::pair{&new_, "new"}, std::pair{&followed_, "followed"}, std::pair{&replayed_, "replayed"},
        std::pair{&conflicts_, "conflict"}, std::pair{&refused_, "refused"}}) {
    *counter = registry.shared().counter(metrics::Family::idempotency_requests_total, {result});
  }
  const std::filesystem::path directory = std::filesystem::path{ledger_directory} / "idempotency";
  const std::error_code error = core::make_private_folder(directory);
  // SQLite makes the names in the folder durable, not the folder's own.
  const auto named = error ? core::fail(ErrorKind::ledger_unavailable, "cannot create " + directory.string())
                           : metering::sync_directory(ledger_directory);
  auto store = named ? idempotency::Store::open((directory / "keys.sqlite").string())
                     : core::Result<std::unique_ptr<idempotency::Store>>{std::unexpected(named.error())};
  if (store) {
    store_ = std::move(*store);
    recover();
  } else {
    why_ = store.error().message;
  }
  if (!why_.empty()) {
    store_.reset();
    core::log(core::LogLevel::error, "idempotency_unavailable", {{"why", why_}});
    return;
  }
  store_->on_tick([this] {
    if (mode_ != Mode::here) return;
    const std::lock_guard lock(mutex_);
    expire(clock_.steady(), table_.size());
  });
}

Idempotency::~Idempotency() {
  stop();
}

void Idempotency::stop() {
  if (store_) store_->stop();
}

std::int64_t Idempotency::wall_ms() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(clock_.wall().time_since_epoch()).count();
}

// Rows that a crash left open are decided by the ledger, which has closed its own open intents by now.
void Idempotency::recover() {
  auto rows = store_->keys();
  if (rows && open_ == metering::OpenIntents::abort) {
    if (auto done = decide_all(*rows); !done) rows = std::unexpected(done.error());
  }
  // Made anew beside a ledger that has records: what the one before it knew is missing until its time is over. Where
  // that cannot be found out nothing is ever said to be missing.
  const bool beside_records = ledger_.stats().next_sequence > 2;  // a new one has its segment's own
  const std::int64_t later = wall_ms() + std::chrono::milliseconds{options_.ttl}.count();
  complete_from_ms_ = store_->complete_from(beside_records ? later : 0).value_or(INT64_MAX);
  if (!rows) {
    why_ = rows.error().message;
    return;
  }
  load(*rows);
}

core::Result<void> Idempotency::decide_all(std::vector<KeyRow>& rows) {
  std::map<std::string, std::size_t> open;
  std::uint64_t after = UINT64_MAX;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].state != KeyState::claimed && rows[i].state != KeyState::answered) continue;
    open.emplace(rows[i].request_id, i);
    after = std::min(after, rows[i].ledger_sequence);
  }
  if (open.empty()) return {};
  auto ended = verdicts(ledger_directory_, after, open);
  // Its first records are gone, so the oldest that are left tell.
  if (!ended) ended = verdicts(ledger_directory_, 0, open);
  if (!ended) return std::unexpected(ended.error());
  // Asked last: what is dropped meanwhile counts as gone.
  const auto oldest = metering::oldest_sequence(ledger_directory_);
  if (!oldest) return std::unexpected(oldest.error());
  for (const auto& [id, at] : open) {
    KeyRow& row = rows[at];
    const auto found = ended->find(id);
    const Verdict verdict = found == ended->end() ? Verdict{} : found->second;
    if (row.state == KeyState::answered && verdict.completed) {
      decide(row, KeyState::settled);
    } else if (verdict.completed || verdict.billed || (found == ended->end() && row.ledger_sequence + 1 < *oldest)) {
      // The last: its bill may be among the records that the ledger has dropped.
      decide(row, KeyState::lost);
    } else {
      decide(row, KeyState::claimed);  // never billed: forgotten
    }
  }
  core::log(core::LogLevel::warn, "idempotency_recovered", {{"keys", open.size()}});
  return {};
}

// Of a key that others may wait for, the state is kept open until they were told; a forgotten one must not be in the
// way of a new claim.
void Idempotency::decide(KeyRow& row, KeyState state) {
  row.state = state;
  if (options_.shared) decided_.push_back(row);
  if (state == KeyState::claimed) {
    store_->remove(row.key);
  } else if (!options_.shared) {
    store_->set_state(row.key, state);
  }
}

void Idempotency::share(KeyShare& share) {
  share_ = &share;
  if (!store_) return;
  share.on_asked([this, &share](KeyShare::Question question) {
    if (!speaks_for_all()) return;  // the other process may have it
    boost::asio::co_spawn(share.io(), say_what_became(std::move(question)), boost::asio::detached);
  });
  if (decided_.empty()) return;
  boost::asio::co_spawn(share.io(), tell(share, std::exchange(decided_, {})), boost::asio::detached);
}

// What was never written down was never called for: this gateway died between Redis's word and its store's. What has
// ended was not heard, or is on its way. Everything else the others have to wait for.
boost::asio::awaitable<void> Idempotency::say_what_became(KeyShare::Question question) {
  std::optional<Digest> lost, answered;  // of the request
  bool known = false;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = table_.find(question.key()); found != table_.end()) {
      known = true;
      if (found->second.state == State::lost) lost = found->second.request;
      if (found->second.state == State::answered) answered = found->second.request;
    }
  }
  if (lost) co_return std::move(question).lost(*lost);
  if (answered) {
    const auto kept = co_await answer(question.key(), {});
    if (kept && *kept) std::move(question).done(*answered, *kept);
    co_return;
  }
  if (known || wall_ms() < complete_from_ms_) co_return;
  // A process that took this one's place for a moment, or follows it, may have written what this table never saw.
  const auto written = co_await store_->has(question.key(), {});
  if (written && !*written && speaks_for_all()) std::move(question).never_called();
}

boost::asio::awaitable<void> Idempotency::tell(KeyShare& share, std::vector<KeyRow> rows) {
  for (const KeyRow& row : rows) {
    const auto here = [this, key = row.key, state = row.state, bytes = row.body_bytes] {
      write_end(key, state == KeyState::lost ? End::lost : End::settled, bytes);
    };
    if (row.state == KeyState::claimed) {
      share.tell_released(row.key, row.request);
    } else if (row.state == KeyState::lost) {
      share.tell_lost(row.key, row.request, here);
    } else if (auto answer = co_await store_->answer(row.key, {}); answer && *answer) {
      share.tell_done(row.key, row.request, std::move(*answer), here);
    }
  }
}

void Idempotency::load(const std::vector<KeyRow>& rows) {
  const core::SteadyTime steady = clock_.steady();
  const std::int64_t now_ms = wall_ms();
  const std::lock_guard lock(mutex_);
  for (const KeyRow& row : rows) {
    if (open_ == metering::OpenIntents::keep && (row.state == KeyState::claimed || row.state == KeyState::answered)) {
      table_[row.key] = {.request = row.request, .state = State::elsewhere, .expires = core::SteadyTime::max()};
      continue;
    }
    if (row.state == KeyState::claimed) continue;
    // A wall clock that was set back must not keep a key for longer than its time.
    const std::chrono::milliseconds left{
        std::min<std::int64_t>(row.expires_ms - now_ms, std::chrono::milliseconds{options_.ttl}.count())};
    if (left.count() <= 0) {
      store_->remove(row.key);
      continue;
    }
    const bool lost = row.state == KeyState::lost;
    table_[row.key] = {.request = row.request,
                       .state = lost ? State::lost : State::answered,
                       .bytes = static_cast<std::uint32_t>(row.body_bytes),
                       .expires = steady + left};
    expiries_.emplace_back(steady + left, row.key);
    if (lost) continue;
    answers_.push_back(row.key);
    answer_bytes_ += row.body_bytes;
  }
  make_room();
}

Idempotency::Known Idempotency::refused(core::Error error) {
  (error.kind == ErrorKind::conflict ? conflicts_ : refused_).add();
  return {.kind = Known::Kind::refused, .error = std::move(error)};
}

std::optional<core::Error> Idempotency::unusable() const {
  if (store_) return std::nullopt;
  return core::make_error(
      ErrorKind::ledger_unavailable,
      "requests with an Idempotency-Key cannot be served, because the store of keys cannot be used; "
      "the operator's log says why",
      "idempotency-key");
}

core::Error Idempotency::refuse(Refusal why) {
  (why == Refusal::another_request || why == Refusal::lost ? conflicts_ : refused_).add();
  if (why == Refusal::another_request) {
    return refusal(
        "this Idempotency-Key was used with another request (endpoint or body); use a new key for a new request");
  }
  if (why == Refusal::lost) {
    return refusal(
        "the request with this Idempotency-Key was billed, but its answer cannot be repeated (it was cut off, is over "
        "the size that is kept, or was let go to make room); use a new key to ask again");
  }
  if (why == Refusal::leaving) {
    core::Error error =
        core::make_error(ErrorKind::overloaded, "this process is being replaced; ask again", "idempotency-key");
    error.retry_after = std::chrono::seconds{1};
    return error;
  }
  const bool silent = why == Refusal::silent;
  core::Error error = core::make_error(
      ErrorKind::ledger_unavailable,
      silent ? "the gateway that serves the request with this Idempotency-Key does not answer, so it is not known "
               "whether it was billed; ask again when that gateway is back"
             : "whether the request with this Idempotency-Key was billed is known after a restart",
      "idempotency-key");
  if (silent) error.retry_after = kAskSilentAgain;
  return error;
}

Idempotency::Known Idempotency::known(Entry& entry, const Digest& request,
                                      const boost::asio::any_io_executor& executor) {
  const auto no = [this](Refusal why) { return Known{.kind = Known::Kind::refused, .error = refuse(why)}; };
  if (entry.request != request) return no(Refusal::another_request);
  switch (entry.state) {
    case State::answered:
      replayed_.add();
      return {.kind = Known::Kind::replay};
    case State::lost:
      return no(Refusal::lost);
    case State::doubt:
      return no(Refusal::doubt);
    case State::elsewhere:
      return {.kind = Known::Kind::elsewhere};
    case State::running:
      break;
  }
  Known out{.kind = Known::Kind::follow, .reader = entry.flight->follow(executor)};
  if (!out.reader) {
    return refused(refusal(
        "the request with this Idempotency-Key still runs, and its answer has outgrown what can be followed; ask again "
        "when it is done",
        std::chrono::seconds{1}));
  }
  followed_.add();
  return out;
}

Idempotency::Known Idempotency::look(const Digest& key, const Digest& request,
                                     const boost::asio::any_io_executor& executor) {
  if (auto error = unusable()) return refused(*std::move(error));
  const std::lock_guard lock(mutex_);
  expire(clock_.steady(), kExpireAtOnce);
  const auto found = table_.find(key);
  if (found == table_.end()) return {};
  if (found->second.state != State::running && found->second.expires <= clock_.steady()) return {};
  return known(found->second, request, executor);
}

Idempotency::Known Idempotency::claim(const Digest& key, const Digest& request, std::string_view request_id,
                                      const boost::asio::any_io_executor& executor) {
  if (auto error = unusable()) return refused(*std::move(error));
  KeyRow row{.key = key,
             .request = request,
             .request_id = std::string{request_id},
             .ledger_sequence = ledger_.stats().next_sequence - 1,
             .expires_ms = wall_ms() + std::chrono::milliseconds{options_.ttl}.count()};
  for (;;) {
    const bool handed = handed_over();
    const std::lock_guard lock(mutex_);
    if (!handed && mode_ != Mode::here) continue;  // frozen since: no claim is half made
    const core::SteadyTime now = clock_.steady();
    expire(now, kExpireAtOnce);
    const auto found = table_.find(key);
    if (found != table_.end() && (found->second.state == State::running || found->second.expires > now)) {
      return known(found->second, request, executor);
    }
    if (handed) break;
    if (found == table_.end()) {
      if (auto error = full()) return refused(*std::move(error));
    }
    return lead(std::move(row), executor, false);
  }
  return ask_heir(std::move(row), executor);
}

std::optional<core::Error> Idempotency::full() const {
  if (table_.size() < options_.keys_max) return std::nullopt;
  return core::make_error(
      ErrorKind::overloaded,
      "too many Idempotency-Keys are remembered (idempotency.max_keys); ask later, or without a key",
      "idempotency-key");
}

// Under the lock; what was known of the key is over. The claim's row is given to the store here, so that whoever
// flushes it has all claims of the table.
Idempotency::Known Idempotency::lead(KeyRow row, const boost::asio::any_io_executor& executor, bool written) {
  // With room for the pieces that pass while the pump goes over from keeping all to waiting for its fastest reader.
  auto flight = std::make_shared<cache::Flight>(options_.answer_bytes_max + 4 * core::kStreamBufferBytesMax);
  Known out{.kind = Known::Kind::lead};
  out.recorder = flight->record(executor);
  out.reader = flight->follow(executor);
  out.keeper = flight->follow(executor);
  const Digest key = row.key;
  Entry& entry = table_[key];
  if (entry.state == State::answered && !entry.in_memory) answer_bytes_ -= entry.bytes;
  entry = {.request = row.request, .expires = clock_.steady() + options_.ttl, .flight = std::move(flight)};
  try {
    std::optional<idempotency::Store::Pending> writing;
    if (!written) writing = store_->claim(row, executor);
    out.claim = std::make_unique<KeyClaim>(*this, std::move(row), std::move(writing));
  } catch (...) {  // no memory: nobody would end it
    table_.erase(key);
    throw;
  }
  running_.fetch_add(1, std::memory_order_relaxed);
  new_.add();
  return out;
}

boost::asio::awaitable<core::Result<std::shared_ptr<const idempotency::StoredAnswer>>> Idempotency::answer(
    Digest key, core::Deadline deadline) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = table_.find(key);
    if (found != table_.end() && found->second.in_memory) co_return found->second.in_memory;
  }
  co_return co_await store_->answer(key, deadline);
}

// The claim has ended: its entry takes its last state, or goes.
void Idempotency::end(const KeyClaim& claim, State state, bool remove) {
  std::shared_ptr<cache::Flight> flight;  // let go of after the lock
  const std::lock_guard lock(mutex_);
  running_.fetch_sub(1, std::memory_order_relaxed);
  const auto found = table_.find(claim.row_.key);
  if (found == table_.end()) return;
  Entry& entry = found->second;
  flight = std::move(entry.flight);
  if (remove) {
    table_.erase(found);
    return;
  }
  entry.state = state;
  // From now on, so that a long call does not eat up its answer's time.
  entry.expires = clock_.steady() + options_.ttl;
  expiries_.emplace_back(entry.expires, claim.row_.key);
  if (state != State::answered) return;
  entry.in_memory = claim.in_memory_;
  if (entry.in_memory) return;
  entry.bytes = static_cast<std::uint32_t>(claim.row_.body_bytes);
  answers_.push_back(claim.row_.key);
  answer_bytes_ += entry.bytes;
  make_room();
}

// Forgets up to `at_most` keys whose time is over. Lock held.
void Idempotency::expire(core::SteadyTime now, std::size_t at_most) {
  for (; at_most > 0 && !expiries_.empty() && expiries_.front().first <= now; --at_most) {
    const auto [at, key] = expiries_.front();
    expiries_.pop_front();
    const auto found = table_.find(key);
    // Claimed anew meanwhile, or with a later end.
    if (found == table_.end() || found->second.state == State::running || found->second.expires > now) continue;
    if (found->second.state == State::answered && !found->second.in_memory) answer_bytes_ -= found->second.bytes;
    table_.erase(found);
    if (mode_ == Mode::here) store_->remove(key);  // else it may be the other process's by now
  }
  while (!answers_.empty()) {
    const auto found = table_.find(answers_.front());
    if (found != table_.end() && found->second.state == State::answered) break;
    answers_.pop_front();
  }
}

// Lets the oldest answers go; their keys stay and are refused, so that nothing is billed twice. Lock held.
void Idempotency::make_room() {
  while (answer_bytes_ > options_.store_bytes_max && !answers_.empty()) {
    const Digest key = answers_.front();
    answers_.pop_front();
    const auto found = table_.find(key);
    if (found == table_.end() || found->second.state != State::answered || found->second.in_memory) continue;
    answer_bytes_ -= found->second.bytes;
    found->second.bytes = 0;
    found->second.state = State::lost;
    ++let_go_;
    if (mode_ == Mode::here) store_->set_state(key, KeyState::lost);
  }
}

Idempotency::Stats Idempotency::stats() const {
  const std::lock_guard lock(mutex_);
  return {.keys = table_.size(),
          .answer_bytes = answer_bytes_,
          .let_go = let_go_,
          .errors = store_ ? store_->errors() : 0,
          .file_bytes = store_ ? store_->file_bytes() : 0};
}

}  // namespace ganglion::gateway
