// The cache through the whole gateway: stale answers, refusals, tags, purges, replay; disk, and Redis between gateways.

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <set>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/support/redis_server.hpp"
#include "tests/support/temp_dir.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;
using metering::Outcome;

// Answers each call with its number; how, is up to the test.
class Numbered {
 public:
  enum class Mood { well, failing, refusing, hanging };

  Numbered() {
    ScriptedUpstream::Script script = [this](RawSocket& socket) {
      while (true) {
        const std::string request = upstream_->read_request(socket);
        if (request.empty() || !answer(socket, request)) return;
      }
    };
    upstream_ = std::make_unique<ScriptedUpstream>(std::vector<ScriptedUpstream::Script>{std::move(script)});
  }
  std::uint16_t port() const { return upstream_->port(); }
  int calls() const { return calls_; }

  std::atomic<Mood> mood{Mood::well};
  std::atomic<int> delay_ms{0};

  static std::string whole(int n) {
    std::string body = kAnswer;
    body.replace(body.find("\"hi\""), 4, "\"answer " + std::to_string(n) + "\"");
    return body;
  }
  static std::string events(int n) { return delta("one ") + delta("answer " + std::to_string(n)) + kFinish; }

 private:
  bool answer(RawSocket& socket, const std::string& request) {
    const int n = ++calls_;
    std::this_thread::sleep_for(std::chrono::milliseconds{delay_ms});
    switch (mood) {
      case Mood::well:
        break;
      case Mood::failing:
        return socket.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
      case Mood::refusing:
        return socket.send("HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: " +
                           std::to_string(kRefusal.size()) + "\r\n\r\n" + kRefusal);
      case Mood::hanging:
        socket.wait_closed(20s);
        return false;
    }
    if (request.find("\"stream\":true") == std::string::npos) return socket.send(http_ok(whole(n)));
    if (!socket.send(kStreamHead + chunk(delta("one ")))) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds{delay_ms});
    return socket.send(chunk(delta("answer " + std::to_string(n)) + kFinish + kUsageEvent + kDone) + "0\r\n\r\n");
  }

  const std::string kRefusal = R"({"error":{"message":"no such thing","code":"not_found"}})";
  std::atomic<int> calls_{0};
  std::unique_ptr<ScriptedUpstream> upstream_;
};

std::string policy(const std::string& cache) {
  return "gateways: [{name: default, cache: {" + cache + "}, retry: {attempts: 1}}]\n";
}
std::string question(int n) {
  return R"({"model":"m","messages":[{"role":"user","content":"question )" + std::to_string(n) + "\"}]}";
}
std::string ask(const RunningGateway& gateway, int n, const std::string& headers = "") {
  return gateway.post("/v1/chat/completions", question(n), headers);
}
std::string purge(const RunningGateway& gateway, const std::string& body, const std::string& headers = "") {
  RawSocket socket = gateway.connect_admin();
  socket.send(RunningGateway::request("/admin/cache/purge", body, headers));
  return socket.read_message();
}
template <class F>
bool soon(F condition, std::chrono::milliseconds limit = 60s) {
  const auto give_up = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < give_up) {
    if (condition()) return true;
    std::this_thread::sleep_for(2ms);
  }
  return false;
}

TEST(Cache, AStaleAnswerIsServedWhileOneCallFetchesANewOne) {
  Numbered upstream;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 1s, stale_while_revalidate: 60s"));
  EXPECT_EQ(body_of(ask(gateway, 1)), Numbered::whole(1));
  std::this_thread::sleep_for(1100ms);
  upstream.delay_ms = 1000;
  for (int i = 0; i < 5; ++i) {
    const std::string stale = ask(gateway, 1);
    EXPECT_EQ(body_of(stale), Numbered::whole(1)) << "byte for byte what was stored";
    EXPECT_EQ(header_of(stale, "cf-aig-cache-status"), "HIT");
    EXPECT_EQ(header_of(stale, "x-ganglion-cache"), "stale; reason=revalidate");
    EXPECT_EQ(header_of(stale, "x-neurons"), "0");
    EXPECT_GE(std::stoi(header_of(stale, "age")), 1);
  }
  EXPECT_TRUE(soon([&] { return body_of(ask(gateway, 1)) == Numbered::whole(2); }));
  const std::string fresh = ask(gateway, 1);
  EXPECT_EQ(header_of(fresh, "x-ganglion-cache"), "");
  EXPECT_EQ(header_of(fresh, "age"), "0");
  EXPECT_EQ(upstream.calls(), 2) << "one refresh for all";
  EXPECT_GE(gateway.metric("ganglion_cache_lookups_total", {"result=\"stale\""}), 5);
  const auto records = gateway.records();
  const auto billed = std::ranges::count_if(records, [](const auto& r) { return r.nano_neurons > 0; });
  EXPECT_EQ(billed, 2) << "the first call and the refresh, once each";
  for (const auto& record : records) {
    EXPECT_EQ(record.outcome, record.nano_neurons > 0 ? Outcome::completed : Outcome::cache_hit);
  }
  std::set<std::string> ids;
  for (const auto& record : records) EXPECT_TRUE(ids.insert(std::string{record.request_id}).second);
}

TEST(Cache, AFailedRefreshIsTriedAgainAndTheStaleAnswerStays) {
  Numbered upstream;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 1s, stale_while_revalidate: 60s"));
  ask(gateway, 1);
  std::this_thread::sleep_for(1100ms);
  upstream.mood = Numbered::Mood::failing;
  EXPECT_EQ(body_of(ask(gateway, 1)), Numbered::whole(1));
  EXPECT_TRUE(soon([&] { return upstream.calls() == 2; }));
  EXPECT_EQ(body_of(ask(gateway, 1)), Numbered::whole(1));
  upstream.mood = Numbered::Mood::well;
  EXPECT_TRUE(soon([&] { return body_of(ask(gateway, 1)) != Numbered::whole(1); }));
  EXPECT_LE(upstream.calls(), 6) << "not one for every hit";
}

TEST(Cache, AStaleAnswerStandsInForAFailingUpstream) {
  Numbered upstream;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 1s, stale_if_error: 60s"));
  ask(gateway, 1);
  const std::string stream = R"({"model":"m","stream":true,"messages":[{"role":"user","content":"question 1"}]})";
  std::this_thread::sleep_for(1100ms);
  EXPECT_EQ(body_of(ask(gateway, 1)), Numbered::whole(2)) << "asked first";
  std::this_thread::sleep_for(1100ms);
  upstream.mood = Numbered::Mood::failing;
  const std::string stale = ask(gateway, 1);
  EXPECT_EQ(status_of(stale), 200);
  EXPECT_EQ(body_of(stale), Numbered::whole(2));
  EXPECT_EQ(header_of(stale, "x-ganglion-cache"), "stale; reason=error");
  EXPECT_EQ(header_of(stale, "cf-aig-cache-status"), "HIT");
  const std::string streamed = gateway.post("/v1/chat/completions", stream);
  EXPECT_NE(body_of(streamed).find("answer 2"), std::string::npos);
  EXPECT_TRUE(body_of(streamed).ends_with(kDone));
  EXPECT_EQ(status_of(ask(gateway, 2)), 502) << "what is not stored cannot stand in";
  upstream.mood = Numbered::Mood::refusing;
  EXPECT_EQ(status_of(ask(gateway, 1)), 404) << "a refusal is the client's to see";
  upstream.mood = Numbered::Mood::well;
  EXPECT_EQ(header_of(ask(gateway, 1), "x-ganglion-cache"), "");
  const auto records = gateway.records();
  std::set<std::string> ids;
  for (const auto& record : records) {
    EXPECT_TRUE(ids.insert(std::string{record.request_id}).second) << "one record a request";
    EXPECT_EQ(record.nano_neurons > 0, record.outcome == Outcome::completed);
  }
}

TEST(Cache, ADeadUpstreamIsStoodInForToo) {
  auto upstream = std::make_unique<Numbered>();
  RunningGateway gateway(provider(upstream->port()) + policy("ttl: 1s, stale_if_error: 60s"));
  ask(gateway, 1);
  std::this_thread::sleep_for(1100ms);
  upstream.reset();
  EXPECT_EQ(body_of(ask(gateway, 1)), Numbered::whole(1));
  std::vector<std::future<std::string>> many;
  for (int i = 0; i < 20; ++i) many.push_back(std::async(std::launch::async, [&] { return ask(gateway, 1); }));
  for (auto& each : many) EXPECT_EQ(body_of(each.get()), Numbered::whole(1));
}

TEST(Cache, RefusalsAreKeptOnlyWhereThePolicySaysSo) {
  Numbered upstream;
  upstream.mood = Numbered::Mood::refusing;
  RunningGateway plain(provider(upstream.port()) + policy("ttl: 60s, stale_if_error: 60s"));
  ask(plain, 1);
  ask(plain, 1);
  EXPECT_EQ(upstream.calls(), 2);
  RunningGateway keeping(provider(upstream.port()) + policy("ttl: 60s, negative: [{status: 404, ttl: 1s}]"));
  const std::string first = ask(keeping, 1);
  const std::string again = ask(keeping, 1);
  EXPECT_EQ(status_of(again), 404);
  EXPECT_EQ(body_of(again), body_of(first));
  EXPECT_EQ(header_of(again, "cf-aig-cache-status"), "HIT");
  EXPECT_EQ(upstream.calls(), 3);
  const std::string stream = R"({"model":"m","stream":true,"messages":[{"role":"user","content":"question 1"}]})";
  const std::string streamed = keeping.post("/v1/chat/completions", stream);
  EXPECT_EQ(status_of(streamed), 404);
  EXPECT_EQ(body_of(streamed), body_of(first));
  std::this_thread::sleep_for(1100ms);
  upstream.mood = Numbered::Mood::well;
  EXPECT_EQ(status_of(ask(keeping, 1)), 200);
}

TEST(Cache, NoStoreFromTheClientKeepsNothing) {
  Numbered upstream;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 60s, stale_if_error: 60s"));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(header_of(ask(gateway, 1, "Cache-Control: no-store\r\n"), "cf-aig-cache-status"), "");
  }
  EXPECT_EQ(header_of(ask(gateway, 1), "cf-aig-cache-status"), "MISS");
  EXPECT_EQ(upstream.calls(), 3);
}

TEST(Cache, ATruncatedStreamIsNeverKept) {
  std::atomic<int> calls{0};
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    ++calls;
    socket.send(kStreamHead + chunk(delta("half")));
    socket.reset();
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 60s, stale_while_revalidate: 60s"));
  for (int i = 0; i < 5; ++i) gateway.chat("\"stream\":true,");
  EXPECT_EQ(calls, 5);
  EXPECT_EQ(gateway.metric("ganglion_cache_stores_total"), 0);
}

TEST(Cache, AReplayKeepsTheRecordedPaceWhereAsked) {
  Numbered upstream;
  upstream.delay_ms = 200;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 60s"));
  const std::string body =
      R"({"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"x"}]})";
  const std::string first = gateway.post("/v1/chat/completions", body);
  const auto timed = [&](const std::string& headers) {
    const auto began = std::chrono::steady_clock::now();
    const std::string answer = gateway.post("/v1/chat/completions", body, headers);
    return std::pair{answer, std::chrono::steady_clock::now() - began};
  };
  const auto [at_once, quick] = timed("");
  const auto [paced, slow] = timed("x-ganglion-cache-replay: recorded\r\n");
  EXPECT_LT(quick, slow);
  EXPECT_GE(slow, 180ms);
  EXPECT_EQ(header_of(paced, "cf-aig-cache-status"), "HIT");
  EXPECT_EQ(body_of(paced), body_of(at_once)) << "the same bytes, later";
  EXPECT_NE(body_of(paced).find("\"neurons\":0"), std::string::npos);
  EXPECT_EQ(upstream.calls(), 1);
  const std::string plain = R"({"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]})";
  const std::string without = gateway.post("/v1/chat/completions", plain, "x-ganglion-cache-replay: recorded\r\n");
  EXPECT_EQ(body_of(without), Numbered::events(1) + kDone) << "no usage for who did not ask";
  EXPECT_EQ(status_of(gateway.post("/v1/chat/completions", plain, "x-ganglion-cache-replay: fast\r\n")), 400);
}

TEST(Cache, APriceChangeForgetsAnswersWhereConfigured) {
  Numbered upstream;
  const TempDir directory;
  const auto config = [&](const std::string& on, const std::string& price) {
    return provider(upstream.port()) + policy("ttl: 60s, invalidate_on: " + on) + "cache: {disk: {path: \"" +
           directory.path() + "/" + on + "\"}}\npricing: {models: [{model: m, per_request: " + price + "}]}\n";
  };
  for (const bool price : {false, true}) {
    const std::string on = price ? "price" : "policy";
    const int before = upstream.calls();
    {
      RunningGateway gateway(config(on, "1"));
      ask(gateway, 1);
      EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_disk_entries") == 1; }));
    }
    RunningGateway gateway(config(on, "2"));
    EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_disk_entries") == 1; }));
    ask(gateway, 1);
    EXPECT_EQ(upstream.calls() - before, price ? 2 : 1) << on;
  }
}

// --- purge -----------------------------------------------------------------------------------------------------------

TEST(Cache, PurgesByTagKeyModelTenantAndAll) {
  Numbered upstream;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 60s"));
  const auto hit = [&](int n, const std::string& headers = "") {
    return header_of(ask(gateway, n, headers), "cf-aig-cache-status") == "HIT";
  };
  ask(gateway, 1, "x-ganglion-cache-tags: red, blue\r\n");
  ask(gateway, 2, "x-ganglion-cache-tags: blue\r\n");
  ask(gateway, 3, "cf-aig-cache-key: mine\r\n");
  ask(gateway, 4);
  const std::string told = purge(gateway, R"({"tag":"red"})");
  EXPECT_EQ(status_of(told), 200);
  EXPECT_NE(body_of(told).find("\"memory_entries\":1"), std::string::npos) << told;
  EXPECT_TRUE(hit(2) && hit(3, "cf-aig-cache-key: mine\r\n") && hit(4));
  EXPECT_FALSE(hit(1));
  purge(gateway, R"({"key":"mine","tenant":"default"})");
  EXPECT_FALSE(hit(3, "cf-aig-cache-key: mine\r\n"));
  purge(gateway, R"({"model":"other"})");
  EXPECT_TRUE(hit(4));
  purge(gateway, R"({"model":"m","gateway":"default"})");
  EXPECT_FALSE(hit(4));
  purge(gateway, R"({"all":true})");
  EXPECT_EQ(gateway.metric("ganglion_cache_entries"), 0);
  EXPECT_EQ(gateway.metric("ganglion_cache_purges_total", {"source=\"admin\""}), 5);
}

TEST(Cache, ABadPurgeSaysWhatIsWrongAndPurgesNothing) {
  Numbered upstream;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 60s"));
  ask(gateway, 1);
  for (const char* bad : {"", "{}", "[]", "{\"all\":false}", "{\"tenant\":\"\"}", "{\"tenant\":1}", "{\"user\":\"x\"}",
                          "{\"all\":true,\"tag\":\"x\"}", "{\"tag\":\"x\"} x"}) {
    const std::string answer = purge(gateway, bad);
    EXPECT_EQ(status_of(answer), 400) << bad;
    EXPECT_NE(body_of(answer).find("\"message\""), std::string::npos);
  }
  EXPECT_EQ(status_of(gateway.get("/admin/cache/purge", true)), 405);
  RawSocket socket = gateway.connect_admin();
  socket.send(
      "POST /admin/cache/purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\n"
      "{\"all\":true}");
  EXPECT_EQ(status_of(socket.read_message()), 415);
  EXPECT_EQ(header_of(ask(gateway, 1), "cf-aig-cache-status"), "HIT");
}

TEST(Cache, AnAnswerThatWasUnderWayDuringAPurgeIsNotKept) {
  Numbered upstream;
  upstream.delay_ms = 300;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 60s"));
  auto running = std::async(std::launch::async, [&] { return ask(gateway, 1); });
  EXPECT_TRUE(soon([&] { return upstream.calls() == 1; }));
  purge(gateway, R"({"all":true})");
  EXPECT_EQ(body_of(running.get()), Numbered::whole(1)) << "its own client gets it";
  EXPECT_EQ(header_of(ask(gateway, 1), "cf-aig-cache-status"), "MISS");
}

// --- disk ------------------------------------------------------------------------------------------------------------

TEST(Cache, TheDiskWarmsARestartedGateway) {
  Numbered upstream;
  const TempDir directory;
  const std::string yaml =
      provider(upstream.port()) + policy("ttl: 60s") + "cache: {disk: {path: \"" + directory.path() + "/c\"}}\n";
  const std::string stream = R"({"model":"m","stream":true,"messages":[{"role":"user","content":"s"}]})";
  std::string streamed;
  {
    RunningGateway gateway(yaml);
    for (int n = 0; n < 20; ++n) ask(gateway, n);
    streamed = gateway.post("/v1/chat/completions", stream);
    EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_disk_entries") == 21; }));
  }
  RunningGateway gateway(yaml);
  EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_disk_entries") == 21; }));
  for (int n = 0; n < 20; ++n) {
    const std::string answer = ask(gateway, n);
    EXPECT_EQ(body_of(answer), Numbered::whole(n + 1));
    EXPECT_EQ(header_of(answer, "cf-aig-cache-status"), "HIT");
    EXPECT_EQ(header_of(answer, "x-neurons"), "0");
    EXPECT_NE(header_of(answer, "age"), "");
  }
  EXPECT_EQ(body_of(gateway.post("/v1/chat/completions", stream)), body_of(streamed));
  EXPECT_EQ(upstream.calls(), 21);
  EXPECT_EQ(gateway.metric("ganglion_cache_tier_lookups_total", {"tier=\"disk\"", "result=\"hit\""}), 21);
  for (const auto& record : gateway.records()) {
    EXPECT_TRUE(record.outcome == Outcome::cache_hit || record.nano_neurons > 0);
  }
}

TEST(Cache, ADirectoryThatCannotBeUsedKeepsNobodyFromStarting) {
  Numbered upstream;
  RunningGateway gateway(provider(upstream.port()) + policy("ttl: 60s") + "cache: {disk: {path: /proc/none}}\n");
  EXPECT_EQ(status_of(ask(gateway, 1)), 200);
  EXPECT_EQ(gateway.metric("ganglion_cache_tier_up", {"tier=\"disk\""}), 0);
}

// --- Redis -----------------------------------------------------------------------------------------------------------

// Where nothing falls ill, a busy machine must not look like an illness.
const std::string kPatientRedis = ", command_timeout: 10s, hung_after: 10s";
const std::string kPatientCache = "redis: {timeout: 10s}";

std::string shared(const RedisServer& redis, std::uint16_t port, bool patient = true) {
  return provider(port) + policy("ttl: 60s") + "redis: {addresses: [\"" + redis.address() + "\"]" +
         (patient ? kPatientRedis : "") + "}\ncache: {secret: \"an-installations-secret\"" +
         (patient ? ", " + kPatientCache : "") + "}\n";
}

double tier(const RunningGateway& gateway, const std::string& result) {
  return gateway.metric("ganglion_cache_tier_lookups_total", {"tier=\"redis\"", "result=\"" + result + "\""});
}

TEST(CacheRedis, AnswersAreSharedBetweenGateways) {
  RedisServer redis;
  Numbered upstream;
  RunningGateway a(shared(redis, upstream.port()));
  RunningGateway b(shared(redis, upstream.port()));
  const std::string first = ask(a, 1);
  EXPECT_EQ(header_of(first, "cf-aig-cache-status"), "MISS");
  EXPECT_TRUE(soon([&] { return header_of(ask(b, 1), "cf-aig-cache-status") == "HIT"; }));
  EXPECT_EQ(body_of(ask(b, 1)), body_of(first));
  EXPECT_EQ(upstream.calls(), 1);
}

TEST(CacheRedis, AStampedeOverTwoGatewaysIsOneCall) {
  RedisServer redis;
  Numbered upstream;
  upstream.delay_ms = 400;
  RunningGateway a(shared(redis, upstream.port()), 2);
  RunningGateway b(shared(redis, upstream.port()), 2);
  ask(a, 99);
  ask(b, 99);  // both are connected
  const int before = upstream.calls();
  constexpr int kEach = 250;
  std::vector<RawSocket> clients;
  for (int i = 0; i < kEach; ++i) {
    clients.push_back(a.connect());
    clients.push_back(b.connect());
  }
  const std::string request = RunningGateway::request("/v1/chat/completions", question(1));
  for (RawSocket& client : clients) client.send(request);
  int answered = 0;
  for (RawSocket& client : clients) answered += body_of(client.read_message()) == Numbered::whole(before + 1) ? 1 : 0;
  EXPECT_EQ(answered, 2 * kEach);
  EXPECT_EQ(upstream.calls() - before, 1);
}

// The limits' slices come from Redis: between the scan of its body and its key a request waits, while others are read.
TEST(CacheRedis, RequestsThatWaitBeforeTheirKeyKeepTheirOwn) {
  RedisServer redis;
  Numbered upstream;
  RunningGateway gateway(shared(redis, upstream.port()) +
                         "tenants: [{name: default, limits: {requests: 100000/min}}]\n");
  EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_limiter_gateways") == 1; }));
  redis.stop();
  constexpr int kQuestions = 12;
  std::vector<RawSocket> clients;
  for (int n = 0; n < kQuestions; ++n) {
    clients.push_back(gateway.connect());
    clients.back().send(RunningGateway::request("/v1/chat/completions", question(n)));
  }
  EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_requests_in_flight") == kQuestions; }));
  redis.resume();
  std::set<std::string> answers;
  for (int n = 0; n < kQuestions; ++n) {
    const std::string answer = body_of(clients[static_cast<std::size_t>(n)].read_message());
    EXPECT_TRUE(answers.insert(answer).second) << n << " has another's answer";
    EXPECT_EQ(body_of(ask(gateway, n)), answer);
  }
  EXPECT_EQ(upstream.calls(), kQuestions);
}

TEST(CacheRedis, APurgeReachesTheOtherGateway) {
  RedisServer redis;
  Numbered upstream;
  RunningGateway a(shared(redis, upstream.port()));
  RunningGateway b(shared(redis, upstream.port()));
  ask(a, 1, "x-ganglion-cache-tags: news\r\n");
  EXPECT_TRUE(soon([&] { return header_of(ask(b, 1), "cf-aig-cache-status") == "HIT"; }));
  const std::string told = purge(a, R"({"tag":"news"})");
  EXPECT_EQ(status_of(told), 200);
  EXPECT_NE(body_of(told).find("\"other_gateways\":\"told\""), std::string::npos) << told;
  EXPECT_TRUE(soon([&] { return b.metric("ganglion_cache_entries") == 0; }));
  EXPECT_EQ(header_of(ask(b, 1), "cf-aig-cache-status"), "MISS") << "what Redis holds is older than the purge";
  EXPECT_EQ(body_of(ask(b, 1)), Numbered::whole(2));
  EXPECT_EQ(b.metric("ganglion_cache_purges_total", {"source=\"cluster\""}), 1);
  EXPECT_TRUE(soon([&] { return body_of(ask(a, 1)) == Numbered::whole(2); }));
}

TEST(CacheRedis, AClusterDoesAsWell) {
  RedisClusterServers redis;
  Numbered upstream;
  const std::string yaml = provider(upstream.port()) + policy("ttl: 60s") + "redis: {addresses: [\"" +
                           redis.node(0).address() + "\"]" + kPatientRedis +
                           "}\ncache: {secret: of-an-installation-0123, " + kPatientCache + "}\n";
  RunningGateway a(yaml);
  RunningGateway b(yaml);
  // Names spread over all nodes; the purges lie on one.
  for (int n = 0; n < 12; ++n) ask(a, n);
  for (int n = 0; n < 12; ++n) {
    EXPECT_TRUE(soon([&] { return body_of(ask(b, n)) == Numbered::whole(n + 1); })) << n;
  }
  EXPECT_EQ(upstream.calls(), 12);
  EXPECT_NE(body_of(purge(b, R"({"all":true})")).find("\"told\""), std::string::npos);
  EXPECT_TRUE(soon([&] { return a.metric("ganglion_cache_entries") == 0; }));
  EXPECT_EQ(header_of(ask(a, 1), "cf-aig-cache-status"), "MISS");
}

TEST(CacheRedis, NoRequestFailsWhileRedisIsKilledStoppedOrRestartedEmpty) {
  RedisServer redis;
  Numbered upstream;
  RunningGateway gateway(shared(redis, upstream.port(), false));
  int n = 0;
  const auto quick = [&] {
    const auto began = std::chrono::steady_clock::now();
    const std::string answer = ask(gateway, ++n);
    EXPECT_EQ(status_of(answer), 200);
    return std::chrono::steady_clock::now() - began;
  };
  quick();
  redis.stop();
  std::chrono::nanoseconds worst{0};
  for (int i = 0; i < 20; ++i) worst = std::max<std::chrono::nanoseconds>(worst, quick());
  EXPECT_LT(worst, 10s);
  const auto began = std::chrono::steady_clock::now();
  for (int i = 0; i < 20; ++i) quick();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 30s) << "the circuit is open: nobody waits for Redis";
  const std::string pending = purge(gateway, R"({"tag":"x"})");
  EXPECT_EQ(status_of(pending), 202);
  EXPECT_NE(body_of(pending).find("pending"), std::string::npos);
  redis.resume();
  EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_tier_up", {"tier=\"redis\""}) == 1; }));
  EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_purges_untold") == 0; }));
  redis.kill();
  for (int i = 0; i < 20; ++i) quick();
  EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_tier_up", {"tier=\"redis\""}) == 0; }));
  redis.restart();
  EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_tier_up", {"tier=\"redis\""}) == 1; }));
  const double before = gateway.metric("ganglion_cache_tier_stores_total", {"tier=\"redis\"", "result=\"stored\""});
  EXPECT_TRUE(soon([&] {
    quick();
    return gateway.metric("ganglion_cache_tier_stores_total", {"tier=\"redis\"", "result=\"stored\""}) > before;
  })) << "it is used again";
  EXPECT_EQ(upstream.calls(), n);
}

TEST(CacheRedis, ADamagedValueIsAMissAndReplaced) {
  RedisServer redis;
  Numbered upstream;
  RunningGateway a(shared(redis, upstream.port()));
  ask(a, 1);
  std::string keys;
  EXPECT_TRUE(soon([&] {
    keys = redis.say({"KEYS", "ganglion:cache:*:v"});
    return keys.starts_with("*1\r\n");
  }));
  const auto at = keys.find("ganglion:cache");
  ASSERT_NE(at, std::string::npos) << keys;
  const std::string key = keys.substr(at, keys.find("\r\n", at) - at);
  redis.say({"SETRANGE", key, "90", "damage"});
  RunningGateway b(shared(redis, upstream.port()));
  const std::string answer = ask(b, 1);
  EXPECT_EQ(body_of(answer), Numbered::whole(2));
  EXPECT_EQ(tier(b, "corrupt"), 1);
  RunningGateway c(shared(redis, upstream.port()));
  EXPECT_TRUE(soon([&] { return body_of(ask(c, 1)) == Numbered::whole(2); }));
  EXPECT_EQ(upstream.calls(), 2);
}

TEST(CacheRedis, GatewaysWithDifferentSecretsShareNothing) {
  RedisServer redis;
  Numbered upstream;
  RunningGateway a(shared(redis, upstream.port()));
  RunningGateway b(provider(upstream.port()) + policy("ttl: 60s") + "redis: {addresses: [\"" + redis.address() +
                   "\"]}\ncache: {secret: \"another-installations-secret\"}\n");
  ask(a, 1);
  EXPECT_TRUE(soon([&] { return redis.say({"KEYS", "ganglion:cache*"}).starts_with("*1\r\n"); }));
  EXPECT_EQ(header_of(ask(b, 1), "cf-aig-cache-status"), "MISS");
}

// F25: two tenants, the same prompts, every tier.
TEST(CacheRedis, TenantsWithEqualPromptsNeverMeet) {
  RedisServer redis;
  Numbered upstream;
  const TempDir directory;
  const auto yaml = [&](const std::string& disk) {
    return provider(upstream.port()) + policy("ttl: 600s, stale_while_revalidate: 600s") + "redis: {addresses: [\"" +
           redis.address() + "\"]" + kPatientRedis + "}\ncache: {" + kPatientCache + ", disk: {timeout: 10s, path: \"" +
           directory.path() + "/" + disk + "\"}}\n" +
           "key_pepper: ${PEPPER}\ntenants: [{name: acme}, {name: acme2}]\n"
           "keys:\n  - {id: a, secret: \"${APP_KEY}\", tenant: acme}\n"
           "  - {id: b, secret: \"${OTHER_KEY}\", tenant: acme2}\n";
  };
  constexpr int kPrompts = 150;
  const std::string a_key = "Authorization: Bearer sk-app\r\n";
  const std::string b_key = "Authorization: Bearer sk-other\r\n";
  std::vector<std::string> of_a(kPrompts), of_b(kPrompts);
  const auto round = [&](RunningGateway& gateway, bool first) {
    RawSocket a = gateway.connect();
    RawSocket b = gateway.connect();
    for (int n = 0; n < kPrompts; ++n) {
      a.send(RunningGateway::request("/v1/chat/completions", question(n), a_key));
      const std::string from_a = a.read_message();
      b.send(RunningGateway::request("/v1/chat/completions", question(n), b_key));
      const std::string from_b = b.read_message();
      ASSERT_EQ(status_of(from_a), 200);
      ASSERT_EQ(status_of(from_b), 200);
      if (first) {
        of_a[static_cast<std::size_t>(n)] = body_of(from_a);
        of_b[static_cast<std::size_t>(n)] = body_of(from_b);
        EXPECT_EQ(header_of(from_b, "cf-aig-cache-status"), "MISS") << "of the other tenant's answer";
      }
      EXPECT_EQ(body_of(from_a), of_a[static_cast<std::size_t>(n)]);
      EXPECT_EQ(body_of(from_b), of_b[static_cast<std::size_t>(n)]);
      EXPECT_NE(body_of(from_a), body_of(from_b));
    }
  };
  {
    RunningGateway gateway(yaml("one"));
    round(gateway, true);   // misses
    round(gateway, false);  // memory
    EXPECT_TRUE(soon([&] {
      return gateway.metric("ganglion_cache_tier_stores_total", {"tier=\"disk\"", "result=\"stored\""}) == 2 * kPrompts;
    }));
  }
  {
    RunningGateway gateway(yaml("two"));
    round(gateway, false);  // Redis
    EXPECT_EQ(tier(gateway, "hit"), 2 * kPrompts);
  }
  redis.kill();
  {
    RunningGateway gateway(yaml("one"));
    EXPECT_TRUE(soon([&] { return gateway.metric("ganglion_cache_disk_entries") == 2 * kPrompts; }));
    round(gateway, false);  // disk
    EXPECT_EQ(gateway.metric("ganglion_cache_tier_lookups_total", {"tier=\"disk\"", "result=\"hit\""}), 2 * kPrompts);
  }
  EXPECT_EQ(upstream.calls(), 2 * kPrompts);
}

}  // namespace
}  // namespace ganglion::test
