// See redis_pubsub.hpp.

#include "net/redis_pubsub.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "core/log.hpp"
#include "net/keep_running.hpp"

namespace ganglion::net::redis {

namespace asio = boost::asio;
using core::SteadyTime;
using namespace std::chrono_literals;

namespace {

constexpr std::chrono::nanoseconds kDeniedPause = 5s;

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

}  // namespace

// Kept by its own coroutine, so that it may end after the client.
struct PubSub::Core final : std::enable_shared_from_this<Core>, Connection::Owner {
  Core(std::shared_ptr<Context> c, std::function<std::vector<Address>()> a)
      : context(std::move(c)), addresses(std::move(a)), timer(context->executor) {}

  void answered(CommandPtr /*command*/, RedisReply /*reply*/) override {}
  void dropped(const Fault& fault) override;

  asio::awaitable<void> run(std::shared_ptr<Core> self);
  void let_go();
  asio::awaitable<void> serve(const Address& address);
  void pushed(const RedisReply& reply);
  std::vector<std::shared_ptr<Subscription>> alive();
  void sync();

  std::shared_ptr<Context> context;
  std::function<std::vector<Address>()> addresses;
  asio::steady_timer timer;
  std::vector<std::weak_ptr<Subscription>> entries;
  std::vector<std::string> channels;  // that the server was asked for
  std::shared_ptr<Connection> connection;
  bool subscribed = false;  // the connection is in that mode
  bool denied = false;      // the last one was refused what it wants
  bool running = false;
  bool stopped = false;
};

// A user that may not subscribe has to be told: commands that need no subscription go on.
void PubSub::Core::dropped(const Fault& fault) {
  if (fault.why == RedisDown::denied && !std::exchange(denied, true))
    core::log(core::LogLevel::error, "redis_subscription_denied", {{"problem", fault.detail}});
  timer.cancel();
}

std::vector<std::shared_ptr<Subscription>> PubSub::Core::alive() {
  std::vector<std::shared_ptr<Subscription>> out;
  std::erase_if(entries, [&](const std::weak_ptr<Subscription>& weak) {
    auto entry = weak.lock();
    if (!entry) return true;
    out.push_back(std::move(entry));
    return false;
  });
  return out;
}

// Tells the server what is wanted and no longer wanted.
void PubSub::Core::sync() {
  std::vector<std::string> wanted;
  for (const auto& entry : alive()) {
    if (std::ranges::find(wanted, entry->channel) == wanted.end()) wanted.push_back(entry->channel);
  }
  for (const std::string& channel : wanted) {
    if (std::ranges::find(channels, channel) == channels.end())
      connection->raw(RedisCommand{"SUBSCRIBE", channel}.wire());
  }
  for (const std::string& channel : channels) {
    if (std::ranges::find(wanted, channel) == wanted.end())
      connection->raw(RedisCommand{"UNSUBSCRIBE", channel}.wire());
  }
  channels = std::move(wanted);
}

// [message, channel, payload], [subscribe, channel, count], [pong, ...].
void PubSub::Core::pushed(const RedisReply& reply) {
  if (reply.type == RedisReply::Type::error) {
    connection->drop(fault_of(to_result(reply).error()));
    return;
  }
  if (!reply.is_array() || reply.items.size() < 3) return;
  const bool message = reply.items[0].text == "message";
  if (!message && reply.items[0].text != "subscribe") return;
  for (const auto& entry : alive()) {
    if (entry->channel != reply.items[1].text) continue;
    denied = false;
    if (message)
      entry->message(reply.items[2].text);
    else
      entry->gap();
  }
}

asio::awaitable<void> PubSub::Core::serve(const Address& address) {
  const SteadyTime until = steady_now() + context->options.connect_timeout;
  connection = std::make_shared<Connection>(context, *this);
  Opened opened = co_await connection->open(address, until);
  if (opened && !stopped) opened = co_await connection->greet(until);
  if (!opened || stopped) co_return;
  connection->subscribe_mode([weak = weak_from_this()](const RedisReply& reply) {
    if (const auto self = weak.lock(); self && !self->stopped) self->pushed(reply);
  });
  channels.clear();
  subscribed = true;
  sync();
  const auto interval = context->options.ping_interval;
  SteadyTime pinged = SteadyTime::min();
  while (!stopped && !connection->closed()) {
    sync();
    const auto now = steady_now();
    const auto heard = connection->heard();
    if (pinged > heard && now >= pinged + context->options.connect_timeout) break;  // silent
    if (pinged <= heard && now >= heard + interval) {
      connection->raw(RedisCommand{"PING"}.wire());
      pinged = now;
    }
    timer.expires_at(pinged > heard ? pinged + context->options.connect_timeout
                                    : std::max(heard + interval, now + 1ms));
    (void)co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

void PubSub::Core::let_go() {
  subscribed = false;
  if (!connection) return;
  connection->leave();
  connection->drop({.why = RedisDown::closed, .detail = "not subscribed any more"});
}

asio::awaitable<void> PubSub::Core::run(std::shared_ptr<Core> self) {
  let_go();  // of what a run has left that did not come to its end
  for (std::size_t turn = 0; !stopped; ++turn) {
    const auto all = addresses();
    co_await serve(all[turn % all.size()]);
    let_go();
    if (stopped) break;
    const std::chrono::nanoseconds pause = context->options.retry_max / 2;
    timer.expires_after(denied ? std::max(pause, kDeniedPause) : pause);
    (void)co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

PubSub::PubSub(std::shared_ptr<Context> context, std::function<std::vector<Address>()> addresses)
    : core_(std::make_shared<Core>(std::move(context), std::move(addresses))) {}

PubSub::~PubSub() {
  stop();
}

void PubSub::add(std::shared_ptr<Subscription> entry) {
  core_->entries.push_back(entry);
  if (core_->subscribed) core_->sync();
  if (core_->running) return;
  const Kept kept{.name = "redis subscriptions",
                  .wanted = [core = core_] { return !core->stopped; },
                  .begin = [core = core_] { return core->run(core); }};
  core_->running = true;
  keep_running(core_->context->executor, kept);
}

void PubSub::stop() {
  if (std::exchange(core_->stopped, true)) return;
  core_->timer.cancel();
  if (!core_->connection) return;
  core_->connection->leave();
  core_->connection->drop({.why = RedisDown::closed, .detail = "the client is gone"});
}

}  // namespace ganglion::net::redis
