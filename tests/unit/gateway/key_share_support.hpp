#pragma once
// Gateways' parts in the keys that they share, over a real redis-server and on one loop.

#include <gtest/gtest.h>

#include "core/clock.hpp"
#include "gateway/key_share.hpp"
#include "metrics/metrics.hpp"
#include "net/redis_hooks.hpp"
#include "tests/support/coroutine.hpp"
#include "tests/support/redis_server.hpp"
#include "tests/unit/gateway/idempotency_support.hpp"

namespace ganglion::gateway {

class KeyShareTest : public ::testing::Test {
 protected:
  static constexpr std::chrono::milliseconds kLease{1'500};

  // One gateway, on the test's loop.
  struct Node {
    // `patience`: long enough that a busy machine does not look like a Redis that is ill, and short where it is.
    Node(KeyShareTest& test, const std::string& name, std::chrono::milliseconds patience = std::chrono::seconds{20})
        : client(test.io_.get_executor(),
                 net::RedisOptions{.addresses = {test.redis_.address()},
                                   .key_prefix = "t:",
                                   .command_timeout = patience,
                                   .connect_timeout = std::chrono::seconds{20},
                                   .hung_after = patience},
                 test.redis_hooks_),
          share(test.io_, client, {.ttl = std::chrono::seconds{60}, .lease = kLease, .command_time = patience}, name,
                test.metrics_.registry()) {}
    net::RedisClient client;
    KeyShare share;
  };

  void turn(std::chrono::milliseconds time) {
    io_.restart();
    io_.run_for(time);
  }
  // Until everything that was said has arrived.
  void settle(Node& node) {
    for (int i = 0; i < 6'000 && node.share.sending() > 0; ++i) turn(std::chrono::milliseconds{5});
    EXPECT_EQ(node.share.sending(), 0U);
  }
  KeyShare::Claimed claim(Node& node, const std::string& name = "a", const std::string& text = "body") {
    KeyShare::Claimed out;
    test::run_coroutine(io_, [&]() -> boost::asio::awaitable<void> {
      auto claimed = co_await node.share.claim(key(name), body(text), core::Deadline::after(std::chrono::seconds{50}));
      EXPECT_TRUE(claimed);
      if (claimed) out = std::move(*claimed);
    });
    return out;
  }
  KeyShare::Met claim_until(Node& node, KeyShare::Met wanted, const std::string& name = "a") {
    KeyShare::Met met = KeyShare::Met::alone;
    for (int i = 0; i < 2'000; ++i) {
      met = claim(node, name).met;
      if (met == wanted) break;
      turn(std::chrono::milliseconds{20});
    }
    return met;
  }

  test::RedisServer redis_;
  core::SystemClock clock_;
  metrics::Metrics metrics_{{}, {}, clock_};
  net::RedisHooks redis_hooks_;
  boost::asio::io_context io_;
};

}  // namespace ganglion::gateway
