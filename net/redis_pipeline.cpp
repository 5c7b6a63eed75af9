// The queue of one connection to Redis: what is written and when, in which order, and whose answer comes. See
// redis_connection.hpp.
//
// Scripts keep their place among the commands. The first use of a script on a connection carries its text (EVAL), which
// makes it known; later ones name it (EVALSHA). A server that forgets its scripts answers NOSCRIPT to all that were on
// their way: those go out again with their text, in their order, and before anything that was not written yet; until
// the last of them has come back nothing else is written. What a plain command on its way did meanwhile is done.

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "net/redis_connection.hpp"
#include "net/retry_for_memory.hpp"

namespace ganglion::net::redis {

namespace asio = boost::asio;
using core::SteadyTime;

namespace {

constexpr std::size_t kPiecesMax = 64;  // commands in one system call

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

// An EVALSHA becomes the EVAL of the same script, behind ASKING if it was.
void as_text(Command& command) {
  const std::string_view head[] = {"EVAL", command.script->text()};
  std::string wire = RedisCommand(head).wire();
  wire.replace(0, wire.find('\n') + 1, "*" + std::to_string(command.words) + "\r\n");
  command.wire = wire.append(command.wire, command.script_tail + (command.asking ? kAsking.size() : 0));
  if (command.asking) command.wire.insert(0, kAsking);
  command.by_text = true;
}

bool holds(const std::vector<std::uint64_t>& ids, std::uint64_t id) {
  return std::ranges::find(ids, id) != ids.end();
}

}  // namespace

CommandPtr make_command(const RedisCommand& command, SteadyTime until, RedisClient::Handler done) {
  auto made = std::make_unique<Command>();
  made->wire = command.wire();
  made->slot = command.slot();
  made->deadline = until;
  made->done = std::move(done);
  return made;
}

void Connection::send(CommandPtr command) {
  const auto now = steady_now();
  if (queue_.empty()) progress_ = now;
  command->sent = now;
  const auto look = std::min(command->deadline, progress_ + context_->options.hung_after);
  if (closed_) return context_->fail(*command, RedisFailure::closed, "not connected");  // its owner has yet to notice
  retry_for_memory([&] { queue_.push_back(std::move(command)); });
  arm(look);
  schedule_flush();
}

// Commands of one turn of the loop leave in one system call.
void Connection::schedule_flush() {
  if (flush_posted_ || write_blocked_ || closed_) return;
  flush_posted_ = true;
  post_surely(context_->executor, [self = shared_from_this()] {
    self->flush_posted_ = false;
    self->flush();
  });
}

// Those before this one were written, or are being: they cannot be taken back.
std::size_t Connection::begun() const {
  return std::max(written_ + (offset_ > 0 ? 1 : 0), pinned_);
}

// Those before this one may be written now.
std::size_t Connection::sendable() const {
  return held_ ? begun() : queue_.size();
}

Io Connection::write_queue() {
  if (!raw_.empty()) {
    const iovec piece{.iov_base = raw_.data(), .iov_len = raw_.size()};
    const Io io = stream_->write_now({&piece, 1});
    if (io.kind == Io::Kind::bytes) raw_.erase(0, io.n);
    return io;
  }
  std::array<iovec, kPiecesMax> pieces;
  std::size_t count = 0;
  const std::size_t fixed = begun();
  coming_.clear();
  for (std::size_t i = written_; i < sendable() && count < kPiecesMax; ++i) {
    Command& command = *queue_[i];
    if (command.script != nullptr) {
      const bool known = holds(known_, command.script_id) || holds(coming_, command.script_id);
      if (i >= fixed && !known && !command.by_text) as_text(command);
      if (command.by_text) coming_.push_back(command.script_id);
    }
    const std::size_t skip = i == written_ ? offset_ : 0;
    pieces[count++] = {.iov_base = command.wire.data() + skip, .iov_len = command.wire.size() - skip};
  }
  const Io io = stream_->write_now({pieces.data(), count});
  if (io.kind == Io::Kind::bytes) {
    pinned_ = 0;
    wrote(io.n);
  } else if (context_->tls) {
    pinned_ = written_ + count;  // a record that TLS could not send stays as it was made
  }
  return io;
}

void Connection::wrote(std::size_t bytes) {
  while (bytes > 0) {
    const Command& command = *queue_[written_];
    const std::size_t left = command.wire.size() - offset_;
    if (bytes < left) {
      offset_ += bytes;
      return;
    }
    bytes -= left;
    offset_ = 0;
    ++written_;
    if (command.by_text && !holds(known_, command.script_id)) known_.push_back(command.script_id);
  }
}

void Connection::flush() {
  while (!closed_ && !write_blocked_ && (written_ < sendable() || !raw_.empty())) {
    switch (write_queue().kind) {
      case Io::Kind::bytes:
        break;
      case Io::Kind::want_read:  // TLS wants to be read from first: the read loop flushes after that
        return;
      case Io::Kind::want_write:
        write_blocked_ = true;
        try {
          asio::co_spawn(
              context_->executor, [self = shared_from_this()] { return self->wait_to_write(); }, asio::detached);
        } catch (const std::bad_alloc&) {
          write_blocked_ = false;
          schedule_flush();
        }
        return;
      case Io::Kind::end:
      case Io::Kind::failed:
        drop({.why = RedisDown::closed, .detail = "the connection broke"});
        return;
    }
  }
}

asio::awaitable<void> Connection::wait_to_write() {
  const auto self = shared_from_this();
  (void)co_await stream_->wait_write();
  write_blocked_ = false;
  flush();
}

void Connection::take(RedisReply reply) {
  if (push_) {
    push_(std::move(reply));
    return;
  }
  // ASKING's own +OK, which may come while the command behind it is still being written.
  const bool part = written_ == 0 && !queue_.empty();
  if (!queue_.empty() && queue_.front()->asking && (!part || offset_ >= kAsking.size())) {
    queue_.front()->asking = false;
    queue_.front()->wire.erase(0, kAsking.size());
    if (part) offset_ -= kAsking.size();
    return;
  }
  if (written_ == 0) {
    drop({.why = RedisDown::protocol, .detail = "an answer that nobody asked for"});
    return;
  }
  CommandPtr command = std::move(queue_.front());
  queue_.pop_front();
  --written_;
  if (pinned_ > 0) --pinned_;
  answer(std::move(command), std::move(reply));
  if (held_ && !closed_ && begun() == 0) {
    held_ = false;
    schedule_flush();
  }
}

void Connection::answer(CommandPtr command, RedisReply reply) {
  if (command->internal) {
    context_->finish(*command, to_result(std::move(reply)));
    return;
  }
  if (context_->hooks != nullptr) context_->hooks->answered(heard_ - command->sent);
  if (reply.type == RedisReply::Type::error && command->script != nullptr) {
    if (command->by_text) {
      std::erase(known_, command->script_id);  // refused before it was read, for all one knows
    } else if (read_error(reply.text).ask == ErrorLine::Ask::load_script) {
      known_.clear();
      if (command->done && command->deadline > steady_now()) {
        send_again(std::move(command));
        return;
      }
    }
  }
  if (owner_ != nullptr) owner_->answered(std::move(command), std::move(reply));
}

// Behind what is on its way and what goes again already, before all that was not written.
void Connection::send_again(CommandPtr command) {
  if (context_->hooks != nullptr) context_->hooks->script_loaded();
  as_text(*command);
  if (command->asked) {
    command->wire.insert(0, kAsking);
    command->asking = true;
  }
  command->again = true;
  held_ = true;
  std::size_t place = begun();
  while (place < queue_.size() && queue_[place]->again) ++place;
  retry_for_memory([&] { queue_.push_back(std::move(command)); });
  std::rotate(queue_.begin() + static_cast<std::ptrdiff_t>(place), queue_.end() - 1, queue_.end());
}

// Ends what is past its deadline; returns the next deadline.
SteadyTime Connection::sweep(SteadyTime now) {
  SteadyTime next = SteadyTime::max();
  const std::size_t fixed = begun();
  std::size_t kept = 0;
  for (std::size_t i = 0; i < queue_.size(); ++i) {
    Command& command = *queue_[i];
    if (command.done && command.deadline <= now) {
      context_->fail(command, RedisFailure::timed_out, "no answer by the deadline", i < fixed);
      if (i >= fixed) continue;  // never sent: out of the queue
    } else if (command.done) {
      next = std::min(next, command.deadline);
    }
    if (kept != i) queue_[kept] = std::move(queue_[i]);
    ++kept;
  }
  queue_.resize(kept);
  return next;
}

}  // namespace ganglion::net::redis
