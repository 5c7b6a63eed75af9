// See redis_connection.hpp. Opens, greets, reads and ends; the queue of commands is redis_pipeline.cpp's.

#include "net/redis_connection.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "net/retry_for_memory.hpp"
#include "net/self_connect.hpp"

namespace ganglion::net::redis {

namespace asio = boost::asio;
using asio::ip::tcp;
using core::SteadyTime;
using namespace std::chrono_literals;

namespace {

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
  // Who waits for it would wait for ever.
  post_surely(executor, [done = std::exchange(command.done, {}), result = std::move(result)]() mutable {
    done(std::move(result));
  });
}

void Context::fail(Command& command, RedisFailure failure, std::string_view message, bool maybe_done) {
  if (!command.done) return;
  RedisError error{.failure = failure, .maybe_done = maybe_done};
  retry_for_memory([&] { error.message = message; });
  finish(command, std::unexpected(std::move(error)));
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
  if (error || !socket->is_open() || was_connected_to_itself(*socket, endpoint)) co_return false;
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
  retry_for_memory([&] {  // without it a server that hangs would never be noticed
    timer_.expires_at(at);
    timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
      if (error) return;
      if (const auto self = weak.lock()) self->tick();
    });
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

void Connection::drop(Fault fault) {
  if (closed_) return;
  closed_ = true;
  timer_.cancel();
  boost::system::error_code ignored;
  if (connecting_) connecting_->close(ignored);
  if (stream_) stream_->close();
  const std::size_t fixed = begun();
  const bool silent = fault.why == RedisDown::hung;
  for (std::size_t i = 0; i < queue_.size(); ++i) {
    context_->fail(*queue_[i], silent ? RedisFailure::timed_out : RedisFailure::closed, fault.detail, i < fixed);
  }
  queue_.clear();
  written_ = offset_ = pinned_ = 0;
  if (Owner* const owner = std::exchange(owner_, nullptr)) owner->dropped(fault);
}

}  // namespace ganglion::net::redis
