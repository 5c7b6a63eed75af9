// Constrained answers in the engine: ends, lengths, neighbours, preemption, and the same through a runner that computes
// beside its caller.

#include <nlohmann/json.hpp>

#include "backends/local/grammar/compile.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"
#include "tests/unit/backends/local/engine/runners.hpp"

namespace ganglion::local {
namespace {

using nlohmann::json;

grammar::Source schema(const std::string& text) {
  grammar::Source source;
  source.json = grammar::Source::Json::schema;
  source.schema = text;
  return source;
}

const char* const kList =
    R"({"type":"array","items":{"type":"integer","minimum":10,"maximum":99},"minItems":4,"maxItems":6})";

GenerateRequest constrained(Engine& engine, const grammar::Source& source, std::uint64_t seed, int max_tokens = 120) {
  GenerateRequest r = greedy(engine.tokenizer().encode("a list", true), max_tokens);
  r.sampling.temperature = 1;
  r.sampling.seed = seed;
  auto grammar = engine.grammar(source);
  EXPECT_TRUE(grammar) << grammar.error().message;
  r.grammar = *grammar;
  return r;
}

bool is_list(const std::string& text) {
  const json v = json::parse(text, nullptr, false);
  return v.is_array() && v.size() >= 4 && v.size() <= 6 &&
         std::ranges::all_of(v, [](const json& i) { return i.is_number_integer() && i >= 10 && i <= 99; });
}

class EngineGrammar : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, EngineGrammar,
                         testing::Values("llama2_tiny", "llama3_tiny", "mistral_tiny", "qwen2_tiny", "qwen3_tiny"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(EngineGrammar, EveryAnswerIsWhatWasAskedFor) {
  auto engine = load_engine(GetParam(), {.batch_max = 8});
  ASSERT_NE(engine, nullptr);
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine->submit(constrained(*engine, schema(kList), seed), sinks.back()));
  }
  for (const auto& sink : sinks) {
    const auto out = sink->wait();
    ASSERT_EQ(out.last.kind, GenerateEvent::Kind::done) << out.last.error.message;
    EXPECT_EQ(out.last.finish, FinishReason::stop) << "it ends as soon as nothing can follow, whatever ignore_eos says";
    EXPECT_TRUE(is_list(out.text)) << out.text;
    EXPECT_EQ(out.last.usage.completion_tokens, static_cast<int>(out.tokens.size()));
  }
}

TEST(EngineGrammarTest, GreedyPenalisedAndFilteredSamplingStayWithinTheGrammar) {
  auto engine = load_engine("llama3_tiny");
  ASSERT_NE(engine, nullptr);
  for (int i = 0; i < 40; ++i) {
    auto request = constrained(*engine, schema(kList), static_cast<std::uint64_t>(i));
    request.sampling.temperature = i % 4 == 0 ? 0.0f : 1.5f;
    request.sampling.top_k = i % 3 == 0 ? 1000 : 0;
    request.sampling.top_p = i % 5 == 0 ? 0.999f : 1.0f;
    request.sampling.min_p = i % 7 == 0 ? 0.001f : 0.0f;
    request.sampling.repetition_penalty = i % 2 == 0 ? 1.3f : 1.0f;
    request.sampling.frequency_penalty = i % 2 == 0 ? 1.0f : 0.0f;
    request.sampling.logit_bias[static_cast<std::int32_t>(i)] = 100;  // towards what is mostly not allowed
    const auto out = generate(*engine, std::move(request));
    if (out.last.finish == FinishReason::stop) EXPECT_TRUE(is_list(out.text)) << out.text;
    EXPECT_NE(out.last.finish, FinishReason::error) << out.last.error.message;
  }
}

TEST(EngineGrammarTest, TheLengthCutsAndSaysSo) {
  auto engine = load_engine("llama3_tiny");
  ASSERT_NE(engine, nullptr);
  const auto out = generate(*engine, constrained(*engine, schema(kList), 1, 4));
  EXPECT_EQ(out.last.finish, FinishReason::length);
  EXPECT_EQ(out.last.usage.completion_tokens, 4);
}

TEST(EngineGrammarTest, AStopStringEndsItEarly) {
  auto engine = load_engine("llama3_tiny");
  ASSERT_NE(engine, nullptr);
  auto request = constrained(*engine, schema(kList), 1);
  request.stop = {","};
  const auto out = generate(*engine, std::move(request));
  EXPECT_EQ(out.last.finish, FinishReason::stop);
  EXPECT_EQ(out.text.find(','), std::string::npos);
}

TEST(EngineGrammarTest, ModelsEndTokenEndsAnOpenEnd) {
  auto engine = load_engine("llama3_tiny");
  ASSERT_NE(engine, nullptr);
  int ended = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    auto request = constrained(*engine, schema(R"({"type":"integer"})"), seed, 30);
    request.sampling.logit_bias[engine->config().eos_ids.at(0)] = 6;
    const auto out = generate(*engine, std::move(request));
    EXPECT_TRUE(json::parse(out.text, nullptr, false).is_number_integer()) << out.text;
    ended += out.last.finish == FinishReason::stop ? 1 : 0;
  }
  EXPECT_GT(ended, 5);
}

// Preempted requests come back with the same grammar state, and neighbours see nothing of masks.
TEST(EngineGrammarTest, PreemptionAndNeighboursChangeNothing) {
  auto alone = load_engine("llama3_tiny", {.batch_max = 1});
  auto narrow = load_engine("llama3_tiny", {.kv_bytes = 10 * 16 * 2 * 2 * 64 * 4, .batch_max = 6});
  ASSERT_TRUE(alone != nullptr && narrow != nullptr);
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  const auto request_of = [](Engine& engine, int i) {
    if (i % 2 == 0) return constrained(engine, schema(kList), static_cast<std::uint64_t>(i), 60);
    auto r = greedy(engine.tokenizer().encode("some words", true), 40);
    r.sampling.temperature = 1;
    r.sampling.seed = static_cast<std::uint64_t>(i);
    return r;
  };
  for (int i = 0; i < 12; ++i) {
    sinks.push_back(std::make_shared<KeepingSink>());
    const auto handle = narrow->submit(request_of(*narrow, i), sinks.back());
    ASSERT_TRUE(handle) << handle.error().message;
  }
  for (int i = 0; i < 12; ++i) {
    const auto expected = generate(*alone, request_of(*alone, i));
    EXPECT_EQ(sinks[static_cast<std::size_t>(i)]->wait().tokens, expected.tokens) << i;
  }
}

TEST(EngineGrammarTest, OverlappedStepsGiveTheSame) {
  auto plain = load_engine("llama3_tiny");
  auto options = EngineOptions{.dir = model_dir("llama3_tiny"), .threads = 1};
  auto beside = Engine::load(options, {.make_runner = overlapping()});
  ASSERT_TRUE(beside) << beside.error().message;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const auto a = generate(*plain, constrained(*plain, schema(kList), seed));
    const auto b = generate(**beside, constrained(**beside, schema(kList), seed));
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_TRUE(is_list(b.text)) << b.text;
    EXPECT_EQ(a.last.usage.completion_tokens, b.last.usage.completion_tokens);
  }
}

TEST(EngineGrammarTest, AVocabularyThatCannotGoOnFailsTheRequestAlone) {
  auto engine = load_engine("llama3_tiny");
  ASSERT_NE(engine, nullptr);
  auto request = constrained(*engine, schema(kList), 1);
  const std::int64_t size = request.grammar->vocabulary().size();
  std::vector<std::string> bytes(static_cast<std::size_t>(size));
  bytes[300] = "[";  // and nothing after it
  request.grammar =
      *grammar::compile(schema(kList), std::make_shared<const grammar::Vocabulary>(bytes, std::vector<std::int32_t>{}));
  const auto out = generate(*engine, std::move(request));
  EXPECT_EQ(out.last.kind, GenerateEvent::Kind::error);
  EXPECT_NE(out.last.error.message.find("no token that goes on"), std::string::npos) << out.last.error.message;
  EXPECT_TRUE(is_list(generate(*engine, constrained(*engine, schema(kList), 2)).text));
}

TEST(EngineGrammarTest, AGrammarOfAnotherModelIsRefused) {
  auto llama = load_engine("llama3_tiny");
  auto qwen = load_engine("qwen2_tiny");
  ASSERT_TRUE(llama != nullptr && qwen != nullptr);
  auto request = constrained(*llama, schema(kList), 1);
  request.prompt = {5};
  const auto refused = qwen->submit(std::move(request), std::make_shared<KeepingSink>());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::internal);
}

}  // namespace
}  // namespace ganglion::local
