// HTTP through the whole gateway: what clients may do on a connection, what is refused before anything goes upstream,
// and what the headers of an answer say.

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/unit/net/reject_vectors.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;

std::string chat_request(const std::string& headers = "") {
  return RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body(), headers);
}

TEST(Protocol, NothingMalformedReachesAnUpstream) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  for (const auto& vector : net::test::reject_vectors()) {
    // To a path that is served, where a body is read.
    std::string bytes = vector.bytes;
    if (bytes.starts_with("POST /v1/x ")) bytes.replace(5, 5, "/v1/chat/completions");
    RawSocket socket = gateway.connect();
    socket.send(bytes);
    const std::string answer = socket.read_message();
    EXPECT_EQ(status_of(answer), vector.status) << vector.name;
    EXPECT_NE(body_of(answer).find("\"error\""), std::string::npos) << vector.name;
    EXPECT_TRUE(socket.ended()) << vector.name;
  }
  // Behind a good request on the same connection: that one is served, and nothing else.
  RawSocket socket = gateway.connect();
  socket.send(chat_request() + "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" +
              "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
  EXPECT_EQ(status_of(socket.read_message()), 200);
  EXPECT_EQ(status_of(socket.read_message()), 400);
  EXPECT_TRUE(socket.ended());
  EXPECT_EQ(upstream->accepted(), 1);
  EXPECT_EQ(upstream->requests().size(), 1U);
}

TEST(Protocol, WhatIsNotServedCountsForNoEndpoint) {
  RunningGateway gateway(provider(1));
  EXPECT_EQ(status_of(gateway.post("/v1/nope", "{}")), 404);
  EXPECT_EQ(status_of(gateway.get("/v1/embeddings")), 405);
  const auto counted = [&](const std::string& endpoint, const std::string& code) {
    return gateway.metric("ganglion_requests_total", {"endpoint=\"" + endpoint + "\"", "code=\"" + code + "\""});
  };
  // A request is counted behind its answer.
  for (int tries = 0; tries < 5000 && counted("unknown", "404") + counted("embeddings", "405") < 2; ++tries)
    std::this_thread::sleep_for(1ms);
  EXPECT_EQ(counted("unknown", "404"), 1);
  EXPECT_EQ(counted("embeddings", "405"), 1);
  EXPECT_EQ(gateway.metric("ganglion_requests_total", {"endpoint=\"chat_completions\""}), 0);
}

TEST(Protocol, PipelinedRequestsAreAnsweredInOrder) {
  ScriptedUpstream* self = nullptr;
  int asked = 0;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    while (!self->read_request(socket).empty()) {
      if (asked++ == 0) std::this_thread::sleep_for(50ms);  // the first is the slowest
      socket.send(http_ok(kAnswer));
    }
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache);
  RawSocket socket = gateway.connect();
  socket.send(chat_request() + "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n" + chat_request("x-neuron-tier: fast\r\n") +
              "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(header_of(socket.read_message(), "x-neuron-tier"), "regular");
  EXPECT_NE(socket.read_message().find("\"object\":\"list\""), std::string::npos);
  EXPECT_EQ(header_of(socket.read_message(), "x-neuron-tier"), "fast");
  EXPECT_EQ(status_of(socket.read_message()), 404);
}

TEST(Protocol, BodiesMayComeChunkedOrAfterContinue) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache + "request: {max_body: 4KiB}\n");
  const std::string body = RunningGateway::chat_body();
  const std::string head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n";
  RawSocket socket = gateway.connect();
  socket.send(head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(body.substr(0, 10)) + chunk(body.substr(10)) +
              "0\r\n\r\n");
  EXPECT_EQ(status_of(socket.read_message()), 200);
  EXPECT_TRUE(upstream->requests().at(0).ends_with("\r\n\r\n" + body)) << "sent on with its length";

  socket.send(head + "Expect: 100-continue\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(socket.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  socket.send(body);
  EXPECT_EQ(status_of(socket.read_message()), 200);

  socket.send(head + "Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n");
  EXPECT_EQ(status_of(socket.read_message()), 413) << "refused before it is sent";
  EXPECT_EQ(upstream->requests().size(), 2U);
}

TEST(Protocol, HeadIsGetWithoutABody) {
  RunningGateway gateway(provider(1));
  const std::string got = gateway.get("/v1/models");
  RawSocket socket = gateway.connect();
  for (int i = 0; i < 2; ++i) {  // the connection stays in step
    socket.send("HEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
    const std::string head = socket.read_message(true);
    EXPECT_EQ(status_of(head), 200);
    EXPECT_EQ(header_of(head, "Content-Length"), std::to_string(body_of(got).size()));
  }
  socket.send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(body_of(socket.read_message()), body_of(got));
}

TEST(Protocol, SpeaksIPv6OnBothSides) {
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
                              while (!self->read_request(socket).empty()) socket.send(http_ok(kAnswer));
                            }},
                            "::1");
  self = &upstream;
  RunningGateway gateway(
      "providers:\n  - {name: up, base_url: \"" + upstream.base_url("/v1") + "\", models: [m]}\n" + kNoCache, 1, "::1");
  EXPECT_EQ(body_of(gateway.chat()), kAnswer);
  EXPECT_NE(upstream.requests().at(0).find("Host: [::1]:" + std::to_string(upstream.port())), std::string::npos);
  EXPECT_EQ(body_of(gateway.get("/healthz", true)), "ok\n");
}

TEST(Protocol, AnswersSayWhatIsLeftOfTheLimits) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache +
                         "tenants: [{name: default, limits: {requests: 60/min, tokens: 10000/min}}]\n");
  const std::string first = gateway.chat(R"("max_tokens":50,)");
  EXPECT_EQ(header_of(first, "x-ratelimit-limit-requests"), "60");
  EXPECT_EQ(header_of(first, "x-ratelimit-remaining-requests"), "59");
  EXPECT_TRUE(header_of(first, "x-ratelimit-reset-requests").ends_with("s"));
  EXPECT_EQ(header_of(first, "x-ratelimit-limit-tokens"), "10000");
  const std::string second = gateway.chat(R"("max_tokens":50,)");
  EXPECT_EQ(header_of(second, "x-ratelimit-remaining-requests"), "58");
  EXPECT_LE(std::stoi(header_of(second, "x-ratelimit-remaining-tokens")), 10'000 - 13) << "the first has settled";
}

// A key with its one request running gets 429, another key does not, and it runs again when the first has ended.
TEST(Protocol, NoMoreOfAKeysRequestsRunAtOnceThanMay) {
  std::promise<void> end;
  std::atomic<int> asked = 0;
  ScriptedUpstream* self = nullptr;
  const auto serve = [&](RawSocket& socket) {
    while (!self->read_request(socket).empty()) {
      if (asked++ == 0) end.get_future().wait();  // the first runs until it is told
      socket.send(http_ok(kAnswer));
    }
  };
  ScriptedUpstream upstream({serve, serve, serve});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache +
                         "key_pepper: a-pepper-for-tests-only\nkeys:\n"
                         "  - {id: one, secret: sk-one, limits: {running: 1}}\n  - {id: two, secret: sk-two}\n");
  const auto ask = [&](const std::string& key) { return chat_request("Authorization: Bearer sk-" + key + "\r\n"); };
  RawSocket first = gateway.connect(), second = gateway.connect();
  first.send(ask("one"));
  for (int i = 0; i < 10'000 && asked == 0; ++i) std::this_thread::sleep_for(1ms);
  ASSERT_EQ(asked, 1);
  second.send(ask("one"));
  const std::string refused = second.read_message();
  EXPECT_EQ(status_of(refused), 429);
  EXPECT_EQ(header_of(refused, "retry-after"), "1");
  EXPECT_NE(body_of(refused).find("Too many requests at once for this key: 1 may run."), std::string::npos) << refused;
  second.send(ask("two"));
  EXPECT_EQ(status_of(second.read_message()), 200);
  end.set_value();
  EXPECT_EQ(status_of(first.read_message()), 200);
  second.send(ask("one"));
  EXPECT_EQ(status_of(second.read_message()), 200);
  EXPECT_EQ(gateway.metric("ganglion_limiter_limited_total", {"scope=\"key\"", "kind=\"running\""}), 1);
}

TEST(Protocol, ARefusalByALimitIsCountedByItsScopeAndKind) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) +
                         "tenants: [{name: default, limits: {requests: 1/hour}}]\n"
                         "gateways: [{name: default, cache: {ttl: 0s}, limits: {tokens: 100/hour}}]\n");
  const std::string large = gateway.chat(R"("max_tokens":5000,)");
  EXPECT_EQ(status_of(large), 429);
  EXPECT_EQ(status_of(gateway.chat(R"("max_tokens":5,)")), 200);
  const std::string again = gateway.chat(R"("max_tokens":5,)");
  EXPECT_EQ(status_of(again), 429);
  for (const std::string& refused : {large, again}) {
    EXPECT_NE(body_of(refused).find("\"param\":null"), std::string::npos) << "not the client's parameter: " << refused;
  }
  const auto limited = [&](const std::string& scope, const std::string& kind) {
    return gateway.metric("ganglion_limiter_limited_total", {"scope=\"" + scope + "\"", "kind=\"" + kind + "\""});
  };
  EXPECT_EQ(limited("gateway", "tokens"), 1);
  EXPECT_EQ(limited("tenant", "requests"), 1);
  EXPECT_EQ(gateway.metric("ganglion_limiter_limited_total"), 2);
}

TEST(Protocol, CacheHeadersDecideWhatIsLookedUpAndKept) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + "gateways: [{name: default, cache: {ttl: 0s}}]\n");
  const auto status = [&](const std::string& headers, const std::string& extra = "") {
    return header_of(gateway.chat(extra, headers), "cf-aig-cache-status");
  };
  EXPECT_EQ(status(""), "") << "nothing is cached unless asked for";
  EXPECT_EQ(status("cf-aig-cache-ttl: 60\r\n"), "MISS");
  EXPECT_EQ(status("cf-aig-cache-ttl: 60\r\n"), "HIT");
  EXPECT_EQ(status("cf-aig-cache-ttl: 60\r\ncf-aig-skip-cache: true\r\n"), "") << "not looked up";
  EXPECT_EQ(status("cf-aig-cache-key: mine\r\ncf-aig-cache-ttl: 60\r\n"), "MISS");
  EXPECT_EQ(status("cf-aig-cache-key: mine\r\ncf-aig-cache-ttl: 60\r\n", R"("seed":5,)"), "HIT")
      << "the key stands for the request";
  EXPECT_EQ(upstream->requests().size(), 4U);
}

TEST(Protocol, WhileItDrainsItIsNotReadyAndTakesNothingNew) {
  std::promise<void> asked, go_on;
  auto released = go_on.get_future().share();
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    asked.set_value();
    released.wait();
    socket.send(http_ok(kAnswer));
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache);
  RawSocket client = gateway.connect();
  client.send(chat_request());
  asked.get_future().wait();
  RawSocket admin = gateway.connect_admin();
  const auto ready = [&] {
    admin.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return admin.read_message();
  };
  EXPECT_EQ(status_of(ready()), 200);
  std::thread stopper([&] { gateway.stop(); });
  std::string answer = ready();
  for (int i = 0; i < 1000 && status_of(answer) == 200; ++i) {
    std::this_thread::sleep_for(1ms);
    answer = ready();
  }
  EXPECT_EQ(status_of(answer), 503);
  EXPECT_NE(body_of(answer).find("draining"), std::string::npos);
  bool refused = false;  // each worker closes its acceptor in its own turn
  for (int i = 0; i < 1000 && !refused; ++i) {
    refused = !gateway.connect().valid();
    std::this_thread::sleep_for(1ms);
  }
  EXPECT_TRUE(refused) << "nobody accepts any more";
  go_on.set_value();
  EXPECT_EQ(body_of(client.read_message()), kAnswer) << "what runs may end";
  stopper.join();
}

}  // namespace
}  // namespace ganglion::test
