// The upstream client's framing and pooling against scripted servers.

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/unit/net/upstream_fixture.hpp"

namespace ganglion::net {
namespace {

using namespace std::chrono_literals;
using namespace test;

TEST_F(UpstreamTest, SendsOneWellFormedRequest) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    while (!upstream.read_request(peer).empty()) peer.send(http_ok("fine", "X-A: 1\r\n"));
  }});
  UpstreamOptions options = options_for(upstream);
  options.base_url += "/prefix/";
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    const Header headers[] = {{"Content-Type", "application/json"}, {"Host", "evil"}, {"content-length", "0"}};
    auto response = co_await client.send({.path = "/v1/x?y=1", .headers = headers, .body = "{}"}, {}, cancel_);
    EXPECT_TRUE(response);
    if (!response) co_return;
    EXPECT_EQ((*response)->header("x-a"), "1");
    auto all = co_await (*response)->read_all(100);
    EXPECT_EQ(all.value_or(""), "fine");
  });
  const auto requests = upstream.requests();
  ASSERT_EQ(requests.size(), 1U);
  EXPECT_EQ(requests[0], "POST /prefix/v1/x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(upstream.port()) +
                             "\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
}

TEST_F(UpstreamTest, NeverSendsHeadersThatSplit) {
  ScriptedUpstream upstream({[](RawSocket& peer) { (void)peer.ended(); }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    const Header bad[] = {{"X", "a\r\nY: b"}};
    EXPECT_EQ((co_await ask(client, {.path = "/x", .headers = bad})).error, ErrorKind::internal);
    EXPECT_EQ((co_await ask(client, {.path = "/x HTTP/1.1\r\nX: y"})).error, ErrorKind::internal);
  });
}

TEST_F(UpstreamTest, ReusesTheConnectionUsedLast) {
  ScriptedUpstream upstream({[&](RawSocket& peer) { upstream.answer_all(http_ok("pong"))(peer); }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    for (int i = 0; i < 5; ++i) {
      const Answer answer = co_await ask(client);
      EXPECT_EQ(answer.body, "pong");
      EXPECT_TRUE(answer.framed);
      EXPECT_EQ(client.idle_connections(), 1U);
    }
  });
  EXPECT_EQ(upstream.accepted(), 1);
  EXPECT_EQ(hooks_.connects, 1);
  EXPECT_EQ(hooks_.reuses, 4);
  EXPECT_EQ(hooks_.open, 0);
  EXPECT_EQ(hooks_.idle, 0);
}

TEST_F(UpstreamTest, ReadsEveryFraming) {
  const std::string big(300'000, 'b');
  EXPECT_EQ(answer_to(http_ok(big, "Connection: close\r\n")).body, big);
  const Answer chunked = answer_to(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: "
      "1\r\n\r\n");
  EXPECT_EQ(chunked.body, "abcde");
  EXPECT_EQ(chunked.error, ErrorKind::kCount);
  EXPECT_TRUE(chunked.framed);
  const Answer until_close = answer_to("HTTP/1.0 200 OK\r\n\r\nto the end");
  EXPECT_EQ(until_close.body, "to the end");
  EXPECT_EQ(until_close.error, ErrorKind::kCount);
  EXPECT_FALSE(until_close.framed);
  const Answer none = answer_to("HTTP/1.1 204\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(none.status, 204);
  EXPECT_EQ(none.error, ErrorKind::kCount);
  const Answer head = answer_to("HTTP/1.1 200 OK\r\nContent-Length: 50\r\nConnection: close\r\n\r\n", true,
                                {.method = Method::head, .path = "/x"});
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.error, ErrorKind::kCount);
  EXPECT_EQ(answer_to("HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + http_ok("after", "Connection: close\r\n")).body,
            "after");
}

TEST_F(UpstreamTest, JoinsSmallChunksIntoOnePiece) {
  std::string bytes = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 50; ++i) bytes += "2\r\nab\r\n";
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send(bytes + "0\r\n\r\n");
    (void)peer.ended();
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    auto response = co_await client.send({.path = "/x"}, {}, cancel_);
    EXPECT_TRUE(response);
    auto piece = co_await (*response)->next();
    EXPECT_EQ(piece.value_or("").size(), 100U);
    EXPECT_TRUE((*response)->ended());
  });
}

TEST_F(UpstreamTest, RefusesAnswersThatAreNotWellFramed) {
  const std::string ok = "HTTP/1.1 200 OK\r\n";
  std::vector<std::string> bad = {
      "garbage\r\n\r\n",
      "HTTP/2 200\r\n\r\n",
      "HTTP/1.1 2x0 OK\r\n\r\n",
      "HTTP/1.1 099 No\r\n\r\n",
      "HTTP/1.1 600 No\r\n\r\n",
      "HTTP/1.1 2000 OK\r\n\r\n",
      "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
      ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi",
      ok + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi",
      ok + "Content-Length: +2\r\n\r\nhi",
      ok + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      ok + "X : y\r\n\r\n",
      ok + " folded: y\r\n\r\n",
      ok + "X: a\nContent-Length: 2\r\n\r\nhi",
      ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
      ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nhiX\r\n",
      ok + "Transfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
      ok + "X: " + std::string(70'000, 'x') + "\r\n\r\n",
  };
  std::string flood;
  for (int i = 0; i < 20; ++i) flood += "HTTP/1.1 100 Continue\r\n\r\n";
  bad.push_back(flood + http_ok("x"));
  std::string lines = ok;
  for (int i = 0; i < 300; ++i) lines += "X: y\r\n";
  bad.push_back(lines + "\r\n");
  for (const std::string& bytes : bad) {
    EXPECT_EQ(answer_to(bytes, false).error, ErrorKind::upstream_protocol) << bytes.substr(0, 80);
    EXPECT_EQ(hooks_.last_failure.value_or(UpstreamFailure::protocol), UpstreamFailure::protocol);
  }
}

// Reads one piece of a chunked answer, says that only its end may follow, and lets go of it.
awaitable<void> read_until_told(UpstreamClient& client, core::CancelSource& cancel) {
  auto response = co_await client.send({.path = "/x"}, {}, cancel);
  EXPECT_TRUE(response);
  if (!response) co_return;
  auto piece = co_await (*response)->next();
  EXPECT_EQ(piece.value_or(""), "done");
  EXPECT_FALSE((*response)->ended());
  (*response)->expect_end();
}

constexpr const char* kUnended = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n";

TEST_F(UpstreamTest, AnExpectedEndThatComesLaterKeepsTheConnection) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    while (!upstream_request(peer).empty()) {
      peer.send(kUnended);
      while (!told_) std::this_thread::sleep_for(1ms);
      told_ = false;
      peer.send("0\r\n\r\n");
    }
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    for (int i = 0; i < 3; ++i) {
      {
        core::CancelSource of_the_request;  // gone before the end comes
        co_await read_until_told(client, of_the_request);
        told_ = true;
      }
      for (int tries = 0; client.idle_connections() == 0 && tries < 100; ++tries) co_await pause(1ms);
      EXPECT_EQ(client.idle_connections(), 1U);
    }
  });
  EXPECT_EQ(upstream.accepted(), 1);
}

TEST_F(UpstreamTest, AnExpectedEndIsNotWaitedForLong) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send(kUnended);
    EXPECT_TRUE(peer.wait_closed(1s));
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    co_await read_until_told(client, cancel_);
    EXPECT_EQ(client.open_connections(), 1U);
    for (int tries = 0; client.open_connections() > 0 && tries < 100; ++tries) co_await pause(5ms);
    EXPECT_EQ(client.open_connections(), 0U);
  });
}

TEST_F(UpstreamTest, MoreDataInsteadOfTheExpectedEndClosesTheConnection) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send(kUnended);
    while (!told_) std::this_thread::sleep_for(1ms);
    peer.send("4\r\nmore\r\n0\r\n\r\n");
    EXPECT_TRUE(peer.wait_closed(1s));
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    co_await read_until_told(client, cancel_);
    told_ = true;
    for (int tries = 0; client.open_connections() > 0 && tries < 100; ++tries) co_await pause(5ms);
    EXPECT_EQ(client.idle_connections(), 0U);
    EXPECT_EQ(client.open_connections(), 0U);
  });
}

TEST_F(UpstreamTest, AnAnswerLeftInItsMiddleIsClosedAtOnce) {
  std::atomic<bool> closed{false};
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send(kUnended);
    closed = peer.wait_closed(1s);
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    {
      auto response = co_await client.send({.path = "/x"}, {}, cancel_);
      EXPECT_TRUE(response);
      if (response) (void)co_await (*response)->next();
    }
    EXPECT_EQ(client.open_connections(), 0U);
  });
  for (int tries = 0; !closed && tries < 1000; ++tries) std::this_thread::sleep_for(1ms);
  EXPECT_TRUE(closed);
}

TEST_F(UpstreamTest, SurplusBytesKeepTheConnectionOutOfThePool) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send(http_ok("one") + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
    (void)peer.ended();
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).body, "one");
    EXPECT_EQ(client.idle_connections(), 0U);
    EXPECT_EQ((co_await ask(client)).body, "one");
  });
  EXPECT_EQ(upstream.accepted(), 2);
}

TEST_F(UpstreamTest, LateSurplusBytesAreFoundBeforeReuse) {
  std::atomic<bool> forged{false};
  ScriptedUpstream upstream({[&](RawSocket& peer) {
                               (void)upstream_request(peer);
                               peer.send(http_ok("one"));
                               std::this_thread::sleep_for(30ms);
                               peer.send(http_ok("forged"));
                               forged = true;
                               (void)peer.ended();
                             },
                             [&](RawSocket& peer) { upstream.answer_all(http_ok("two"))(peer); }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).body, "one");
    EXPECT_EQ(client.idle_connections(), 1U);
    while (!forged) co_await pause(5ms);
    EXPECT_EQ((co_await ask(client)).body, "two");
  });
  EXPECT_EQ(hooks_.stales, 1);
}

}  // namespace
}  // namespace ganglion::net
