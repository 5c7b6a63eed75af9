#pragma once
// What the tests of the Redis client share: a record of what its hooks were told, and a loop that drives it.

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <map>
#include <string>
#include <vector>

#include "net/redis_client.hpp"
#include "tests/support/coroutine.hpp"

namespace ganglion::test {

class RecordingHooks final : public net::RedisHooks {
 public:
  void node_state(std::string_view node, const Was& was, net::RedisState to, net::RedisDown why,
                  std::string_view detail) override {
    states[std::string{node}] = to;
    if (was.state != net::RedisState::kCount) --open;
    ++open;
    changes.emplace_back(to, why, std::string{detail});
  }
  void node_forgotten(const Was& /*was*/) override { --open; }
  void answered(std::chrono::nanoseconds latency) override {
    ++answers;
    EXPECT_GE(latency.count(), 0);
  }
  void failed(net::RedisFailure failure) override { ++failures[failure]; }
  void redirected(bool ask) override { ++(ask ? asks : moves); }
  void script_loaded() override { ++scripts; }
  void slots_refreshed(bool ok) override { ++(ok ? refreshes : failed_refreshes); }

  bool was_down(net::RedisDown why) const {
    for (const auto& [state, reason, detail] : changes) {
      if (state == net::RedisState::down && reason == why) return true;
    }
    return false;
  }

  std::map<std::string, net::RedisState> states;
  std::vector<std::tuple<net::RedisState, net::RedisDown, std::string>> changes;
  std::map<net::RedisFailure, int> failures;
  int open = 0, answers = 0, asks = 0, moves = 0, scripts = 0, refreshes = 0, failed_refreshes = 0;
};

class RedisTest : public ::testing::Test {
 protected:
  using Seconds = std::chrono::duration<double>;

  static boost::asio::awaitable<void> pause(std::chrono::nanoseconds time) {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, time);
    co_await timer.async_wait(boost::asio::use_awaitable);
  }

  // Until the client says so; false after the limit.
  static boost::asio::awaitable<bool> wait_state(const net::RedisClient& client, net::RedisState state,
                                                 std::chrono::nanoseconds limit = std::chrono::seconds{60}) {
    const auto until = std::chrono::steady_clock::now() + limit;
    while (client.state() != state) {
      if (std::chrono::steady_clock::now() > until) co_return false;
      co_await pause(std::chrono::milliseconds{1});
    }
    co_return true;
  }

  template <class Body>
  void run(Body body, std::chrono::milliseconds limit = std::chrono::seconds{120}) {
    run_coroutine(io_, body, limit);
  }

  boost::asio::io_context io_{1};
  RecordingHooks hooks_;
};

}  // namespace ganglion::test
