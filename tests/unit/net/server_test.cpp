// The server over real sockets: framing of answers, order, refusals.

#include "net/server.hpp"

#include <gtest/gtest.h>

#include "tests/unit/net/reject_vectors.hpp"
#include "tests/unit/net/server_fixture.hpp"

namespace ganglion::net {
namespace {

using namespace std::chrono_literals;
using ganglion::test::body_of;
using ganglion::test::header_of;
using ganglion::test::status_of;
using test::awaitable;
using test::RawSocket;
using test::TestServer;

std::string post(const std::string& body, const std::string& headers = "") {
  return "POST /v1/x HTTP/1.1\r\nHost: a\r\n" + headers + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body;
}

TEST(Server, KeepsTheConnectionAlive) {
  TestServer server;
  RawSocket client = server.connect();
  for (int i = 0; i < 3; ++i) {
    client.send(post("n" + std::to_string(i)));
    const std::string answer = client.read_message();
    EXPECT_EQ(status_of(answer), 200);
    EXPECT_EQ(body_of(answer), "POST /v1/x\nn" + std::to_string(i));
    EXPECT_EQ(header_of(answer, "Content-Type"), "text/plain");
    EXPECT_EQ(header_of(answer, "Connection"), "");
    EXPECT_EQ(header_of(answer, "Date").size(), 29U);
  }
  EXPECT_EQ(server.hooks.opened, 1);
  EXPECT_EQ(server.hooks.begun, 3);
}

TEST(Server, AnswersPipelinedRequestsInOrder) {
  TestServer server;
  RawSocket client = server.connect();
  std::string all;
  for (int i = 0; i < 200; ++i) {
    const std::string n = std::to_string(i);
    all +=
        i % 3 == 0 ? post("sized " + n)
        : i % 3 == 1
            ? "POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nchu\r\n4\r\nnked\r\n0\r\n\r\n"
            : "GET /" + n + " HTTP/1.1\r\nHost: a\r\n\r\n";
  }
  client.send(all);
  for (int i = 0; i < 200; ++i) {
    const std::string n = std::to_string(i);
    EXPECT_EQ(body_of(client.read_message()), i % 3 == 0   ? "POST /v1/x\nsized " + n
                                              : i % 3 == 1 ? "POST /v1/x\nchunked"
                                                           : "GET /" + n + "\n");
  }
}

TEST(Server, ReadsRequestsByteByByte) {
  TestServer server;
  RawSocket client = server.connect();
  for (const char byte :
       post("ab") + "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ncd\r\n0\r\n\r\n") {
    client.send({&byte, 1});
  }
  EXPECT_EQ(body_of(client.read_message()), "POST /v1/x\nab");
  EXPECT_EQ(body_of(client.read_message()), "POST /\ncd");
}

TEST(Server, ReadsLargeBodies) {
  TestServer server;
  RawSocket client = server.connect();
  const std::string body(700'000, 'b');
  client.send(post(body));
  EXPECT_EQ(body_of(client.read_message()), "POST /v1/x\n" + body);
  std::string chunked = "POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 70; ++i) chunked += "2710\r\n" + body.substr(0, 10'000) + "\r\n";
  client.send(chunked + "0\r\n\r\n" + post("next"));
  EXPECT_EQ(body_of(client.read_message()), "POST /v1/x\n" + body);
  EXPECT_EQ(body_of(client.read_message()), "POST /v1/x\nnext");
}

TEST(Server, AHeldBodyOutlivesItsExchange) {
  std::vector<HeldBody> held;
  TestServer server([&](Exchange& exchange) -> awaitable<void> {
    (void)co_await exchange.read_body(1 << 20);
    held.push_back(exchange.hold_body());
    std::string all;
    for (const HeldBody& body : held) all += std::string{body.text} + "\n";
    (void)co_await exchange.respond({}, all);
  });
  RawSocket client = server.connect();
  std::string expected;
  char letter = 'a';
  // Along with the head, in the connection's own buffer, larger than that is kept; with a length and in chunks.
  for (const std::size_t size : {0, 3, 40'000, 20'000, 40'000, 300'000, 5}) {
    for (const bool chunked : {false, true}) {
      const std::string body(size, letter++);
      expected += body + "\n";
      if (!chunked) {
        client.send(post(body));
      } else {
        char length[32];
        std::snprintf(length, sizeof length, "%zx\r\n", size);
        client.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" +
                    (size > 0 ? length + body + "\r\n" : "") + "0\r\n\r\n");
      }
      EXPECT_EQ(body_of(client.read_message()), expected) << size;
    }
  }
}

TEST(Server, RefusesEveryVectorOverTheSocket) {
  std::atomic<int> served{0};
  TestServer server([&](Exchange& exchange) -> awaitable<void> {
    auto body = co_await exchange.read_body(1 << 20);
    if (body) ++served;
    ResponseHead head;
    head.status = body ? 200 : core::face(body.error().kind).http_status;
    (void)co_await exchange.respond(head, "x");
  });
  for (const auto& vector : test::reject_vectors()) {
    RawSocket client = server.connect();
    client.send(vector.bytes);
    EXPECT_EQ(status_of(client.read_message()), vector.status) << vector.name;
    client.half_close();
    EXPECT_TRUE(client.ended()) << vector.name;
  }
  EXPECT_EQ(served, 0);
  RawSocket client = server.connect();
  client.send(post("still works"));
  EXPECT_EQ(status_of(client.read_message()), 200);
}

TEST(Server, RefusalHasTheHooksBodyAndCloses) {
  TestServer server;
  RawSocket client = server.connect();
  client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n" + post("smuggled"));
  const std::string answer = client.read_message();
  EXPECT_EQ(status_of(answer), 400);
  EXPECT_EQ(body_of(answer), "{\"error\":\"more than one Host\"}");
  EXPECT_EQ(header_of(answer, "Connection"), "close");
  EXPECT_EQ(client.read_to_end(), "");
  EXPECT_EQ(server.hooks.last_refusal, core::ErrorKind::malformed_http);
  EXPECT_EQ(server.hooks.begun, 0);
}

TEST(Server, ConnectionCloseEndsTheConnection) {
  TestServer server;
  RawSocket client = server.connect();
  client.send(post("last", "Connection: close\r\n") + post("ignored"));
  const std::string answer = client.read_message();
  EXPECT_EQ(header_of(answer, "Connection"), "close");
  EXPECT_EQ(client.read_to_end(), "");
  EXPECT_EQ(server.hooks.begun, 1);
}

TEST(Server, HeadGetsTheLengthAndNoBody) {
  TestServer server;
  RawSocket client = server.connect();
  client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(header_of(client.read_message(true), "Content-Length"), "8");
  EXPECT_EQ(body_of(client.read_message()), "GET /y\n");
}

TEST(Server, Http10ClosesUnlessAskedToKeepAlive) {
  TestServer server;
  RawSocket client = server.connect();
  client.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(header_of(client.read_message(), "Connection"), "keep-alive");
  client.send("GET /b HTTP/1.0\r\n\r\n");
  const std::string answer = client.read_to_end();
  EXPECT_EQ(body_of(answer), "GET /b\n");
  EXPECT_EQ(header_of(answer, "Connection"), "close");
}

TEST(Server, SendsContinueOnlyWhenTheBodyIsWanted) {
  TestServer server;
  RawSocket client = server.connect();
  client.send("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("hi");
  EXPECT_EQ(body_of(client.read_message()), "POST /x\nhi");
}

TEST(Server, EarlyAnswerToAnExpectingClientCloses) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    ResponseHead head;
    head.status = 401;
    (void)co_await exchange.respond(head, "no");
  });
  RawSocket client = server.connect();
  client.send("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n");
  const std::string answer = client.read_message();
  EXPECT_EQ(status_of(answer), 401);
  EXPECT_EQ(header_of(answer, "Connection"), "close");
  client.send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.read_to_end(), "");
  EXPECT_EQ(server.hooks.begun, 1);
}

TEST(Server, UnreadBodyIsNeverReadAsARequest) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    ResponseHead head;
    head.status = 429;
    (void)co_await exchange.respond(head, std::string{exchange.head().target});
  });
  const std::string inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
  {
    RawSocket client = server.connect();
    client.send(post(inner) + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(body_of(client.read_message()), "/v1/x");
    EXPECT_EQ(body_of(client.read_message()), "/next");
  }
  {
    // The body comes after the answer, in parts.
    RawSocket client = server.connect();
    client.send("POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(inner.size()) + "\r\n\r\n");
    EXPECT_EQ(body_of(client.read_message()), "/late");
    client.send(inner.substr(0, 10));
    client.send(inner.substr(10) + "GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(body_of(client.read_message()), "/next");
  }
  {
    // Too long to drop: the connection closes.
    RawSocket client = server.connect();
    client.send("POST /long HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + inner);
    EXPECT_EQ(header_of(client.read_message(), "Connection"), "close");
    EXPECT_EQ(client.read_to_end(), "");
  }
  {
    RawSocket client = server.connect();
    client.send("POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + inner);
    EXPECT_EQ(header_of(client.read_message(), "Connection"), "close");
    EXPECT_EQ(client.read_to_end(), "");
  }
}

TEST(Server, BodyOverTheCapIs413) {
  TestServer server;
  for (const bool chunked : {false, true}) {
    RawSocket client = server.connect();
    const std::string body((1 << 20) + 1, 'b');
    if (chunked) {
      client.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n" + body +
                  "\r\n0\r\n\r\n");
    } else {
      client.send(post(body));
    }
    EXPECT_EQ(status_of(client.read_message()), 413);
    client.half_close();
    EXPECT_TRUE(client.ended());
  }
}

TEST(Server, StreamsChunked) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    ResponseHead head;
    head.content_type = "text/event-stream";
    EXPECT_TRUE(co_await exchange.start_stream(head, "fir", "st"));
    EXPECT_TRUE(co_await exchange.write("", "sec"));
    EXPECT_TRUE(co_await exchange.write("o", "nd"));
    EXPECT_TRUE(co_await exchange.finish("third"));
    EXPECT_EQ(exchange.bytes_out(), exchange.head().method == Method::head ? 0U : 16U);
  });
  RawSocket client = server.connect();
  client.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.0\r\n\r\n");
  const std::string answer = client.read_message();
  EXPECT_TRUE(answer.ends_with("\r\n\r\n5\r\nfirst\r\n3\r\nsec\r\n3\r\nond\r\n5\r\nthird\r\n0\r\n\r\n")) << answer;
  EXPECT_EQ(status_of(client.read_message(true)), 200);
  const std::string old = client.read_to_end();
  EXPECT_TRUE(old.ends_with("\r\n\r\nfirstsecondthird")) << old;
  EXPECT_EQ(header_of(old, "Transfer-Encoding"), "");
}

TEST(Server, StreamsWithAKnownLength) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    ResponseHead head;
    head.content_length = 10;
    EXPECT_TRUE(co_await exchange.start_stream(head, "01", "234"));
    if (exchange.head().path == "/short") {
      EXPECT_FALSE(co_await exchange.finish("5"));
      co_return;
    }
    EXPECT_TRUE(co_await exchange.write("5678"));
    EXPECT_TRUE(co_await exchange.finish("9"));
  });
  RawSocket client = server.connect();
  client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(body_of(client.read_message()), "0123456789");
  client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(body_of(client.read_to_end()), "01234");
}

TEST(Server, AbortedStreamLooksBroken) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    EXPECT_TRUE(co_await exchange.start_stream({}, "partial"));
    exchange.abort();
    EXPECT_FALSE(co_await exchange.write("more"));
  });
  RawSocket client = server.connect();
  client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(client.read_to_end().ends_with("7\r\npartial\r\n"));
  RawSocket old = server.connect();
  old.send("GET / HTTP/1.0\r\n\r\n");
  (void)old.read_to_end();
  EXPECT_TRUE(old.was_reset()) << "a cut close-delimited body must not look complete";
}

TEST(Server, HeldAnswerWaitsForItsGate) {
  std::promise<void> open;
  TestServer* running = nullptr;
  std::unique_ptr<boost::asio::steady_timer> gate_timer;
  TestServer server([&](Exchange& exchange) -> awaitable<void> {
    const bool good = exchange.head().path == "/good";
    gate_timer = std::make_unique<boost::asio::steady_timer>(running->io, 8s);
    auto gate = [&]() -> awaitable<core::Result<void>> {
      (void)co_await gate_timer->async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
      if (!good) co_return core::fail(core::ErrorKind::ledger_unavailable);
      co_return core::Result<void>{};
    };
    auto sent = co_await exchange.respond_held({}, "answer", gate());
    EXPECT_EQ(sent.has_value(), good);
  });
  running = &server;
  RawSocket client = server.connect();
  client.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\n");
  const std::string head = client.read_until("\r\n\r\n");
  EXPECT_EQ(header_of(head, "Content-Length"), "6");
  EXPECT_EQ(client.read_exactly(5), "answe");
  EXPECT_FALSE(client.wait_closed(20ms));
  server.on_worker([&] { gate_timer->cancel(); });
  EXPECT_EQ(client.read_exactly(1), "r");
  client.send("GET /bad HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(client.read_until("answe").substr(0, 12), "HTTP/1.1 200");
  server.on_worker([&] { gate_timer->cancel(); });
  EXPECT_EQ(client.read_to_end(), "");
  server.on_worker([&] { gate_timer.reset(); });
}

TEST(Server, HandlerThatThrowsOrKeepsSilentGets500) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    if (exchange.head().path == "/throw") throw std::runtime_error("bug");
    co_return;
  });
  for (const char* path : {"/throw", "/silent"}) {
    RawSocket client = server.connect();
    client.send(std::string{"GET "} + path + " HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(status_of(client.read_message()), 500);
    EXPECT_EQ(client.read_to_end(), "");
  }
  EXPECT_EQ(server.hooks.threw, 1);
}

TEST(Server, LeavesOutHeadersThatWouldSplitTheAnswer) {
  TestServer server([](Exchange& exchange) -> awaitable<void> {
    ResponseHead head;
    head.headers.add("x-good", "1");
    head.headers.add("x-bad", "1\r\nx-injected: 1");
    (void)co_await exchange.respond(head, "");
  });
  RawSocket client = server.connect();
  client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  const std::string answer = client.read_message();
  EXPECT_EQ(header_of(answer, "x-good"), "1");
  EXPECT_EQ(answer.find("injected"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::net
