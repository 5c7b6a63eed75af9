// Guessing ahead: answers are the same with and without, whatever the request asks for, and steps are fewer where text
// repeats itself.

#include "backends/local/engine/speculation.hpp"

#include <cmath>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "backends/local/grammar/compile.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"
#include "tests/unit/backends/local/engine/runners.hpp"
#include "tests/unit/backends/local/engine/sampled.hpp"

namespace ganglion::local {
namespace {

using Ids = std::vector<std::int32_t>;

TEST(PromptLookup, FindsWhatFollowedTheLongestAndLatestRun) {
  PromptLookup lookup;
  EXPECT_EQ(lookup.guess(Ids{1, 2, 3, 4, 9, 1, 2}, 4), (Ids{3, 4, 9, 1}));
  EXPECT_EQ(lookup.guess(Ids{1, 2, 3, 4, 9, 1, 2}, 2), (Ids{3, 4}));
  EXPECT_EQ(lookup.guess(Ids{1, 2, 3, 4, 9, 1, 2, 5, 8, 1, 2}, 3), (Ids{5, 8, 1})) << "the latest";
  EXPECT_EQ(lookup.guess(Ids{1, 2, 3, 4, 9, 1, 2, 5, 8, 1, 2, 3, 4, 9}, 2), (Ids{1, 2})) << "the longest";
  EXPECT_TRUE(lookup.guess(Ids{1, 2, 3, 4, 9, 1, 2, 5, 8, 1, 2, 3, 4, 9, 77}, 4).empty());
  PromptLookup fresh;
  EXPECT_TRUE(fresh.guess(Ids{}, 4).empty());
  EXPECT_TRUE(fresh.guess(Ids{5}, 4).empty());
  EXPECT_TRUE(fresh.guess(Ids{5, 5}, 4).empty());
  EXPECT_EQ(fresh.guess(Ids{5, 5, 5}, 4), (Ids{5}));
  EXPECT_TRUE(fresh.guess(Ids{5, 5, 5, 5}, 0).empty());
}

TEST(GuessLength, GrowsWithSuccessAndPausesWithoutIt) {
  GuessLength length(8);
  EXPECT_EQ(length.next(), 2);
  length.learn(2, 2);
  EXPECT_EQ(length.next(), 4);
  length.learn(4, 4);
  length.learn(8, 8);
  EXPECT_EQ(length.next(), 8);
  length.learn(8, 3);
  EXPECT_EQ(length.next(), 4);
  int guessed = 0;
  for (int step = 0; step < 2'000; ++step) {
    const int n = length.next();
    guessed += n;
    length.learn(n, 0);
  }
  EXPECT_LT(guessed, 120) << "what is never right is tried ever more rarely";
  EXPECT_GT(guessed, 5);
  EXPECT_EQ(GuessLength(1).next(), 1);
  EXPECT_EQ(GuessLength(0).next(), 0);
}

EngineOptions guessing(EngineOptions options = {}) {
  options.speculation = Speculation::prompt_lookup;
  return options;
}

// A prompt that repeats itself, and what makes a model repeat what it has said.
GenerateRequest repetitive(Engine& engine, int max_tokens) {
  GenerateRequest r = greedy(
      engine.tokenizer().encode("the cat sat on the mat, the cat sat on the mat, the cat sat", true), max_tokens);
  return r;
}

void expect_same(const KeepingSink::Outcome& a, const KeepingSink::Outcome& b, const std::string& what) {
  EXPECT_EQ(a.tokens, b.tokens) << what;
  EXPECT_EQ(a.text, b.text) << what;
  EXPECT_EQ(a.last.finish, b.last.finish) << what;
  EXPECT_EQ(a.last.usage.completion_tokens, b.last.usage.completion_tokens) << what;
  ASSERT_EQ(a.logprobs.size(), b.logprobs.size()) << what;
  for (std::size_t i = 0; i < a.logprobs.size(); ++i) {
    EXPECT_EQ(a.logprobs[i].chosen.logprob, b.logprobs[i].chosen.logprob) << what << " at " << i;
  }
}

class EngineSpeculation : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, EngineSpeculation,
                         testing::Values("llama2_tiny", "llama3_tiny", "mistral_tiny", "qwen2_tiny", "qwen3_tiny"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(EngineSpeculation, AnswersAreTheSame) {
  auto plain = load_engine(GetParam(), {.batch_max = 1});
  auto fast = load_engine(GetParam(), guessing({.batch_max = 1}));
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  for (int i = 0; i < 24; ++i) {
    const auto make = [&](Engine& engine) {
      auto r = repetitive(engine, 40 + i);
      SamplingParams& p = r.sampling;
      vary(p, i);
      // A narrow choice makes even a random model repeat itself.
      for (std::int32_t id = 30; id < 34; ++id) p.logit_bias[id] = 30;
      return r;
    };
    expect_same(generate(*plain, make(*plain)), generate(*fast, make(*fast)), "request " + std::to_string(i));
  }
  const auto stats = fast->stats();
  EXPECT_GT(stats.guessed_tokens, 100U);
  EXPECT_GT(stats.guessed_right_tokens, 50U);
  EXPECT_GE(stats.guessed_tokens, stats.guessed_right_tokens);
  EXPECT_EQ(stats.generated_tokens, plain->stats().generated_tokens);
  EXPECT_LT(stats.steps, plain->stats().steps);
  EXPECT_EQ(plain->stats().guessed_tokens, 0U);
  EXPECT_EQ(stats.kv_pages_used_now, 0);
}

TEST(EngineSpeculationTest, StopsFallWhereTheyWould) {
  auto plain = load_engine("llama3_tiny");
  auto fast = load_engine("llama3_tiny", guessing());
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  const auto make = [](Engine& engine) {
    auto r = repetitive(engine, 60);
    for (std::int32_t id = 40; id < 43; ++id) r.sampling.logit_bias[id] = 40;
    r.sampling.temperature = 0.5f;
    r.sampling.seed = 3;
    return r;
  };
  const auto whole = generate(*plain, make(*plain));
  ASSERT_GT(whole.text.size(), 20U);
  for (std::size_t at = 0; at + 4 < whole.text.size(); ++at) {
    const auto stopping = [&](Engine& engine) {
      auto r = make(engine);
      r.stop = {whole.text.substr(at, 4)};
      return r;
    };
    expect_same(generate(*plain, stopping(*plain)), generate(*fast, stopping(*fast)), "stop at " + std::to_string(at));
  }
  for (const std::int32_t id : whole.tokens) {
    const auto ending = [&](Engine& engine) {
      auto r = make(engine);
      r.stop_token_ids = {id};
      return r;
    };
    expect_same(generate(*plain, ending(*plain)), generate(*fast, ending(*fast)), "end token " + std::to_string(id));
  }
  EXPECT_GT(fast->stats().guessed_right_tokens, 100U);
  EXPECT_EQ(fast->stats().kv_pages_used_now, 0);
}

TEST(EngineSpeculationTest, ConstrainedAnswersAreTheSame) {
  auto plain = load_engine("llama3_tiny");
  auto fast = load_engine("llama3_tiny", guessing());
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  for (int i = 0; i < 12; ++i) {
    const auto make = [&](Engine& engine) {
      auto r = repetitive(engine, 160);
      grammar::Source source;
      source.json = grammar::Source::Json::schema;
      source.schema =
          R"({"type":"array","items":{"type":"object","properties":{"a":{"enum":[1,2]},"b":{"type":"boolean"}},"required":["a","b"],"additionalProperties":false},"minItems":6,"maxItems":8})";
      r.grammar = *engine.grammar(source);
      r.sampling.temperature = i % 2 == 0 ? 0.0f : 1.0f;
      r.sampling.seed = static_cast<std::uint64_t>(i);
      return r;
    };
    const auto a = generate(*plain, make(*plain)), b = generate(*fast, make(*fast));
    expect_same(a, b, "schema " + std::to_string(i));
    if (a.last.finish == FinishReason::stop) EXPECT_TRUE(nlohmann::json::accept(b.text)) << b.text;
  }
  EXPECT_GT(fast->stats().guessed_right_tokens, 20U);
  EXPECT_LT(fast->stats().steps, plain->stats().steps);
}

TEST(EngineSpeculationTest, BesideADeviceThatComputesAheadTheSame) {
  auto plain = load_engine("llama3_tiny");
  auto options = guessing({.dir = model_dir("llama3_tiny"), .threads = 1});
  auto beside = Engine::load(options, {.make_runner = overlapping()});
  ASSERT_TRUE(beside) << beside.error().message;
  const auto make = [](Engine& engine, int i) {
    auto r = repetitive(engine, 50);
    for (std::int32_t id = 40; id < 43; ++id) r.sampling.logit_bias[id] = 40;
    r.sampling.temperature = 0.5f;
    r.sampling.frequency_penalty = 0.01f;
    r.sampling.seed = static_cast<std::uint64_t>(i);
    return r;
  };
  const auto whole = generate(*plain, make(*plain, 0));
  for (int i = 0; i < 20; ++i) {
    const auto stopping = [&](Engine& engine) {
      auto r = make(engine, i / 10);
      if (i % 2 == 1) r.stop = {whole.text.substr(static_cast<std::size_t>(i), 3)};
      return r;
    };
    expect_same(generate(*plain, stopping(*plain)), generate(**beside, stopping(**beside)), std::to_string(i));
  }
  EXPECT_GT((*beside)->stats().guessed_right_tokens, 50U);
}

// With a batch, with pages so few that requests give way, and with prompts that others have computed.
TEST(EngineSpeculationTest, BatchesAndFewPagesChangeNothing) {
  auto plain = load_engine("llama3_tiny", {.batch_max = 1});
  ASSERT_NE(plain, nullptr);
  for (const std::uint64_t pages : {7, 12, 64}) {
    auto fast = load_engine("llama3_tiny",
                            guessing({.kv_bytes = pages * 16 * 2 * 2 * 64 * 4, .batch_max = 6, .step_tokens_max = 12}));
    ASSERT_NE(fast, nullptr);
    std::vector<std::shared_ptr<KeepingSink>> sinks;
    const auto make = [](Engine& engine, int i) {
      auto r = repetitive(engine, 30);
      for (std::int32_t id = 50; id < 53; ++id) r.sampling.logit_bias[id] = 30;
      r.sampling.temperature = 0.7f;
      r.sampling.seed = static_cast<std::uint64_t>(i);
      r.prefix_space = "a";
      return r;
    };
    for (int i = 0; i < 18; ++i) {
      sinks.push_back(std::make_shared<KeepingSink>());
      const auto handle = fast->submit(make(*fast, i), sinks.back());
      ASSERT_TRUE(handle) << handle.error().message;
    }
    for (int i = 0; i < 18; ++i) {
      EXPECT_EQ(sinks[static_cast<std::size_t>(i)]->wait().tokens, generate(*plain, make(*plain, i)).tokens) << i;
    }
    EXPECT_EQ(fast->stats().kv_pages_used_now, 0);
  }
}

// Not the same seeds: the distribution itself, by a chi-square test over the pairs of the fifth and sixth tokens.
TEST(EngineSpeculationTest, SampledTokensHaveTheModelsDistribution) {
  auto plain = load_engine("llama3_tiny", {.batch_max = 16});
  auto fast = load_engine("llama3_tiny", guessing({.batch_max = 8}));
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  const Ids prompt{60, 61, 62, 60, 61, 62, 60, 61};
  const auto a = count_pairs(*plain, prompt, 1'000'000), b = count_pairs(*fast, prompt, 9'000'000);
  ASSERT_GT(fast->stats().guessed_tokens, 1'000U);
  int cells = 0;
  const double chi = chi_square(a, b, cells);
  ASSERT_GE(cells, 4);
  // The 99.99th percentile for up to eight degrees of freedom is 31.8; what speculation got wrong would be hundreds.
  EXPECT_LT(chi, 31.8) << cells << " cells";
}

// The gain where a text repeats itself, in tokens for each step; wall time is the machine's business.
TEST(EngineSpeculationTest, ARepetitiveTextTakesFewerSteps) {
  EngineOptions options{.dir = std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat", .threads = 2};
  const auto run = [&](const EngineOptions& o) {
    auto engine = Engine::load(o);
    EXPECT_TRUE(engine) << engine.error().message;
    std::ifstream file(model_dir("demo_chat_goldens.json"));
    const auto goldens = nlohmann::json::parse(file);
    for (const auto& c : goldens.at("cases")) {
      // The answer is in the prompt already, as where a text is corrected or quoted.
      auto prompt = c.at("prompt_ids").get<Ids>();
      const auto answer = c.at("answer_ids").get<Ids>();
      Ids twice = prompt;
      twice.insert(twice.end(), answer.begin(), answer.end());
      twice.insert(twice.end(), prompt.begin(), prompt.end());
      generate(**engine, greedy(twice, static_cast<int>(answer.size())));
    }
    const auto stats = (*engine)->stats();
    std::cout << stats.generated_tokens << " tokens in " << stats.steps << " steps, " << stats.guessed_tokens
              << " guessed, " << stats.guessed_right_tokens << " right\n";
    return stats;
  };
  const auto plain = run(options), fast = run(guessing(options));
  EXPECT_EQ(plain.generated_tokens, fast.generated_tokens);
  EXPECT_LT(static_cast<double>(fast.steps), 0.8 * static_cast<double>(plain.steps));
}

}  // namespace
}  // namespace ganglion::local
