// See redis_node.hpp.

#include "net/redis_node.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>

#include "net/keep_running.hpp"
#include "net/retry_for_memory.hpp"

namespace ganglion::net::redis {

namespace asio = boost::asio;
using core::SteadyTime;
using namespace std::chrono_literals;

namespace {

constexpr std::chrono::nanoseconds kFirstPause = 10ms;
// Who was refused asks less often: some servers and their operators count failed logins.
constexpr std::chrono::nanoseconds kDeniedPause = 800ms;

SteadyTime steady_now() {
  return std::chrono::steady_clock::now();
}

// Clients of one store that fell together should not come back together.
double jitter() {
  thread_local std::minstd_rand random{std::random_device{}()};
  return std::uniform_real_distribution<double>{0.7, 1.0}(random);
}

}  // namespace

Node::Node(std::shared_ptr<Context> context, NodeOwner& owner, std::vector<Address> addresses)
    : context_(std::move(context)),
      owner_(&owner),
      addresses_(std::move(addresses)),
      timer_(context_->executor),
      waiting_timer_(context_->executor) {}

void Node::start() {
  if (started_ || stopped_) return;
  const Kept kept{.name = "redis node " + address().str(),
                  .wanted =
                      [weak = weak_from_this()] {
                        const auto self = weak.lock();
                        return self && !self->stopped_;
                      },
                  .begin =
                      [weak = weak_from_this()] {
                        auto self = weak.lock();
                        return self->run(self);
                      }};
  started_ = true;
  keep_running(context_->executor, kept);
}

void Node::stop() {
  if (stopped_) return;
  stopped_ = true;
  owner_ = nullptr;
  timer_.cancel();
  waiting_timer_.cancel();
  const Fault fault{.why = RedisDown::closed, .detail = "no longer used"};
  if (connection_) {
    connection_->leave();
    connection_->drop(fault);
  }
  for (const CommandPtr& command : take_waiting()) {
    context_->fail(*command, RedisFailure::closed, fault.detail);
  }
  if (context_->hooks != nullptr && counted_) context_->hooks->node_forgotten({state_, why_});
}

void Node::submit(CommandPtr command) {
  const auto refuse = [&](RedisFailure failure, std::string_view message) {
    context_->fail(*command, failure, message);
  };
  const std::size_t waiting = state_ == RedisState::up ? connection_->waiting() : waiting_.size();
  if (stopped_) return refuse(RedisFailure::closed, "no longer used");
  if (state_ == RedisState::down) return refuse(RedisFailure::unavailable, fault_.detail);
  if (waiting >= context_->options.waiting_max) return refuse(RedisFailure::busy, "too many commands wait");
  start();
  if (state_ == RedisState::up) {
    connection_->send(std::move(command));
    return;
  }
  retry_for_memory([&] { waiting_.push_back(std::move(command)); });
  if (waiting_.size() == 1 || waiting_.back()->deadline < waiting_timer_.expiry()) arm_waiting();
}

std::vector<CommandPtr> Node::take_waiting() {
  return std::exchange(waiting_, {});
}

void Node::arm_waiting() {
  const auto next = std::ranges::min_element(waiting_, {}, [](const CommandPtr& command) { return command->deadline; });
  if (next == waiting_.end() || (*next)->deadline == SteadyTime::max()) return;
  const SteadyTime deadline = (*next)->deadline;
  retry_for_memory([&] {
    waiting_timer_.expires_at(deadline);
    waiting_timer_.async_wait([weak = weak_from_this()](boost::system::error_code error) {
      const auto self = weak.lock();
      if (error || !self) return;
      const auto now = steady_now();
      std::erase_if(self->waiting_, [&](const CommandPtr& command) {
        if (command->deadline > now) return false;
        self->context_->fail(*command, RedisFailure::timed_out, "not connected by the deadline");
        return true;
      });
      self->arm_waiting();
    });
  });
}

void Node::release_waiting() {
  for (CommandPtr& command : take_waiting()) submit(std::move(command));
}

void Node::lost(Fault fault) {
  if (connection_) connection_->drop(std::move(fault));
}

void Node::answered(CommandPtr command, RedisReply reply) {
  if (owner_ != nullptr) owner_->answered(*this, std::move(command), std::move(reply));
}

// The circuit opens here, in the same turn in which the connection was lost.
void Node::dropped(const Fault& fault) {
  fault_ = fault;
  timer_.cancel();
  if (state_ == RedisState::up) set_state(RedisState::down, fault);
}

void Node::set_state(RedisState state, const Fault& fault) {
  const RedisDown why = state == RedisState::down ? fault.why : RedisDown::none;
  if (stopped_ || (state == state_ && why == why_)) return;
  const std::string name = address().str();
  const RedisHooks::Was was{std::exchange(state_, state), std::exchange(why_, why)};
  if (context_->hooks != nullptr) context_->hooks->node_state(name, was, state, why, fault.detail);
  if (owner_ != nullptr) owner_->state_changed(*this);
  if (!stopped_) release_waiting();
}

asio::awaitable<void> Node::run(std::shared_ptr<Node> self) {
  if (context_->hooks != nullptr && !counted_) {
    context_->hooks->node_state(address().str(), {}, RedisState::connecting, RedisDown::none, "");
    counted_ = true;
  }
  if (connection_) {  // of a run that did not come to its end
    connection_->leave();
    connection_->drop({.why = RedisDown::closed, .detail = "nobody looked after it"});
  }
  while (!stopped_) {
    const Opened opened = co_await establish();
    if (stopped_) break;
    if (opened) {
      failures_ = 0;
      set_state(RedisState::up, {});
      co_await stay();
    } else {
      fault_ = opened.error();
      if (connection_) {
        connection_->leave();
        connection_->drop(fault_);
      }
      set_state(RedisState::down, fault_);
      ++failures_;
      ++at_;
    }
    if (stopped_) break;
    timer_.expires_after(pause());
    (void)co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

std::chrono::nanoseconds Node::pause() {
  std::chrono::nanoseconds longest = context_->options.retry_max;
  if (why_ == RedisDown::denied) return std::max(longest, kDeniedPause);
  std::chrono::nanoseconds wanted = kFirstPause;
  for (unsigned i = 1; i < failures_ && wanted < longest; ++i) wanted *= 2;
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::min(wanted, longest) * jitter());
}

asio::awaitable<Opened> Node::establish() {
  const SteadyTime until = steady_now() + context_->options.connect_timeout;
  if (state_ == RedisState::up) {  // as far as a run knew that did not come to its end
    fault_ = {.why = RedisDown::closed, .detail = "nobody looked after it"};
    set_state(RedisState::down, fault_);
  }
  fault_ = {};
  connection_ = std::make_shared<Connection>(context_, static_cast<Connection::Owner&>(*this));
  Opened opened = co_await connection_->open(address(), until);
  if (opened && !stopped_) opened = co_await introduce();
  if (opened && !stopped_) opened = co_await owner_->before_up(shared_from_this());
  // Why the connection was lost says more than that a command on it failed.
  if (connection_->closed() && fault_.why != RedisDown::none) co_return std::unexpected(fault_);
  co_return opened;
}

// A server that answers PING may still be a replica, or refuse to write; deleting a key that never is shows it.
asio::awaitable<Opened> Node::introduce() {
  const SteadyTime until = steady_now() + context_->options.connect_timeout;
  const Opened greeted = co_await connection_->greet(until);
  if (!greeted) co_return greeted;
  const std::string key = context_->options.key_prefix + "probe";
  const RedisResult probed = co_await connection_->ask(RedisCommand{"DEL", key}, until);
  if (probed) co_return Opened{};
  const ErrorLine line = read_error(probed.error().message);
  const bool answered = probed.error().failure != RedisFailure::timed_out &&
                        probed.error().failure != RedisFailure::closed && !line.store_is_down;
  if (answered) co_return Opened{};  // MOVED, or a user that may not DEL: it serves, as far as can be known
  co_return std::unexpected(fault_of(probed.error()));
}

// While up: sees to it that an idle connection is one that still answers.
asio::awaitable<void> Node::stay() {
  const auto interval = context_->options.ping_interval;
  while (!stopped_ && !connection_->closed()) {
    timer_.expires_at(std::max(connection_->heard() + interval, steady_now() + 1ms));
    (void)co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
    if (stopped_ || connection_->closed()) break;
    if (steady_now() < connection_->heard() + interval || connection_->waiting() > 0) continue;
    const auto connection = connection_;
    (void)co_await connection->ask(RedisCommand{"PING"}, SteadyTime::max());  // hung: the connection drops itself
  }
}

}  // namespace ganglion::net::redis
