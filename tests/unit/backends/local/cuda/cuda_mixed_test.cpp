// Checkpoints of which a part was left out of quantisation, so that matrices of several formats meet in one step:
// against the CPU's decoder in float32 on the same weights without any quantisation, and against the goldens of the
// whole model.

#include <algorithm>

#include "tests/unit/backends/local/cuda/cuda_harness.hpp"
#include "tests/unit/backends/local/models/made_checkpoint.hpp"

namespace ganglion::local {
namespace {

using test::MixedCheckpoint;
using test::MixedModel;

class CudaMixed : public testing::TestWithParam<MixedModel> {
 protected:
  void SetUp() override {
    if (no_gpu()) GTEST_SKIP() << "no GPU";
  }
  static bool is(const char* format) { return GetParam().models.front().starts_with(format); }
  // Activations of eight bits, which e4m3 weights have past the fused kernels and int8 ones where that is asked for,
  // cost more than bf16 ones: the bounds of CudaPacked and of w8a8_test.cpp.
  static double most(int rows, const CudaOptions& options) {
    if (rows <= cuda::kFusedRowsMax) return 5e-2;
    return is("fp8") ? 0.3 : options.int8_activations ? 0.2 : 5e-2;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, CudaMixed, testing::ValuesIn(test::mixed_models()),
                         [](const auto& info) { return info.param.name; });

// Our own products of eight bits, and the library's for whatever the streaming ones leave.
std::vector<CudaOptions> ways(bool int8) {
  std::vector<CudaOptions> out{{}, {.graphs = false, .whole = false, .tune = false}};
  out.push_back({.eight_bit_rows_max = 0, .tuned_weights_min = 0});
  if (!int8) return out;
  out.push_back({.int8_activations = true});
  out.push_back({.int8_activations = true, .eight_bit_rows_max = 0, .tuned_weights_min = 0});
  return out;
}

constexpr int kTokens = 100, kVocab = 128;

std::vector<std::int32_t> prompt_of(int seed) {
  std::vector<std::int32_t> out;
  for (int i = 0; i < kTokens; ++i) out.push_back((3 + seed + i * 29 + i * i) % kVocab);
  return out;
}

// Logits after every token, one row after the other.
std::vector<float> float_logits(const std::string& dir, std::span<const std::int32_t> tokens) {
  DecoderHarness cpu(dir);
  std::vector<float> out(tokens.size() * kVocab);
  if (cpu.decoder == nullptr) return out;
  const auto s = cpu.sequence(static_cast<int>(tokens.size()));
  DecoderSlice slice{tokens, s.pages.data(), 0, true};
  slice.wanted = static_cast<int>(tokens.size());
  EXPECT_TRUE(cpu.decoder->forward(cpu.kv, {&slice, 1}, out.data()));
  return out;
}

// One row; few, by the fused kernels; few more; past what any streaming product takes.
TEST_P(CudaMixed, StepsOfAnySizeAreTheFloatDecoders) {
  const MixedCheckpoint mixed(GetParam()), plain(GetParam().with_plain(test::kEveryProjection));
  const auto prompt = prompt_of(0);
  const auto all = float_logits(plain.dir(), prompt);
  int number = 0;
  for (const CudaOptions& options : ways(is("w8a8"))) {
    CudaHarness harness(mixed.dir(), options);
    ASSERT_NE(harness.decoder, nullptr);
    EXPECT_FALSE(harness.decoder->steps_whole()) << "one kernel for matrices of several formats";
    for (const int rows : {1, 5, 8, 9, 20, 50, kTokens}) {
      auto s = harness.sequence(kTokens);
      std::vector<float> got, want;
      for (int at = 0; at < kTokens; at += rows) {
        const int count = std::min(rows, kTokens - at);
        const auto logits =
            harness.append(s, std::span(prompt).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count)));
        got.insert(got.end(), logits.begin(), logits.end());
        const auto row = all.begin() + static_cast<std::ptrdiff_t>(at + count - 1) * kVocab;
        want.insert(want.end(), row, row + kVocab);
      }
      ASSERT_EQ(got.size(), want.size());
      const double error = relative_l2(got, want);
      std::printf("%s way %d, steps of %d: relative error of logits %.2e\n", GetParam().name, number, rows, error);
      EXPECT_LT(error, most(rows, options)) << "way " << number << ", steps of " << rows;
    }
    ++number;
  }
}

TEST_P(CudaMixed, AgreesWithTheGoldensOfTheWholeModel) {
  if (GetParam().models.size() > 1) GTEST_SKIP() << "nobody's goldens";
  const MixedCheckpoint mixed(GetParam());
  for (const CudaOptions& options : ways(is("w8a8"))) {
    CudaHarness harness(mixed.dir(), options);
    ASSERT_NE(harness.decoder, nullptr);
    EXPECT_LT(worst_of(harness, GetParam().models.front()), most(kTokens, options));
  }
}

// Outcomes of three decode steps of `batch` sequences behind prompts of different lengths: as they are, captured and
// replayed where graphs are on. The tokens are given, whatever is sampled.
std::vector<cuda::SampleResult> sampled(CudaHarness& harness, int batch) {
  std::vector<CudaHarness::Sequence> sequences;
  std::vector<std::vector<std::int32_t>> tokens;
  for (int i = 0; i < batch; ++i) {
    tokens.push_back(prompt_of(i));
    sequences.push_back(harness.sequence(20));
    harness.append(sequences.back(), std::span(tokens.back()).first(static_cast<std::size_t>(3 + i % 12)));
  }
  CudaDecoder::SampleSpec spec;
  spec.row.logprobs = 1, spec.row.top_logprobs = 2;
  std::vector<cuda::SampleResult> out;
  for (int step = 0; step < 3; ++step) {
    std::vector<CudaDecoder::Slice> slices;
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      auto& s = sequences[i];
      slices.push_back({{&tokens[i][static_cast<std::size_t>(s.length)], 1}, s.pages.data(), s.length, true, &spec});
      ++s.length;
    }
    const auto queued = harness.decoder->submit(slices);
    EXPECT_TRUE(queued) << (queued ? "" : queued.error().message);
    const auto results = harness.decoder->collect();
    EXPECT_TRUE(results) << (results ? "" : results.error().message);
    if (results) out.insert(out.end(), results->begin(), results->end());
  }
  return out;
}

TEST_P(CudaMixed, ReplayedStepsAreThoseThatAreNot) {
  const MixedCheckpoint mixed(GetParam());
  CudaOptions options{.int8_activations = is("w8a8")};
  CudaHarness replayed(mixed.dir(), options);
  options.graphs = false;
  CudaHarness plain(mixed.dir(), options);
  ASSERT_TRUE(replayed.decoder && plain.decoder);
  for (const int batch : {1, 3, 20, 60}) {
    const auto got = sampled(replayed, batch), want = sampled(plain, batch);
    ASSERT_EQ(got.size(), static_cast<std::size_t>(3 * batch));
    ASSERT_EQ(want.size(), got.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].ok, 1);
      ASSERT_EQ(want[i].ok, 1);
      // A step that is padded for a graph may take other kernels, which sum in another order.
      EXPECT_NEAR(got[i].top_logprob[0], want[i].top_logprob[0], 0.05f) << batch << " sequences, result " << i;
      if (want[i].top_logprob[0] - want[i].top_logprob[1] > 0.2f) EXPECT_EQ(got[i].id, want[i].id);
    }
  }
}

// What the library is asked for depends on a matrix's format: all layers' are tried, whichever comes first.
TEST(CudaMixedTuning, TriesTheProductsOfEveryFormat) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  const CudaOptions options{.int8_activations = true, .eight_bit_rows_max = 0, .tuned_weights_min = 0};
  const auto tuned = [&](const MixedModel& model) {
    const MixedCheckpoint made(model);
    CudaHarness harness(made.dir(), options);
    using Shape = std::tuple<int, int, int>;
    std::vector<Shape> out;
    if (harness.decoder == nullptr) return out;
    for (const Blas::Tuned& t : harness.decoder->tuned()) out.emplace_back(t.m, t.n, t.k);
    std::ranges::sort(out);
    return out;
  };
  for (const auto& models : {std::vector<std::string>{"fp8_channel_tiny", "fp8_tensor_tiny"}, {"w8a8_tiny"}}) {
    const MixedModel model{"", models, ""};
    const auto none = tuned(model), first = tuned(model.with_plain(".layers.0.")),
               last = tuned(model.with_plain(".layers.1."));
    EXPECT_GT(none.size(), 0u);
    EXPECT_EQ(first, last) << models.front();
    EXPECT_GT(first.size(), none.size()) << models.front();
    EXPECT_TRUE(std::ranges::includes(first, none)) << models.front();
  }
}

}  // namespace
}  // namespace ganglion::local
