#pragma once
// One server as its client sees it: connects again and again with pauses, proves that it serves (AUTH, SELECT, PING, a
// write that changes nothing), and is the circuit breaker for the commands meant for it. Internal to net.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/redis_connection.hpp"

namespace ganglion::net::redis {

class Node;

// What a node needs of the client that it belongs to.
struct NodeOwner {
  virtual ~NodeOwner() = default;
  virtual void answered(Node& from, CommandPtr command, RedisReply reply) = 0;
  // Right before a node goes up: the client may want to ask it something first. A fault keeps it down.
  virtual boost::asio::awaitable<Opened> before_up(std::shared_ptr<Node> node) = 0;
  virtual void state_changed(Node& node) = 0;
};

class Node final : public std::enable_shared_from_this<Node>, private Connection::Owner {
 public:
  // Several addresses are tried in turn, another one after each failure.
  Node(std::shared_ptr<Context> context, NodeOwner& owner, std::vector<Address> addresses);

  void start();
  // For good. What waits is finished.
  void stop();

  // Sent, kept until there is a verdict, or finished at once.
  void submit(CommandPtr command);
  std::vector<CommandPtr> take_waiting();
  // An answer said that this server cannot be used now.
  void lost(Fault fault);
  // The open connection, null if there is none.
  const std::shared_ptr<Connection>& connection() const { return connection_; }

  RedisState state() const { return state_; }
  RedisDown why() const { return why_; }
  bool stopped() const { return stopped_; }
  bool idle() const { return waiting_.empty() && (!connection_ || connection_->waiting() == 0); }
  const Address& address() const { return addresses_[at_ % addresses_.size()]; }

 private:
  void answered(CommandPtr command, RedisReply reply) override;
  void dropped(const Fault& fault) override;

  boost::asio::awaitable<void> run(std::shared_ptr<Node> self);
  boost::asio::awaitable<Opened> establish();
  boost::asio::awaitable<Opened> introduce();
  boost::asio::awaitable<void> stay();
  std::chrono::nanoseconds pause();
  void set_state(RedisState state, const Fault& fault);
  void release_waiting();
  void arm_waiting();

  std::shared_ptr<Context> context_;
  NodeOwner* owner_;
  const std::vector<Address> addresses_;
  std::size_t at_ = 0;
  RedisState state_ = RedisState::connecting;
  RedisDown why_ = RedisDown::none;
  Fault fault_;  // of the connection that was lost last
  bool started_ = false;
  bool counted_ = false;  // by the hooks
  bool stopped_ = false;
  unsigned failures_ = 0;  // since it was up
  std::shared_ptr<Connection> connection_;
  boost::asio::steady_timer timer_;  // pauses and pings
  std::vector<CommandPtr> waiting_;
  boost::asio::steady_timer waiting_timer_;
};

}  // namespace ganglion::net::redis
