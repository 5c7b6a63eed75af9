// Every limit and every cancel reason of a server connection, over real sockets.

#include <gtest/gtest.h>

#include "tests/unit/net/server_fixture.hpp"

namespace ganglion::net {
namespace {

using namespace std::chrono_literals;
using core::CancelReason;
using ganglion::test::body_of;
using ganglion::test::header_of;
using ganglion::test::status_of;
using test::awaitable;
using test::eventually;
using test::RawSocket;
using test::TestServer;
using Clock = std::chrono::steady_clock;

constexpr const char* kGet = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

// Records why and when the exchange was cancelled.
struct CancelProbe {
  std::promise<void> entered;
  std::promise<CancelReason> reason;
  Clock::time_point at;
  Handler handler() {
    return [this](Exchange& exchange) -> awaitable<void> {
      entered.set_value();
      const CancelReason why = co_await test::until_cancelled(exchange);
      at = Clock::now();
      reason.set_value(why);
    };
  }
};

TEST(ServerLimits, HeaderBlockHasAWallClock) {
  ServerOptions options;
  options.header_timeout = 150ms;
  TestServer server(test::echo, options);
  RawSocket client = server.connect();
  const auto started = Clock::now();
  std::string answer;
  // A byte now and then does not help.
  client.send("GET / HTTP/1.1\r\nX-Slow: ");
  while (!client.wait_closed(20ms) && Clock::now() - started < 30s) client.send("x");
  answer = client.read_message();
  EXPECT_EQ(status_of(answer), 408);
  EXPECT_GE(Clock::now() - started, 150ms);
  EXPECT_LT(Clock::now() - started, 8s) << "every byte began it anew";
  EXPECT_EQ(server.hooks.begun, 0);
}

TEST(ServerLimits, SilentConnectionIsClosedWithoutAWord) {
  ServerOptions options;
  options.header_timeout = 60ms;
  TestServer server(test::echo, options);
  RawSocket client = server.connect();
  EXPECT_EQ(client.read_to_end(), "");
}

TEST(ServerLimits, IdleConnectionIsClosed) {
  ServerOptions options;
  options.keep_alive_timeout = 60ms;
  TestServer server(test::echo, options);
  RawSocket client = server.connect();
  client.send(kGet);
  EXPECT_EQ(status_of(client.read_message()), 200);
  const auto idle_since = Clock::now();
  EXPECT_EQ(client.read_to_end(), "");
  EXPECT_GE(Clock::now() - idle_since, 55ms);
}

TEST(ServerLimits, SlowBodyIs408) {
  ServerOptions options;
  options.body_grace = 100ms;
  options.body_rate_min = 1'000'000;
  TestServer server(test::echo, options);
  RawSocket client = server.connect();
  const auto started = Clock::now();
  client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nslow");
  const std::string answer = client.read_message();
  EXPECT_EQ(status_of(answer), 408);
  EXPECT_EQ(header_of(answer, "Connection"), "close");
  EXPECT_GE(Clock::now() - started, 100ms);
}

TEST(ServerLimits, BodyThatKeepsItsRateIsRead) {
  ServerOptions options;
  options.body_grace = 50ms;
  options.body_rate_min = 1;  // each byte earns a second
  TestServer server(test::echo, options);
  RawSocket client = server.connect();
  client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n0123456789");
  std::this_thread::sleep_for(150ms);
  client.send("done");
  EXPECT_EQ(body_of(client.read_message()), "POST /\n0123456789done");
}

TEST(ServerLimits, DeadlineCancelsAndAnErrorCanStillBeSent) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    exchange.set_deadline(core::Deadline::after(50ms));
    EXPECT_EQ(co_await test::until_cancelled(exchange), CancelReason::deadline);
    ResponseHead head;
    head.status = 504;
    EXPECT_TRUE(co_await exchange.respond(head, "late"));
  });
  RawSocket client = server.connect();
  const auto started = Clock::now();
  client.send(kGet);
  EXPECT_EQ(status_of(client.read_message()), 504);
  EXPECT_GE(Clock::now() - started, 50ms);
  EXPECT_LT(Clock::now() - started, 8s);
  client.send(kGet);
  EXPECT_EQ(status_of(client.read_message()), 504) << "the connection goes on, with a deadline of its own";
}

TEST(ServerLimits, DeadlineDoesNotOutliveItsExchange) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    if (exchange.head().path == "/first") {
      exchange.set_deadline(core::Deadline::after(250ms));
    } else {
      boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, 400ms);
      co_await timer.async_wait(boost::asio::use_awaitable);
    }
    (void)co_await exchange.respond({}, exchange.cancel().cancelled() ? "cancelled" : "fine");
  });
  RawSocket client = server.connect();
  client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(body_of(client.read_message()), "fine");
  EXPECT_EQ(body_of(client.read_message()), "fine");
}

TEST(ServerLimits, DeadlineEndsABodyReadToo) {
  std::promise<core::ErrorKind> kind;
  TestServer server([&](Exchange& exchange) -> awaitable<void> {
    exchange.set_deadline(core::Deadline::after(40ms));
    auto body = co_await exchange.read_body(100);
    kind.set_value(body ? core::ErrorKind::kCount : body.error().kind);
  });
  RawSocket client = server.connect();
  client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
  EXPECT_EQ(kind.get_future().get(), core::ErrorKind::deadline_exceeded);
  EXPECT_EQ(status_of(client.read_message()), 504);
}

TEST(ServerLimits, ClientGoneWhileTheHandlerWaits) {
  enum class End { close, reset, half_close };
  for (const End end : {End::close, End::reset, End::half_close}) {
    CancelProbe probe;
    TestServer server(probe.handler());
    RawSocket client = server.connect();
    client.send(kGet);
    probe.entered.get_future().wait();
    const auto gone = Clock::now();
    if (end == End::close) client.close();
    if (end == End::reset) client.reset();
    if (end == End::half_close) client.half_close();
    EXPECT_EQ(probe.reason.get_future().get(), CancelReason::client_gone);
    EXPECT_LT(probe.at - gone, 4s);  // 1 ms where idle; otherwise never
    EXPECT_EQ(server.hooks.last_cancel, CancelReason::client_gone);
    client.close();
    EXPECT_TRUE(eventually([&] { return server.server->connections() == 0; }));
  }
}

TEST(ServerLimits, PipelinedDataNeitherCancelsNorHidesTheEnd) {
  CancelProbe probe;
  TestServer server(probe.handler());
  RawSocket client = server.connect();
  client.send(kGet);
  probe.entered.get_future().wait();
  client.send(std::string(30'000, 'x'));
  auto reason = probe.reason.get_future();
  EXPECT_EQ(reason.wait_for(50ms), std::future_status::timeout);
  client.close();
  EXPECT_EQ(reason.get(), CancelReason::client_gone);
}

TEST(ServerLimits, HalfClosedClientStillGetsAnAnswerThatNeedsNoWaiting) {
  TestServer server;
  RawSocket client = server.connect();
  client.send(kGet);
  client.half_close();
  EXPECT_EQ(status_of(client.read_message()), 200);
}

TEST(ServerLimits, ClientGoneWithinItsBody) {
  std::promise<core::ErrorKind> kind;
  TestServer server([&](Exchange& exchange) -> awaitable<void> {
    auto body = co_await exchange.read_body(100);
    EXPECT_EQ(exchange.cancel().reason(), CancelReason::client_gone);
    kind.set_value(body ? core::ErrorKind::kCount : body.error().kind);
  });
  RawSocket client = server.connect();
  client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
  client.close();
  EXPECT_EQ(kind.get_future().get(), core::ErrorKind::cancelled);
}

TEST(ServerLimits, ShutdownCancelsWhatRuns) {
  CancelProbe probe;
  TestServer server(probe.handler());
  RawSocket client = server.connect();
  RawSocket idle = server.connect();
  client.send(kGet);
  probe.entered.get_future().wait();
  server.server->cancel_all();
  EXPECT_EQ(probe.reason.get_future().get(), CancelReason::shutdown);
  EXPECT_EQ(status_of(client.read_message()), 503);
  EXPECT_EQ(client.read_to_end(), "");
  EXPECT_EQ(idle.read_to_end(), "");
}

TEST(ServerLimits, StalledClientIsCutOffAsSlow) {
  ServerOptions options;
  options.write_timeout = 100ms;
  std::promise<CancelReason> reason;
  TestServer server(
      [&](Exchange& exchange) -> awaitable<void> {
        const std::string piece(65536, 'x');
        bool ok = (co_await exchange.start_stream({})).has_value();
        while (ok) ok = (co_await exchange.write(piece)).has_value();
        reason.set_value(exchange.cancel().reason());
      },
      options);
  RawSocket client = RawSocket::connect(server.port, "127.0.0.1", 4096);
  client.send(kGet);
  EXPECT_EQ(reason.get_future().get(), CancelReason::slow_client);
  EXPECT_TRUE(eventually([&] { return server.server->connections() == 0; }));
}

// What write() has taken and the client has not read stays small, however long the stream.
TEST(ServerLimits, SlowReaderHoldsTheStreamBack) {
  std::atomic<std::uint64_t> taken{0};
  constexpr std::uint64_t kTotal = 100UL << 20;
  TestServer server([&](Exchange& exchange) -> awaitable<void> {
    const std::string piece(65536, 'x');
    bool ok = (co_await exchange.start_stream({})).has_value();
    for (std::uint64_t sent = 0; ok && sent < kTotal; sent += piece.size()) {
      ok = (co_await exchange.write(piece)).has_value();
      taken = exchange.bytes_out();
    }
    if (ok) (void)co_await exchange.finish();
  });
  RawSocket client = RawSocket::connect(server.port, "127.0.0.1", 32768);
  client.send(kGet);
  std::uint64_t read = 0;
  std::uint64_t held_max = 0;
  for (int i = 0; i < 200; ++i) {
    read += client.read_some().size();
    if (i % 20 == 0) std::this_thread::sleep_for(5ms);
    held_max = std::max(held_max, taken.load() - std::min(taken.load(), read));
  }
  // 64 KiB in the kernel's unsent queue, the client's receive buffer, and what is on the way between them.
  EXPECT_LT(held_max, 400'000U);
  EXPECT_LT(taken.load(), kTotal / 2) << "the sender ran ahead of the reader";
  client.close();
  EXPECT_TRUE(eventually([&] { return server.server->connections() == 0; }));
}

}  // namespace
}  // namespace ganglion::net
