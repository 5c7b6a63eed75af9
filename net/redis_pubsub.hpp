#pragma once
// Subscriptions of one client, on a connection of their own: made when there is the first, made anew after a loss,
// pinged. Internal to net.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/redis_connection.hpp"

namespace ganglion::net::redis {

struct Subscription {
  std::string channel;
  std::function<void(std::string_view)> message;
  std::function<void()> gap;
};

class PubSub {
 public:
  PubSub(std::shared_ptr<Context> context, std::function<std::vector<Address>()> addresses);
  ~PubSub();
  void add(std::shared_ptr<Subscription> entry);  // as long as others hold it
  void stop();

 private:
  struct Core;
  std::shared_ptr<Core> core_;
};

}  // namespace ganglion::net::redis
