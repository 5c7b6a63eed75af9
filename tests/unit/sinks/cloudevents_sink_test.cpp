// Events over HTTP against a scripted receiver: what is sent, what counts as taken, what comes again.

#include "sinks/cloudevents_sink.hpp"

#include <gmock/gmock.h>

#include <filesystem>
#include <thread>

#include "tests/support/scripted_upstream.hpp"
#include "tests/support/temp_dir.hpp"
#include "tests/unit/sinks/records.hpp"

namespace ganglion::sinks {
namespace {

using test::RawSocket;
using test::ScriptedUpstream;
using ::testing::HasSubstr;

std::string answer(const std::string& status, const std::string& headers = "", const std::string& body = "") {
  return "HTTP/1.1 " + status + "\r\n" + headers + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

class CloudEventsSinkTest : public ::testing::Test {
 protected:
  PositionFile position() const { return {root_.path(), "events", kLedger}; }
  std::unique_ptr<CloudEventsSink> make(const ScriptedUpstream& receiver, SinkOptions options = {},
                                        std::chrono::milliseconds timeout = std::chrono::seconds{20}) const {
    options.url = receiver.base_url("/api/v1/events");
    options.timeout = timeout;
    return std::make_unique<CloudEventsSink>(options, kLedger, position());
  }

  test::TempDir root_;
};

TEST_F(CloudEventsSinkTest, SendsABatchAsOpenMeterTakesIt) {
  ScriptedUpstream receiver({[&](RawSocket& socket) {
    while (!receiver.read_request(socket).empty()) socket.send("HTTP/1.1 204 No Content\r\n\r\n");
  }});
  SinkOptions options;
  options.token = core::Secret{"sk-events"};
  const auto sink = make(receiver, options);
  EXPECT_EQ(sink->open().value(), 0U);
  ASSERT_TRUE(sink->deliver(records(7, 8), 9));
  EXPECT_EQ(position().read().value(), 9U);
  const std::string request = receiver.requests().at(0);
  EXPECT_THAT(request, HasSubstr("POST /api/v1/events HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("application/cloudevents-batch+json"));
  EXPECT_THAT(request, HasSubstr("Bearer sk-events"));
  const std::string body = test::body_of(request);
  EXPECT_TRUE(body.starts_with(R"([{"specversion":"1.0","id":")" + std::string{kLedger} + R"(/7","source":"urn:uuid:)" +
                               kLedger +
                               R"(","type":"ganglion.request","subject":"acme","time":"2025-12-31T00:00:00.000000Z",)"
                               R"("datacontenttype":"application/json","data":{)"))
      << body;
  EXPECT_THAT(body, HasSubstr(R"("input_tokens":11)"));
  EXPECT_THAT(body, HasSubstr(R"("neurons":"1.5")"));
  EXPECT_TRUE(body.ends_with("}}]"));
}

TEST_F(CloudEventsSinkTest, SendsOneEventALine) {
  ScriptedUpstream receiver({[&](RawSocket& socket) {
    while (!receiver.read_request(socket).empty()) socket.send(answer("200 OK"));
  }});
  SinkOptions options;
  options.format = "lines";
  options.source = "gateway-1";
  options.event_type = "usage";
  const auto sink = make(receiver, options);
  ASSERT_TRUE(sink->deliver(records(1, 3), 3));
  const std::string request = receiver.requests().at(0);
  EXPECT_THAT(request, HasSubstr("application/x-ndjson"));
  const std::string body = test::body_of(request);
  EXPECT_EQ(std::ranges::count(body, '\n'), 3);
  EXPECT_THAT(body, HasSubstr(R"("source":"gateway-1","type":"usage")"));
}

TEST_F(CloudEventsSinkTest, EveryAnswerBut2xxIsAnErrorAndMovesNothing) {
  std::atomic<int> calls{0};
  ScriptedUpstream receiver({[&](RawSocket& socket) {
    const std::vector<std::string> answers{answer("503 Busy", "Retry-After: 7\r\n"),
                                           answer("400 Bad", "", "no such meter"),
                                           answer("301 Moved", "Location: /x\r\n"), answer("204 No Content")};
    while (!receiver.read_request(socket).empty()) socket.send(answers[static_cast<std::size_t>(calls++)]);
  }});
  const auto sink = make(receiver);
  const auto busy = sink->deliver(records(1, 2), 2);
  ASSERT_FALSE(busy);
  EXPECT_EQ(busy.error().retry_after, std::chrono::seconds{7});
  const auto bad = sink->deliver(records(1, 2), 2);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message, HasSubstr("400: no such meter"));
  EXPECT_FALSE(sink->deliver(records(1, 2), 2));
  EXPECT_EQ(position().read().value(), 0U);
  EXPECT_TRUE(sink->deliver(records(1, 2), 2));
  EXPECT_EQ(position().read().value(), 2U);
  // The same events each time, byte for byte.
  for (const std::string& request : receiver.requests()) {
    EXPECT_EQ(test::body_of(request), test::body_of(receiver.requests()[0]));
  }
}

TEST_F(CloudEventsSinkTest, AReceiverThatIsSilentOrClosesIsAnErrorInTime) {
  ScriptedUpstream receiver({[&](RawSocket& socket) {
                               receiver.read_request(socket);  // and nothing more
                               socket.wait_closed(std::chrono::seconds{60});
                             },
                             [&](RawSocket& socket) { receiver.read_request(socket); },
                             [&](RawSocket& socket) {
                               while (!receiver.read_request(socket).empty()) socket.send(answer("204 No Content"));
                             }});
  const auto sink = make(receiver, {}, std::chrono::milliseconds{500});
  const auto began = std::chrono::steady_clock::now();
  EXPECT_FALSE(sink->deliver(records(1, 1), 1));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds{50});
  EXPECT_FALSE(sink->deliver(records(1, 1), 1));
  EXPECT_TRUE(sink->deliver(records(1, 1), 1));
}

TEST_F(CloudEventsSinkTest, ABatchThatIsTooLargeIsHalvedUntilItFits) {
  ScriptedUpstream receiver({[&](RawSocket& socket) {
    for (;;) {
      const std::string request = receiver.read_request(socket);
      if (request.empty()) return;
      socket.send(test::body_of(request).size() > 3000 ? answer("413 Too Large") : answer("204 No Content"));
    }
  }});
  const auto sink = make(receiver);
  ASSERT_TRUE(sink->deliver(records(1, 10), 12));
  EXPECT_EQ(position().read().value(), 12U);
  std::string taken;
  for (const std::string& request : receiver.requests()) {
    if (test::body_of(request).size() <= 3000) taken += test::body_of(request);
  }
  for (int i = 1; i <= 10; ++i) {
    EXPECT_THAT(taken, HasSubstr("\"id\":\"r" + std::to_string(i) + "\"")) << i;
  }
}

TEST_F(CloudEventsSinkTest, InterruptEndsARequestThatWaits) {
  ScriptedUpstream receiver({[&](RawSocket& socket) {
    receiver.read_request(socket);
    socket.wait_closed(std::chrono::seconds{60});
  }});
  SinkOptions options;
  options.url = receiver.base_url("/events");
  options.timeout = std::chrono::seconds{60};
  CloudEventsSink sink(options, kLedger, position());
  std::thread interrupter([&] {
    for (int i = 0; i < 10'000 && receiver.requests().empty(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds{5});
    sink.interrupt();
  });
  const auto began = std::chrono::steady_clock::now();
  EXPECT_FALSE(sink.deliver(records(1, 1), 1));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds{50});
  interrupter.join();
}

TEST_F(CloudEventsSinkTest, AUrlWithoutAPathPostsToTheRoot) {
  ScriptedUpstream receiver({[&](RawSocket& socket) {
    while (!receiver.read_request(socket).empty()) socket.send(answer("204 No Content"));
  }});
  SinkOptions options;
  options.url = receiver.base_url();
  CloudEventsSink sink(options, kLedger, position());
  ASSERT_TRUE(sink.deliver(records(1, 1), 1));
  EXPECT_THAT(receiver.requests().at(0), HasSubstr("POST / HTTP/1.1"));
}

}  // namespace
}  // namespace ganglion::sinks
