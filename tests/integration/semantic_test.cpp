// The semantic cache through the whole gateway, with a tiny BERT as embedder. Its weights are random, so its cosines
// mean nothing: what is tested is what may be served to whom, not how good a model is.

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/integration/harness.hpp"
#include "tests/support/scripted_upstream.hpp"
#include "tests/support/temp_dir.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;

// Answers each call with a text of its own; embeddings, where asked for them, after `embedding_delay`.
class Numbering {
 public:
  Numbering()
      : upstream_({[this](RawSocket& socket) {
          for (;;) {
            const std::string request = upstream_.read_request(socket);
            if (request.empty()) return;
            if (request.starts_with("POST /v1/embeddings")) {
              std::this_thread::sleep_for(embedding_delay.load());
              if (!socket.send(http_ok(R"({"data":[{"index":0,"embedding":[0.6,0.8]}],"usage":{"prompt_tokens":5}})")))
                return;
              continue;
            }
            const std::string text = "answer " + std::to_string(++calls) + std::string(padding, 'x');
            if (!socket.send(http_ok(
                    R"({"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":")" +
                    text +
                    R"("},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}})")))
              return;
          }
        }}) {}
  std::uint16_t port() const { return upstream_.port(); }
  std::atomic<int> calls{0};
  std::atomic<std::size_t> padding{0};
  std::atomic<std::chrono::milliseconds> embedding_delay{0ms};

 private:
  ScriptedUpstream upstream_;
};

std::string config(const Numbering& upstream, const std::string& semantic, const std::string& more = "") {
  return "providers:\n  - {name: up, base_url: \"http://127.0.0.1:" + std::to_string(upstream.port()) +
         "/v1\", models: [m, other, remote-embedder]}\n"
         "local: [{name: embedder, path: \"" +
         std::filesystem::absolute(std::string{GANGLION_SOURCE_DIR} + "/tests/data/local/bert_tiny").string() +
         "\", threads: 1}]\n"
         "key_pepper: \"${PEPPER}\"\n"
         "keys:\n  - {id: app, secret: \"${APP_KEY}\", tenant: acme}\n"
         "  - {id: other, secret: \"${OTHER_KEY}\", tenant: globex}\n"
         "tenants: [{name: acme}, {name: globex}]\n"
         "gateways: [{name: default, cache: {ttl: 300s, semantic: {timeout: 10s, " +
         semantic + "}}}]\n" + more;
}

constexpr const char* kApp = "Authorization: Bearer sk-app\r\n";
constexpr const char* kOther = "Authorization: Bearer sk-other\r\n";

std::string question(const std::string& text, const std::string& extra = "", const std::string& before = "",
                     const std::string& model = "m") {
  return R"({"model":")" + model + R"(","temperature":0,)" + extra + R"("messages":[)" + before +
         R"({"role":"user","content":")" + text + R"("}]})";
}

class SemanticTest : public testing::Test {
 protected:
  void run(const std::string& semantic, const std::string& more = "") {
    gateway = std::make_unique<RunningGateway>(config(upstream, semantic, more));
  }
  std::string ask(const std::string& body, const std::string& headers = kApp) {
    return gateway->post("/v1/chat/completions", body, headers);
  }
  // The score of a semantic hit; "" for any other answer.
  static std::string score_of(const std::string& answer) {
    const std::string value = header_of(answer, "x-ganglion-cache");
    const std::string prefix = "semantic; score=";
    return value.starts_with(prefix) ? value.substr(prefix.size()) : "";
  }
  // Asks, and waits until the answer can be found by similar questions.
  std::string store(const std::string& body) {
    const std::string answer = ask(body);
    EXPECT_EQ(status_of(answer), 200) << answer;
    for (int i = 0; i < 60'000 && metric("ganglion_semantic_entries 0"); ++i) std::this_thread::sleep_for(1ms);
    return answer;
  }
  nlohmann::json looks() {
    return nlohmann::json::parse(body_of(gateway->get("/admin/cache/semantic", true)))["looks"];
  }
  // Stops the gateway and starts it again over the same directory.
  void restart(const std::string& semantic, const std::string& more) {
    const std::string directory = gateway->keep_directory();
    gateway = std::make_unique<RunningGateway>(config(upstream, semantic, more), 1, "127.0.0.1", directory);
  }
  bool metric(const std::string& line) {
    return gateway->get("/metrics", true).find("\n" + line + "\n") != std::string::npos;
  }

  Numbering upstream;
  std::unique_ptr<RunningGateway> gateway;
};

TEST_F(SemanticTest, AQuestionThatMeansTheSameGetsTheStoredAnswer) {
  run("embedding_model: embedder, threshold: 0.5");
  const std::string first = store(question("why is the sky blue?"));
  EXPECT_EQ(header_of(first, "cf-aig-cache-status"), "MISS");
  const std::string second = ask(question("why is the sky so blue?"));
  EXPECT_EQ(header_of(second, "cf-aig-cache-status"), "HIT");
  EXPECT_NE(score_of(second), "") << second;
  EXPECT_EQ(body_of(second), body_of(first)) << "byte for byte";
  EXPECT_EQ(header_of(second, "x-neurons"), "0");
  // The same words again are the exact cache's business.
  EXPECT_EQ(header_of(ask(question("why is the sky blue?")), "x-ganglion-cache"), "");
  EXPECT_EQ(upstream.calls, 1);
  EXPECT_TRUE(metric(R"(ganglion_semantic_lookups_total{result="hit"} 1)"));
  EXPECT_TRUE(metric(R"(ganglion_semantic_lookups_total{result="empty"} 1)"));
  EXPECT_TRUE(metric(R"(ganglion_semantic_score_count{outcome="hit"} 1)"));
  EXPECT_TRUE(metric("ganglion_semantic_entries 1"));
  const auto records = gateway->records();
  ASSERT_EQ(records.size(), 3U) << "the embeddings are on nobody's bill";
  EXPECT_EQ(std::ranges::count(records, metering::Outcome::cache_hit, &metering::LedgerRecord::outcome), 2);
}

TEST_F(SemanticTest, OffUnlessAModelIsNamed) {
  gateway = std::make_unique<RunningGateway>(config(upstream, "threshold: 0.5"));
  ask(question("why is the sky blue?"));
  EXPECT_EQ(header_of(ask(question("why is the sky so blue?")), "cf-aig-cache-status"), "MISS");
  EXPECT_EQ(upstream.calls, 2);
}

// Every neighbour below is nearer than the threshold; none may be served.
TEST_F(SemanticTest, NeverAcrossTenantsModelsOrContexts) {
  run("embedding_model: embedder, threshold: 0.5, max_length_difference: 100%");
  store(question("why is the sky blue?"));
  std::set<std::string> bodies;
  const std::string like = "why is the sky so blue?";
  const std::vector<std::pair<std::string, std::string>> others = {
      {question(like), kOther},
      {question(like, "", "", "other"), kApp},
      {question(like, "", R"({"role":"system","content":"answer in French"},)"), kApp},
      {question(like, "", R"({"role":"user","content":"a"},{"role":"assistant","content":"b"},)"), kApp},
      {question(like, R"("max_tokens":7,)"), kApp},
      {question(like, R"("user":"mallory",)"), kApp},
      {question(like, R"("seed":1,)"), kApp},
      {question(like, R"("tools":[{"type":"function","function":{"name":"f"}}],)"), kApp},
      {question(like, R"("response_format":{"type":"json_object"},)"), kApp},
      {question(like, R"("logprobs":true,)"), kApp},
      {question(like, R"("n":2,)"), kApp},
      {R"({"model":"m","temperature":0.9,"messages":[{"role":"user","content":"why is the sky so blue?"}]})", kApp},
      {R"({"model":"m","messages":[{"role":"user","content":"why is the sky so blue?"}]})", kApp},
  };
  for (const auto& [body, key] : others) {
    const std::string answer = ask(body, key);
    EXPECT_EQ(status_of(answer), 200) << answer;
    EXPECT_EQ(header_of(answer, "cf-aig-cache-status"), "MISS") << body;
    EXPECT_TRUE(bodies.insert(body_of(answer)).second) << "an answer that someone else had: " << body;
  }
  EXPECT_NE(score_of(ask(question(like))), "") << "the right one is served";
}

// F25: crafted neighbours of two tenants, in turns, many of them.
TEST_F(SemanticTest, TwoTenantsWithTheSameQuestionsNeverMeet) {
  run("embedding_model: embedder, threshold: 0.5, max_length_difference: 100%, same_numbers: false");
  std::map<std::string, std::set<std::string>> seen;  // answers by tenant
  for (int i = 0; i < 60; ++i) {
    const std::string text = std::string(i % 3 == 0 ? " " : "") + "question number " + std::to_string(i / 2) +
                             std::string(i % 5 == 0 ? "?" : " ");
    for (const char* key : {kApp, kOther}) seen[key].insert(body_of(ask(question(text), key)));
  }
  for (const std::string& answer : seen[kApp]) EXPECT_FALSE(seen[kOther].contains(answer));
  for (const auto& look : looks()) EXPECT_NE(look["result"], "gone");
}

TEST_F(SemanticTest, OtherNumbersAndOtherLengthsAreRefusedAndShown) {
  run("embedding_model: embedder, threshold: 0.5, max_length_difference: 20%",
      "cache: {semantic: {show_texts: true}}\n");
  store(question("what is 17 times 3?"));
  EXPECT_EQ(score_of(ask(question("what is 17 times 4?"))), "");
  EXPECT_EQ(score_of(ask(question("what is 17 times 3, and why is it that, in so many words?"))), "");
  EXPECT_EQ(upstream.calls, 3);
  const auto shown = looks();
  ASSERT_EQ(shown.size(), 2U);
  EXPECT_EQ(shown[0]["result"], "length");
  EXPECT_EQ(shown[1]["result"], "numbers");
  EXPECT_EQ(shown[1]["asked"], "what is 17 times 4?");
  EXPECT_EQ(shown[1]["stored"], "what is 17 times 3?");
  EXPECT_EQ(shown[1]["tenant"], "acme");
  EXPECT_NE(shown[1]["asked_digest"], shown[1]["stored_digest"]);
}

TEST_F(SemanticTest, TextsAreNotShownUnlessTheOperatorAsks) {
  run("embedding_model: embedder, threshold: 0.5");
  store(question("secret one"));
  ask(question("secret two"));
  const std::string page = gateway->get("/admin/cache/semantic", true);
  EXPECT_EQ(page.find("secret"), std::string::npos) << page;
  EXPECT_NE(page.find("asked_digest"), std::string::npos);
}

TEST_F(SemanticTest, TheThresholdDecidesAndANearMissSaysByHowMuch) {
  run("embedding_model: embedder, threshold: 0.5");
  store(question("why is the sky blue?"));
  const std::string score = score_of(ask(question("why is the sky so blue?")));
  ASSERT_NE(score, "");
  const double value = std::stod(score);
  for (const bool above : {false, true}) {
    const double threshold = std::min(value + (above ? 0.001 : -0.001), 1.0);
    run("embedding_model: embedder, threshold: " + std::to_string(threshold));
    store(question("why is the sky blue?"));
    EXPECT_EQ(score_of(ask(question("why is the sky so blue?"))) == "", above) << threshold;
    ASSERT_EQ(looks().size(), 1U);
    EXPECT_EQ(looks()[0]["result"], above ? "too_far" : "hit");
    EXPECT_NEAR(looks()[0]["score"].get<double>(), value, 1e-4);
  }
}

TEST_F(SemanticTest, AProvidersEmbeddingsServeAsWell) {
  run("embedding_model: remote-embedder, threshold: 0.9");
  store(question("why is the sky blue?"));
  EXPECT_EQ(score_of(ask(question("why is the sky so blue?"))), "1.0000");
  EXPECT_TRUE(metric(R"(ganglion_semantic_embedding_tokens_total{model="remote-embedder"} 10)"));
}

TEST_F(SemanticTest, ALateEmbeddingIsAPlainMissAndHoldsUpNobodyElse) {
  upstream.embedding_delay = 4s;
  gateway = std::make_unique<RunningGateway>([&] {
    std::string yaml = config(upstream, "embedding_model: remote-embedder, threshold: 0.9");
    return yaml.replace(yaml.find("timeout: 10s"), 12, "timeout: 30ms");
  }());
  const auto began = std::chrono::steady_clock::now();
  const std::string answer = ask(question("why is the sky blue?"));
  EXPECT_EQ(status_of(answer), 200);
  EXPECT_EQ(header_of(answer, "cf-aig-cache-status"), "MISS");
  EXPECT_LT(std::chrono::steady_clock::now() - began, 3900ms);
  EXPECT_TRUE(metric(R"(ganglion_semantic_lookups_total{result="timed_out"} 1)"));
  EXPECT_TRUE(metric("ganglion_semantic_entries 0"));
}

TEST_F(SemanticTest, AStreamIsServedFromASimilarQuestionsAnswer) {
  run("embedding_model: embedder, threshold: 0.5");
  store(question("why is the sky blue?"));
  const std::string streamed = ask(question("why is the sky so blue?", R"("stream":true,)"));
  EXPECT_NE(score_of(streamed), "") << streamed;
  EXPECT_NE(streamed.find("answer 1"), std::string::npos);
  EXPECT_NE(streamed.find("data: [DONE]"), std::string::npos);
}

TEST_F(SemanticTest, AnAnswerThatLeftTheCacheIsForgottenHereToo) {
  upstream.padding = 4'000;
  run("embedding_model: embedder, threshold: 0.5, max_length_difference: 100%, same_numbers: false",
      "cache: {max_memory: 1MiB, max_entry: 64KiB, shards: 1}\n");
  store(question("why is the sky blue?"));
  // Others push it out of the cache while the index still knows it. They have keys of their own, so it ignores them.
  for (int i = 0; i < 600; ++i) {
    ask(question("filler"), std::string{kApp} + "cf-aig-cache-key: filler-" + std::to_string(i) + "\r\n");
  }
  const int before = upstream.calls;
  const std::string again = ask(question("why is the sky so blue?"));
  EXPECT_EQ(header_of(again, "cf-aig-cache-status"), "MISS");
  EXPECT_EQ(upstream.calls, before + 1);
  EXPECT_TRUE(metric(R"(ganglion_semantic_lookups_total{result="gone"} 1)"));
}

TEST(SemanticConfig, AnUnknownEmbeddingModelIsRefused) {
  const auto config = config::load_text(
      "providers: [{name: up, base_url: \"http://127.0.0.1:1/v1\", models: [m]}]\n"
      "gateways: [{name: default, cache: {semantic: {embedding_model: nobody}}}]\n",
      "test.yaml", {});
  ASSERT_FALSE(config);
  EXPECT_NE(config::format(config.error()).find("there is no model `nobody`"), std::string::npos);
}

class SemanticRestartTest : public SemanticTest {
 protected:
  ~SemanticRestartTest() override { gateway.reset(); }
  bool eventually(const std::string& line) {
    for (int i = 0; i < 60'000 && !metric(line); ++i) std::this_thread::sleep_for(1ms);
    return metric(line);
  }
  const TempDir directory;
  const std::string disk = "cache: {disk: {path: \"" + directory.path() + "/c\"}}\n";
  const std::string kSemantic = "embedding_model: embedder, threshold: 0.5";
};

TEST_F(SemanticRestartTest, SimilarQuestionsFindTheAnswersOnDiskAfterARestart) {
  run(kSemantic, disk);
  const std::string first = store(question("why is the sky blue?"));
  restart(kSemantic, disk);
  ASSERT_TRUE(eventually("ganglion_semantic_entries 1"));
  EXPECT_TRUE(eventually("ganglion_cache_entries 0"));
  const std::string second = ask(question("why is the sky so blue?"));
  EXPECT_EQ(header_of(second, "cf-aig-cache-status"), "HIT");
  EXPECT_NE(score_of(second), "") << second;
  EXPECT_EQ(body_of(second), body_of(first)) << "byte for byte";
  EXPECT_EQ(upstream.calls, 1);
  // Partitions hold as before: another tenant, another system prompt.
  EXPECT_EQ(header_of(ask(question("why is the sky so blue?"), kOther), "cf-aig-cache-status"), "MISS");
  EXPECT_EQ(header_of(ask(question("why is the sky so blue?", "\"max_tokens\":5,")), "cf-aig-cache-status"), "MISS");
}

TEST_F(SemanticRestartTest, WhatWasPurgedStaysPurgedAndAnotherEmbedderBeginsAnew) {
  run(kSemantic, disk);
  store(question("why is the sky blue?"));
  RawSocket admin = gateway->connect_admin();
  admin.send(RunningGateway::request("/admin/cache/purge", R"({"tenant":"acme"})"));
  EXPECT_EQ(status_of(admin.read_message()), 200);
  restart(kSemantic, disk);
  ASSERT_TRUE(eventually("ganglion_semantic_entries 1"));
  EXPECT_EQ(header_of(ask(question("why is the sky so blue?")), "cf-aig-cache-status"), "MISS");
  EXPECT_TRUE(metric(R"(ganglion_semantic_lookups_total{result="gone"} 1)"));
  EXPECT_EQ(upstream.calls, 2);
  restart("embedding_model: remote-embedder, threshold: 0.5", disk);
  ASSERT_TRUE(eventually("ganglion_semantic_entries 2"));
  EXPECT_EQ(header_of(ask(question("why is the sky very blue?")), "cf-aig-cache-status"), "MISS");
  EXPECT_TRUE(metric(R"(ganglion_semantic_lookups_total{result="empty"} 1)"))
      << "another model's vectors are not compared";
}

}  // namespace
}  // namespace ganglion::test
