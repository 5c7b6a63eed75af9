// The model that ships: its greedy answers to the fixed prompts, token for token, as another implementation gives them.

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

struct DemoCase {
  std::vector<std::int32_t> prompt, answer;  // answer: its end token included
  std::string text, finish;
};

std::vector<DemoCase> demo_cases() {
  std::ifstream file(model_dir("demo_chat_goldens.json"));
  std::vector<DemoCase> out;
  for (const auto& c : nlohmann::json::parse(file).at("cases")) {
    out.push_back({c.at("prompt_ids").get<std::vector<std::int32_t>>(),
                   c.at("answer_ids").get<std::vector<std::int32_t>>(), c.at("answer").get<std::string>(),
                   c.at("finish").get<std::string>()});
  }
  return out;
}

// Answers all cases at once. The model is sure of itself: the closest choice in any golden answer is won by more than
// six logits, which neither fp16 or int8 keys and values nor int8 weights may turn.
void run(Quantize quantize, KvType kv_type = KvType::automatic) {
  auto engine = Engine::load({.dir = std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat",
                              .threads = 2,
                              .batch_max = 6,
                              .quantize = quantize,
                              .kv_type = kv_type});
  ASSERT_TRUE(engine) << engine.error().message;
  const auto cases = demo_cases();
  ASSERT_GT(cases.size(), 10u);
  std::vector<std::shared_ptr<KeepingSink>> sinks;
  for (const DemoCase& c : cases) {
    auto request = greedy(c.prompt, static_cast<int>(c.answer.size()) + (c.finish == "stop" ? 20 : 0));
    request.ignore_eos = false;
    sinks.push_back(std::make_shared<KeepingSink>());
    ASSERT_TRUE((*engine)->submit(std::move(request), sinks.back()));
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const DemoCase& c = cases[i];
    const auto out = sinks[i]->wait();
    ASSERT_EQ(out.last.kind, GenerateEvent::Kind::done);
    EXPECT_EQ(out.text, c.text);
    EXPECT_EQ(out.last.usage.completion_tokens, static_cast<int>(c.answer.size()));
    EXPECT_EQ(out.last.finish, c.finish == "stop" ? FinishReason::stop : FinishReason::length);
    auto shown = c.answer;
    if (c.finish == "stop") shown.pop_back();
    EXPECT_EQ(out.tokens, shown);
  }
}

TEST(DemoChat, AnswersAreTheGoldenOnes) {
  run(Quantize::none);
}
TEST(DemoChat, AnswersSurviveInt8) {
  run(Quantize::int8);
  run(Quantize::w8a8);  // on a CPU the same
}
TEST(DemoChat, AnswersSurviveInt8KeysAndValues) {
  run(Quantize::none, KvType::i8);
  run(Quantize::int8, KvType::i8);
}

}  // namespace
}  // namespace ganglion::local
