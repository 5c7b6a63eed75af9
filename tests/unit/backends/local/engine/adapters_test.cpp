// Adapters and longrope through the engine: the golden answers, several at once, and nobody's pages for another.

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

struct Golden {
  std::vector<std::int32_t> prompt, answer;
  std::vector<float> margins;
};

std::vector<Golden> goldens(const std::string& folder) {
  std::ifstream file(model_dir(folder) + "/goldens.json");
  std::vector<Golden> out;
  const auto json = nlohmann::json::parse(file);
  for (const auto& c : json.at("cases")) {
    out.push_back({c.at("prompt_ids"), c.at("greedy_ids"), c.at("greedy_margins")});
  }
  return out;
}

// Up to the first choice that rounding may decide.
void expect_golden(const std::vector<std::int32_t>& got, const Golden& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.answer.size()) << what;
  for (std::size_t i = 0; i < got.size() && want.margins[i] > 1e-3f; ++i)
    EXPECT_EQ(got[i], want.answer[i]) << what << " " << i;
}

std::unique_ptr<Engine> with_adapters() {
  EngineOptions options;
  for (const char* name : {"all_linears", "query_value_rslora", "mixed_ranks"}) {
    options.adapters.push_back({name, model_dir("lora/llama2_tiny." + std::string(name))});
  }
  return load_engine("llama2_tiny", options);
}

GenerateRequest ask(const std::vector<std::int32_t>& prompt, std::size_t tokens, const std::string& adapter) {
  auto request = greedy(prompt, static_cast<int>(tokens));
  request.adapter = adapter;
  request.prefix_space = "tenant";
  return request;
}

TEST(EngineAdapters, AnswerTogetherAsTheirMergedWeightsDo) {
  const auto engine = with_adapters();
  ASSERT_NE(engine, nullptr);
  struct Running {
    std::string what;
    Golden golden;
    std::shared_ptr<KeepingSink> sink;
  };
  std::vector<Running> all;
  for (const char* name : {"all_linears", "query_value_rslora", "mixed_ranks", ""}) {
    const std::string folder = *name == 0 ? "llama2_tiny" : "lora/llama2_tiny." + std::string(name);
    for (const Golden& golden : goldens(folder)) {
      auto sink = std::make_shared<KeepingSink>();
      ASSERT_TRUE(engine->submit(ask(golden.prompt, golden.answer.size(), name), sink));
      all.push_back({folder, golden, sink});
    }
  }
  for (const Running& r : all) expect_golden(r.sink->wait().tokens, r.golden, r.what);
}

TEST(EngineAdapters, PagesAreNotFoundByAnotherAdapter) {
  const auto engine = with_adapters();
  ASSERT_NE(engine, nullptr);
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < 70; ++i) prompt.push_back(3 + i * 31 % 600);
  for (const char* adapter : {"", "all_linears", "mixed_ranks"}) {
    const auto first = generate(*engine, ask(prompt, 5, adapter));
    EXPECT_EQ(first.last.usage.cached_prompt_tokens, 0) << adapter;
    const auto second = generate(*engine, ask(prompt, 5, adapter));
    EXPECT_EQ(second.last.usage.cached_prompt_tokens, 64) << adapter;
    EXPECT_EQ(second.tokens, first.tokens) << adapter;
  }
}

TEST(EngineAdapters, AnUnknownOneIsRefused) {
  const auto engine = with_adapters();
  ASSERT_NE(engine, nullptr);
  const auto handle = engine->submit(ask({1, 2, 3}, 1, "no such"), std::make_shared<KeepingSink>());
  ASSERT_FALSE(handle);
  EXPECT_EQ(handle.error().kind, core::ErrorKind::model_not_found);
  EXPECT_EQ(handle.error().param, "lora");
}

TEST(EngineAdapters, AFolderThatIsNoneFailsTheLoad) {
  EngineOptions options;
  options.dir = model_dir("llama2_tiny");
  options.adapters = {{"x", model_dir("llama2_tiny")}};
  const auto engine = Engine::load(options);
  ASSERT_FALSE(engine);
  EXPECT_NE(engine.error().message.find("adapter_config.json"), std::string::npos) << engine.error().message;
}

TEST(EngineLongrope, ShortAndLongPromptsAnswerAsTransformersDoes) {
  for (const char* model : {"phi3_tiny", "phi3_partial_tiny"}) {
    const auto engine = load_engine(model, {.kv_type = KvType::f32});
    ASSERT_NE(engine, nullptr);
    for (const Golden& golden : goldens(model)) {
      const auto got = generate(*engine, ask(golden.prompt, golden.answer.size(), ""));
      expect_golden(got.tokens, golden, model);
    }
  }
}

// An answer that grows past the positions that the model was first made for goes on as one that was long from the
// start: the next token is that of the whole sequence asked anew.
TEST(EngineLongrope, AnAnswerThatBecomesLongIsComputedAnew) {
  const auto engine = load_engine("phi3_tiny", {.kv_type = KvType::f32});
  ASSERT_NE(engine, nullptr);
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < 60; ++i) prompt.push_back(3 + i * 31 % 600);
  for (const char* space : {"tenant", ""}) {
    auto request = ask(prompt, 16, "");
    request.prefix_space = space;
    const auto whole = generate(*engine, std::move(request));
    ASSERT_EQ(whole.tokens.size(), 16u);
    auto sequence = prompt;
    for (std::size_t i = 0; i < whole.tokens.size(); ++i) {
      auto one = ask(sequence, 1, "");
      one.prefix_space = "";
      EXPECT_EQ(generate(*engine, std::move(one)).tokens.at(0), whole.tokens[i]) << "token " << sequence.size();
      sequence.push_back(whole.tokens[i]);
    }
  }
  EXPECT_EQ(engine->stats().kv_pages_used_now, 0);
}

}  // namespace
}  // namespace ganglion::local
