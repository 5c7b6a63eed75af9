// Hard budgets through the whole pipeline. The model `m` costs a neuron for each output token and nothing else.

#include <future>

#include "metering/calendar.hpp"
#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/support/redis_server.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;
using metering::Outcome;

const std::string kPrice = "pricing: {models: [{model: m, output_per_1m: 1000000}]}\n";
const std::string kKeys =
    "key_pepper: \"${PEPPER}\"\n"
    "keys: [{id: a, secret: \"${APP_KEY}\"}, {id: b, secret: \"${OTHER_KEY}\"}]\n";
const std::string kAsA = "Authorization: Bearer sk-app\r\n";
const std::string kAsB = "Authorization: Bearer sk-other\r\n";

// Four output tokens, as kAnswer says.
std::string limit(int neurons, const std::string& more = "") {
  return kPrice + "budgets: [{name: b, neurons: " + std::to_string(neurons) + more + "}]\n";
}

std::int64_t spent(const std::vector<metering::LedgerRecord>& records) {
  std::int64_t nano = 0;
  for (const auto& record : records) nano += record.nano_neurons;
  return nano / api::kNanoPerNeuron;
}

TEST(Budget, ARefusalSaysWhichBudgetAndWhenItResets) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache + limit(10));
  const std::string first = gateway.chat("\"max_tokens\":6,");
  EXPECT_EQ(status_of(first), 200) << first;
  const std::string refused = gateway.chat("\"max_tokens\":7,");
  EXPECT_EQ(status_of(refused), 429) << refused;
  EXPECT_NE(body_of(refused).find("\"type\":\"insufficient_quota\""), std::string::npos) << refused;
  EXPECT_NE(body_of(refused).find("\"code\":\"budget_exceeded\""), std::string::npos);
  EXPECT_NE(body_of(refused).find("Budget `b` (10 neurons per calendar month (UTC)) has no room"), std::string::npos);
  EXPECT_NE(body_of(refused).find("It resets at 20"), std::string::npos);
  EXPECT_GT(std::stol(header_of(refused, "retry-after")), 0);
  EXPECT_EQ(header_of(refused, "x-should-retry"), "false");
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":6,")), 200) << "what was not used is there again";
  EXPECT_EQ(gateway.metric("ganglion_budget_refused_total", {"budget=\"b\""}), 1);
  EXPECT_EQ(gateway.metric("ganglion_budget_spent_ratio", {"budget=\"b\""}), 0.8);
  const std::string page = body_of(gateway.get("/admin/budgets", true));
  EXPECT_NE(page.find("\"spent\": \"8\""), std::string::npos) << page;
  EXPECT_NE(page.find("\"reserved\": \"0\""), std::string::npos) << page;
  EXPECT_EQ(upstream->requests().size(), 2U);
  EXPECT_EQ(spent(gateway.records()), 8);
}

TEST(Budget, HitsCostNothingAndPass) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kKeys + kPrice +
                         "budgets: [{name: mine, key: a, neurons: 5}]\n"
                         "gateways: [{name: default, cache: {ttl: 60s}, retry: {attempts: 1}}]\n");
  const std::string first = gateway.chat("\"max_tokens\":4,", kAsA);
  EXPECT_EQ(header_of(first, "cf-aig-cache-status"), "MISS") << first;
  EXPECT_EQ(header_of(first, "x-ganglion-budget").substr(0, 36), "mine; remaining=1; limit=5; unit=neu");
  EXPECT_EQ(header_of(gateway.chat("\"max_tokens\":4,", kAsA), "cf-aig-cache-status"), "HIT");
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":3,", kAsA)), 429);
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":3,", kAsB)), 200) << "another key, and the flight is not poisoned";
  EXPECT_EQ(header_of(gateway.chat("\"max_tokens\":3,", kAsA), "cf-aig-cache-status"), "HIT");
}

TEST(Budget, SixtyFourAtTheEdgeNeverExceed) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache + limit(100), 4);
  std::atomic<int> admitted{0};
  std::atomic<int> refused{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 64; ++i) {
    clients.emplace_back([&] {
      for (int j = 0; j < 3; ++j) {
        const int status = status_of(gateway.chat("\"max_tokens\":4,"));
        (status == 200 ? admitted : refused) += status == 200 || status == 429 ? 1 : 1'000;
      }
    });
  }
  for (auto& client : clients) client.join();
  EXPECT_EQ(admitted + refused, 192);
  EXPECT_EQ(upstream->requests().size(), static_cast<std::size_t>(admitted.load()));
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":4,")), admitted == 25 ? 429 : 200);
  const auto records = gateway.records();
  EXPECT_LE(spent(records), 100);
  EXPECT_GE(spent(records), 96) << "reservations are given back: the budget can be used up";
}

TEST(Budget, AStreamPastItsReservationIsCut) {
  std::promise<void> closed;
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    socket.send(kStreamHead);
    for (int i = 0; i < 400 && socket.send(chunk(delta("a"))); ++i) std::this_thread::sleep_for(1ms);
    socket.wait_closed(60s);
    closed.set_value();
  }});
  self = &upstream;
  RunningGateway gateway(
      provider(upstream.port(), "")
          .replace(provider(upstream.port(), "").find("models: [m]"), 11, "models: [{name: m, max_output: 10}]") +
      kNoCache + limit(20));
  const std::string answer = body_of(gateway.chat("\"stream\":true,"));
  EXPECT_NE(answer.find("\"finish_reason\":\"budget_exceeded\""), std::string::npos) << answer;
  EXPECT_NE(answer.find("\"code\":\"budget_exceeded\""), std::string::npos);
  EXPECT_NE(answer.find("The answer was cut. Budget `b`"), std::string::npos);
  EXPECT_EQ(answer.find("[DONE]"), std::string::npos);
  EXPECT_LT(answer.find("finish_reason\":\"budget_exceeded"), answer.find("\"error\"")) << "the reason, then the error";
  EXPECT_EQ(closed.get_future().wait_for(50s), std::future_status::ready) << "the upstream is stopped";
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].outcome, Outcome::cancelled);
  EXPECT_EQ(records[0].reason, "budget_exceeded");
  EXPECT_LE(spent(records), 20);
  EXPECT_GT(spent(records), 0) << "what was handed out is billed";
}

TEST(Budget, AStreamMayFinishWhereTheOperatorSaysSo) {
  std::string events;
  for (int i = 0; i < 40; ++i) events += delta("a");
  const std::string usage =
      "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":40}}\n\n";
  Answering upstream(stream_of(events + kFinish + usage + kDone));
  RunningGateway gateway(provider(upstream->port()) + kNoCache + limit(20, ", on_exceed: finish") +
                         "budget_reserve: {max_output: 10}\n");
  const std::string answer = body_of(gateway.chat("\"stream\":true,"));
  EXPECT_TRUE(answer.ends_with(kDone)) << answer;
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":1,")), 429) << "it counts, over the limit";
  EXPECT_EQ(gateway.metric("ganglion_budget_reserved_ratio"), 0);
  EXPECT_EQ(spent(gateway.records()), 40);
}

TEST(Budget, AStreamReservesInSteps) {
  std::string events;
  for (int i = 0; i < 100; ++i) events += delta("abcdefgh");
  const std::string usage =
      "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":100}}\n\n";
  Answering upstream(stream_of(events + kFinish + usage + kDone));
  RunningGateway gateway(provider(upstream->port()) + kNoCache + limit(2'000) + "budget_reserve: {stream_step: 50}\n");
  EXPECT_TRUE(body_of(gateway.chat("\"stream\":true,")).ends_with(kDone)) << "16384 tokens at once would not fit";
  EXPECT_EQ(status_of(gateway.chat()), 429) << "an answer that cannot be cut reserves its maximum";
  EXPECT_EQ(gateway.metric("ganglion_budget_reserved_ratio"), 0);
  EXPECT_EQ(spent(gateway.records()), 100);
}

// The price of the instant of dispatch holds to the end of the call: for the bill, for what its budget holds while it
// runs, and for the neurons that the client is told.
TEST(Budget, APriceChangeDoesNotReachRunningCalls) {
  const auto change = std::chrono::ceil<std::chrono::seconds>(std::chrono::system_clock::now()) + 3s;
  std::atomic<bool> dispatched_before{false};
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    dispatched_before = std::chrono::system_clock::now() < change;
    socket.send(kStreamHead + chunk(delta("abcdefgh")));
    std::this_thread::sleep_until(change + 50ms);
    for (int i = 1; i < 100; ++i) socket.send(chunk(delta("abcdefgh")));
    socket.send(
        chunk(kFinish +
              "data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":100}}\n\n" +
              kDone) +
        "0\r\n\r\n");
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) +
                         "pricing: {models: [{model: m, output_per_1m: 1000000}], changes: [{from: \"" +
                         metering::format_time(change.time_since_epoch()).substr(0, 19) +
                         "Z\", models: [{model: m, output_per_1m: 1000000000}]}]}\n"
                         "budgets: [{name: b, neurons: 2000}]\nbudget_reserve: {stream_step: 50}\n");
  const std::string answer = body_of(gateway.chat(R"("stream":true,"stream_options":{"include_usage":true},)"));
  ASSERT_TRUE(dispatched_before) << "the machine is too slow for this test";
  EXPECT_TRUE(answer.ends_with(kDone)) << answer.substr(answer.size() - std::min<std::size_t>(answer.size(), 1'000));
  EXPECT_NE(answer.find("\"neurons\":100}"), std::string::npos) << "told as billed";
  EXPECT_EQ(spent(gateway.records()), 100);
}

TEST(Budget, AFallbackToADearerTargetIsCheckedAgain) {
  ScriptedUpstream cheap({[](RawSocket& socket) {
    socket.read_until("\r\n\r\n");
    socket.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  }});
  Answering dear(http_ok(kAnswer));
  const auto url = [](std::uint16_t port) { return "base_url: \"http://127.0.0.1:" + std::to_string(port) + "/v1\""; };
  const std::string providers = "providers:\n  - {name: cheap, weight: 1000, " + url(cheap.port()) +
                                ", models: [{name: m, max_output: 5}]}\n  - {name: dear, weight: 1, " +
                                url(dear->port()) + ", models: [{name: m, max_output: 50}]}\n" +
                                "gateways: [{name: default, cache: {ttl: 0s}, retry: {attempts: 2}}]\n";
  {
    RunningGateway gateway(providers + limit(20));
    const std::string refused = gateway.chat();
    EXPECT_EQ(status_of(refused), 429) << refused;
    EXPECT_NE(body_of(refused).find("up to 50 neurons"), std::string::npos) << refused;
    EXPECT_EQ(cheap.accepted(), 1);
    EXPECT_EQ(dear->requests().size(), 0U);
    EXPECT_EQ(gateway.metric("ganglion_budget_reserved_ratio"), 0);
    const auto records = gateway.records();
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].outcome, Outcome::rejected);
    EXPECT_EQ(records[0].nano_neurons, 0);
  }
  RunningGateway gateway(providers + limit(50));
  EXPECT_EQ(status_of(gateway.chat()), 200);
  EXPECT_EQ(dear->requests().size(), 1U);
}

TEST(Budget, TagsHaveBudgetsAndARestartForgetsNothing) {
  Answering upstream(http_ok(kAnswer));
  const std::string config = provider(upstream->port()) + kNoCache + kPrice +
                             "budgets: [{name: teams, tag: team, per: tag, neurons: 10, window: day}]\n";
  const std::string red = "cf-aig-metadata: {\"team\":\"red\"}\r\n";
  const std::string blue = "cf-aig-metadata: {\"team\":\"blue\"}\r\n";
  RunningGateway before(config);
  EXPECT_EQ(status_of(before.chat("\"max_tokens\":4,", red)), 200);
  EXPECT_EQ(status_of(before.chat("\"max_tokens\":4,", red)), 200);
  EXPECT_EQ(status_of(before.chat("\"max_tokens\":4,", red)), 429);
  EXPECT_EQ(status_of(before.chat("\"max_tokens\":4,", blue)), 200);
  RunningGateway gateway(config, 1, "127.0.0.1", before.keep_directory());
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":4,", red)), 429);
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":2,", red)), 200) << "8 of 10 are known to be spent";
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":4,", blue)), 200);
  const std::string page = body_of(gateway.get("/admin/budgets", true));
  EXPECT_NE(page.find("\"of\": \"red\""), std::string::npos) << page;
}

TEST(Budget, AClientThatLeavesGivesBackItsReservation) {
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    socket.send(kStreamHead + chunk(delta("one")) + chunk(delta("two")));
    socket.wait_closed(60s);
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache + limit(100));
  RawSocket client = gateway.connect();
  client.send(
      RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body("\"stream\":true,\"max_tokens\":90,")));
  client.read_until("two");
  EXPECT_EQ(gateway.metric("ganglion_budget_reserved_ratio"), 0.9);
  client.close();
  for (int i = 0; i < 200 && gateway.metric("ganglion_budget_reserved_ratio") > 0; ++i)
    std::this_thread::sleep_for(5ms);
  EXPECT_EQ(gateway.metric("ganglion_budget_reserved_ratio"), 0);
  const double share = gateway.metric("ganglion_budget_spent_ratio");
  EXPECT_EQ(spent(gateway.records()), std::lround(share * 100));
}

TEST(Budget, AnIdempotentRequestIsChargedOnceAndReplaysPassASpentBudget) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache + limit(5));
  const std::string key = "Idempotency-Key: once\r\n";
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":4,", key)), 200);
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":4,", "Idempotency-Key: other\r\n")), 429);
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":4,", key)), 200) << "a replay costs nothing";
  EXPECT_EQ(gateway.metric("ganglion_budget_reserved_ratio"), 0);
  EXPECT_EQ(upstream->requests().size(), 1U);
  EXPECT_EQ(spent(gateway.records()), 4);
}

// Two gateways on one Redis, 64 clients, and a Redis that forgets everything in between.
TEST(Budget, TwoGatewaysShareABudgetThroughRedis) {
  RedisServer redis;
  Answering upstream(http_ok(kAnswer));
  const std::string config = provider(upstream->port()) + kNoCache + limit(400) + "redis: {addresses: [\"" +
                             redis.address() + "\"]}\nbudget_sharing: {gateways: 2, interval: 20ms, patience: 5s}\n";
  RunningGateway a(config, 2);
  RunningGateway b(config, 2);
  std::atomic<int> admitted{0};
  std::atomic<int> odd{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 64; ++i) {
    clients.emplace_back([&, i] {
      for (int j = 0; j < 3; ++j) {
        const int status = status_of((i % 2 == 0 ? a : b).chat("\"max_tokens\":4,"));
        if (status == 200) ++admitted;
        if (status != 200 && status != 429) ++odd;
        if (i == 0 && j == 0) redis.say({"FLUSHALL"});
      }
    });
  }
  for (auto& client : clients) client.join();
  EXPECT_EQ(odd, 0) << "no request fails because of Redis";
  EXPECT_LE(admitted, 100);
  EXPECT_GE(admitted, 90);
  const auto page = body_of(a.get("/admin/budgets", true));
  EXPECT_EQ(page.find("\"spent_elsewhere\": \"0\""), std::string::npos) << page;
  EXPECT_EQ(spent(a.records()) + spent(b.records()), 4 * admitted);
}

TEST(Budget, AFreeOnlyTenantStopsAtItsAllocation) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache +
                         "pricing: {daily_free_neurons: 10, models: [{model: m, output_per_1m: 1000000}]}\n"
                         "tenants: [{name: default, free_only: true}]\n");
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":4,")), 200);
  EXPECT_EQ(status_of(gateway.chat("\"max_tokens\":4,")), 200);
  const std::string refused = gateway.chat("\"max_tokens\":4,");
  EXPECT_EQ(status_of(refused), 429);
  EXPECT_NE(body_of(refused).find("free-allocation:default"), std::string::npos) << refused;
}

}  // namespace
}  // namespace ganglion::test
