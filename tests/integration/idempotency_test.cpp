// Idempotency-Key through the whole pipeline: one upstream call and one charge per key, the same bytes to all who ask.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <latch>
#include <semaphore>
#include <set>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/support/redis_server.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;
using metering::Outcome;

const std::string kKey = "Idempotency-Key: 8e03978e-40d5\r\n";
constexpr const char* kFamily = "ganglion_idempotency_requests_total";

std::size_t charged(const std::vector<metering::LedgerRecord>& records) {
  return static_cast<std::size_t>(std::ranges::count_if(records, [](const auto& record) { return record.exact != 0; }));
}

// Numbers its answers, so that a second call would be seen by every byte comparison.
class Counting {
 public:
  explicit Counting(std::function<std::string(int)> answer)
      : upstream_({[this, answer = std::move(answer)](RawSocket& socket) {
          while (!upstream_.read_request(socket).empty()) {
            if (!socket.send(answer(++calls_))) return;
          }
        }}) {}
  std::uint16_t port() const { return upstream_.port(); }
  int calls() const { return calls_; }

 private:
  std::atomic<int> calls_{0};
  ScriptedUpstream upstream_;
};

std::string numbered(int call) {
  std::string body = kAnswer;
  body.replace(body.find("\"hi\""), 4, "\"answer " + std::to_string(call) + "\"");
  return http_ok(body, "Content-Type: application/json\r\n");
}
std::string numbered_stream(int call) {
  return stream_of(delta("answer " + std::to_string(call)) + delta(" more") + kFinish + kUsageEvent + kDone);
}

TEST(IdempotencyKey, TheSameRequestIsAnsweredAgainAndChargedOnce) {
  Counting upstream(numbered);
  RunningGateway gateway(provider(upstream.port()));
  const std::string first = gateway.chat("", kKey);
  EXPECT_EQ(status_of(first), 200);
  EXPECT_EQ(header_of(first, "idempotent-replayed"), "");
  EXPECT_NE(header_of(first, "x-neurons"), "0");
  for (int i = 0; i < 3; ++i) {
    const std::string again = gateway.chat("", kKey);
    EXPECT_EQ(status_of(again), 200);
    EXPECT_EQ(body_of(again), body_of(first));
    EXPECT_EQ(header_of(again, "Content-Type"), header_of(first, "Content-Type"));
    EXPECT_EQ(header_of(again, "idempotent-replayed"), "true");
    EXPECT_EQ(header_of(again, "x-neurons"), "0");
  }
  EXPECT_EQ(upstream.calls(), 1);
  EXPECT_EQ(gateway.metric(kFamily, {"result=\"new\""}), 1);
  EXPECT_EQ(gateway.metric(kFamily, {"result=\"replayed\""}), 3);
  EXPECT_EQ(gateway.metric("ganglion_idempotency_keys"), 1);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 4U);
  EXPECT_EQ(charged(records), 1U);
  EXPECT_EQ(records[0].outcome, Outcome::completed);
  for (std::size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(records[i].outcome, Outcome::cache_hit);
    EXPECT_EQ(records[i].reason, "idempotent_replay");
    EXPECT_TRUE(records[i].exact == 0);
  }
}

TEST(IdempotencyKey, AStreamIsReplayedByteForByte) {
  Counting upstream(numbered_stream);
  RunningGateway gateway(provider(upstream.port()));
  for (const std::string& form :
       {std::string{"\"stream\":true,"}, std::string{R"("stream":true,"stream_options":{"include_usage":true},)"}}) {
    const std::string key = "Idempotency-Key: k" + std::to_string(form.size()) + "\r\n";
    const std::string first = body_of(gateway.chat(form, key));
    EXPECT_TRUE(first.ends_with(kDone));
    EXPECT_EQ(first.find("\"neurons\"") != std::string::npos, form.find("usage") != std::string::npos);
    const std::string again = gateway.chat(form, key);
    EXPECT_EQ(body_of(again), first);
    EXPECT_TRUE(header_of(again, "Content-Type").starts_with("text/event-stream")) << again;
    EXPECT_EQ(header_of(again, "idempotent-replayed"), "true");
  }
  EXPECT_EQ(upstream.calls(), 2);
  EXPECT_EQ(charged(gateway.records()), 2U);
}

TEST(IdempotencyKey, AnotherBodyOrEndpointIsRefusedWith409) {
  Counting upstream(numbered);
  RunningGateway gateway(provider(upstream.port()));
  EXPECT_EQ(status_of(gateway.chat("", kKey)), 200);
  const std::string other = gateway.chat("\"seed\":1,", kKey);
  EXPECT_EQ(status_of(other), 409);
  EXPECT_NE(body_of(other).find(R"("type":"invalid_request_error")"), std::string::npos) << other;
  EXPECT_NE(body_of(other).find("used with another request"), std::string::npos);
  EXPECT_NE(body_of(other).find(R"("param":"idempotency-key")"), std::string::npos);
  EXPECT_EQ(status_of(gateway.post("/v1/completions", RunningGateway::chat_body("\"prompt\":\"x\","), kKey)), 409);
  EXPECT_EQ(upstream.calls(), 1);
  EXPECT_EQ(gateway.records().size(), 1U);
}

TEST(IdempotencyKey, FiftyAtOnceMakeOneCallAndOneCharge) {
  for (const bool stream : {false, true}) {
    std::counting_semaphore<> go{0};
    Counting upstream([&](int call) {
      EXPECT_TRUE(go.try_acquire_for(120s));
      return stream ? numbered_stream(call) : numbered(call);
    });
    RunningGateway gateway(provider(upstream.port()), 2);
    std::vector<std::future<std::string>> clients;
    for (int i = 0; i < 50; ++i) {
      clients.push_back(
          std::async(std::launch::async, [&] { return gateway.chat(stream ? "\"stream\":true," : "", kKey); }));
    }
    // All of them are in before the upstream says a word.
    for (int i = 0; i < 6'000 && gateway.metric(kFamily) < 50; ++i) std::this_thread::sleep_for(10ms);
    go.release(100);
    std::set<std::string> bodies;
    int replayed = 0;
    for (auto& client : clients) {
      const std::string answer = client.get();
      EXPECT_EQ(status_of(answer), 200);
      bodies.insert(body_of(answer));
      replayed += header_of(answer, "idempotent-replayed") == "true" ? 1 : 0;
    }
    EXPECT_EQ(bodies.size(), 1U);
    EXPECT_EQ(replayed, 49);
    EXPECT_EQ(upstream.calls(), 1);
    EXPECT_EQ(gateway.metric(kFamily, {"result=\"followed\""}), 49);
    const auto records = gateway.records();
    EXPECT_EQ(records.size(), 50U);
    EXPECT_EQ(charged(records), 1U);
  }
}

TEST(IdempotencyKey, WhoComesDuringAStreamFollowsItLive) {
  std::promise<void> followed;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    upstream.read_request(socket);
    socket.send(kStreamHead + chunk(delta("one")));
    followed.get_future().wait_for(60s);
    socket.send(chunk(delta("two") + kFinish + kUsageEvent + kDone) + "0\r\n\r\n");
  }});
  RunningGateway gateway(provider(upstream.port()));
  const std::string ask =
      RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body("\"stream\":true,"), kKey);
  RawSocket leader = gateway.connect();
  leader.send(ask);
  EXPECT_NE(leader.read_until(delta("one")), "");
  RawSocket follower = gateway.connect();
  follower.send(ask);
  const std::string seen = follower.read_until(delta("one"));
  EXPECT_NE(seen.find("idempotent-replayed: true"), std::string::npos) << seen;
  followed.set_value();  // the follower has the first event, and the upstream has not sent the second
  EXPECT_TRUE(leader.read_until(kDone).ends_with(kDone));
  EXPECT_TRUE(follower.read_until(kDone).ends_with(kDone));
  EXPECT_EQ(upstream.requests().size(), 1U);
}

TEST(IdempotencyKey, ACallWhoseClientLeftIsFinishedForItsRetry) {
  for (const bool stream : {false, true}) {
    std::counting_semaphore<> left{0};
    std::atomic<bool> cut{false};
    ScriptedUpstream upstream({[&](RawSocket& socket) {
      upstream.read_request(socket);
      if (stream) socket.send(kStreamHead + chunk(delta("one")));
      left.try_acquire_for(5s);
      std::this_thread::sleep_for(150ms);  // longer than the 100 ms within which a call is called off
      cut = !socket.send(stream ? chunk(delta("two") + kFinish + kUsageEvent + kDone) + "0\r\n\r\n" : numbered(1));
    }});
    RunningGateway gateway(provider(upstream.port()));
    const std::string body = RunningGateway::chat_body(stream ? "\"stream\":true," : "");
    {
      RawSocket client = gateway.connect();
      client.send(RunningGateway::request("/v1/chat/completions", body, kKey));
      if (stream) {
        EXPECT_NE(client.read_until(delta("one")), "");
      } else {
        for (int i = 0; i < 12'000 && upstream.requests().empty(); ++i) std::this_thread::sleep_for(5ms);
      }
    }
    left.release();
    const std::string again = gateway.post("/v1/chat/completions", body, kKey);
    EXPECT_EQ(status_of(again), 200);
    EXPECT_EQ(header_of(again, "idempotent-replayed"), "true");
    EXPECT_EQ(body_of(again), stream ? delta("one") + delta("two") + kFinish + kDone : body_of(numbered(1)));
    EXPECT_FALSE(cut);
    EXPECT_EQ(upstream.requests().size(), 1U);
    EXPECT_EQ(charged(gateway.records()), 1U);
  }
}

TEST(IdempotencyKey, WhatWasNotBilledIsNotKept) {
  const std::string error = R"({"error":{"message":"no","type":"invalid_request_error"}})";
  Counting upstream([&](int call) {
    if (call == 1) return "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n" + std::string{};
    if (call == 2) {
      return "HTTP/1.1 400 Bad\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(error.size()) +
             "\r\n\r\n" + error;
    }
    return numbered(call);
  });
  RunningGateway gateway(provider(upstream.port()) + kNoCache);
  EXPECT_EQ(status_of(gateway.chat("", kKey)), 502);
  EXPECT_EQ(status_of(gateway.chat("", kKey)), 400);
  EXPECT_EQ(status_of(gateway.chat("", kKey)), 200);
  EXPECT_EQ(status_of(gateway.chat("", kKey)), 200);
  EXPECT_EQ(upstream.calls(), 3);
  const auto records = gateway.records();
  EXPECT_EQ(records.size(), 4U);
  EXPECT_EQ(charged(records), 1U);
}

TEST(IdempotencyKey, AStreamThatBrokeRunsAnew) {
  std::atomic<int> calls{0};
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    upstream.read_request(socket);
    if (++calls == 1) {
      socket.send(kStreamHead + chunk(delta("one")));
      return;  // cut
    }
    socket.send(numbered_stream(calls));
  }});
  RunningGateway gateway(provider(upstream.port()) + kNoCache);
  const std::string broken = body_of(gateway.chat("\"stream\":true,", kKey));
  EXPECT_NE(broken.find("upstream_closed"), std::string::npos) << broken;
  EXPECT_EQ(broken.find("[DONE]"), std::string::npos);
  const std::string whole = body_of(gateway.chat("\"stream\":true,", kKey));
  EXPECT_TRUE(whole.ends_with(kDone));
  EXPECT_EQ(body_of(gateway.chat("\"stream\":true,", kKey)), whole);
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(charged(gateway.records()), 1U);
}

TEST(IdempotencyKey, TheAnswerSurvivesARestart) {
  Counting upstream(numbered_stream);
  std::string directory;
  std::string first;
  {
    RunningGateway gateway(provider(upstream.port()));
    first = body_of(gateway.chat("\"stream\":true,", kKey));
    directory = gateway.keep_directory();
  }
  RunningGateway gateway(provider(upstream.port()), 1, "127.0.0.1", directory);
  const std::string again = gateway.chat("\"stream\":true,", kKey);
  EXPECT_EQ(body_of(again), first);
  EXPECT_EQ(header_of(again, "idempotent-replayed"), "true");
  EXPECT_EQ(status_of(gateway.chat("", kKey)), 409);
  EXPECT_EQ(upstream.calls(), 1);
  EXPECT_EQ(charged(gateway.records()), 1U);
}

TEST(IdempotencyKey, BadKeysAreRefusedByName) {
  Counting upstream(numbered);
  RunningGateway gateway(provider(upstream.port()));
  for (const std::string& headers :
       {std::string{"Idempotency-Key:\r\n"}, "Idempotency-Key: " + std::string(256, 'x') + "\r\n",
        std::string{"Idempotency-Key: a b\r\n"}, std::string{"Idempotency-Key: a\r\nidempotency-key: a\r\n"}}) {
    const std::string answer = gateway.chat("", headers);
    EXPECT_EQ(status_of(answer), 400) << headers;
    EXPECT_NE(body_of(answer).find(R"("param":"idempotency-key")"), std::string::npos) << answer;
  }
  EXPECT_EQ(upstream.calls(), 0);
  EXPECT_EQ(status_of(gateway.chat("", "Idempotency-Key: " + std::string(255, 'x') + "\r\n")), 200);
}

TEST(IdempotencyKey, KeysOfTwoApiKeysNeverMeet) {
  Counting upstream(numbered);
  RunningGateway gateway(provider(upstream.port()) +
                         "key_pepper: ${PEPPER}\nkeys:\n  - {id: one, secret: \"${APP_KEY}\"}\n"
                         "  - {id: two, secret: \"${OTHER_KEY}\"}\n");
  const std::string one = gateway.chat("", kKey + "Authorization: Bearer sk-app\r\n");
  const std::string two = gateway.chat("", kKey + "Authorization: Bearer sk-other\r\n");
  EXPECT_EQ(status_of(two), 200);
  EXPECT_EQ(header_of(two, "idempotent-replayed"), "");
  EXPECT_NE(body_of(one), body_of(two));
  EXPECT_EQ(upstream.calls(), 2);
}

TEST(IdempotencyKey, AnAnswerThatIsTooLargeIsSentOnceAndNeverChargedTwice) {
  std::string large = kAnswer;
  large.replace(large.find("\"hi\""), 4, "\"" + std::string(3000, 'x') + "\"");
  Counting upstream([&](int) { return http_ok(large); });
  RunningGateway gateway(provider(upstream.port()) + "idempotency: {max_answer: 1KiB}\n");
  EXPECT_EQ(body_of(gateway.chat("", kKey)), large);
  const std::string again = gateway.chat("", kKey);
  EXPECT_EQ(status_of(again), 409);
  EXPECT_NE(body_of(again).find("was billed"), std::string::npos);
  EXPECT_EQ(upstream.calls(), 1);
}

TEST(IdempotencyKey, AVeryLargeAnswerReachesItsClientWhole) {
  std::string large = kAnswer;
  large.replace(large.find("\"hi\""), 4, "\"" + std::string(3 << 20, 'x') + "\"");
  Counting upstream([&](int) { return http_ok(large); });
  RunningGateway gateway(provider(upstream.port()) + "idempotency: {max_answer: 64KiB}\n");
  EXPECT_EQ(body_of(gateway.chat("", kKey)), large);
  EXPECT_EQ(status_of(gateway.chat("", kKey)), 409);
}

TEST(IdempotencyKey, ALargeStreamIsRelayedWholeAndItsReaderSlowsTheUpstream) {
  constexpr int kEvents = 3000;
  const std::string event = delta(std::string(2000, 'y'));
  Counting upstream([&](int) {
    std::string events;
    for (int i = 0; i < kEvents; ++i) events += event;
    return stream_of(events + kFinish + kUsageEvent + kDone);
  });
  RunningGateway gateway(provider(upstream.port()) + "idempotency: {max_answer: 64KiB}\n");
  const std::string answer = gateway.chat("\"stream\":true,", kKey);
  EXPECT_EQ(body_of(answer).size(), kEvents * event.size() + kFinish.size() + kDone.size());
  EXPECT_EQ(status_of(gateway.chat("\"stream\":true,", kKey)), 409);
  EXPECT_EQ(charged(gateway.records()), 1U);
}

// The response cache would answer the second request; a key is its own cache.
TEST(IdempotencyKey, GoesByTheResponseCache) {
  Counting upstream(numbered);
  RunningGateway gateway(provider(upstream.port()) + "gateways: [{name: default, cache: {ttl: 1h}}]\n");
  const std::string plain = gateway.chat();
  const std::string keyed = gateway.chat("", kKey);
  EXPECT_EQ(header_of(keyed, "cf-aig-cache-status"), "");
  EXPECT_NE(body_of(plain), body_of(keyed));
  EXPECT_EQ(body_of(gateway.chat()), body_of(plain));
  EXPECT_EQ(body_of(gateway.chat("", kKey)), body_of(keyed));
  EXPECT_EQ(upstream.calls(), 2);
}

TEST(IdempotencyKey, AReplayTakesNothingFromLimits) {
  Counting upstream(numbered);
  RunningGateway gateway(provider(upstream.port()) +
                         "gateways: [{name: default, cache: {ttl: 0s}, limits: {requests: 1/hour}}]\n");
  const std::string first = gateway.chat("", kKey);
  EXPECT_EQ(status_of(first), 200);
  EXPECT_EQ(status_of(gateway.chat("", "Idempotency-Key: other\r\n")), 429);
  EXPECT_EQ(body_of(gateway.chat("", kKey)), body_of(first));
  EXPECT_EQ(status_of(gateway.chat("", "Idempotency-Key: other\r\n")), 429);  // the refusal claimed nothing
  EXPECT_EQ(upstream.calls(), 1);
}

TEST(IdempotencyKey, WithoutTheHeaderTheStoreIsNotTouched) {
  Counting upstream(numbered);
  RunningGateway gateway(provider(upstream.port()) + kNoCache);
  for (int i = 0; i < 5; ++i) gateway.chat();
  EXPECT_EQ(gateway.metric(kFamily), 0);
  EXPECT_EQ(gateway.metric("ganglion_idempotency_keys"), 0);
  EXPECT_EQ(upstream.calls(), 5);
}

// Two gateways on one Redis.
std::string on(const RedisServer& redis) {
  return "redis: {addresses: [\"" + redis.address() + "\"]}\n";
}

TEST(IdempotencyKey, GatewaysOnOneRedisRepeatEachOthersAnswers) {
  RedisServer redis;
  for (const std::string& extra : {std::string{}, std::string{"\"stream\":true,"}}) {
    redis.say({"FLUSHALL"});
    Counting upstream(extra.empty() ? numbered : numbered_stream);
    RunningGateway a(provider(upstream.port()) + on(redis));
    RunningGateway b(provider(upstream.port()) + on(redis));
    const std::string first = a.chat(extra, kKey);
    ASSERT_EQ(status_of(first), 200) << first;
    for (int i = 0; i < 2; ++i) {
      const std::string again = b.chat(extra, kKey);
      EXPECT_EQ(status_of(again), 200) << again;
      EXPECT_EQ(body_of(again), body_of(first));
      EXPECT_EQ(header_of(again, "Content-Type"), header_of(first, "Content-Type"));
      EXPECT_EQ(header_of(again, "idempotent-replayed"), "true");
      EXPECT_EQ(header_of(again, "x-neurons"), "0");
    }
    const std::string other = b.chat(extra + "\"max_tokens\":5,", kKey);
    EXPECT_EQ(status_of(other), 409) << other;
    EXPECT_EQ(upstream.calls(), 1);
    EXPECT_EQ(b.metric(kFamily, {"result=\"replayed\""}), 2);
    EXPECT_EQ(b.metric(kFamily, {"result=\"conflict\""}), 1);
    EXPECT_EQ(charged(a.records()), 1U);
    const auto records = b.records();
    EXPECT_EQ(charged(records), 0U);
    ASSERT_EQ(records.size(), 2U);
    EXPECT_EQ(records[0].reason, "idempotent_replay");
  }
}

TEST(IdempotencyKey, TheSameKeyAtTwoGatewaysAtOnceIsOneCall) {
  RedisServer redis;
  Counting upstream([](int call) {
    std::this_thread::sleep_for(100ms);
    return numbered(call);
  });
  RunningGateway a(provider(upstream.port()) + on(redis), 2);
  RunningGateway b(provider(upstream.port()) + on(redis), 2);
  std::vector<std::future<std::string>> answers;
  for (int i = 0; i < 16; ++i) {
    answers.push_back(std::async(std::launch::async, [&, i] { return (i % 2 == 0 ? a : b).chat("", kKey); }));
  }
  std::set<std::string> bodies;
  for (auto& answer : answers) {
    const std::string got = answer.get();
    EXPECT_EQ(status_of(got), 200) << got;
    bodies.insert(body_of(got));
  }
  EXPECT_EQ(bodies.size(), 1U);
  EXPECT_EQ(upstream.calls(), 1);
  EXPECT_EQ(charged(a.records()) + charged(b.records()), 1U);
}

TEST(IdempotencyKey, AFailureAtOneGatewayLeavesTheKeyToTheOther) {
  RedisServer redis;
  Counting upstream(
      [](int call) { return call == 1 ? "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n" : numbered(call); });
  RunningGateway a(provider(upstream.port()) + kNoCache + on(redis));
  RunningGateway b(provider(upstream.port()) + kNoCache + on(redis));
  EXPECT_EQ(status_of(a.chat("", kKey)), 502);
  EXPECT_EQ(status_of(b.chat("", kKey)), 200);
  EXPECT_EQ(upstream.calls(), 2);
  EXPECT_EQ(charged(a.records()) + charged(b.records()), 1U);
}

// A gateway that stops in good order leaves nothing in doubt; after a restart it still has its own answers.
TEST(IdempotencyKey, AStoppedGatewaysAnswersStayWithTheOthers) {
  RedisServer redis;
  Counting upstream(numbered);
  RunningGateway b(provider(upstream.port()) + on(redis));
  std::string first;
  {
    RunningGateway a(provider(upstream.port()) + on(redis));
    first = a.chat("", kKey);
  }
  EXPECT_EQ(body_of(b.chat("", kKey)), body_of(first));
  EXPECT_EQ(upstream.calls(), 1);
}

// Killed between Redis's word that the key is its own and its own store's: it is back and knows nothing of the key.
TEST(IdempotencyKey, AKeyThatAGatewayTookAndNeverWroteDownRunsElsewhere) {
  RedisServer redis;
  Counting upstream(numbered);
  const auto field = [&](const std::string& key, const char* name) {
    const std::string reply = redis.say({"HGET", key, name});  // $LENGTH text
    const auto from = reply.find("\r\n") + 2;
    return from < reply.size() ? reply.substr(from, reply.size() - from - 2) : std::string{};
  };
  // The key's entry, once the answer is in it; taken out.
  const auto take_entry = [&] {
    std::string key;
    for (int i = 0; i < 3'000 && (key.empty() || field(key, "s") != "done"); ++i) {
      std::this_thread::sleep_for(10ms);
      const std::string keys = redis.say({"KEYS", "*idem:{*"});
      const auto from = keys.find("ganglion"), to = keys.find('}');
      key = to == std::string::npos ? std::string{} : keys.substr(from, to + 1 - from);
    }
    return key;
  };
  RunningGateway a(provider(upstream.port()) + on(redis));
  ASSERT_EQ(status_of(a.chat("", "Idempotency-Key: of-a\r\n")), 200);
  const std::string of_a = take_entry();
  const std::string owner = field(of_a, "o"), request = field(of_a, "r");
  redis.say({"DEL", of_a});
  {
    RunningGateway b(provider(upstream.port()) + on(redis));
    ASSERT_EQ(status_of(b.chat("", kKey)), 200);
  }
  const std::string key = take_entry();
  ASSERT_NE(key, of_a);
  redis.say({"DEL", key});
  redis.say({"HSET", key, "o", owner, "r", request, "s", "running", "l", "1", "p", "dead", "n", "1"});
  RunningGateway c(provider(upstream.port()) + on(redis));
  std::string got;
  for (int i = 0; i < 60; ++i) {  // a slow machine may need more than the half second for which it listens
    got = c.chat("", kKey);
    if (status_of(got) != 503) break;
    std::this_thread::sleep_for(500ms);
  }
  EXPECT_EQ(status_of(got), 200) << got;
  EXPECT_EQ(upstream.calls(), 3);
  // It is its own in Redis too, not only as far as it could see.
  for (int i = 0; i < 500 && field(key, "o") == owner; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_NE(field(key, "o"), owner);
  EXPECT_EQ(charged(c.records()), 1U);
}

TEST(IdempotencyKey, WithoutRedisEachGatewayKeepsItsOwnKeys) {
  RedisServer redis;
  Counting upstream(numbered);
  RunningGateway a(provider(upstream.port()) + on(redis));
  EXPECT_EQ(status_of(a.chat("", "Idempotency-Key: before\r\n")), 200);
  redis.kill();
  EXPECT_EQ(header_of(a.chat("", "Idempotency-Key: before\r\n"), "idempotent-replayed"), "true");
  EXPECT_EQ(status_of(a.chat("", kKey)), 200);
  EXPECT_EQ(header_of(a.chat("", kKey), "idempotent-replayed"), "true");
  EXPECT_EQ(upstream.calls(), 2);
  EXPECT_EQ(a.metric("ganglion_idempotency_alone_total"), 1);
}

TEST(IdempotencyKey, KeysNeedNotBeShared) {
  RedisServer redis;
  Counting upstream(numbered);
  RunningGateway a(provider(upstream.port()) + on(redis) + "idempotency: {shared: false}\n");
  EXPECT_EQ(status_of(a.chat("", kKey)), 200);
  EXPECT_EQ(redis.say({"KEYS", "*idem:*"}).find("idem:"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::test
