// Prompts that begin alike: the same answers as computed anew, only inside a space, also after eviction, preemption
// and cancellation; and so with pages in int8, where what is read back is not what was computed.

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

constexpr std::uint64_t kTinyPageBytes = 12288;  // of llama3_tiny
constexpr std::uint64_t kTinyInt8PageBytes = 3840;

std::vector<std::int32_t> sequence(int length, int seed) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < length; ++i) out.push_back((i * 37 + seed * 101 + i * i % 11) % 1200);
  return out;
}

GenerateRequest ask(std::vector<std::int32_t> prompt, int tokens, std::string space = "a") {
  auto request = greedy(std::move(prompt), tokens);
  request.prefix_space = std::move(space);
  request.sampling.logprobs = true;
  request.sampling.top_logprobs = 5;
  return request;
}

// Bit for bit: the ids, and the log-probabilities that the logits gave.
void expect_equal(const KeepingSink::Outcome& got, const KeepingSink::Outcome& want) {
  EXPECT_EQ(got.tokens, want.tokens);
  EXPECT_EQ(got.text, want.text);
  ASSERT_EQ(got.logprobs.size(), want.logprobs.size());
  for (std::size_t i = 0; i < got.logprobs.size(); ++i) {
    ASSERT_EQ(got.logprobs[i].chosen.logprob, want.logprobs[i].chosen.logprob) << i;
    ASSERT_EQ(got.logprobs[i].top.size(), want.logprobs[i].top.size());
    for (std::size_t k = 0; k < got.logprobs[i].top.size(); ++k) {
      ASSERT_EQ(got.logprobs[i].top[k].logprob, want.logprobs[i].top[k].logprob) << i;
    }
  }
}

class PrefixReuse : public testing::TestWithParam<std::tuple<const char*, KvType>> {};
INSTANTIATE_TEST_SUITE_P(Models, PrefixReuse,
                         testing::Combine(testing::Values("llama2_tiny", "llama3_tiny", "mistral_tiny", "qwen2_tiny",
                                                          "qwen3_tiny"),
                                          testing::Values(KvType::automatic, KvType::i8)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) == KvType::i8 ? "_int8" : "");
                         });

TEST_P(PrefixReuse, AHitAnswersAsIfComputedAnew) {
  const auto& [model, kv_type] = GetParam();
  const auto engine = load_engine(model, {.kv_type = kv_type});
  ASSERT_NE(engine, nullptr);
  const int vocabulary = static_cast<int>(engine->config().vocab_size);
  auto prompt = sequence(75, 1);
  for (auto& id : prompt) id %= vocabulary;
  const auto anew = generate(*engine, ask(prompt, 20, ""));
  EXPECT_EQ(anew.last.usage.cached_prompt_tokens, 0);
  const auto first = generate(*engine, ask(prompt, 20));
  EXPECT_EQ(first.last.usage.cached_prompt_tokens, 0);
  expect_equal(first, anew);
  const auto second = generate(*engine, ask(prompt, 20));
  EXPECT_EQ(second.last.usage.cached_prompt_tokens, 64);  // whole pages
  EXPECT_EQ(second.last.usage.prompt_tokens, 75);
  expect_equal(second, anew);
  // The answer's own pages are found too, when a conversation goes on.
  auto longer = prompt;
  longer.insert(longer.end(), anew.tokens.begin(), anew.tokens.end());
  longer.insert(longer.end(), {3, 4, 5});
  const auto went_on = generate(*engine, ask(longer, 10));
  EXPECT_EQ(went_on.last.usage.cached_prompt_tokens, 80);
  expect_equal(went_on, generate(*engine, ask(longer, 10, "")));
  EXPECT_EQ(engine->stats().prefix_tokens, 64u + 80u);
}

TEST(PrefixReuseSpaces, NothingIsFoundAcrossSpaces) {
  const auto engine = load_engine("llama3_tiny");
  const auto prompt = sequence(64, 1);
  generate(*engine, ask(prompt, 4, "one"));
  EXPECT_EQ(generate(*engine, ask(prompt, 4, "two")).last.usage.cached_prompt_tokens, 0);
  EXPECT_EQ(generate(*engine, ask(prompt, 4, "")).last.usage.cached_prompt_tokens, 0);
  EXPECT_EQ(generate(*engine, ask(prompt, 4, "")).last.usage.cached_prompt_tokens, 0);
  // All four pages; the last token is computed always.
  EXPECT_EQ(generate(*engine, ask(prompt, 4, "one")).last.usage.cached_prompt_tokens, 63);
}

TEST(PrefixReuseSpaces, WhatIsKeptGivesWayToWhatRuns) {
  const auto engine = load_engine("llama3_tiny", {.kv_bytes = kTinyPageBytes * 8, .batch_max = 2});
  const auto a = sequence(64, 1);
  const auto anew = generate(*engine, ask(a, 8));
  EXPECT_EQ(engine->stats().kv_pages_used_now, 0);
  EXPECT_EQ(engine->stats().kv_pages_cached_now, 4);
  expect_equal(generate(*engine, ask(a, 8)), anew);
  generate(*engine, ask(sequence(110, 2), 8));  // needs all eight pages
  EXPECT_GT(engine->stats().kv_pages_evicted, 0u);
  const auto again = generate(*engine, ask(a, 8));
  EXPECT_LT(again.last.usage.cached_prompt_tokens, 48);
  expect_equal(again, anew);
}

TEST(PrefixReuseSpaces, CancellingFreesAndKeepsWhatWasComputed) {
  const auto engine = load_engine("llama3_tiny");
  const auto prompt = sequence(64, 1);
  const auto anew = generate(*engine, ask(prompt, 12, ""));
  auto sink = std::make_shared<GateSink>();
  const auto handle = engine->submit(ask(prompt, 150), sink);
  ASSERT_TRUE(handle);
  sink->wait_until_entered();
  engine->cancel(*handle);
  sink->open();
  EXPECT_EQ(sink->wait().last.finish, FinishReason::cancelled);
  EXPECT_EQ(engine->stats().kv_pages_used_now, 0);
  EXPECT_GE(engine->stats().kv_pages_cached_now, 4);
  const auto out = generate(*engine, ask(prompt, 12));
  EXPECT_EQ(out.last.usage.cached_prompt_tokens, 63);
  expect_equal(out, anew);
}

// Regular requests that lose their pages to fast ones, with and without a space: every answer as without pressure.
void preempted_answer_as_unpreempted(KvType kv_type, std::uint64_t page_bytes) {
  const auto roomy = load_engine("llama3_tiny", {.batch_max = 1, .kv_type = kv_type});
  const auto tight = load_engine(
      "llama3_tiny", {.kv_bytes = page_bytes * 10, .batch_max = 8, .kv_type = kv_type, .step_tokens_max = 24});
  EXPECT_EQ(tight->stats().kv_pages_total, 10);
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  std::vector<GenerateRequest> requests;
  for (int i = 0; i < 16; ++i) {
    auto prompt = sequence(20, i / 4);
    prompt.push_back(10 + i);
    auto request = ask(std::move(prompt), 50 + i, i % 2 == 0 ? "a" : "");
    request.sampling.temperature = i % 3 == 0 ? 0.0f : 1.0f;
    request.sampling.seed = 7 + i;
    request.priority = i % 5 == 4 ? Priority::fast : Priority::regular;
    requests.push_back(request);
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE(tight->submit(request, sinks.back()));
  }
  for (std::size_t i = 0; i < sinks.size(); ++i) {
    const auto got = sinks[i]->wait();
    auto alone = requests[i];
    alone.prefix_space.clear();
    expect_equal(got, generate(*roomy, alone));
  }
  EXPECT_GT(tight->stats().preempted, 0u) << "there was no pressure";
  EXPECT_EQ(tight->stats().kv_pages_used_now, 0);
}
TEST(PrefixReuseSpaces, PreemptedAnswersAsUnpreempted) {
  preempted_answer_as_unpreempted(KvType::automatic, kTinyPageBytes);
}
TEST(PrefixReuseSpaces, PreemptedAnswersAsUnpreemptedInInt8) {
  preempted_answer_as_unpreempted(KvType::i8, kTinyInt8PageBytes);
}

TEST(PrefixReuseDemo, GoldenAnswersOfTheModelThatShipsAreFoundAndEqual) {
  const auto loaded =
      Engine::load({.dir = std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat", .threads = 2, .batch_max = 6});
  ASSERT_TRUE(loaded) << loaded.error().message;
  std::ifstream file(model_dir("demo_chat_goldens.json"));
  const auto goldens = nlohmann::json::parse(file);
  int cached = 0;
  for (int round = 0; round < 2; ++round) {
    cached = 0;
    for (const auto& c : goldens.at("cases")) {
      const auto answer = c.at("answer_ids").get<std::vector<std::int32_t>>();
      auto request = ask(c.at("prompt_ids").get<std::vector<std::int32_t>>(),
                         static_cast<int>(answer.size()) + (c.at("finish") == "stop" ? 20 : 0));
      request.ignore_eos = false;
      const int size = static_cast<int>(request.prompt.size()), whole_pages = std::min(size / 16 * 16, size - 1);
      const auto out = generate(**loaded, request);
      EXPECT_EQ(out.text, c.at("answer").get<std::string>());
      if (round == 1) EXPECT_EQ(out.last.usage.cached_prompt_tokens, whole_pages);
      cached += out.last.usage.cached_prompt_tokens;
    }
  }
  EXPECT_GT(cached, 100);
}

}  // namespace
}  // namespace ganglion::local
