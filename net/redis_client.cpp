// See redis_client.hpp. The work is the engine's (redis_engine.hpp).

#include "net/redis_client.hpp"

#include <boost/asio/async_result.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "net/redis_engine.hpp"
#include "net/redis_pubsub.hpp"

namespace ganglion::net {

namespace asio = boost::asio;

namespace {

// EVALSHA sha numkeys keys... args...; remembers where the part begins that EVAL shares.
redis::CommandPtr make_eval(const RedisScript& script, std::span<const std::string_view> keys,
                            std::span<const std::string_view> args) {
  RedisCommand command{"EVALSHA", script.sha1()};
  const std::size_t head = command.wire().size();
  command << static_cast<std::int64_t>(keys.size());
  for (const std::string_view key : keys) command << key;
  for (const std::string_view arg : args) command << arg;
  auto made = redis::make_command(std::move(command).key(keys.front()), {}, {});
  made->script = &script;
  made->script_id = script.id();
  made->words = 3 + keys.size() + args.size();
  const std::size_t digits = std::to_string(made->words).size();
  made->script_tail = head + digits - 1;  // the head alone had one digit
  return made;
}

}  // namespace

core::Result<void> check_redis_tls(const RedisOptions& options) {
  if (!options.tls) return {};
  auto made = redis::make_tls(options);
  if (!made) return std::unexpected(std::move(made.error()));
  return {};
}

struct RedisSubscription::Entry : redis::Subscription {};

RedisSubscription::RedisSubscription(std::shared_ptr<Entry> entry) : entry_(std::move(entry)) {}
RedisSubscription::RedisSubscription(RedisSubscription&&) noexcept = default;
RedisSubscription& RedisSubscription::operator=(RedisSubscription&&) noexcept = default;
RedisSubscription::~RedisSubscription() = default;

RedisClient::RedisClient(asio::any_io_executor executor, RedisOptions options, RedisHooks& hooks)
    : engine_(std::make_shared<redis::Engine>(std::move(executor), std::move(options), hooks)) {}

RedisClient::~RedisClient() {
  engine_->stop();
}

void RedisClient::start() {
  engine_->start();
}

void RedisClient::send(RedisCommand command, core::Deadline until, Handler done) {
  engine_->submit(redis::make_command(command, engine_->limit(until), std::move(done)));
}

void RedisClient::send_eval(const RedisScript& script, std::span<const std::string_view> keys,
                            std::span<const std::string_view> args, core::Deadline until, Handler done) {
  auto command = make_eval(script, keys, args);
  command->deadline = engine_->limit(until);
  command->done = std::move(done);
  engine_->submit(std::move(command));
}

asio::awaitable<RedisResult> RedisClient::command(RedisCommand command, core::Deadline until) {
  return asio::async_initiate<const asio::use_awaitable_t<>, void(RedisResult)>(
      [engine = engine_, made = redis::make_command(command, engine_->limit(until), {})](auto handler) mutable {
        made->done = [handler = std::move(handler)](RedisResult result) mutable {
          std::move(handler)(std::move(result));
        };
        engine->submit(std::move(made));
      },
      asio::use_awaitable);
}

asio::awaitable<RedisResult> RedisClient::eval(const RedisScript& script, std::span<const std::string_view> keys,
                                               std::span<const std::string_view> args, core::Deadline until) {
  auto made = make_eval(script, keys, args);
  made->deadline = engine_->limit(until);
  return asio::async_initiate<const asio::use_awaitable_t<>, void(RedisResult)>(
      [engine = engine_, made = std::move(made)](auto handler) mutable {
        made->done = [handler = std::move(handler)](RedisResult result) mutable {
          std::move(handler)(std::move(result));
        };
        engine->submit(std::move(made));
      },
      asio::use_awaitable);
}

RedisSubscription RedisClient::subscribe(std::string channel, std::function<void(std::string_view message)> message,
                                         std::function<void()> gap) {
  auto entry = std::make_shared<RedisSubscription::Entry>();
  entry->channel = std::move(channel);
  entry->message = std::move(message);
  entry->gap = std::move(gap);
  engine_->start();
  engine_->pubsub().add(entry);
  return RedisSubscription{std::move(entry)};
}

bool RedisClient::available(std::string_view key) const {
  return engine_->available(redis_slot(key));
}

RedisState RedisClient::state() const {
  return engine_->state();
}

RedisDown RedisClient::why() const {
  return engine_->why();
}

bool RedisClient::cluster() const {
  return engine_->cluster();
}

const RedisOptions& RedisClient::options() const {
  return engine_->options();
}

}  // namespace ganglion::net
