// The local engine behind the whole gateway: what is found computed is billed as cached input, and a device that fails
// costs a request another backend, not its answer.

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/unit/backends/local/engine/runners.hpp"

namespace ganglion::test {
namespace {

using metering::Outcome;

const std::string kLong =
    R"({"model":"m","max_tokens":8,"temperature":0,"messages":[{"role":"user","content":"What is a neuron, and what is )"
    R"(it that the gateway counts when it says that an answer has cost some of them?"}]})";

std::string local_model(const std::string& more = "") {
  return "local: [{name: m, path: models/demo-chat, threads: 1, weight: 1000" + more + "}]\n";
}

TEST(LocalPrefixBilling, FoundTokensCostTheCachedPriceAndOnlyTheirTenantFindsThem) {
  RunningGateway gateway(local_model() + kNoCache +
                         "tenants: [{name: red}, {name: blue}]\nkey_pepper: \"${PEPPER}\"\n"
                         "keys:\n  - {id: a, secret: \"${APP_KEY}\", tenant: red}\n"
                         "  - {id: b, secret: \"${OTHER_KEY}\", tenant: blue}\n"
                         "pricing: {models: [{model: m, input_per_1m: 1000000, cached_input_per_1m: 100000, "
                         "output_per_1m: 0}]}\n");
  const std::string red = "Authorization: Bearer sk-app\r\n", blue = "Authorization: Bearer sk-other\r\n";
  const std::string first = gateway.post("/v1/chat/completions", kLong, red);
  ASSERT_EQ(status_of(first), 200) << first;
  const std::string second = gateway.post("/v1/chat/completions", kLong, red);
  EXPECT_EQ(status_of(gateway.post("/v1/chat/completions", kLong, blue)), 200);
  EXPECT_NE(body_of(second).find("\"cached_tokens\":"), std::string::npos) << second;
  EXPECT_GT(gateway.metric("ganglion_engine_prefix_tokens_total"), 0);
  EXPECT_GT(gateway.metric("ganglion_engine_kv_pages_cached"), 0);
  EXPECT_EQ(gateway.metric("ganglion_engine_kv_pages_used"), 0);

  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 3U);
  const auto& units = records[1].units;
  EXPECT_EQ(units.cached_input_tokens, (units.input_tokens - 1) / 16 * 16);
  EXPECT_GE(units.cached_input_tokens, 16U);
  EXPECT_EQ(records[1].nano_neurons,
            static_cast<std::int64_t>((units.input_tokens - units.cached_input_tokens) * 1'000'000'000 +
                                      units.cached_input_tokens * 100'000'000));
  for (const std::size_t anew : {0U, 2U}) {
    EXPECT_EQ(records[anew].units.cached_input_tokens, 0U) << records[anew].tenant;
    EXPECT_EQ(records[anew].nano_neurons, static_cast<std::int64_t>(units.input_tokens * 1'000'000'000));
  }
  for (const auto& record : records) EXPECT_GT(record.units.gpu_us, 0U) << "engine time is in the ledger";
}

class FailingDevice : public testing::Test {
 protected:
  app::ModelLoader loader() {
    return [trouble = trouble_](const backends::LocalModelOptions& options) {
      return backends::load_local_model(options, local::failing(trouble));
    };
  }
  template <class Done>
  static bool soon(Done done) {
    for (int i = 0; i < 60'000 && !done(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return done();
  }
  std::shared_ptr<local::Trouble> trouble_ = std::make_shared<local::Trouble>();
};

TEST_F(FailingDevice, ItsRequestsAreAnsweredByAnotherBackend) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(local_model() + provider(upstream->port()) + "gateways: [{name: default, cache: {ttl: 0s}}]\n",
                         1, "127.0.0.1", {}, "", "", loader());
  trouble_->lost = true;
  trouble_->refuse_restarts = 1'000'000;
  trouble_->fail_steps = 1;
  for (int i = 0; i < 2; ++i) {  // the second is refused before it is queued
    const std::string answer = gateway.chat();
    EXPECT_EQ(status_of(answer), 200) << answer;
    EXPECT_EQ(body_of(answer), kAnswer);
  }
  EXPECT_EQ(gateway.metric("ganglion_engine_in_service"), 0);
  EXPECT_EQ(gateway.metric("ganglion_engine_device_failures_total"), 1);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 2U);
  for (const auto& record : records) {
    EXPECT_EQ(record.outcome, Outcome::completed);
    EXPECT_EQ(record.units.gpu_us, 0U);
    ASSERT_EQ(record.attempts.size(), 2U);
    EXPECT_EQ(record.attempts[0].backend, "m");
    EXPECT_EQ(record.attempts[0].reason, "no_backend");
    EXPECT_EQ(record.attempts[1].backend, "up");
    EXPECT_EQ(record.attempts[1].http_status, 200);
  }
}

TEST_F(FailingDevice, WithoutAnotherItIs503AndTheModelComesBack) {
  RunningGateway gateway(local_model() + kNoCache, 1, "127.0.0.1", {}, "", "", loader());
  ASSERT_EQ(status_of(gateway.chat()), 200);
  trouble_->lost = true;
  trouble_->fail_steps = 1;
  const std::string answer = gateway.chat();
  EXPECT_EQ(status_of(answer), 503) << answer;
  EXPECT_NE(body_of(answer).find("model_unavailable"), std::string::npos) << answer;
  ASSERT_TRUE(soon([&] { return gateway.metric("ganglion_engine_restarts_total") == 1; }));
  EXPECT_EQ(gateway.metric("ganglion_engine_in_service"), 1);
  EXPECT_EQ(status_of(gateway.chat()), 200);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[1].outcome, Outcome::gateway_error);
  EXPECT_EQ(records[1].nano_neurons, 0);
}

TEST_F(FailingDevice, AStreamUnderWayEndsWithAnErrorAndTheGatewayGoesOn) {
  RunningGateway gateway(local_model() + kNoCache, 1, "127.0.0.1", {}, "", "", loader());
  RawSocket client = gateway.connect();
  client.send(RunningGateway::request(
      "/v1/chat/completions",
      R"({"model":"m","stream":true,"max_tokens":900,"logit_bias":{"2":-100},"messages":[{"role":"user","content":"hi"}]})"));
  client.read_until("data: ");
  trouble_->fail_steps = 1;
  const std::string rest = client.read_until("\"error\"");
  EXPECT_EQ(rest.find("[DONE]"), std::string::npos);
  ASSERT_TRUE(soon([&] { return gateway.metric("ganglion_engine_requests_total", {"result=\"failed\""}) == 1; }));
  EXPECT_EQ(status_of(gateway.chat()), 200);
  EXPECT_EQ(gateway.metric("ganglion_engine_in_service"), 1) << "one failed step is not a lost device";
}

}  // namespace
}  // namespace ganglion::test
