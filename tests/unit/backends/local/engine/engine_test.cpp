// What comes out: golden continuations, usage, finish reasons, stops, seeds, log-probabilities, batches.

#include "backends/local/engine/engine.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/temp_dir.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

struct Golden {
  std::vector<std::int32_t> prompt, greedy;
};
std::vector<Golden> goldens(const std::string& model) {
  std::ifstream file(model_dir(model) + "/goldens.json");
  std::vector<Golden> out;
  for (const auto& c : nlohmann::json::parse(file).at("cases")) {
    out.push_back(
        {c.at("prompt_ids").get<std::vector<std::int32_t>>(), c.at("greedy_ids").get<std::vector<std::int32_t>>()});
  }
  return out;
}

class EngineGoldens : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, EngineGoldens,
                         testing::Values("llama2_tiny", "llama3_tiny", "mistral_tiny", "qwen2_tiny", "qwen3_tiny"),
                         [](const auto& info) { return std::string(info.param); });

// The result of a request is exact: the same tokens alone, in a batch, and through small pages and chunks.
TEST_P(EngineGoldens, GreedyContinuationsAloneAndTogether) {
  const auto cases = goldens(GetParam());
  for (const EngineOptions& options :
       {EngineOptions{.batch_max = 1}, EngineOptions{.batch_max = 8, .step_tokens_max = 8}}) {
    auto engine = load_engine(GetParam(), options);
    ASSERT_NE(engine, nullptr);
    std::vector<std::shared_ptr<KeepingSink>> sinks;
    for (int copy = 0; copy < 2; ++copy) {
      for (const Golden& g : cases) {
        sinks.push_back(std::make_shared<KeepingSink>());
        auto request = greedy(g.prompt, static_cast<int>(g.greedy.size()));
        request.sampling.logprobs = true;
        ASSERT_TRUE(engine->submit(std::move(request), sinks.back()));
      }
    }
    for (std::size_t i = 0; i < sinks.size(); ++i) {
      const Golden& g = cases[i % cases.size()];
      const auto out = sinks[i]->wait();
      EXPECT_EQ(out.tokens, g.greedy) << "case " << i;
      EXPECT_EQ(out.logprobs.size(), g.greedy.size());
      EXPECT_EQ(out.text, engine->tokenizer().decode(g.greedy, true));
      EXPECT_EQ(out.last.finish, FinishReason::length);
      EXPECT_EQ(out.last.usage.prompt_tokens, static_cast<int>(g.prompt.size()));
      EXPECT_EQ(out.last.usage.completion_tokens, static_cast<int>(g.greedy.size()));
      EXPECT_EQ(out.last.usage.cached_prompt_tokens, 0);
    }
  }
}

class EngineTest : public testing::Test {
 protected:
  void SetUp() override {
    engine_ = load_engine("llama3_tiny", {.batch_max = 4});
    ASSERT_NE(engine_, nullptr);
    golden_ = goldens("llama3_tiny").front();
  }
  std::unique_ptr<Engine> engine_;
  Golden golden_;
};

TEST_F(EngineTest, TextIsStreamedInSeveralEvents) {
  const auto out = generate(*engine_, greedy(golden_.prompt, 20));
  EXPECT_GT(out.events, 5);
}

TEST_F(EngineTest, AStopTokenEndsTheAnswerAndCounts) {
  auto request = greedy(golden_.prompt, 20);
  request.stop_token_ids = {golden_.greedy[5]};
  const auto out = generate(*engine_, request);
  EXPECT_EQ(out.last.finish, FinishReason::stop);
  EXPECT_EQ(out.tokens, std::vector(golden_.greedy.begin(), golden_.greedy.begin() + 5));
  EXPECT_EQ(out.last.usage.completion_tokens, 6);
}

TEST_F(EngineTest, TheModelsEndTokenEndsTheAnswerUnlessIgnored) {
  const std::int32_t end = engine_->config().eos_ids.at(0);
  auto request = greedy(golden_.prompt, 3);
  request.sampling.logit_bias = {{end, 100.0f}};
  auto out = generate(*engine_, request);  // ignore_eos
  EXPECT_EQ(out.last.finish, FinishReason::length);
  EXPECT_EQ(out.tokens, std::vector<std::int32_t>(3, end));
  EXPECT_EQ(out.text, "");  // a special token has no text
  request.ignore_eos = false;
  out = generate(*engine_, request);
  EXPECT_EQ(out.last.finish, FinishReason::stop);
  EXPECT_TRUE(out.tokens.empty());
  EXPECT_EQ(out.last.usage.completion_tokens, 1);
}

TEST(EngineEnds, AModelThatNamesNoEndTokenEndsWithItsTokenizers) {
  const test::TempDir dir;
  std::filesystem::copy(model_dir("llama2_tiny"), dir.path());
  std::filesystem::remove(dir / "generation_config.json");
  std::ifstream file(model_dir("llama2_tiny") + "/config.json");
  auto config = nlohmann::json::parse(file);
  config.erase("eos_token_id");
  std::ofstream(dir / "config.json") << config;
  auto engine = Engine::load({.dir = dir.path()});
  ASSERT_TRUE(engine) << engine.error().message;
  ASSERT_TRUE((*engine)->config().eos_ids.empty());
  const auto end = (*engine)->tokenizer().eos_id();
  ASSERT_TRUE(end);
  auto request = greedy(goldens("llama2_tiny").front().prompt, 3);
  request.sampling.logit_bias = {{*end, 100.0f}};
  request.ignore_eos = false;
  const auto out = generate(**engine, request);
  EXPECT_EQ(out.last.finish, FinishReason::stop);
  EXPECT_EQ(out.last.usage.completion_tokens, 1);
}

// Whoever leaves before the first token is known to have cost as much as the steps until then.
TEST(EngineCharge, TimeIsToldAfterEachStepAndNotWithTokensAlone) {
  struct ChargeSink final : KeepingSink {
    void on_charge(std::int64_t engine_us) noexcept override { charges.push_back(engine_us); }
    std::vector<std::int64_t> charges;
  };
  auto engine = load_engine("llama3_tiny", {.batch_max = 1, .step_tokens_max = 8});
  ASSERT_NE(engine, nullptr);
  const auto sink = std::make_shared<ChargeSink>();
  ASSERT_TRUE(engine->submit(greedy(std::vector<std::int32_t>(40, 5), 1), sink));
  const auto out = sink->wait();
  ASSERT_EQ(sink->charges.size(), 5U) << "40 tokens, 8 a step";
  EXPECT_TRUE(std::ranges::is_sorted(sink->charges));
  EXPECT_GT(sink->charges.front(), 0);
  EXPECT_EQ(sink->charges.back(), out.last.usage.engine_us);
}

TEST_F(EngineTest, StopStringsAreCutOutWhereverTheyFall) {
  const auto whole = generate(*engine_, greedy(golden_.prompt, 20));
  const std::string& text = whole.text;
  ASSERT_GT(text.size(), 12u);
  for (std::size_t at = 1; at + 3 < text.size(); ++at) {
    if ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80 ||
        (static_cast<unsigned char>(text[at + 3]) & 0xC0) == 0x80)
      continue;
    auto request = greedy(golden_.prompt, 20);
    request.stop = {text.substr(at, 3)};
    const auto out = generate(*engine_, request);
    EXPECT_EQ(out.text, text.substr(0, text.find(request.stop[0])));
    EXPECT_EQ(out.last.finish, FinishReason::stop);
    EXPECT_LE(out.last.usage.completion_tokens, 20);
  }
}

TEST_F(EngineTest, EqualSeedsGiveEqualAnswersWhateverElseRuns) {
  auto request = greedy(golden_.prompt, 24);
  request.sampling.temperature = 1.5f;
  request.sampling.seed = 42;
  const auto alone = generate(*engine_, request);
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 6; ++i) {
    auto other = request;
    if (i != 2) {
      other.sampling.seed = 100 + i;
      other.prompt.resize(1 + static_cast<std::size_t>(i));
    }
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine_->submit(other, sinks.back()));
  }
  const auto together = sinks[2]->wait();
  EXPECT_EQ(together.text, alone.text);
  EXPECT_EQ(together.tokens, alone.tokens);
  EXPECT_NE(sinks[3]->wait().tokens, alone.tokens);
  request.sampling.seed = 43;
  EXPECT_NE(generate(*engine_, request).tokens, alone.tokens);
}

TEST_F(EngineTest, WithoutASeedAnswersDiffer) {
  auto request = greedy(golden_.prompt, 24);
  request.sampling.temperature = 1.5f;
  EXPECT_NE(generate(*engine_, request).tokens, generate(*engine_, request).tokens);
}

TEST_F(EngineTest, LogprobsNameTheTokensAndTheirBytes) {
  auto request = greedy(golden_.prompt, 8);
  request.sampling.logprobs = true;
  request.sampling.top_logprobs = 5;
  const auto out = generate(*engine_, request);
  ASSERT_EQ(out.logprobs.size(), 8u);
  for (std::size_t i = 0; i < 8; ++i) {
    const TokenLogprobs& l = out.logprobs[i];
    EXPECT_EQ(l.chosen.id, golden_.greedy[i]);
    EXPECT_EQ(l.chosen.bytes, engine_->tokenizer().token_bytes(golden_.greedy[i]));
    ASSERT_EQ(l.top.size(), 5u);
    EXPECT_EQ(l.top[0].id, l.chosen.id);  // greedy
    EXPECT_EQ(l.top[0].logprob, l.chosen.logprob);
    double sum = 0;
    for (std::size_t j = 0; j < 5; ++j) {
      sum += std::exp(l.top[j].logprob);
      if (j > 0) {
        EXPECT_LE(l.top[j].logprob, l.top[j - 1].logprob);
      }
    }
    EXPECT_LE(sum, 1.0001);
  }
}

TEST_F(EngineTest, PenaltiesReachTheSampler) {
  // A penalty that forbids repeats: all tokens differ.
  auto request = greedy({golden_.prompt[0]}, 60);
  request.sampling.frequency_penalty = 2.0f;
  request.sampling.presence_penalty = 2.0f;
  auto out = generate(*engine_, request);
  std::sort(out.tokens.begin(), out.tokens.end());
  const auto repeats = out.tokens.end() - std::unique(out.tokens.begin(), out.tokens.end());
  auto plain = generate(*engine_, greedy({golden_.prompt[0]}, 60));
  std::sort(plain.tokens.begin(), plain.tokens.end());
  EXPECT_LT(repeats, plain.tokens.end() - std::unique(plain.tokens.begin(), plain.tokens.end()));
}

TEST_F(EngineTest, ZeroMaxTokensRunsToTheEndOfTheContext) {
  auto request = greedy(golden_.prompt, 0);
  const auto out = generate(*engine_, request);
  EXPECT_EQ(out.last.finish, FinishReason::length);
  EXPECT_EQ(out.last.usage.completion_tokens + out.last.usage.prompt_tokens, engine_->context_max());
}

TEST_F(EngineTest, StatsCountWhatWasDone) {
  const auto before = engine_->stats();
  generate(*engine_, greedy(golden_.prompt, 7));
  EngineStats after = engine_->stats();
  for (int i = 0; i < 1000 && after.running_now[0] != 0; ++i) {  // published just after the last event
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    after = engine_->stats();
  }
  EXPECT_EQ(after.generated_tokens - before.generated_tokens, 7u);
  EXPECT_EQ(after.prompt_tokens - before.prompt_tokens, golden_.prompt.size());
  EXPECT_EQ(after.steps - before.steps, 7u);
  EXPECT_EQ(after.finished - before.finished, 1u);
  EXPECT_GT(after.step_seconds, before.step_seconds);
  EXPECT_EQ(after.kv_pages_used_now, 0);
  EXPECT_GT(after.kv_pages_total, 0);
}

TEST(Engine, Int8AnswersCloseToFullPrecision) {
  auto engine = load_engine("llama3_tiny", {.quantize = Quantize::int8});
  ASSERT_NE(engine, nullptr);
  const auto g = goldens("llama3_tiny").front();
  auto request = greedy(g.prompt, 1);
  request.sampling.logprobs = true;
  request.sampling.top_logprobs = 3;
  const auto out = generate(*engine, request);
  ASSERT_EQ(out.logprobs.size(), 1u);
  bool near = false;
  for (const auto& top : out.logprobs[0].top) near = near || top.id == g.greedy[0];
  EXPECT_TRUE(near);
}

TEST(Engine, LoadErrorsNameTheProblem) {
  EXPECT_FALSE(Engine::load({.dir = model_dir("no_such_model")}));
  const auto bert = Engine::load({.dir = model_dir("bert_tiny")});
  ASSERT_FALSE(bert);
  EXPECT_EQ(bert.error().kind, core::ErrorKind::unsupported);
  const auto small = Engine::load({.dir = model_dir("llama3_tiny"), .kv_bytes = 10});
  ASSERT_FALSE(small);
  EXPECT_NE(small.error().message.find("kv_bytes"), std::string::npos);
}

}  // namespace
}  // namespace ganglion::local
