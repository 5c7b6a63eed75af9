#pragma once
// An UpstreamClient run on the test's own thread against a ScriptedUpstream.

#include <gtest/gtest.h>
#include <atomic>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "core/limits.hpp"
#include "net/http_client.hpp"
#include "tests/support/coroutine.hpp"
#include "tests/support/scripted_upstream.hpp"

namespace ganglion::net::test {

using boost::asio::awaitable;
using core::ErrorKind;
using ganglion::test::http_ok;
using ganglion::test::RawSocket;
using ganglion::test::run_coroutine;
using ganglion::test::ScriptedUpstream;

struct CountingUpstreamHooks final : UpstreamHooks {
  void connected(double) override { ++connects; }
  void reused() override { ++reuses; }
  void stale() override { ++stales; }
  void retried() override { ++retries; }
  void failed(UpstreamFailure failure) override { last_failure = failure; }
  void connections(int o, int i) override {
    open += o;
    idle += i;
  }
  void waiting(bool urgent, int delta) override { (urgent ? urgent_waiting : others_waiting) += delta; }
  void dns_lookup(bool ok, bool stale_used) override {
    ++(ok ? lookups_ok : lookups_failed);
    if (stale_used) ++stale_answers;
  }
  int connects = 0, reuses = 0, stales = 0, retries = 0, open = 0, idle = 0;
  int urgent_waiting = 0, others_waiting = 0;
  int lookups_ok = 0, lookups_failed = 0, stale_answers = 0;
  std::optional<UpstreamFailure> last_failure;
};

struct Answer {
  ErrorKind error = ErrorKind::kCount;  // kCount: none
  int status = 0;
  std::string body;
  bool framed = false;
};

class UpstreamTest : public ::testing::Test {
 protected:
  UpstreamOptions options_for(const ScriptedUpstream& upstream) {
    UpstreamOptions options;
    options.base_url = upstream.base_url();
    return options;
  }
  void run(const UpstreamOptions& options, std::function<awaitable<void>(UpstreamClient&)> body) {
    UpstreamClient client(io_.get_executor(), options, hooks_);
    run_coroutine(io_, [&]() -> awaitable<void> { co_await body(client); });
  }
  // Sends and reads the whole answer.
  awaitable<Answer> ask(UpstreamClient& client, UpstreamRequest request = {.path = "/x", .body = "hi"}) {
    Answer answer;
    auto response = co_await client.send(request, deadline_, cancel_);
    if (!response) {
      answer.error = response.error().kind;
      co_return answer;
    }
    answer.status = (*response)->status();
    answer.framed = (*response)->framed();
    for (;;) {
      auto piece = co_await (*response)->next();
      if (!piece) answer.error = piece.error().kind;
      if (!piece || piece->empty()) co_return answer;
      EXPECT_LE(piece->size(), core::kStreamBufferBytesMax);
      answer.body += *piece;
    }
  }
  // One request to an upstream that sends `bytes` and, when told, closes.
  Answer answer_to(const std::string& bytes, bool then_close = true, UpstreamRequest request = {.path = "/x"}) {
    ScriptedUpstream upstream({[&](RawSocket& peer) {
      (void)upstream_request(peer);
      peer.send(bytes);
      if (!then_close) (void)peer.ended();
    }});
    Answer answer;
    run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
      answer = co_await ask(client, request);
      EXPECT_EQ(client.idle_connections(), 0U) << bytes.substr(0, 80);
    });
    return answer;
  }
  static awaitable<void> pause(std::chrono::milliseconds time) {
    boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, time);
    co_await timer.async_wait(boost::asio::use_awaitable);
  }
  static std::string upstream_request(RawSocket& peer) { return peer.read_message(); }

  boost::asio::io_context io_{1};
  CountingUpstreamHooks hooks_;
  core::Deadline deadline_;
  core::CancelSource cancel_;
  std::atomic<bool> told_{false};  // the upstream may go on
};

}  // namespace ganglion::net::test
