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
