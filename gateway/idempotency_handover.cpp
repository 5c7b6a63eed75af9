// Idempotency keys while one process takes another's place. The old one ends the calls that it runs and tells the new
// one, which alone writes how they ended. See idempotency.hpp.

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

void Idempotency::follow(TellEnd tell) {
  {
    const std::lock_guard lock(mode_mutex_);
    tell_end_ = std::move(tell);
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
  tell_end_(claim.row_.key, end, claim.row_.body_bytes);
  return true;
}

void Idempotency::ended_elsewhere(const Digest& key, End end, std::uint64_t bytes) {
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
  store_->set_state(key, end == End::settled ? KeyState::settled : KeyState::lost);
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
    ended_elsewhere(row.key,
                    row.state == KeyState::settled ? End::settled
                    : row.state == KeyState::lost  ? End::lost
                                                   : End::released,
                    row.body_bytes);
  }
}

}  // namespace ganglion::gateway
