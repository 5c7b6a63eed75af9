// A model cut over two GPUs against the same model on one. Skipped, saying so, where there are fewer than two.

#include "backends/local/models/cuda/cuda_ranks.hpp"

#include <algorithm>

#include "tests/unit/backends/local/cuda/device_fixture.hpp"
#include "tests/unit/backends/local/engine/engine_fixture.hpp"
#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

TEST(ShareOf, CutsHeadsAndTheInnerWidthAndNothingElse) {
  ModelConfig config;
  config.heads = 32, config.kv_heads = 8, config.intermediate_size = 11'008, config.hidden_size = 4'096;
  config.head_dim = 128;
  const auto half = share_of(config, 2);
  ASSERT_TRUE(half);
  EXPECT_EQ(half->heads, 16);
  EXPECT_EQ(half->kv_heads, 4);
  EXPECT_EQ(half->intermediate_size, 5'504);
  EXPECT_EQ(half->hidden_size, 4'096);
  const auto many = share_of(config, 16);
  ASSERT_FALSE(many);
  EXPECT_EQ(many.error().kind, core::ErrorKind::unsupported);
  EXPECT_NE(many.error().message.find("8 key heads"), std::string::npos);
}

class TwoGpus : public testing::Test {
 protected:
  void SetUp() override {
    const auto found = find_devices();
    if (!found || found->size() < 2) GTEST_SKIP() << "fewer than two GPUs";
    devices = {(*found)[0].index, (*found)[1].index};
  }
  std::unique_ptr<CudaRanks> load(const std::string& dir, CudaOptions options, std::span<const int> on) {
    auto config = load_model_config(dir);
    auto checkpoint = Checkpoint::open(dir);
    EXPECT_TRUE(config && checkpoint) << dir;
    auto ranks = CudaRanks::load(&*checkpoint, *config, options, on);
    EXPECT_TRUE(ranks) << (ranks ? "" : ranks.error().message);
    if (!ranks || !(*ranks)->reserve_pages(64)) return nullptr;
    return std::move(*ranks);
  }
  std::vector<int> devices;
};

std::vector<float> logits_of(CudaRanks& ranks, std::span<const std::int32_t> tokens, int position) {
  std::vector<std::int32_t> pages;
  for (int i = 0; i < 64; ++i) pages.push_back(i * 37 % 64);
  const CudaDecoder::Slice slice{tokens, pages.data(), position, true, nullptr};
  const auto queued = ranks.submit({&slice, 1});
  EXPECT_TRUE(queued) << (queued ? "" : queued.error().message);
  auto out = ranks.logits();
  EXPECT_TRUE(out) << (out ? "" : out.error().message);
  return out ? *out : std::vector<float>{};
}

class TwoGpusLogits : public TwoGpus, public testing::WithParamInterface<std::tuple<const char*, cuda::Format>> {};
INSTANTIATE_TEST_SUITE_P(Models, TwoGpusLogits,
                         testing::Combine(testing::Values("llama2_tiny", "llama3_tiny", "mistral_tiny", "qwen3_tiny"),
                                          testing::Values(cuda::Format::bf16, cuda::Format::int8, cuda::Format::fp8)));

// Many rows at once, then a few one by one: a sum over two GPUs takes compute-sanitizer a seventh of a second.
TEST_P(TwoGpusLogits, AreOneGpus) {
  const auto [model, format] = GetParam();
  const auto one = load(data_dir(model), {.format = format}, std::span(devices).first(1)),
             two = load(data_dir(model), {.format = format}, devices);
  ASSERT_TRUE(one && two);
  double worst = 0;
  for (const GoldenCase& c : read_goldens(model)) {
    const std::size_t alone = std::min<std::size_t>(c.prompt.size(), 5), together = c.prompt.size() - alone;
    for (std::size_t at = 0; at < c.prompt.size();) {
      const std::size_t count = at < together ? together : 1;
      const auto tokens = std::span(c.prompt).subspan(at, count);
      const auto want = logits_of(*one, tokens, static_cast<int>(at)),
                 got = logits_of(*two, tokens, static_cast<int>(at));
      ASSERT_EQ(got.size(), want.size());
      worst = std::max(worst, relative_l2(got, want));
      at += count;
    }
  }
  std::printf("%s format %d, two GPUs against one: %.2e\n", model, static_cast<int>(format), worst);
  // Sums in another order, halves of them rounded to bf16; small random models double that in a few layers.
  EXPECT_LT(worst, format == cuda::Format::fp8 ? 3e-1 : 1e-1);
}

#ifdef GANGLION_CHECKED
constexpr std::size_t kAnswerTokensMax = 12;
#else
constexpr std::size_t kAnswerTokensMax = SIZE_MAX;
#endif

TEST_F(TwoGpus, TheDemoModelsLogitsAreWithinOnePercentAndItsAnswersTheGoldenOnes) {
  const std::string dir = std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat";
  std::ifstream file(data_dir("demo_chat_goldens.json"));
  const auto goldens = nlohmann::json::parse(file);
  {
    const auto one = load(dir, {}, std::span(devices).first(1)), two = load(dir, {}, devices);
    ASSERT_TRUE(one && two);
    const auto ids = goldens.at("cases")[0].at("prompt_ids").get<std::vector<std::int32_t>>();
    const double error = relative_l2(logits_of(*two, ids, 0), logits_of(*one, ids, 0));
    std::printf("demo-chat bf16, two GPUs against one: %.2e\n", error);
    EXPECT_LT(error, 1e-2);
  }
  auto engine = Engine::load(
      {.dir = dir, .device = "cuda:" + std::to_string(devices[0]) + "," + std::to_string(devices[1]), .batch_max = 32});
  ASSERT_TRUE(engine) << engine.error().message;
  std::vector<std::pair<std::string, std::shared_ptr<KeepingSink>>> waiting;
  for (const auto& c : goldens.at("cases")) {
    const auto answer = c.at("answer_ids").get<std::vector<std::int32_t>>();
    if (answer.size() > kAnswerTokensMax) continue;
    auto request = greedy(c.at("prompt_ids").get<std::vector<std::int32_t>>(),
                          static_cast<int>(answer.size()) + (c.at("finish") == "stop" ? 20 : 0));
    request.ignore_eos = false;
    waiting.emplace_back(c.at("answer").get<std::string>(), std::make_shared<KeepingSink>());
    ASSERT_TRUE((*engine)->submit(std::move(request), waiting.back().second));
  }
  EXPECT_GE(waiting.size(), 12U);
  for (const auto& [text, sink] : waiting) EXPECT_EQ(sink->wait().text, text);
}

TEST_F(TwoGpus, AModelThatCannotBeCutIsRefused) {
  ModelConfig odd = *load_model_config(data_dir("llama2_tiny"));
  odd.kv_heads = odd.heads = 3;
  const auto refused = CudaRanks::load(nullptr, odd, {}, devices);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::unsupported);
}

}  // namespace
}  // namespace ganglion::local
