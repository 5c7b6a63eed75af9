// Each way in which an upstream call can fail or be called off.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <semaphore>
#include <thread>

#include "tests/unit/net/upstream_fixture.hpp"

namespace ganglion::net {
namespace {

using namespace std::chrono_literals;
using namespace test;
using Clock = std::chrono::steady_clock;

TEST_F(UpstreamTest, RefusedConnection) {
  std::uint16_t port = 0;
  {
    ScriptedUpstream gone({[](RawSocket&) {}});
    port = gone.port();
  }
  UpstreamOptions options;
  options.base_url = "http://127.0.0.1:" + std::to_string(port);
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).error, ErrorKind::upstream_connect);
    EXPECT_EQ(client.open_connections(), 0U);
  });
  EXPECT_EQ(hooks_.last_failure, UpstreamFailure::connect);
}

TEST_F(UpstreamTest, ConnectHasALimit) {
  // A listener whose backlog is full never completes a handshake.
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof at;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&at), size), 0);
  ASSERT_EQ(::listen(listener, 0), 0);
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&at), &size);
  const std::uint16_t port = ntohs(at.sin_port);
  std::vector<int> fill;
  for (int i = 0; i < 4; ++i) {
    fill.push_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    (void)::connect(fill.back(), reinterpret_cast<sockaddr*>(&at), size);
  }
  UpstreamOptions options;
  options.base_url = "http://127.0.0.1:" + std::to_string(port);
  options.connect_timeout = 80ms;
  const auto started = Clock::now();
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).error, ErrorKind::upstream_connect);
  });
  EXPECT_GE(Clock::now() - started, 80ms);
  EXPECT_LT(Clock::now() - started, 30s) << "the system itself would try for two minutes";
  for (const int fd : fill) ::close(fd);
  ::close(listener);
}

TEST_F(UpstreamTest, FirstByteHasALimit) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send("HTTP/1.1 200 OK\r\n");  // a head that never ends does not count as an answer
    (void)peer.ended();
  }});
  UpstreamOptions options = options_for(upstream);
  options.first_byte_timeout = 60ms;
  const auto started = Clock::now();
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).error, ErrorKind::upstream_timeout);
  });
  EXPECT_GE(Clock::now() - started, 60ms);
  EXPECT_EQ(hooks_.last_failure, UpstreamFailure::timeout);
}

TEST_F(UpstreamTest, GapsBetweenChunksHaveALimit) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 4; ++i) {
      std::this_thread::sleep_for(150ms);
      peer.send("1\r\na\r\n");
    }
    (void)peer.ended();
  }});
  UpstreamOptions options = options_for(upstream);
  options.idle_timeout = 500ms;
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    const Answer answer = co_await ask(client);
    EXPECT_EQ(answer.body, "aaaa") << "each gap is measured anew";
    EXPECT_EQ(answer.error, ErrorKind::upstream_timeout);
  });
}

TEST_F(UpstreamTest, DeadlineEndsEveryWait) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
                               (void)upstream_request(peer);
                               (void)peer.ended();
                             },
                             [&](RawSocket& peer) {
                               (void)upstream_request(peer);
                               peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
                               (void)peer.ended();
                             }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    deadline_ = core::Deadline::after(50ms);
    EXPECT_EQ((co_await ask(client)).error, ErrorKind::deadline_exceeded);
    EXPECT_EQ((co_await ask(client)).error, ErrorKind::deadline_exceeded) << "already passed";
    deadline_ = core::Deadline::after(50ms);
    const Answer answer = co_await ask(client);
    EXPECT_EQ(answer.body, "half");
    EXPECT_EQ(answer.error, ErrorKind::deadline_exceeded);
  });
  EXPECT_EQ(upstream.accepted(), 2);
}

TEST_F(UpstreamTest, CancelClosesTheSocketAtOnce) {
  for (const bool mid_body : {false, true}) {
    std::atomic<bool> asked{false};
    std::atomic<Clock::duration::rep> closed_at{0};
    ScriptedUpstream upstream({[&](RawSocket& peer) {
      (void)upstream_request(peer);
      if (mid_body) peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
      asked = true;
      if (peer.wait_closed(5s)) closed_at = Clock::now().time_since_epoch().count();
    }});
    Clock::time_point cancelled_at;
    core::CancelSource cancel;
    run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
      boost::asio::co_spawn(
          io_,
          [&]() -> awaitable<void> {
            while (!asked) co_await pause(2ms);
            co_await pause(10ms);
            cancelled_at = Clock::now();
            cancel.cancel(core::CancelReason::client_gone);
          },
          boost::asio::detached);
      auto response = co_await client.send({.path = "/x"}, {}, cancel);
      EXPECT_EQ(response.has_value(), mid_body);
      if (response) {
        EXPECT_EQ((co_await (*response)->next()).value_or(""), "half");
        auto piece = co_await (*response)->next();
        EXPECT_EQ(piece ? ErrorKind::kCount : piece.error().kind, ErrorKind::cancelled);
      } else {
        EXPECT_EQ(response.error().kind, ErrorKind::cancelled);
      }
      while (closed_at == 0) co_await pause(2ms);
    });
    EXPECT_LT(closed_at - cancelled_at.time_since_epoch().count(), Clock::duration{4s}.count());  // 100 ms where idle
  }
}

TEST_F(UpstreamTest, DroppedAnswerClosesTheSocket) {
  std::atomic<bool> closed{false};
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    closed = peer.wait_closed(5s);
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    auto response = co_await client.send({.path = "/x"}, {}, cancel_);
    EXPECT_TRUE(response);
    response->reset();
    EXPECT_EQ(client.open_connections(), 0U);
    while (!closed) co_await pause(2ms);
  });
}

TEST_F(UpstreamTest, CutAnswers) {
  EXPECT_EQ(answer_to("").error, ErrorKind::upstream_closed);
  EXPECT_EQ(answer_to("HTTP/1.1 200 OK\r\n").error, ErrorKind::upstream_closed);
  const Answer sized = answer_to("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
  EXPECT_EQ(sized.error, ErrorKind::upstream_closed);
  EXPECT_EQ(sized.body, "half");
  const Answer chunked = answer_to("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
  EXPECT_EQ(chunked.error, ErrorKind::upstream_closed) << "no last chunk, no clean end";
  EXPECT_EQ(chunked.body, "half");
  EXPECT_EQ(hooks_.retries, 0) << "a new connection that closes is not retried";
}

// The keep-alive race: whether the first connection got the request nobody knows, so whoever counts attempts is asked.
TEST_F(UpstreamTest, WhoSentIsAskedBeforeARequestGoesOutAgain) {
  const auto once = [](ScriptedUpstream*& self) {
    return [&self](RawSocket& peer) {
      (void)self->read_request(peer);
      peer.send(http_ok("one"));
      (void)self->read_request(peer);  // and closes
    };
  };
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({once(self), [&](RawSocket& peer) {
                               (void)self->read_request(peer);
                               peer.send(http_ok("two"));
                               (void)self->read_request(peer);
                             }});
  self = &upstream;
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    int asked = 0;
    const std::function<core::Result<void>()> allow = [&]() -> core::Result<void> {
      ++asked;
      return {};
    };
    const std::function<core::Result<void>()> refuse = [&]() -> core::Result<void> {
      ++asked;
      return core::fail(ErrorKind::ledger_unavailable);
    };
    EXPECT_EQ((co_await ask(client, {.path = "/x", .body = "hi", .before_resend = &allow})).body, "one");
    EXPECT_EQ(asked, 0) << "a new connection";
    EXPECT_EQ((co_await ask(client, {.path = "/x", .body = "hi", .before_resend = &allow})).body, "two");
    EXPECT_EQ(asked, 1);
    EXPECT_EQ((co_await ask(client, {.path = "/x", .body = "hi", .before_resend = &refuse})).error,
              ErrorKind::ledger_unavailable);
    EXPECT_EQ(asked, 2);
  });
  EXPECT_EQ(upstream.requests().size(), 4U);
}

TEST_F(UpstreamTest, ResetWithinTheAnswer) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    peer.send("HTTP/1.1 200 OK\r\n\r\nclose-delimited");
    std::this_thread::sleep_for(20ms);
    peer.reset();
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    const Answer answer = co_await ask(client);
    EXPECT_EQ(answer.error, ErrorKind::upstream_closed) << "a reset is not an end";
    EXPECT_FALSE(answer.framed);
  });
}

TEST_F(UpstreamTest, IdleConnectionThatDiesIsDropped) {
  std::counting_semaphore<2> pooled{0};
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream.read_request(peer);
    peer.send(http_ok("once"));
    pooled.acquire();  // then it closes
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).body, "once");
    EXPECT_EQ(client.idle_connections(), 1U);
    pooled.release(2);
    while (client.idle_connections() > 0) co_await pause(1ms);
    EXPECT_EQ(client.open_connections(), 0U);
    EXPECT_EQ((co_await ask(client)).body, "once");
  });
  EXPECT_EQ(hooks_.stales, 1);
  EXPECT_EQ(upstream.requests().size(), 2U);
}

TEST_F(UpstreamTest, ConnectionThatEndsWithItsAnswerIsNotPooled) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream.read_request(peer);
    peer.send(http_ok("once"));
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).body, "once");
    EXPECT_EQ((co_await ask(client)).body, "once");
  });
  EXPECT_EQ(upstream.requests().size(), 2U);
}

TEST_F(UpstreamTest, ConnectionThatDiesUnderARequestIsReplacedOnce) {
  // The first connection takes the second request and closes without a byte, as a server that times it out does.
  ScriptedUpstream upstream({[&](RawSocket& peer) {
                               (void)upstream.read_request(peer);
                               peer.send(http_ok("one"));
                               (void)upstream.read_request(peer);
                             },
                             [&](RawSocket& peer) { upstream.answer_all(http_ok("two"))(peer); }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).body, "one");
    EXPECT_EQ((co_await ask(client)).body, "two");
  });
  EXPECT_EQ(hooks_.retries, 1);
  EXPECT_EQ(upstream.requests().size(), 3U);
}

TEST_F(UpstreamTest, NoSecondSendOnceAByteArrived) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream.read_request(peer);
    peer.send(http_ok("one"));
    (void)upstream.read_request(peer);
    peer.send("H");
  }});
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).body, "one");
    EXPECT_EQ((co_await ask(client)).error, ErrorKind::upstream_closed);
  });
  EXPECT_EQ(hooks_.retries, 0);
  EXPECT_EQ(upstream.requests().size(), 2U);
}

TEST_F(UpstreamTest, PoolIdleLimitCloses) {
  ScriptedUpstream upstream({[&](RawSocket& peer) { upstream.answer_all(http_ok("x"))(peer); }});
  UpstreamOptions options = options_for(upstream);
  options.pool_idle_timeout = 30ms;
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    EXPECT_EQ((co_await ask(client)).body, "x");
    EXPECT_EQ(client.idle_connections(), 1U);
    while (client.idle_connections() > 0) co_await pause(2ms);
  });
  EXPECT_EQ(hooks_.stales, 0);
  EXPECT_EQ(hooks_.open, 0);
}

TEST_F(UpstreamTest, ConnectionsAreCappedAndWaitedFor) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    while (!upstream_request(peer).empty()) {
      std::this_thread::sleep_for(20ms);
      peer.send(http_ok("x"));
    }
  }});
  UpstreamOptions options = options_for(upstream);
  options.connections_max = 2;
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    int done = 0;
    for (int i = 0; i < 8; ++i) {
      boost::asio::co_spawn(
          io_,
          [&]() -> awaitable<void> {
            EXPECT_EQ((co_await ask(client)).body, "x");
            ++done;
          },
          boost::asio::detached);
    }
    while (done < 8) co_await pause(5ms);
  });
  EXPECT_EQ(upstream.accepted(), 2);
}

TEST_F(UpstreamTest, NoSlotWithinTheLimitIsOverload) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    (void)peer.ended();
  }});
  UpstreamOptions options = options_for(upstream);
  options.connections_max = 1;
  options.connect_timeout = 400ms;
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    core::CancelSource first;
    bool first_done = false;
    boost::asio::co_spawn(
        io_,
        [&]() -> awaitable<void> {
          auto response = co_await client.send({.path = "/x"}, {}, first);
          EXPECT_FALSE(response);
          first_done = true;
        },
        boost::asio::detached);
    while (client.open_connections() == 0) co_await pause(1ms);
    EXPECT_EQ((co_await ask(client)).error, ErrorKind::overloaded);
    EXPECT_EQ(hooks_.last_failure, UpstreamFailure::pool_full);
    first.cancel(core::CancelReason::superseded);
    while (!first_done) co_await pause(1ms);
  });
}

// A pool under load: each request holds its connection until the test lets the upstream answer.
TEST_F(UpstreamTest, AFreeConnectionGoesToUrgentRequestsFirstThenByArrival) {
  std::atomic<int> answers{0};
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    for (int served = 1; !upstream_request(peer).empty(); ++served) {
      for (int i = 0; i < 60'000 && answers < served; ++i) std::this_thread::sleep_for(1ms);
      peer.send(http_ok("x"));
    }
  }});
  UpstreamOptions options = options_for(upstream);
  options.connections_max = 1;
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    std::string order;
    const auto spawn = [&](char name, bool urgent) {
      boost::asio::co_spawn(
          io_,
          [&, name, urgent]() -> awaitable<void> {
            core::CancelSource cancel;
            auto response = co_await client.send({.path = "/x", .urgent = urgent}, {}, cancel);
            EXPECT_TRUE(response);
            if (response) EXPECT_TRUE(co_await (*response)->read_all(10));
            order += name;
          },
          boost::asio::detached);
    };
    spawn('1', false);
    while (client.open_connections() == 0) co_await pause(1ms);
    spawn('2', false);
    spawn('3', false);
    spawn('F', true);
    co_await pause(5ms);
    EXPECT_EQ(hooks_.urgent_waiting, 1);
    EXPECT_EQ(hooks_.others_waiting, 2);
    for (std::size_t i = 1; i <= 4; ++i) {
      ++answers;
      while (order.size() < i) co_await pause(1ms);
    }
    EXPECT_EQ(order, "1F23");
    EXPECT_EQ(hooks_.urgent_waiting + hooks_.others_waiting, 0);
  });
  EXPECT_EQ(upstream.accepted(), 1);
}

TEST_F(UpstreamTest, SomeConnectionsAreKeptForUrgentRequests) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    (void)peer.ended();
  }});
  UpstreamOptions options = options_for(upstream);
  options.connections_max = 3;
  options.connections_urgent = 1;
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    core::CancelSource cancel;
    int done = 0;
    const auto spawn = [&](bool urgent) {
      boost::asio::co_spawn(
          io_,
          [&, urgent]() -> awaitable<void> {
            EXPECT_FALSE(co_await client.send({.path = "/x", .urgent = urgent, .slot_wait = 1h}, {}, cancel));
            ++done;
          },
          boost::asio::detached);
    };
    for (int i = 0; i < 4; ++i) spawn(false);
    while (upstream.accepted() < 2) co_await pause(1ms);
    co_await pause(5ms);
    EXPECT_EQ(client.open_connections(), 2U);
    EXPECT_EQ(hooks_.others_waiting, 2);
    spawn(true);
    while (upstream.accepted() < 3) co_await pause(1ms);
    EXPECT_EQ(hooks_.urgent_waiting, 0);
    cancel.cancel(core::CancelReason::shutdown);
    while (done < 5) co_await pause(1ms);
  });
}

TEST_F(UpstreamTest, TheWaitForAConnectionIsTheRequestsOwn) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)upstream_request(peer);
    (void)peer.ended();
  }});
  UpstreamOptions options = options_for(upstream);
  options.connections_max = 1;
  options.connect_timeout = 1h;
  run(options, [&](UpstreamClient& client) -> awaitable<void> {
    core::CancelSource first, second;
    bool first_done = false;
    boost::asio::co_spawn(
        io_,
        [&]() -> awaitable<void> {
          EXPECT_FALSE(co_await client.send({.path = "/x"}, {}, first));
          first_done = true;
        },
        boost::asio::detached);
    while (client.open_connections() == 0) co_await pause(1ms);
    const auto refused = co_await client.send({.path = "/x", .slot_wait = 20ms}, {}, second);
    EXPECT_FALSE(refused);
    if (!refused) EXPECT_EQ(refused.error().kind, ErrorKind::overloaded);
    first.cancel(core::CancelReason::superseded);
    while (!first_done) co_await pause(1ms);
  });
}

TEST_F(UpstreamTest, EarlyAnswerToALongBodyIsHeard) {
  ScriptedUpstream upstream({[&](RawSocket& peer) {
    (void)peer.read_until("\r\n\r\n");
    peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
    peer.half_close();
    std::this_thread::sleep_for(20ms);
  }});
  const std::string body(64 << 20, 'b');
  run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
    // What the kernel keeps of the answer after the reset decides; either way the call ends and nothing is pooled.
    const Answer answer = co_await ask(client, {.path = "/x", .body = body});
    EXPECT_TRUE(answer.status == 413 || answer.error == ErrorKind::upstream_closed);
    EXPECT_EQ(client.idle_connections(), 0U);
  });
}

TEST_F(UpstreamTest, ReadAllHasACap) {
  const std::string body(100'000, 'x');
  for (const bool chunked : {false, true}) {
    ScriptedUpstream upstream({[&](RawSocket& peer) {
      while (!upstream_request(peer).empty()) {
        peer.send(chunked ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n186a0\r\n" + body + "\r\n0\r\n\r\n"
                          : http_ok(body));
      }
    }});
    run(options_for(upstream), [&](UpstreamClient& client) -> awaitable<void> {
      {
        auto response = co_await client.send({.path = "/x"}, {}, cancel_);
        EXPECT_TRUE(response);
        EXPECT_EQ((co_await (*response)->read_all(body.size())).value_or(""), body);
      }
      EXPECT_EQ(client.idle_connections(), 1U);
      auto response = co_await client.send({.path = "/x"}, {}, cancel_);
      EXPECT_TRUE(response);
      auto all = co_await (*response)->read_all(body.size() - 1);
      EXPECT_EQ(all ? ErrorKind::kCount : all.error().kind, ErrorKind::upstream_protocol);
      response->reset();
      EXPECT_EQ(client.idle_connections(), 0U);
    });
  }
}

TEST_F(UpstreamTest, TalksIPv6AndNames) {
  ScriptedUpstream upstream({[&](RawSocket& peer) { upstream.answer_all(http_ok("six"))(peer); }}, "::1");
  run(options_for(upstream),
      [&](UpstreamClient& client) -> awaitable<void> { EXPECT_EQ((co_await ask(client)).body, "six"); });
  ScriptedUpstream named({[&](RawSocket& peer) { named.answer_all(http_ok("name"))(peer); }});
  UpstreamOptions options;
  options.base_url = "http://localhost:" + std::to_string(named.port());
  run(options, [&](UpstreamClient& client) -> awaitable<void> { EXPECT_EQ((co_await ask(client)).body, "name"); });
  EXPECT_EQ(hooks_.lookups_ok, 1);
  EXPECT_TRUE(named.requests()[0].find("Host: localhost:") != std::string::npos);
}

TEST(UpstreamClient, RefusesBaseUrlsItCannotUse) {
  boost::asio::io_context io(1);
  UpstreamHooks hooks;
  for (const char* url : {"", "ftp://a", "http://", "http://a:0", "http://a:99999", "http://u@a", "http://a?x",
                          "http://a/../b", "http://a#b", "//a"}) {
    UpstreamOptions options;
    options.base_url = url;
    EXPECT_THROW(UpstreamClient(io.get_executor(), options, hooks), std::invalid_argument) << url;
  }
}

}  // namespace
}  // namespace ganglion::net
