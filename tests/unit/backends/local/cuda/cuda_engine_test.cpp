// The engine on a GPU: requests, text, sampling, cancellation, through the same doors as on the CPU.

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "backends/local/device/devices.hpp"
#include "backends/local/grammar/compile.hpp"
#include "backends/local/kernels/cuda/kernels.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

EngineOptions demo() {
  return {.dir = std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat", .device = "cuda:0", .batch_max = 32};
}

class CudaEngineTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto found = find_devices();
    if (!found) GTEST_SKIP() << found.error().message;
  }
  std::unique_ptr<Engine> load(const EngineOptions& options) {
    auto engine = Engine::load(options);
    EXPECT_TRUE(engine) << (engine ? "" : engine.error().message);
    return engine ? std::move(*engine) : nullptr;
  }
};

TEST_F(CudaEngineTest, DemoAnswersAreTheGoldenOnes) {
  const auto engine = load(demo());
  ASSERT_NE(engine, nullptr);
  EXPECT_TRUE(engine->device().starts_with("cuda:0 (")) << engine->device();
  std::ifstream file(model_dir("demo_chat_goldens.json"));
  std::vector<std::pair<std::string, std::shared_ptr<KeepingSink>>> waiting;
  const auto goldens = nlohmann::json::parse(file);
  for (const auto& c : goldens.at("cases")) {
    const auto answer = c.at("answer_ids").get<std::vector<std::int32_t>>();
    auto request = greedy(c.at("prompt_ids").get<std::vector<std::int32_t>>(),
                          static_cast<int>(answer.size()) + (c.at("finish") == "stop" ? 20 : 0));
    request.ignore_eos = false;
    waiting.emplace_back(c.at("answer").get<std::string>(), std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine->submit(std::move(request), waiting.back().second));
  }
  ASSERT_GT(waiting.size(), 20u);
  for (const auto& [text, sink] : waiting) {
    const auto out = sink->wait();
    ASSERT_EQ(out.last.kind, GenerateEvent::Kind::done) << out.last.error.message;
    EXPECT_EQ(out.text, text);
  }
  EXPECT_EQ(engine->stats().kv_pages_used_now, 0);
}

TEST_F(CudaEngineTest, SeededSamplingWithPenaltiesRepeats) {
  const auto engine = load(demo());
  ASSERT_NE(engine, nullptr);
  const auto once = [&] {
    auto request = greedy(engine->tokenizer().encode("what is a river", true), 40);
    request.sampling = {.temperature = 1.2f,
                        .top_p = 0.9f,
                        .top_k = 40,
                        .seed = 7,
                        .frequency_penalty = 0.3f,
                        .presence_penalty = 0.2f,
                        .repetition_penalty = 1.1f,
                        .logprobs = true,
                        .top_logprobs = 3};
    request.sampling.logit_bias[5] = -100;
    auto sink = std::make_shared<KeepingSink>();
    EXPECT_TRUE(engine->submit(std::move(request), sink));
    return sink->wait();
  };
  const auto a = once(), b = once();
  ASSERT_EQ(a.tokens.size(), 40u);
  EXPECT_EQ(a.tokens, b.tokens);
  ASSERT_EQ(a.logprobs.size(), 40u);
  for (const TokenLogprobs& l : a.logprobs) {
    EXPECT_LE(l.chosen.logprob, 1e-3f);
    ASSERT_EQ(l.top.size(), 3u);
    EXPECT_GE(l.top[0].logprob, l.top[1].logprob);
    EXPECT_GE(l.top[0].logprob, l.chosen.logprob - 1e-3f);
  }
}

// JSON by a schema, many at once beside free neighbours, through graphs and through steps with prompts.
TEST_F(CudaEngineTest, ConstrainedAnswersAreWhatWasAskedFor) {
  const auto engine = load(demo());
  ASSERT_NE(engine, nullptr);
  grammar::Source source;
  source.json = grammar::Source::Json::schema;
  source.schema =
      R"({"type":"object","properties":{"n":{"type":"integer","minimum":5,"maximum":95},"s":{"type":"string","maxLength":9},"e":{"enum":["x","y"]}},"required":["n","s","e"],"additionalProperties":false})";
  const auto compiled = engine->grammar(source);
  ASSERT_TRUE(compiled) << compiled.error().message;
  const auto prompt = engine->tokenizer().encode("what is a river", true);
  const auto free_answer = generate(*engine, greedy(prompt, 60));
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (int i = 0; i < 60; ++i) {
    auto request = greedy(prompt, i % 3 == 0 ? 60 : 120);
    if (i % 3 != 0) {
      request.grammar = *compiled;
      request.sampling.temperature = i % 2 == 0 ? 1.0f : 0.0f;
      request.sampling.seed = static_cast<std::uint64_t>(i);
    }
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(engine->submit(std::move(request), sinks.back()));
  }
  int complete = 0;
  for (std::size_t i = 0; i < sinks.size(); ++i) {
    const auto out = sinks[i]->wait();
    ASSERT_EQ(out.last.kind, GenerateEvent::Kind::done) << out.last.error.message;
    if (i % 3 == 0) {
      EXPECT_EQ(out.tokens.size(), free_answer.tokens.size());
      continue;
    }
    if (out.last.finish != FinishReason::stop) continue;
    ++complete;
    const auto v = nlohmann::json::parse(out.text, nullptr, false);
    ASSERT_TRUE(v.is_object() && v.size() == 3) << out.text;
    EXPECT_TRUE(v["n"] >= 5 && v["n"] <= 95) << out.text;
    EXPECT_TRUE(v["e"] == "x" || v["e"] == "y") << out.text;
  }
  EXPECT_GT(complete, 30);
}

// Guesses are checked in one step. Its logits may differ from those of single steps as between batches, so what is
// asked for is that answers with and without agree almost everywhere, and that steps are fewer.
TEST_F(CudaEngineTest, GuessingAheadAnswersTheSameInFewerSteps) {
  const auto plain = load(demo());
  auto options = demo();
  options.speculation = Speculation::prompt_lookup;
  const auto fast = load(options);
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  std::ifstream file(model_dir("demo_chat_goldens.json"));
  const auto goldens = nlohmann::json::parse(file);
  int answers = 0, same = 0;
  for (const auto& c : goldens.at("cases")) {
    // The answer is in the prompt already, as where a text is corrected or quoted.
    const auto prompt = c.at("prompt_ids").get<std::vector<std::int32_t>>();
    const auto answer = c.at("answer_ids").get<std::vector<std::int32_t>>();
    std::vector<std::int32_t> twice = prompt;
    twice.insert(twice.end(), answer.begin(), answer.end());
    twice.insert(twice.end(), prompt.begin(), prompt.end());
    for (const float temperature : {0.0f, 0.7f}) {
      const auto make = [&] {
        auto r = greedy(twice, static_cast<int>(answer.size()));
        r.sampling.temperature = temperature;
        r.sampling.seed = 11;
        r.sampling.frequency_penalty = temperature > 0 ? 0.1f : 0.0f;
        return r;
      };
      const auto a = generate(*plain, make()), b = generate(*fast, make());
      EXPECT_EQ(a.last.usage.completion_tokens, b.last.usage.completion_tokens);
      ++answers;
      same += a.tokens == b.tokens ? 1 : 0;
    }
  }
  EXPECT_GE(same * 10, answers * 9) << same << " of " << answers;
  EXPECT_GT(fast->stats().guessed_right_tokens, 100U);
  EXPECT_LT(fast->stats().steps * 10, plain->stats().steps * 8);
  EXPECT_EQ(fast->stats().kv_pages_used_now, 0);
}

// A draft model beside the model: two runners, two stores of pages, one device. The draft is the same model with 8-bit
// weights, so that most of its guesses are right.
TEST_F(CudaEngineTest, ADraftModelsGuessesAnswerTheSameInFewerSteps) {
  const auto plain = load(demo());
  auto options = demo();
  options.draft = {.dir = options.dir, .tokens = 4, .quantize = Quantize::int8, .measured = false};
  const auto fast = load(options);
  ASSERT_TRUE(plain != nullptr && fast != nullptr);
  std::ifstream file(model_dir("demo_chat_goldens.json"));
  const auto goldens = nlohmann::json::parse(file);
  const auto make = [&](const nlohmann::json& c, float temperature) {
    auto r = greedy(c.at("prompt_ids").get<std::vector<std::int32_t>>(), 40);
    r.sampling.temperature = temperature;
    r.sampling.seed = 11;
    r.sampling.repetition_penalty = temperature > 0 ? 1.1f : 1.0f;
    r.prefix_space = "a";
    return r;
  };
  int answers = 0, same = 0;
  for (const auto& c : goldens.at("cases")) {
    for (const float temperature : {0.0f, 0.7f}) {
      const auto a = generate(*plain, make(c, temperature)), b = generate(*fast, make(c, temperature));
      EXPECT_EQ(b.last.kind, GenerateEvent::Kind::done) << b.last.error.message;
      EXPECT_EQ(a.last.usage.completion_tokens, b.last.usage.completion_tokens);
      ++answers;
      same += a.tokens == b.tokens ? 1 : 0;
    }
  }
  EXPECT_GE(same * 10, answers * 9) << same << " of " << answers;
  EXPECT_GT(fast->stats().drafted_right_tokens * 10, fast->stats().drafted_tokens * 7);
  EXPECT_LT(fast->stats().steps * 2, plain->stats().steps);
  // Several at once, some of them given up.
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  std::vector<Handle> handles;
  for (int i = 0; i < 6; ++i) {
    sinks.push_back(std::make_shared<KeepingSink>());
    auto r = make(goldens.at("cases").at(static_cast<std::size_t>(i)), 0.7f);
    r.max_tokens = 200;
    const auto handle = fast->submit(std::move(r), sinks.back());
    ASSERT_TRUE(handle);
    handles.push_back(*handle);
  }
  sinks[0]->wait_for_events(2);
  fast->cancel(handles[0]);
  fast->cancel(handles[3]);
  for (const auto& sink : sinks) EXPECT_EQ(sink->wait().last.kind, GenerateEvent::Kind::done);
  EXPECT_EQ(fast->stats().kv_pages_used_now, 0);
  EXPECT_EQ(fast->stats().draft_pages_used_now, 0);
}

TEST_F(CudaEngineTest, CancellingFreesThePages) {
  const auto engine = load(demo());
  ASSERT_NE(engine, nullptr);
  auto sink = std::make_shared<KeepingSink>();
  const auto handle = engine->submit(greedy(engine->tokenizer().encode("what is a river", true), 900), sink);
  ASSERT_TRUE(handle);
  sink->wait_for_events(2);
  engine->cancel(*handle);
  EXPECT_EQ(sink->wait().last.finish, FinishReason::cancelled);
  EXPECT_EQ(engine->stats().kv_pages_used_now, 0);
}

TEST_F(CudaEngineTest, WhatIsFoundComputedAnswersTheSame) {
  const auto engine = load(demo());
  ASSERT_NE(engine, nullptr);
  std::ifstream file(model_dir("demo_chat_goldens.json"));
  const auto goldens = nlohmann::json::parse(file);
  int found = 0;
  for (int round = 0; round < 2; ++round) {
    for (const auto& c : goldens.at("cases")) {
      const auto answer = c.at("answer_ids").get<std::vector<std::int32_t>>();
      auto request = greedy(c.at("prompt_ids").get<std::vector<std::int32_t>>(),
                            static_cast<int>(answer.size()) + (c.at("finish") == "stop" ? 20 : 0));
      request.ignore_eos = false;
      request.prefix_space = "a";
      const auto out = generate(*engine, std::move(request));
      EXPECT_EQ(out.text, c.at("answer").get<std::string>());
      found += round * out.last.usage.cached_prompt_tokens;
      EXPECT_GT(out.last.usage.engine_us, 0);
    }
  }
  EXPECT_GT(found, 100);
}

TEST_F(CudaEngineTest, StopStringsFoundAStepLateEndWhereTheyStand) {
  const auto engine = load(demo());
  ASSERT_NE(engine, nullptr);
  const auto prompt = engine->tokenizer().encode("what is a river", true);
  const auto whole = generate(*engine, greedy(prompt, 30));
  ASSERT_GT(whole.text.size(), 20U);
  for (std::size_t at = 2; at + 4 < whole.text.size(); at += 3) {
    auto request = greedy(prompt, 30);
    request.stop = {whole.text.substr(at, 4)};
    const auto out = generate(*engine, request);
    EXPECT_EQ(out.text, whole.text.substr(0, whole.text.find(request.stop[0])));
    EXPECT_EQ(out.last.finish, FinishReason::stop);
    EXPECT_EQ(engine->stats().kv_pages_used_now, 0);
  }
}

// Ends this process's work on its GPU, so it runs only where asked: GANGLION_TEST_LOST_DEVICE=1, in a process alone.
// Whether the device can be had back is not ours to say; that nobody gets a wrong answer and the process lives on, is.
TEST_F(CudaEngineTest, ALostDeviceTakesTheModelOutOfServiceAndNothingElse) {
  if (std::getenv("GANGLION_TEST_LOST_DEVICE") == nullptr) GTEST_SKIP() << "GANGLION_TEST_LOST_DEVICE is not set";
  const auto engine = load(demo());
  ASSERT_NE(engine, nullptr);
  const auto prompt = engine->tokenizer().encode("what is a river", true);
  const auto before = generate(*engine, greedy(prompt, 30));
  // A kernel that reads where nothing is.
  cuda::widen_to_float({nullptr, false}, reinterpret_cast<const void*>(0x1000), cuda::Source::bf16, 1024,
                       reinterpret_cast<float*>(0x2000));
  EXPECT_NE(cudaDeviceSynchronize(), cudaSuccess);
  const auto failed = generate(*engine, greedy(prompt, 30));
  EXPECT_EQ(failed.last.kind, GenerateEvent::Kind::error);
  EXPECT_EQ(failed.last.error.kind, core::ErrorKind::no_backend) << failed.last.error.message;
  for (int i = 0; i < 20; ++i) {
    auto sink = std::make_shared<KeepingSink>();
    const auto handle = engine->submit(greedy(prompt, 30), sink);
    if (!handle) {
      EXPECT_EQ(handle.error().kind, core::ErrorKind::no_backend);
      EXPECT_FALSE(engine->stats().in_service);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      continue;
    }
    const auto out = sink->wait();
    if (out.last.kind == GenerateEvent::Kind::done) EXPECT_EQ(out.text, before.text);
  }
  EXPECT_GE(engine->stats().device_failures, 1U);
}

TEST(CudaEngineChoice, AutoServesWithoutAGpuToo) {
  auto options = demo();
  options.device = "auto";
  options.threads = 2;
  const auto engine = Engine::load(options);
  ASSERT_TRUE(engine) << engine.error().message;
  const bool gpu = find_devices().has_value();
  EXPECT_EQ((*engine)->device().starts_with("cuda:"), gpu);
  EXPECT_EQ((*engine)->device().find("no usable GPU") == std::string::npos, gpu) << (*engine)->device();
}

}  // namespace
}  // namespace ganglion::local
