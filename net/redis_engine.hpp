#pragma once
// What a Redis client does inside: decides which node gets a command, learns the slots of a cluster, follows
// redirections, and keeps the subscriptions. Internal to net.

#include <boost/asio/steady_timer.hpp>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "net/redis_node.hpp"

namespace ganglion::net::redis {

class PubSub;

core::Result<SslContextPtr> make_tls(const RedisOptions& options);

class Engine final : public std::enable_shared_from_this<Engine>, private NodeOwner {
 public:
  Engine(boost::asio::any_io_executor executor, RedisOptions options, RedisHooks& hooks);
  ~Engine() override;
  void start();
  void stop();  // before the last reference goes: nodes and timers hold some

  void submit(CommandPtr command);
  bool available(unsigned slot) const;
  RedisState state() const;
  RedisDown why() const;
  bool cluster() const { return mode_ == Mode::cluster; }
  const RedisOptions& options() const { return context_->options; }
  core::SteadyTime limit(core::Deadline until) const;
  PubSub& pubsub();
  // One that answered last, for connections beside the nodes'; the configured ones if none is up.
  std::vector<Address> addresses() const;

 private:
  enum class Mode : std::uint8_t { unknown, standalone, cluster };

  void answered(Node& from, CommandPtr command, RedisReply reply) override;
  boost::asio::awaitable<Opened> before_up(std::shared_ptr<Node> node) override;
  void state_changed(Node& node) override;

  void seed();
  Node* route(unsigned slot) const;
  const std::shared_ptr<Node>& node_at(const Address& address);
  void redirect(Node& from, CommandPtr command, const ErrorLine& line);
  void try_again(CommandPtr command);
  bool learn(const RedisReply& slots, const Address& asked);
  void forget_unused();
  bool troubled() const;
  void refresh_soon();
  void refresh();
  void refreshed(bool ok);

  std::shared_ptr<Context> context_;
  std::vector<Address> configured_;
  Mode mode_ = Mode::unknown;
  std::shared_ptr<Node> seed_;  // standalone: the server; cluster: while nobody else can tell the slots
  std::map<Address, std::shared_ptr<Node>> nodes_;
  std::vector<Node*> slots_;  // by slot; null: not known
  boost::asio::steady_timer refresh_timer_;
  bool refreshing_ = false;
  core::SteadyTime refreshed_{};
  std::unique_ptr<PubSub> pubsub_;
  bool stopped_ = false;
};

}  // namespace ganglion::net::redis
