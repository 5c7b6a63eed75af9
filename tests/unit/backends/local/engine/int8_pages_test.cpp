// Keys and values in int8, seen from the engine: how many pages there are, how far answers move, and that speculation,
// which writes over what it guessed wrong, still changes nothing. Reuse and preemption are in prefix_reuse_test.cpp,
// the demo model's answers in demo_chat_test.cpp.

#include <cmath>

#include "tests/unit/backends/local/engine/engine_fixture.hpp"

namespace ganglion::local {
namespace {

std::vector<std::int32_t> prompt_of(int length, int vocabulary) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < length; ++i) out.push_back((i % 19 * 37 + i / 19 * 5) % vocabulary);
  return out;
}

TEST(Int8Pages, MoreOfThemFitIntoTheSameMemory) {
  constexpr std::uint64_t kMemory = 1 << 20;
  const auto pages = [&](const char* model, KvType type) {
    const auto engine = load_engine(model, {.kv_bytes = kMemory, .batch_max = 64, .kv_type = type});
    return engine == nullptr ? 0 : engine->stats().kv_pages_total;
  };
  // 3 layers and 2 heads of 16: 6 KiB a page in fp16, and 3 KiB and 768 bytes of scales in int8.
  EXPECT_EQ(pages("llama3_tiny", KvType::f16), 170);
  EXPECT_EQ(pages("llama3_tiny", KvType::i8), 273);
  // 2 layers and 1 head of 256: 32 KiB, and 16 KiB and 256 bytes. Wide heads pay least.
  EXPECT_EQ(pages("gemma2_tiny", KvType::f16), 32);
  EXPECT_EQ(pages("gemma2_tiny", KvType::i8), 63);
}

class Int8PagesOf : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models, Int8PagesOf,
                         testing::Values("llama2_tiny", "mistral_tiny", "qwen3_tiny", "gemma2_tiny", "gemma3_tiny",
                                         "opt_tiny", "phi3_tiny", "mixtral_tiny"),
                         [](const auto& info) { return std::string(info.param); });

// The first token's log-probabilities, which the whole prompt's keys and values went into.
TEST_P(Int8PagesOf, LogProbabilitiesMoveLittle) {
  std::vector<TokenLogprobs> of[2];
  for (const KvType type : {KvType::f32, KvType::i8}) {
    const auto engine = load_engine(GetParam(), {.kv_type = type});
    ASSERT_NE(engine, nullptr);
    auto request = greedy(prompt_of(60, static_cast<int>(engine->config().vocab_size)), 1);
    request.sampling.logprobs = true;
    request.sampling.top_logprobs = 20;
    of[type == KvType::i8] = generate(*engine, request).logprobs;
  }
  ASSERT_EQ(of[0].size(), 1u);
  ASSERT_EQ(of[1].size(), 1u);
  double moved = 0;
  int compared = 0;
  for (const auto& a : of[0][0].top) {
    for (const auto& b : of[1][0].top) {
      if (a.id != b.id) continue;
      moved += std::fabs(a.logprob - b.logprob);
      ++compared;
    }
  }
  EXPECT_GE(compared, 14) << "other tokens lead now";
  EXPECT_LT(moved / compared, 0.15);
  EXPECT_GT(moved, 0) << "nothing was quantised";
}

TEST_P(Int8PagesOf, SpeculationChangesNothing) {
  const auto plain = load_engine(GetParam(), {.batch_max = 1, .kv_type = KvType::i8});
  const auto guessing =
      load_engine(GetParam(), {.batch_max = 1, .kv_type = KvType::i8, .speculation = Speculation::prompt_lookup});
  ASSERT_TRUE(plain && guessing);
  const auto request = greedy(prompt_of(57, static_cast<int>(plain->config().vocab_size)), 40);
  EXPECT_EQ(generate(*guessing, request).tokens, generate(*plain, request).tokens);
}

TEST(Int8Pages, Fp8ToldFromInt8WhereThereIsNoGpu) {
  const auto engine =
      Engine::load({.dir = model_dir("llama3_tiny"), .device = "cpu", .threads = 1, .kv_type = KvType::f8});
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().kind, core::ErrorKind::unsupported);
  EXPECT_NE(engine.error().message.find("fp8 needs a GPU; int8 does not"), std::string::npos) << engine.error().message;
}

}  // namespace
}  // namespace ganglion::local
