// Idempotency keys while one process takes another's place. The old one ends the calls that it runs and tells the new
// one, which alone writes how they ended. See idempotency.hpp.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <unordered_set>
#include <utility>

#include "core/log.hpp"
#include "gateway/idempotency.hpp"

namespace ganglion::gateway {

using idempotency::Digest;
using idempotency::KeyRow;
using idempotency::KeyState;

void Idempotency::freeze() {
  {
    const std::scoped_lock lock(mode_mutex_, mutex_);  // no claim and no end is half made
    mode_ = Mode::frozen;
  }
  // What was given before is in the file; later ends are told.
  if (store_) store_->flush();
}

void Idempotency::thaw() {
  {
    const std::lock_guard lock(mode_mutex_);
    mode_ = Mode::here;
    for (const PutOff& each : std::exchange(put_off_, {})) store_end(each.key, each.end);
  }
  mode_settled_.notify_all();
}

void Idempotency::follow(Heir heir) {
  std::vector<PutOff> put_off;
  {
    const std::lock_guard lock(mode_mutex_);
    heir_ = std::move(heir);
    mode_ = Mode::elsewhere;
    put_off.swap(put_off_);
  }
  mode_settled_.notify_all();
  for (const PutOff& each : put_off) heir_.ended(each.key, each.end, each.bytes);
}

bool Idempotency::handed_over() {
  if (mode_ == Mode::here) return false;
  std::unique_lock lock(mode_mutex_);
  mode_settled_.wait(lock, [this] { return mode_ != Mode::frozen; });
  return mode_ == Mode::elsewhere;
}

bool Idempotency::tell_end(const KeyClaim& claim, End end) {
  if (!handed_over()) return false;
  heir_.ended(claim.row_.key, end, claim.row_.body_bytes);
  return true;
}

// By whoever writes how keys end at that time. Never blocks: other gateways' answers come on the thread that hands
// over.
void Idempotency::write_end(const Digest& key, End end, std::uint64_t bytes) {
  {
    const std::lock_guard lock(mode_mutex_);
    if (mode_ == Mode::here) return store_end(key, end);
    if (mode_ == Mode::frozen) return put_off_.push_back({key, end, bytes});
  }
  heir_.ended(key, end, bytes);
}

void Idempotency::store_end(const Digest& key, End end) {
  if (end == End::released) return store_->remove(key);
  store_->set_state(key, end == End::settled ? KeyState::settled : KeyState::lost);
}

// A request that arrived before the handover and had no claim then: it runs here, under a claim of the other process.
Idempotency::Known Idempotency::ask_heir(KeyRow row, const boost::asio::any_io_executor& executor) {
  const auto no = [this](Refusal why) { return Known{.kind = Known::Kind::refused, .error = refuse(why)}; };
  if (!heir_.claim) return no(Refusal::leaving);
  const auto found = heir_.claim(row);
  if (!found) return refused(found.error());
  switch (*found) {
    case Found::claimed: {
      const Digest key = row.key;
      try {
        const std::lock_guard lock(mutex_);
        return lead(std::move(row), executor, true);
      } catch (...) {
        heir_.ended(key, End::released, 0);
        throw;
      }
    }
    case Found::running:
      return {.kind = Known::Kind::elsewhere};
    case Found::answered:
      replayed_.add();
      return {.kind = Known::Kind::replay};
    case Found::another_request:
      return no(Refusal::another_request);
    case Found::lost:
      return no(Refusal::lost);
    case Found::doubt:
      break;
  }
  return no(Refusal::doubt);
}

void Idempotency::claim_elsewhere(KeyRow row, TellFound tell) {
  if (auto error = unusable()) return tell(std::unexpected(*std::move(error)));
  if (auto met = meet_elsewhere(row)) return tell(std::move(*met));
  // Another request with this key waits meanwhile, as for any key of the other process.
  const Digest key = row.key;
  store_->claim(std::move(row), [this, key, tell = std::move(tell)](core::Result<void> done) {
    if (done) return tell(Found::claimed);
    {
      const std::lock_guard lock(mutex_);
      table_.erase(key);
    }
    tell(std::unexpected(std::move(done.error())));
  });
}

// What this process has of the key; nothing: it is the other one's from now on.
std::optional<core::Result<Idempotency::Found>> Idempotency::meet_elsewhere(KeyRow& row) {
  const std::lock_guard lock(mutex_);
  const core::SteadyTime now = clock_.steady();
  expire(now, kExpireAtOnce);
  const auto found = table_.find(row.key);
  if (found == table_.end()) {
    if (auto error = full()) return std::unexpected(*std::move(error));
  } else if (const Entry& entry = found->second; entry.state == State::running || entry.expires > now) {
    if (entry.request != row.request) return Found::another_request;
    switch (entry.state) {
      case State::answered:
        return Found::answered;
      case State::lost:
        return Found::lost;
      case State::doubt:
        return Found::doubt;
      case State::running:
      case State::elsewhere:
        return Found::running;
    }
  } else if (entry.state == State::answered && !entry.in_memory) {
    answer_bytes_ -= entry.bytes;
  }
  row.ledger_sequence = ledger_.stats().next_sequence - 1;
  table_[row.key] = {.request = row.request, .state = State::elsewhere, .expires = core::SteadyTime::max()};
  return std::nullopt;
}

void Idempotency::settle_claims() {
  if (store_) store_->flush();
}

void Idempotency::ended_elsewhere(const Digest& key, End end, std::uint64_t bytes) {
  end_elsewhere(key, end, bytes, true);
}

// `write`: how it ended goes into the store too; else that is done once other gateways were told.
void Idempotency::end_elsewhere(const Digest& key, End end, std::uint64_t bytes, bool write) {
  if (!store_) return;
  const std::lock_guard lock(mutex_);
  const auto found = table_.find(key);
  if (found == table_.end() || found->second.state != State::elsewhere) return;
  if (end == End::released) {
    store_->remove(key);
    table_.erase(found);
    return;
  }
  Entry& entry = found->second;
  entry.state = end == End::settled ? State::answered : State::lost;
  entry.expires = clock_.steady() + options_.ttl;
  expiries_.emplace_back(entry.expires, key);
  if (write) store_->set_state(key, end == End::settled ? KeyState::settled : KeyState::lost);
  if (end != End::settled) return;
  entry.bytes = static_cast<std::uint32_t>(bytes);
  answers_.push_back(key);
  answer_bytes_ += bytes;
  make_room();
}

void Idempotency::predecessor_gone() {
  if (!store_) return;
  only_ = true;
  auto rows = store_->keys();
  if (!rows) return core::log(core::LogLevel::error, "idempotency_not_recovered", {{"why", rows.error().message}});
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(*rows, [this](const KeyRow& row) {
      const auto found = table_.find(row.key);
      return found == table_.end() || found->second.state != State::elsewhere;
    });
    // It ended them, and was not heard: what is not in the store was not billed.
    std::unordered_set<Digest, idempotency::DigestHash> stored;
    for (const KeyRow& row : *rows) stored.insert(row.key);
    std::erase_if(table_, [&](const auto& each) {
      return each.second.state == State::elsewhere && !stored.contains(each.first);
    });
  }
  if (auto done = decide_all(*rows); !done) {  // they stay as they are, and are waited for, until the next start
    return core::log(core::LogLevel::error, "idempotency_not_recovered", {{"why", done.error().message}});
  }
  for (const KeyRow& row : *rows) {
    end_elsewhere(row.key,
                  row.state == KeyState::settled ? End::settled
                  : row.state == KeyState::lost  ? End::lost
                                                 : End::released,
                  row.body_bytes, share_ == nullptr);
  }
  // To them the process that had these keys has only fallen silent.
  if (share_ != nullptr && !decided_.empty()) {
    boost::asio::co_spawn(share_->io(), tell(*share_, std::exchange(decided_, {})), boost::asio::detached);
  }
}

}  // namespace ganglion::gateway
