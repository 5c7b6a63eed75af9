// Idempotency keys while one process takes another's place. The old one ends the calls that it runs and tells the new
// one, which alone writes how they ended. See idempotency.hpp.

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <utility>

#include "core/log.hpp"
#include "gateway/idempotency.hpp"

namespace ganglion::gateway {

using idempotency::Digest;
using idempotency::KeyRow;
using idempotency::KeyState;

void Idempotency::freeze() {
  {
    const std::lock_guard lock(mutex_);  // no claim is half made
    mode_ = Mode::frozen;
  }
  // Ends from before are in the file; later ones are told.
  if (store_) store_->flush();
}

void Idempotency::thaw() {
  {
    const std::lock_guard lock(mode_mutex_);
    mode_ = Mode::here;
  }
  mode_settled_.notify_all();
}

void Idempotency::follow(Heir heir) {
  {
    const std::lock_guard lock(mode_mutex_);
    heir_ = std::move(heir);
    mode_ = Mode::elsewhere;
  }
  mode_settled_.notify_all();
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

// A request that arrived before the handover and had no claim then: it runs here, under a claim of the other process.
Idempotency::Known Idempotency::ask_heir(KeyRow row, const boost::asio::any_io_executor& executor) {
  const auto no = [this](Refusal why) { return Known{.kind = Known::Kind::refused, .error = refuse(why)}; };
  if (!heir_.claim) return no(Refusal::leaving);
  const auto found = heir_.claim(row);
  if (!found) return refused(found.error());
  switch (*found) {
    case Found::claimed: {
      const std::lock_guard lock(mutex_);
      return lead(std::move(row), executor, true);
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

core::Result<Idempotency::Found> Idempotency::claim_elsewhere(KeyRow row) {
  if (auto error = unusable()) return std::unexpected(*std::move(error));
  {
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
  }
  // Another request with this key waits meanwhile, as for any key of the other process.
  if (auto done = store_->claim_and_wait(row); !done) {
    const std::lock_guard lock(mutex_);
    table_.erase(row.key);
    return std::unexpected(std::move(done.error()));
  }
  return Found::claimed;
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
  auto rows = store_->keys();
  if (!rows) return core::log(core::LogLevel::error, "idempotency_not_recovered", {{"why", rows.error().message}});
  {
    const std::lock_guard lock(mutex_);
    std::erase_if(*rows, [this](const KeyRow& row) {
      const auto found = table_.find(row.key);
      return found == table_.end() || found->second.state != State::elsewhere;
    });
  }
  if (auto done = decide_all(*rows); !done) {  // they stay as they are, and are refused, until the next start
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
