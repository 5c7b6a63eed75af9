// The pipeline against scripted upstreams, over real sockets: what goes up, what comes down, what is billed.

#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <memory>
#include <random>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/support/scripted_upstream.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;
using metering::Outcome;

TEST(Pipeline, BodyGoesUpUntouchedWithTheProvidersKey) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  const std::string body =
      "{ \"messages\":[{\"role\":\"user\",\"content\":\"h\\u00e9 \"}],\t\"model\" : \"m\", \"odd\": 1.50, "
      "\"api_base\":\"http://127.0.0.1:1/\", \"api_key\":\"sk-x\" }";
  const std::string answer = gateway.post("/v1/chat/completions", body, "Authorization: Bearer sk-client\r\n");
  EXPECT_EQ(status_of(answer), 200) << answer;
  EXPECT_EQ(body_of(answer), kAnswer);
  ASSERT_EQ(upstream->requests().size(), 1U);
  const std::string seen = upstream->requests()[0];
  EXPECT_TRUE(seen.ends_with("\r\n\r\n" + body));
  EXPECT_NE(seen.find("Bearer sk-provider-canary"), std::string::npos);
  EXPECT_EQ(seen.find("sk-client"), std::string::npos);
  EXPECT_TRUE(seen.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"));
  EXPECT_EQ(answer.find("canary"), std::string::npos);
}

TEST(Pipeline, BillsWhatTheProviderReports) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  const std::string answer = gateway.chat("", "x-neuron-tier: fast\r\n");
  EXPECT_EQ(header_of(answer, "x-neuron-tier"), "fast");
  const std::string neurons = header_of(answer, "x-neurons");
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].outcome, Outcome::completed);
  EXPECT_EQ(records[0].units.input_tokens, 9U);
  EXPECT_EQ(records[0].units.output_tokens, 4U);
  EXPECT_FALSE(records[0].estimated);
  EXPECT_EQ(records[0].tier, api::Tier::fast);
  EXPECT_EQ(records[0].request_id, header_of(answer, "x-request-id"));
  EXPECT_EQ(gateway::neurons_text(records[0].nano_neurons), neurons);
  EXPECT_GT(records[0].nano_neurons, 0);
}

// In memory, where no disk is too slow for that.
TEST(Pipeline, ARequestThatIsAloneIsMadeDurableByItsWorker) {
  char name[] = "/dev/shm/ganglion-integration-XXXXXX";
  const char* const directory = ::mkdtemp(name);
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache, 1, "127.0.0.1", directory == nullptr ? "" : directory);
  std::size_t asked = 0;
  double in_place = 0;
  while (in_place == 0 && asked < 200) {
    for (int i = 0; i < 10; ++i, ++asked) EXPECT_EQ(status_of(gateway.chat()), 200);
    in_place = gateway.metric("ganglion_ledger_commits_in_place_total");
  }
  EXPECT_GT(in_place, 0);
  EXPECT_LE(in_place, gateway.metric("ganglion_ledger_commit_seconds_count"));
  EXPECT_EQ(gateway.records().size(), asked);
}

TEST(Pipeline, MetadataIsCarriedIntoTheLedger) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + "gateways: [{name: default, cache: {ttl: 60s}}]\n");
  const std::string tags = "cf-aig-metadata: {\"team\":\"search\",\"user\":42}\r\n";
  EXPECT_EQ(status_of(gateway.chat("", tags)), 200);
  EXPECT_EQ(status_of(gateway.chat("", "cf-aig-metadata: {\"team\":\"ads\"}\r\n")), 200);  // a hit
  for (const std::string bad : {"cf-aig-metadata: {\"team\":[1]}\r\n", "cf-aig-metadata: nonsense\r\n"}) {
    const std::string answer = gateway.chat("", bad);
    EXPECT_EQ(status_of(answer), 400);
    EXPECT_NE(body_of(answer).find("\"param\":\"cf-aig-metadata\""), std::string::npos) << answer;
  }
  EXPECT_EQ(status_of(gateway.chat("", tags + tags)), 400);
  EXPECT_EQ(upstream->requests().size(), 1U);
  EXPECT_EQ(upstream->requests()[0].find("cf-aig-metadata"), std::string::npos) << "the provider is not told";
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].tags, (api::Tags{{"team", "search", api::TagType::text}, {"user", "42", api::TagType::number}}));
  EXPECT_EQ(records[1].outcome, Outcome::cache_hit);
  EXPECT_EQ(records[1].tags, (api::Tags{{"team", "ads", api::TagType::text}}));
}

TEST(Pipeline, InjectsIncludeUsageAndStripsItsChunkAgain) {
  Answering upstream(stream_of(delta("hi") + kFinish + kUsageEvent + kDone));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  const std::string answer = gateway.chat("\"stream\":true,");
  EXPECT_EQ(body_of(answer), delta("hi") + kFinish + kDone);
  EXPECT_NE(upstream->requests()[0].find("\"include_usage\":true"), std::string::npos);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].units.output_tokens, 4U);
}

// Events stay where they were received or are copied, alone or many at a time, as they come: the client sees none of
// it.
TEST(Pipeline, AStreamArrivesWholeHoweverItIsCut) {
  std::string sent;
  std::string expected;
  for (int i = 0; i < 400; ++i) {
    std::string event = delta("event " + std::to_string(i) + (i % 90 == 7 ? std::string(20'000, 'x') : ""));
    if (i % 50 == 3) event += ": a comment\n\n";
    expected += event;
    sent += i % 40 == 5 ? event.substr(0, event.size() - 2) + "\r\n\r\n" : event;
  }
  sent += kFinish + kUsageEvent + kDone;
  expected += kFinish + kDone;
  std::mt19937 random{20'261'126};
  std::unique_ptr<ScriptedUpstream> upstream;
  upstream = std::make_unique<ScriptedUpstream>(std::vector<ScriptedUpstream::Script>{[&](RawSocket& socket) {
    for (unsigned piece = 1; !upstream->read_request(socket).empty(); piece *= 9) {
      std::string coded = kStreamHead;
      for (std::string_view rest = sent; !rest.empty();) {
        const std::size_t size = std::min<std::size_t>(1 + random() % (200 * piece), rest.size());
        coded += chunk(std::string{rest.substr(0, size)});
        rest.remove_prefix(size);
      }
      coded += "0\r\n\r\n";
      for (std::string_view rest = coded; !rest.empty();) {
        const std::size_t size = std::min<std::size_t>(1 + random() % (1'000 * piece), rest.size());
        if (!socket.send(rest.substr(0, size))) return;
        rest.remove_prefix(size);
      }
    }
  }});
  for (const std::string caching : {kNoCache, "gateways: [{name: default, cache: {ttl: 60s}}]\n"}) {
    RunningGateway gateway(provider(upstream->port()) + caching);
    for (int i = 0; i < 4; ++i) {
      const std::string answer = gateway.chat("\"stream\":true,\"seed\":" + std::to_string(i) + ",");
      EXPECT_TRUE(body_of(answer) == expected) << caching << i;
    }
    const auto records = gateway.records();
    ASSERT_EQ(records.size(), 4U);
    for (const auto& record : records) EXPECT_EQ(record.units.output_tokens, 4U);
  }
}

TEST(Pipeline, AClientThatAskedGetsUsageWithNeurons) {
  Answering upstream(stream_of(delta("hi") + kFinish + kUsageEvent + kDone));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  const std::string body = body_of(gateway.chat(R"("stream":true,"stream_options":{"include_usage":true},)"));
  const auto at = body.find("\"neurons\":");
  ASSERT_NE(at, std::string::npos) << body;
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(body.compare(at + 10, gateway::neurons_text(records[0].nano_neurons).size(),
                         gateway::neurons_text(records[0].nano_neurons)),
            0);
}

TEST(Pipeline, MissingUsageIsCountedAndFlagged) {
  Answering upstream(stream_of(delta("one two three four five six seven eight") + kFinish + kDone));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  gateway.chat("\"stream\":true,");
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_TRUE(records[0].estimated);
  EXPECT_GE(records[0].units.output_tokens, 5U);
  EXPECT_GE(records[0].units.input_tokens, 2U);
}

// Past what is kept of a stream for counting, its events are the count; just before, its text is.
TEST(Pipeline, ALongStreamWithoutUsageIsCountedByItsEvents) {
  const std::string event = delta("one two three four");
  for (const bool past : {false, true}) {
    const std::size_t count = 64 * 1024 / event.size() + (past ? 100 : 0);
    std::string events;
    for (std::size_t i = 0; i < count; ++i) events += event;
    Answering upstream(stream_of(events + kFinish + kDone));
    RunningGateway gateway(provider(upstream->port()) + kNoCache);
    EXPECT_NE(gateway.chat("\"stream\":true,").find("[DONE]"), std::string::npos);
    const auto records = gateway.records();
    ASSERT_EQ(records.size(), 1U);
    EXPECT_TRUE(records[0].estimated);
    if (past) {
      EXPECT_EQ(records[0].units.output_tokens, count);
    } else {
      EXPECT_GT(records[0].units.output_tokens, 2 * count);
    }
  }
}

TEST(Pipeline, AnExplicitZeroStaysZero) {
  Answering upstream(http_ok(
      R"({"object":"chat.completion","choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":0}})"));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  EXPECT_EQ(header_of(gateway.chat(), "x-neurons"), "0");
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_FALSE(records[0].estimated);
  EXPECT_EQ(records[0].nano_neurons, 0);
}

TEST(Pipeline, AStreamThatIsCutEndsInAnErrorEventWithoutDone) {
  for (const int after : {0, 1, 3}) {
    ScriptedUpstream* self = nullptr;
    ScriptedUpstream upstream({[&](RawSocket& socket) {
      self->read_request(socket);
      socket.send(kStreamHead);
      for (int i = 0; i < after; ++i) socket.send(chunk(delta("part")));
      socket.reset();
    }});
    self = &upstream;
    RunningGateway gateway(provider(upstream.port()) + kNoCache);
    const std::string answer = gateway.chat("\"stream\":true,");
    EXPECT_EQ(answer.find("[DONE]"), std::string::npos);
    if (after == 0) {
      EXPECT_EQ(status_of(answer), 502);
    } else {
      EXPECT_EQ(status_of(answer), 200);
      EXPECT_NE(body_of(answer).find("data: {\"error\":"), std::string::npos) << answer;
    }
    const auto records = gateway.records();
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].outcome, Outcome::upstream_error);
    EXPECT_EQ(records[0].nano_neurons, 0);
  }
}

TEST(Pipeline, ACleanEndWithoutFinishReasonIsACutToo) {
  Answering upstream(stream_of(delta("half an ans")));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  const std::string body = body_of(gateway.chat("\"stream\":true,"));
  EXPECT_NE(body.find("\"error\""), std::string::npos);
  EXPECT_EQ(body.find("[DONE]"), std::string::npos);
}

TEST(Pipeline, ClientGoneClosesTheUpstreamAtOnce) {
  std::promise<std::chrono::steady_clock::time_point> closed;
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    socket.send(kStreamHead + chunk(delta("one")) + chunk(delta("two")));
    socket.wait_closed(60s);
    closed.set_value(std::chrono::steady_clock::now());
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache);
  RawSocket client = gateway.connect();
  client.send(RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body("\"stream\":true,")));
  client.read_until("two");
  const auto left = std::chrono::steady_clock::now();
  client.close();
  EXPECT_LT(closed.get_future().get() - left, 4s);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].outcome, Outcome::cancelled);
  EXPECT_EQ(records[0].reason, "client_gone");
  EXPECT_GT(records[0].nano_neurons, 0) << "what was produced is billed";
  EXPECT_TRUE(records[0].estimated);
}

TEST(Pipeline, TheClientsOwnMistakeComesBackAsTheProviderSaidIt) {
  const std::string error =
      R"({"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}})";
  Answering upstream("HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: " +
                     std::to_string(error.size()) + "\r\n\r\n" + error);
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  const std::string answer = gateway.chat();
  EXPECT_EQ(status_of(answer), 400);
  EXPECT_EQ(body_of(answer), error);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].nano_neurons, 0);
}

TEST(Pipeline, ARefusedProviderKeyIsOurFaultAndTellsNothing) {
  Answering upstream(
      "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 58\r\n\r\n"
      "{\"error\":{\"message\":\"bad key sk-provider-canary is wrong\"}}");
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  const std::string answer = gateway.chat();
  EXPECT_EQ(status_of(answer), 502);
  EXPECT_EQ(answer.find("canary"), std::string::npos);
}

TEST(Pipeline, RetriesOnlyBeforeTheFirstByte) {
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
                               self->read_request(socket);
                               socket.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                             },
                             [&](RawSocket& socket) {
                               self->read_request(socket);
                               socket.send(kStreamHead + chunk(delta("part")));
                               socket.reset();
                             },
                             [&](RawSocket& socket) {
                               self->read_request(socket);
                               socket.send(http_ok(kAnswer));
                             }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) +
                         "gateways: [{name: default, cache: {ttl: 0s}, retry: {attempts: 3}}]\n");
  const std::string answer = gateway.chat("\"stream\":true,");
  EXPECT_NE(answer.find("part"), std::string::npos);
  EXPECT_NE(answer.find("\"error\""), std::string::npos);
  EXPECT_EQ(upstream.requests().size(), 2U);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U) << "one bill for both attempts";
  EXPECT_EQ(records[0].attempts.size(), 2U);
}

TEST(Pipeline, AHitCostsNothingAndReachesNoUpstream) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()));
  EXPECT_EQ(header_of(gateway.chat(), "cf-aig-cache-status"), "MISS");
  const std::string hit = gateway.chat();
  EXPECT_EQ(header_of(hit, "cf-aig-cache-status"), "HIT");
  EXPECT_EQ(header_of(hit, "x-neurons"), "0");
  EXPECT_EQ(body_of(hit), kAnswer) << "byte-equal to what was stored";
  const std::string streamed = body_of(gateway.chat("\"stream\":true,"));
  EXPECT_NE(streamed.find("\"content\":\"hi\""), std::string::npos);
  EXPECT_TRUE(streamed.ends_with(kDone));
  EXPECT_EQ(upstream->requests().size(), 1U);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[1].outcome, Outcome::cache_hit);
}

TEST(Pipeline, ACutStreamIsNeverCached) {
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
                               self->read_request(socket);
                               socket.send(kStreamHead + chunk(delta("part")));
                               socket.reset();
                             },
                             [&](RawSocket& socket) {
                               while (!self->read_request(socket).empty())
                                 socket.send(stream_of(delta("whole") + kFinish + kDone));
                             }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + "gateways: [{name: default, retry: {attempts: 1}}]\n");
  EXPECT_EQ(gateway.chat("\"stream\":true,").find("[DONE]"), std::string::npos);
  EXPECT_NE(gateway.chat("\"stream\":true,").find("whole"), std::string::npos);
  EXPECT_NE(gateway.chat("\"stream\":true,").find("whole"), std::string::npos);
  EXPECT_EQ(upstream.requests().size(), 2U);
}

TEST(Pipeline, StreamsAreSharedAndTheFirstClientMayLeave) {
  std::promise<void> go_on;
  auto released = go_on.get_future().share();
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    socket.send(kStreamHead + chunk(delta("first")));
    released.wait();
    socket.send(chunk(delta("second") + kFinish + kUsageEvent + kDone) + "0\r\n\r\n");
    self->read_request(socket);
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()), 2);
  const std::string request =
      RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body("\"stream\":true,"));
  RawSocket leader = gateway.connect();
  leader.send(request);
  leader.read_until("first");
  std::vector<RawSocket> followers;
  for (int i = 0; i < 4; ++i) {
    followers.push_back(gateway.connect());
    followers.back().send(request);
    EXPECT_NE(followers.back().read_until("first").find("first"), std::string::npos) << "late joiners replay";
  }
  leader.close();
  std::this_thread::sleep_for(50ms);
  go_on.set_value();
  for (RawSocket& follower : followers) {
    EXPECT_NE(follower.read_until("[DONE]\n\n\r\n0\r\n\r\n").find("second"), std::string::npos) << "to its end";
  }
  followers.clear();
  EXPECT_EQ(upstream.requests().size(), 1U);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 5U);
  EXPECT_EQ(std::ranges::count(records, Outcome::completed, &metering::LedgerRecord::outcome), 1);
  EXPECT_EQ(std::ranges::count(records, Outcome::cache_hit, &metering::LedgerRecord::outcome), 4);
}

TEST(Pipeline, TenantsDoNotShareAnswers) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(
      provider(upstream->port()) +
      "key_pepper: \"${PEPPER}\"\ntenants: [{name: a}, {name: b}]\n"
      "keys: [{id: a, secret: \"${APP_KEY}\", tenant: a}, {id: b, secret: \"${OTHER_KEY}\", tenant: b}]\n");
  EXPECT_EQ(header_of(gateway.chat("", "Authorization: Bearer sk-app\r\n"), "cf-aig-cache-status"), "MISS");
  EXPECT_EQ(header_of(gateway.chat("", "Authorization: Bearer sk-other\r\n"), "cf-aig-cache-status"), "MISS");
  EXPECT_EQ(header_of(gateway.chat("", "Authorization: Bearer sk-app\r\n"), "cf-aig-cache-status"), "HIT");
  EXPECT_EQ(status_of(gateway.chat()), 401);
  EXPECT_EQ(upstream->requests().size(), 2U);
}

TEST(Pipeline, ErrorsHaveOpenAIsShape) {
  RunningGateway gateway(provider(1) + kNoCache + "request: {max_body: 1KiB}\n");
  const auto expect = [&](const std::string& answer, int status, const std::string& code) {
    EXPECT_EQ(status_of(answer), status) << answer;
    EXPECT_NE(body_of(answer).find("\"code\":\"" + code + "\""), std::string::npos) << answer;
    EXPECT_EQ(header_of(answer, "Content-Type"), "application/json");
  };
  expect(gateway.post("/v1/chat/completions", "{"), 400, "invalid_json");
  expect(gateway.post("/v1/chat/completions", "nope"), 400, "invalid_json");
  expect(gateway.post("/v1/chat/completions", "[1]"), 400, "invalid_value");
  expect(gateway.post("/v1/chat/completions", R"({"model":"x","messages":[{"role":"user","content":"a"}]})"), 404,
         "model_not_found");
  expect(gateway.chat("", "Authorization: Bearer sk-a\r\nAuthorization: Bearer sk-b\r\n"), 400, "malformed_http");
  expect(gateway.post("/v1/chat/completions", R"({"messages":[{"role":"user","content":"a"}]})"), 400,
         "missing_required_parameter");
  expect(gateway.post("/v1/chat/completions", std::string(2000, ' ')), 413, "payload_too_large");
  expect(gateway.post("/v1/chat/completions", "{}", "Content-Encoding: gzip\r\n"), 415, "unsupported_media_type");
  expect(gateway.chat("", "x-neuron-tier: warp\r\n"), 400, "invalid_value");
  expect(gateway.chat("", "cf-aig-cache-ttl: soon\r\n"), 400, "invalid_value");
  // What is wrong in the body and with the model is told before it.
  expect(gateway.post("/v1/chat/completions", "{", "cf-aig-cache-ttl: soon\r\n"), 400, "invalid_json");
  expect(gateway.post("/v1/chat/completions", R"({"model":"x","messages":[{"role":"user","content":"a"}]})",
                      "cf-aig-cache-ttl: soon\r\n"),
         404, "model_not_found");
  expect(gateway.get("/nowhere"), 404, "not_found");
  expect(gateway.get("/v1/embeddings"), 405, "method_not_allowed");
  expect(gateway.chat(), 502, "upstream_unreachable");
}

// A form or a script of any page can reach a port of the machine that shows it.
TEST(Pipeline, WithoutKeysPagesOfOtherSitesAreRefused) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  for (const std::string bad : {"http://evil.example", "http://evil.example:8080", "null", "http://127.evil.example",
                                "https://localhost.evil.example", "chrome-extension://abc"}) {
    EXPECT_EQ(status_of(gateway.chat("", "Origin: " + bad + "\r\n")), 403) << bad;
  }
  EXPECT_EQ(upstream->requests().size(), 0U);
  for (const std::string good : {"http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443"}) {
    EXPECT_EQ(status_of(gateway.chat("", "Origin: " + good + "\r\n")), 200) << good;
  }
}

TEST(Pipeline, AnErrorUnderStatus200IsAnError) {
  Answering upstream(http_ok(R"({"error":{"message":"no credits left","code":402}})"));
  for (const std::string& caching :
       {std::string{kNoCache}, std::string{"gateways: [{name: default, cache: {ttl: 60s}}]\n"}}) {
    RunningGateway gateway(provider(upstream->port()) + caching);
    const std::string answer = gateway.chat();
    EXPECT_EQ(status_of(answer), 502) << answer;
    EXPECT_NE(body_of(answer).find("\"code\":\"upstream_error\""), std::string::npos) << answer;
    const auto records = gateway.records();
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].outcome, Outcome::upstream_error);
    EXPECT_EQ(records[0].nano_neurons, 0);
  }
}

TEST(Pipeline, WhatDoesNotChangeIsNotWorthAskingAgain) {
  Answering upstream("HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}");
  RunningGateway gateway(provider(upstream->port()) + kNoCache +
                         "keys: [{id: k, secret: \"${APP_KEY}\", limits: {tokens: 1/min}}]\n" +
                         "key_pepper: \"${PEPPER}\"\n");
  const std::string large = gateway.chat("", "Authorization: Bearer sk-app\r\n");
  EXPECT_EQ(status_of(large), 429);
  EXPECT_EQ(header_of(large, "x-should-retry"), "false") << large;
  RunningGateway open(provider(upstream->port()) + kNoCache);
  const std::string refused = open.chat();
  EXPECT_EQ(status_of(refused), 502);
  EXPECT_EQ(header_of(refused, "x-should-retry"), "false") << refused;
}

TEST(Pipeline, UpstreamLimitsGiveTheRightErrors) {
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    socket.wait_closed(60s);
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port(), ", timeouts: {whole: 150ms}") + kNoCache);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(status_of(gateway.chat()), 504);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 30s) << "the upstream never answers";
}

TEST(Pipeline, TheDeadlineHoldsOverAll) {
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    socket.wait_closed(60s);
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache + "request: {timeout: 1s}\n");
  const std::string answer = gateway.chat();
  EXPECT_EQ(status_of(answer), 504);
  EXPECT_NE(answer.find("deadline_exceeded"), std::string::npos);
}

TEST(Pipeline, DrainLetsARunningAnswerEnd) {
  std::promise<void> asked;
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    asked.set_value();
    std::this_thread::sleep_for(200ms);
    socket.send(http_ok(kAnswer));
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache);
  RawSocket client = gateway.connect();
  client.send(RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body()));
  asked.get_future().wait();
  std::thread stopper([&] { gateway.stop(); });
  const std::string answer = client.read_message();
  stopper.join();
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_EQ(body_of(answer), kAnswer);
}

TEST(Pipeline, AdminShowsUsageAsJsonAndCsv) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache);
  EXPECT_EQ(status_of(gateway.chat("", "cf-aig-metadata: {\"team\":\"a b\"}\r\n")), 200);
  EXPECT_EQ(status_of(gateway.chat("", "cf-aig-metadata: {\"team\":\"ads\"}\r\n")), 200);
  const std::string all = gateway.get("/admin/usage?by=tag:team,model", true);
  EXPECT_EQ(status_of(all), 200);
  EXPECT_NE(body_of(all).find(R"({"tag:team":"a b","model":"m","requests":1,)"), std::string::npos) << all;
  EXPECT_NE(body_of(all).find(R"("input_tokens":18)"), std::string::npos) << "the total";
  const std::string csv = gateway.get("/admin/usage?by=tag:team&tag=team%3Da+b&format=csv", true);
  EXPECT_NE(csv.find("text/csv"), std::string::npos);
  EXPECT_TRUE(body_of(csv).starts_with("tag:team,requests,")) << csv;
  EXPECT_NE(body_of(csv).find("\r\na b,1,"), std::string::npos) << csv;
  EXPECT_EQ(body_of(csv).find("ads"), std::string::npos);
  for (const char* bad : {"?by=colour", "?from=tomorrow", "?color=red", "?format=xml", "?tier=slow", "?by=%zz"})
    EXPECT_EQ(status_of(gateway.get(std::string{"/admin/usage"} + bad, true)), 400) << bad;
  EXPECT_NE(body_of(gateway.get("/nothing", true)).find("/admin/usage"), std::string::npos);
}

TEST(Pipeline, AdminShowsMetricsHealthAndRedactedConfig) {
  RunningGateway gateway(provider(1));
  EXPECT_EQ(body_of(gateway.get("/healthz", true)), "ok\n");
  EXPECT_EQ(body_of(gateway.get("/readyz", true)), "ready\n");
  EXPECT_NE(body_of(gateway.get("/metrics", true)).find("ganglion_build_info"), std::string::npos);
  const std::string config = body_of(gateway.get("/admin/config", true));
  EXPECT_NE(config.find("[redacted]"), std::string::npos);
  EXPECT_EQ(config.find("canary"), std::string::npos);
  EXPECT_EQ(status_of(gateway.get("/v1/models", true)), 404);
}

}  // namespace
}  // namespace ganglion::test
