// See redis_connection.hpp.

#include "net/redis_connection.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace ganglion::net::redis {

namespace asio = boost::asio;
using asio::ip::tcp;
using core::SteadyTime;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kPiecesMax = 64;    // commands in one system call
constexpr unsigned kReadsMax = 16;        // before the loop gives way to others
constexpr auto kSweepPause = 2ms;         // deadlines are kept this exactly
constexpr std::size_t kAddressesMax = 4;  // of one name

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

Fault hung() {
  return {.why = RedisDown::hung, .detail = "it does not answer"};
}

}  // namespace

Fault fault_of(const RedisError& error) {
  switch (error.failure) {
    case RedisFailure::denied:
      return {.why = RedisDown::denied, .detail = error.message};
    case RedisFailure::loading:
      return {.why = RedisDown::loading, .detail = error.message};
    case RedisFailure::read_only:
      return {.why = RedisDown::read_only, .detail = error.message};
    case RedisFailure::timed_out:
      return hung();
    case RedisFailure::closed:
      return {.why = RedisDown::closed, .detail = error.message};
    default:
      return {.why = RedisDown::protocol, .detail = error.message};
  }
}

void Context::finish(Command& command, RedisResult result) {
  if (!command.done) return;
  if (hooks != nullptr && !result && !command.internal) hooks->failed(result.error().failure);
  asio::post(executor, [done = std::exchange(command.done, {}), result = std::move(result)]() mutable {
    done(std::move(result));
  });
}

CommandPtr make_command(const RedisCommand& command, SteadyTime until, RedisClient::Handler done) {
  auto made = std::make_unique<Command>();
  made->wire = command.wire();
  made->slot = command.slot();
  made->deadline = until;
  made->done = std::move(done);
  return made;
}

RedisResult to_result(RedisReply reply) {
  if (reply.type != RedisReply::Type::error) return reply;
  const RedisFailure failure = read_error(reply.text).failure;
  return std::unexpected(RedisError{.failure = failure, .message = std::move(reply.text)});
}

Connection::Connection(std::shared_ptr<Context> context, Owner& owner)
    : context_(std::move(context)),
      owner_(&owner),
      reader_(context_->options.reply_bytes_max),
      timer_(context_->executor) {}

struct Connection::Lookup {
  tcp::resolver resolver;
  asio::steady_timer done;
  Endpoints found;
};

// A look-up blocks a helper thread and cannot be called off, so it is left to itself when the time is over.
asio::awaitable<Connection::Endpoints> Connection::resolve(const Address& address, SteadyTime until) {
  boost::system::error_code error;
  const auto literal = asio::ip::make_address(address.host, error);
  if (!error) co_return Endpoints{tcp::endpoint(literal, address.port)};
  auto lookup = std::make_shared<Lookup>(
      Lookup{.resolver = tcp::resolver(context_->executor), .done = asio::steady_timer(context_->executor, until)});
  lookup->resolver.async_resolve(address.host, std::to_string(address.port), tcp::resolver::numeric_service,
                                 [lookup](boost::system::error_code failed, const tcp::resolver::results_type& all) {
                                   if (!failed) {
                                     for (const auto& entry : all) lookup->found.push_back(entry.endpoint());
                                   }
                                   lookup->done.cancel();
                                 });
  (void)co_await lookup->done.async_wait(asio::as_tuple(asio::use_awaitable));
  Endpoints found = std::move(lookup->found);
  if (found.size() > kAddressesMax) found.resize(kAddressesMax);
  co_return found;
}

asio::awaitable<bool> Connection::connect(const tcp::endpoint& endpoint, SteadyTime until) {
  const auto socket = connecting_ = std::make_shared<tcp::socket>(context_->executor);
  timer_.expires_at(until);
  timer_.async_wait([socket](boost::system::error_code error) {
    boost::system::error_code ignored;
    if (!error) socket->close(ignored);
  });
  const auto [error] = co_await socket->async_connect(endpoint, asio::as_tuple(asio::use_awaitable));
  timer_.cancel();
  connecting_.reset();
  if (error || !socket->is_open()) co_return false;
  stream_.emplace(std::move(*socket));
  co_return true;
}

asio::awaitable<Opened> Connection::open(const Address& address, SteadyTime until) {
  const auto self = shared_from_this();
  const Endpoints endpoints = co_await resolve(address, until);
  if (endpoints.empty()) {
    co_return std::unexpected(Fault{.why = RedisDown::refused, .detail = "its name does not resolve"});
  }
  for (const auto& endpoint : endpoints) {
    if (closed_ || co_await connect(endpoint, until)) break;
  }
  if (closed_ || !stream_) {
    const bool late = steady_now() >= until;
    co_return std::unexpected(Fault{.why = late ? RedisDown::hung : RedisDown::refused,
                                    .detail = late ? "connecting took too long" : "it refuses connections"});
  }
  if (context_->tls) {
    auto secured = co_await handshake(address, until);
    if (!secured) co_return secured;
  }
  heard_ = steady_now();
  asio::co_spawn(context_->executor, [self] { return self->read_loop(); }, asio::detached);
  co_return Opened{};
}

asio::awaitable<Opened> Connection::handshake(const Address& address, SteadyTime until) {
  SslPtr ssl = make_client_ssl(context_->tls.get(), address.host, context_->options.tls_client.verify);
  if (!ssl) co_return std::unexpected(Fault{.why = RedisDown::tls, .detail = "TLS cannot be set up"});
  stream_->start_tls(std::move(ssl));
  timer_.expires_at(until);
  timer_.async_wait([self = shared_from_this()](boost::system::error_code error) {
    if (!error) self->stream_->close();
  });
  for (;;) {
    const Io io = stream_->is_open() ? stream_->handshake_now() : Io{};
    if (io.kind == Io::Kind::bytes) break;
    if (io.kind == Io::Kind::end || io.kind == Io::Kind::failed) {
      Fault fault{.why = RedisDown::tls, .detail = "the TLS handshake failed: " + take_ssl_error()};
      const bool untrusted = SSL_get_verify_result(stream_->ssl()) != X509_V_OK;
      if (untrusted) fault.detail = "its certificate is not trusted";
      if (steady_now() >= until) fault = hung();
      timer_.cancel();
      co_return std::unexpected(std::move(fault));
    }
    const bool writes = io.kind == Io::Kind::want_write;
    (void)co_await (writes ? stream_->wait_write() : stream_->wait_read());
  }
  timer_.cancel();
  if (closed_) co_return std::unexpected(Fault{});
  co_return Opened{};
}

void Connection::send(CommandPtr command) {
  const auto now = steady_now();
  if (queue_.empty()) progress_ = now;
  command->sent = now;
  const auto look = std::min(command->deadline, progress_ + context_->options.hung_after);
  queue_.push_back(std::move(command));
  if (closed_) {  // between its drop and the owner's noticing
    const auto last = std::move(queue_.back());
    queue_.pop_back();
    context_->finish(*last, std::unexpected(RedisError{.failure = RedisFailure::closed, .message = "not connected"}));
    return;
  }
  arm(look);
  schedule_flush();
}

asio::awaitable<RedisResult> Connection::ask(RedisCommand command, SteadyTime until) {
  const auto self = shared_from_this();
  co_return co_await asio::async_initiate<const asio::use_awaitable_t<>, void(RedisResult)>(
      [self, command = std::move(command), until](auto handler) {
        auto made = make_command(command, until, [handler = std::move(handler)](RedisResult result) mutable {
          std::move(handler)(std::move(result));
        });
        made->internal = true;
        self->send(std::move(made));
      },
      asio::use_awaitable);
}

asio::awaitable<Opened> Connection::greet(SteadyTime until) {
  const auto self = shared_from_this();
  const RedisOptions& options = context_->options;
  std::vector<RedisCommand> greeting;
  if (!options.password.empty() || !options.username.empty()) {
    RedisCommand auth{"AUTH"};
    if (!options.username.empty()) auth << options.username;
    greeting.push_back(auth << options.password.reveal());
  }
  if (options.database != 0) greeting.push_back(RedisCommand{"SELECT"} << std::int64_t{options.database});
  greeting.push_back(RedisCommand{"PING"});
  for (RedisCommand& command : greeting) {
    const RedisResult answer = co_await ask(std::move(command), until);
    if (answer) continue;
    co_return std::unexpected(fault_of(answer.error()));
  }
  co_return Opened{};
}

void Connection::raw(std::string_view wire) {
  raw_ += wire;
  schedule_flush();
}

// Commands of one turn of the loop leave in one system call.
void Connection::schedule_flush() {
  if (flush_posted_ || write_blocked_ || closed_) return;
  flush_posted_ = true;
  asio::post(context_->executor, [self = shared_from_this()] {
    self->flush_posted_ = false;
    self->flush();
  });
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
  for (std::size_t i = written_; i < queue_.size() && count < kPiecesMax; ++i) {
    std::string& wire = queue_[i]->wire;
    const std::size_t skip = i == written_ ? offset_ : 0;
    pieces[count++] = {.iov_base = wire.data() + skip, .iov_len = wire.size() - skip};
  }
  const Io io = stream_->write_now({pieces.data(), count});
  if (io.kind == Io::Kind::bytes) wrote(io.n);
  return io;
}

void Connection::wrote(std::size_t bytes) {
  while (bytes > 0) {
    const std::size_t left = queue_[written_]->wire.size() - offset_;
    if (bytes < left) {
      offset_ += bytes;
      return;
    }
    bytes -= left;
    offset_ = 0;
    ++written_;
  }
}

void Connection::flush() {
  while (!closed_ && !write_blocked_ && (written_ < queue_.size() || !raw_.empty())) {
    switch (write_queue().kind) {
      case Io::Kind::bytes:
        break;
      case Io::Kind::want_read:  // TLS wants to be read from first: the read loop flushes after that
        return;
      case Io::Kind::want_write:
        write_blocked_ = true;
        asio::co_spawn(
            context_->executor, [self = shared_from_this()] { return self->wait_to_write(); }, asio::detached);
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

// Reads once and hands on what is whole. `failed` also when the connection has been dropped meanwhile.
Io Connection::read_some() {
  const Io io = stream_->read_now(in_.data(), in_.size());
  if (io.kind != Io::Kind::bytes) return io;
  progress_ = heard_ = steady_now();
  reader_.feed({in_.data(), io.n});
  return take_replies() ? io : Io{};
}

bool Connection::take_replies() {
  while (!closed_) {
    auto reply = reader_.next();
    if (!reply) {
      drop({.why = RedisDown::protocol, .detail = reply.error()});
      return false;
    }
    if (!*reply) return true;
    take(std::move(**reply));
  }
  return false;
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
  if (command->internal) {
    context_->finish(*command, to_result(std::move(reply)));
    return;
  }
  if (context_->hooks != nullptr) context_->hooks->answered(heard_ - command->sent);
  if (owner_ != nullptr) owner_->answered(std::move(command), std::move(reply));
}

asio::awaitable<void> Connection::read_loop() {
  const auto self = shared_from_this();
  unsigned reads = 0;
  while (!closed_) {
    const Io io = read_some();
    if (closed_) break;
    switch (io.kind) {
      case Io::Kind::bytes:
        if (context_->tls) flush();
        if (++reads % kReadsMax == 0) co_await asio::post(asio::use_awaitable);
        break;
      case Io::Kind::want_read: {
        (void)co_await stream_->wait_read();
        break;
      }
      case Io::Kind::want_write: {
        (void)co_await stream_->wait_write();
        break;
      }
      case Io::Kind::end:
      case Io::Kind::failed:
        drop({.why = RedisDown::closed, .detail = "it closed the connection"});
        break;
    }
  }
}

void Connection::arm(SteadyTime at) {
  if (closed_ || at >= armed_) return;
  armed_ = at;
  timer_.expires_at(at);
  timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
    if (error) return;
    if (const auto self = weak.lock()) self->tick();
  });
}

void Connection::tick() {
  armed_ = SteadyTime::max();
  if (closed_ || !stream_) return;
  const auto limit = context_->options.hung_after;
  if (!queue_.empty() && steady_now() >= progress_ + limit) {
    // This process may have been the one that slept: what lies in the socket counts as heard.
    while (!closed_ && read_some().kind == Io::Kind::bytes && stream_->likely_readable()) {
    }
    if (closed_) return;
    if (!queue_.empty() && steady_now() >= progress_ + limit) {
      drop(hung());
      return;
    }
  }
  const auto now = steady_now();
  SteadyTime next = sweep(now);
  if (!queue_.empty()) next = std::min(next, progress_ + limit);
  if (next != SteadyTime::max()) arm(std::max(next, now + kSweepPause));
}

// Ends what is past its deadline; returns the next deadline.
SteadyTime Connection::sweep(SteadyTime now) {
  SteadyTime next = SteadyTime::max();
  const std::size_t begun = written_ + (offset_ > 0 ? 1 : 0);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < queue_.size(); ++i) {
    Command& command = *queue_[i];
    if (command.done && command.deadline <= now) {
      context_->finish(command, std::unexpected(RedisError{.failure = RedisFailure::timed_out,
                                                           .maybe_done = i < begun,
                                                           .message = "no answer by the deadline"}));
      if (i >= begun) continue;  // never sent: out of the queue
    } else if (command.done) {
      next = std::min(next, command.deadline);
    }
    if (kept != i) queue_[kept] = std::move(queue_[i]);
    ++kept;
  }
  queue_.resize(kept);
  return next;
}

void Connection::drop(Fault fault) {
  if (closed_) return;
  closed_ = true;
  timer_.cancel();
  boost::system::error_code ignored;
  if (connecting_) connecting_->close(ignored);
  if (stream_) stream_->close();
  const std::size_t begun = written_ + (offset_ > 0 ? 1 : 0);
  const bool silent = fault.why == RedisDown::hung;
  for (std::size_t i = 0; i < queue_.size(); ++i) {
    context_->finish(*queue_[i],
                     std::unexpected(RedisError{.failure = silent ? RedisFailure::timed_out : RedisFailure::closed,
                                                .maybe_done = i < begun,
                                                .message = fault.detail}));
  }
  queue_.clear();
  written_ = offset_ = 0;
  if (Owner* const owner = std::exchange(owner_, nullptr)) owner->dropped(fault);
}

}  // namespace ganglion::net::redis
