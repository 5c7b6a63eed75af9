// The tiers through the whole gateway: who is served, who waits, who is turned away, when a backend takes one call at a
// time.

#include <gtest/gtest.h>

#include <atomic>
#include <future>

#include "tests/integration/harness.hpp"
#include "tests/support/scripted_upstream.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;

const std::string kAnswer =
    R"({"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}})";

// Answers one request each time it is told to, in whatever order they came.
class Gated {
 public:
  Gated()
      : upstream_({[this](RawSocket& socket) {
          while (!upstream_.read_request(socket).empty()) {
            const auto until = std::chrono::steady_clock::now() + 20s;
            for (;;) {
              int left = permits_.load();
              if (left > 0 && permits_.compare_exchange_weak(left, left - 1)) break;
              if (std::chrono::steady_clock::now() > until) return;
              std::this_thread::sleep_for(1ms);
            }
            if (!socket.send(http_ok(kAnswer))) return;
          }
        }}) {}
  ~Gated() { permits_ = 1'000'000; }
  void answer(int count = 1) { permits_ += count; }
  std::size_t asked() const { return upstream_.requests().size(); }
  bool wait_asked(std::size_t count) const {
    for (int i = 0; i < 60'000 && asked() < count; ++i) std::this_thread::sleep_for(1ms);
    return asked() >= count;
  }
  // The user text of the i-th request that reached the upstream.
  std::string text(std::size_t i) const {
    const std::string request = upstream_.requests().at(i);
    const auto at = request.find("\"content\":\"") + 11;
    return request.substr(at, request.find('"', at) - at);
  }
  std::uint16_t port() const { return upstream_.port(); }

 private:
  std::atomic<int> permits_{0};
  ScriptedUpstream upstream_;
};

std::string body(const std::string& text, const std::string& extra = "") {
  return R"({"model":"m",)" + extra + R"("messages":[{"role":"user","content":")" + text + R"("}]})";
}

constexpr const char* kFast = "x-neuron-tier: fast\r\n";

std::future<std::string> ask(const RunningGateway& gateway, const std::string& text, const std::string& headers = "",
                             const std::string& extra = "") {
  return std::async(std::launch::async, [&gateway, text, headers, extra] {
    return gateway.post("/v1/chat/completions", body(text, extra), headers);
  });
}

// Waits until the gauge has the value.
bool wait_metric(const RunningGateway& gateway, const std::string& line) {
  for (int i = 0; i < 2'000; ++i) {
    if (gateway.get("/metrics", true).find("\n" + line + "\n") != std::string::npos) return true;
    std::this_thread::sleep_for(2ms);
  }
  return false;
}

std::string config(const Gated& upstream, const std::string& tiers) {
  return provider(upstream.port()) + "admission: {max_in_flight: 1}\ngateways: [{name: default, cache: {ttl: 0s}}]\n" +
         tiers;
}

TEST(Tiers, FastPassesTheRegularQueueAndOrderIsKept) {
  Gated upstream;
  RunningGateway gateway(config(upstream, "tiers: {fast: {reserved_share: 0%, max_wait: 20s}}\n"));
  auto first = ask(gateway, "first");
  ASSERT_TRUE(upstream.wait_asked(1));
  auto second = ask(gateway, "second");
  ASSERT_TRUE(wait_metric(gateway, R"(ganglion_tier_waiting{tier="regular"} 1)"));
  auto third = ask(gateway, "third");
  ASSERT_TRUE(wait_metric(gateway, R"(ganglion_tier_waiting{tier="regular"} 2)"));
  auto by_header = ask(gateway, "by header", kFast);
  ASSERT_TRUE(wait_metric(gateway, R"(ganglion_tier_waiting{tier="fast"} 1)"));
  auto by_body = ask(gateway, "by body", "", R"("service_tier":"priority",)");
  ASSERT_TRUE(wait_metric(gateway, R"(ganglion_tier_waiting{tier="fast"} 2)"));
  upstream.answer(5);
  for (auto* answer : {&first, &second, &third, &by_header, &by_body}) EXPECT_EQ(status_of(answer->get()), 200);
  std::vector<std::string> order;
  for (std::size_t i = 0; i < upstream.asked(); ++i) order.push_back(upstream.text(i));
  EXPECT_EQ(order, (std::vector<std::string>{"first", "by header", "by body", "second", "third"}));
  const std::string metrics = gateway.get("/metrics", true);
  EXPECT_NE(metrics.find(R"(ganglion_tier_wait_seconds_count{tier="regular"} 2)"), std::string::npos);
  EXPECT_NE(metrics.find(R"(ganglion_tier_wait_seconds_count{tier="fast"} 2)"), std::string::npos);
  EXPECT_EQ(gateway.records().size(), 5U);
}

TEST(Tiers, RegularIsShedInTimeAndLeavesNoTraceOnTheBill) {
  Gated upstream;
  RunningGateway gateway(config(upstream, "tiers: {fast: {reserved_share: 0%}, regular: {max_wait: 50ms}}\n"));
  auto held = ask(gateway, "held");
  ASSERT_TRUE(upstream.wait_asked(1));
  const std::string refused = gateway.post("/v1/chat/completions", body("late"));
  EXPECT_EQ(status_of(refused), 503) << refused;
  EXPECT_NE(header_of(refused, "retry-after"), "");
  EXPECT_NE(refused.find("overloaded"), std::string::npos);
  EXPECT_TRUE(wait_metric(gateway, R"(ganglion_tier_shed_total{tier="regular",reason="waited_too_long"} 1)"));
  upstream.answer();
  EXPECT_EQ(status_of(held.get()), 200);
  EXPECT_EQ(upstream.asked(), 1U);
  EXPECT_EQ(gateway.records().size(), 1U);
}

TEST(Tiers, AFullQueueShedsTheLastRegularForAFastOne) {
  Gated upstream;
  RunningGateway gateway(
      config(upstream, "tiers: {max_queue: 1, fast: {reserved_share: 0%, max_wait: 20s}, regular: {max_wait: 20s}}\n"));
  auto held = ask(gateway, "held");
  ASSERT_TRUE(upstream.wait_asked(1));
  auto waiting = ask(gateway, "waiting");
  ASSERT_TRUE(wait_metric(gateway, R"(ganglion_tier_waiting{tier="regular"} 1)"));
  EXPECT_EQ(status_of(gateway.post("/v1/chat/completions", body("no room"))), 503);
  auto fast = ask(gateway, "fast", kFast);
  EXPECT_EQ(status_of(waiting.get()), 503);
  upstream.answer(2);
  EXPECT_EQ(status_of(held.get()), 200);
  EXPECT_EQ(status_of(fast.get()), 200);
}

TEST(Tiers, TheReservedPlacesAreForFast) {
  Gated upstream;
  RunningGateway gateway(provider(upstream.port()) +
                         "admission: {max_in_flight: 2}\ngateways: [{name: default, cache: {ttl: 0s}}]\n"
                         "tiers: {fast: {reserved_share: 50%}, regular: {max_wait: 0ms}}\n");
  auto held = ask(gateway, "held");
  ASSERT_TRUE(upstream.wait_asked(1));
  EXPECT_EQ(status_of(gateway.post("/v1/chat/completions", body("second"))), 503);
  auto fast = ask(gateway, "fast", kFast);
  ASSERT_TRUE(upstream.wait_asked(2));
  upstream.answer(2);
  EXPECT_EQ(status_of(held.get()), 200);
  EXPECT_EQ(status_of(fast.get()), 200);
}

TEST(Tiers, AProvidersFullPoolIsWaitedForByTier) {
  Gated upstream;
  RunningGateway gateway(provider(upstream.port(), ", max_connections: 1") +
                         "gateways: [{name: default, cache: {ttl: 0s}, retry: {attempts: 1}}]\n"
                         "tiers: {fast: {max_wait: 20s}, regular: {max_wait: 20s}}\n");
  auto first = ask(gateway, "first");
  ASSERT_TRUE(upstream.wait_asked(1));
  auto second = ask(gateway, "second");
  ASSERT_TRUE(wait_metric(gateway, R"(ganglion_upstream_waiting{backend="up",tier="regular"} 1)"));
  auto fast = ask(gateway, "fast", kFast);
  ASSERT_TRUE(wait_metric(gateway, R"(ganglion_upstream_waiting{backend="up",tier="fast"} 1)"));
  upstream.answer(3);
  for (auto* answer : {&first, &second, &fast}) EXPECT_EQ(status_of(answer->get()), 200);
  EXPECT_EQ(upstream.text(1), "fast");
}

TEST(Tiers, CachedAnswersNeedNoPlace) {
  Gated upstream;
  RunningGateway gateway(
      provider(upstream.port()) +
      "admission: {max_in_flight: 1}\ntiers: {fast: {reserved_share: 0%}, regular: {max_wait: 0ms}}\n");
  upstream.answer();
  EXPECT_EQ(status_of(gateway.post("/v1/chat/completions", body("known"))), 200);
  auto held = ask(gateway, "held");
  ASSERT_TRUE(upstream.wait_asked(2));
  EXPECT_EQ(status_of(gateway.post("/v1/chat/completions", body("new"))), 503);
  const std::string hit = gateway.post("/v1/chat/completions", body("known"));
  EXPECT_EQ(status_of(hit), 200);
  EXPECT_EQ(header_of(hit, "cf-aig-cache-status"), "HIT");
  upstream.answer();
  EXPECT_EQ(status_of(held.get()), 200);
}

TEST(Tiers, FastDoesNotJoinARegularCallThatWaits) {
  Gated upstream;
  RunningGateway gateway(provider(upstream.port()) +
                         "admission: {max_in_flight: 2}\n"
                         "tiers: {fast: {reserved_share: 50%}, regular: {max_wait: 20s}}\n");
  auto held = ask(gateway, "held");
  ASSERT_TRUE(upstream.wait_asked(1));
  auto waiting = ask(gateway, "same");
  ASSERT_TRUE(wait_metric(gateway, R"(ganglion_tier_waiting{tier="regular"} 1)"));
  auto fast = ask(gateway, "same", kFast);
  ASSERT_TRUE(upstream.wait_asked(2));
  EXPECT_EQ(upstream.text(1), "same");
  upstream.answer(3);
  for (auto* answer : {&held, &waiting, &fast}) EXPECT_EQ(status_of(answer->get()), 200);
}

TEST(Tiers, AClientThatLeavesTheQueueCostsNothing) {
  Gated upstream;
  RunningGateway gateway(config(upstream, "tiers: {fast: {reserved_share: 0%}, regular: {max_wait: 20s}}\n"));
  auto held = ask(gateway, "held");
  ASSERT_TRUE(upstream.wait_asked(1));
  {
    RawSocket leaver = gateway.connect();
    leaver.send(RunningGateway::request("/v1/chat/completions", body("gone")));
    ASSERT_TRUE(wait_metric(gateway, R"(ganglion_tier_waiting{tier="regular"} 1)"));
  }
  EXPECT_TRUE(wait_metric(gateway, R"(ganglion_tier_waiting{tier="regular"} 0)"));
  upstream.answer(2);
  EXPECT_EQ(status_of(held.get()), 200);
  EXPECT_EQ(upstream.asked(), 1U);
  EXPECT_EQ(gateway.records().size(), 1U);
}

}  // namespace
}  // namespace ganglion::test
