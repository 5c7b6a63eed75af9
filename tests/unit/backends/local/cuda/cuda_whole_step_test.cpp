// Decode steps as one kernel against the same steps as many, on whole models.

#include <algorithm>
#include <span>
#include <tuple>
#include <vector>

#include "tests/unit/backends/local/cuda/cuda_harness.hpp"

namespace ganglion::local {
namespace {

struct WholeCase {
  const char* model;
  cuda::Format format;
  cuda::KvFormat kv;
};

class WholeStep : public testing::TestWithParam<WholeCase> {
 protected:
  void SetUp() override {
    if (no_gpu()) GTEST_SKIP() << "no GPU";
  }
  static std::string dir() {
    const std::string model = GetParam().model;
    return model == "demo-chat" ? std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat" : data_dir(model);
  }
};

constexpr auto kBf16 = cuda::KvFormat::bf16;
INSTANTIATE_TEST_SUITE_P(Models, WholeStep,
                         testing::Values(WholeCase{"llama3_tiny", cuda::Format::int4, kBf16},
                                         WholeCase{"llama2_tiny", cuda::Format::int8, kBf16},
                                         WholeCase{"mistral_tiny", cuda::Format::fp8, kBf16},
                                         WholeCase{"qwen2_tiny", cuda::Format::int8, kBf16},
                                         WholeCase{"qwen3_tiny", cuda::Format::int4, kBf16},
                                         WholeCase{"gptq_tiny", cuda::Format::bf16, kBf16},
                                         WholeCase{"demo-chat", cuda::Format::int8, cuda::KvFormat::int8},
                                         WholeCase{"demo-chat", cuda::Format::fp8, cuda::KvFormat::fp8},
                                         WholeCase{"demo-chat", cuda::Format::int8, cuda::KvFormat::fp16},
                                         WholeCase{"demo-chat", cuda::Format::int4, cuda::KvFormat::fp16},
                                         WholeCase{"demo-chat", cuda::Format::fp8, kBf16},
                                         WholeCase{"demo-chat", cuda::Format::int4, cuda::KvFormat::int8},
                                         WholeCase{"demo-chat", cuda::Format::int4, kBf16}));

// Logits of `rows` sequences' next tokens, which are left as they were.
std::vector<float> next_logits(CudaHarness& harness, const std::vector<CudaHarness::Sequence>& sequences, int rows) {
  std::vector<std::int32_t> tokens;
  for (int i = 0; i < rows; ++i) tokens.push_back(5 + 7 * i);
  std::vector<CudaDecoder::Slice> slices;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
    slices.push_back({{&tokens[i], 1}, sequences[i].pages.data(), sequences[i].length, true, nullptr});
  }
  const auto queued = harness.decoder->submit(slices);
  EXPECT_TRUE(queued) << (queued ? "" : queued.error().message);
  auto logits = harness.decoder->logits();
  EXPECT_TRUE(logits) << (logits ? "" : logits.error().message);
  return logits ? *logits : std::vector<float>();
}

TEST_P(WholeStep, AgreesWithManyKernelsAndWithItself) {
  const WholeCase c = GetParam();
  CudaHarness harness(dir(), {.format = c.format, .kv = c.kv, .whole_limits = cuda::kNoStepLimits});
  ASSERT_NE(harness.decoder, nullptr);
  if (!harness.decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  const auto vocab = harness.decoder->vocab_size();
  std::vector<CudaHarness::Sequence> sequences;
  // Of very different lengths: the longest is attended in parts by several blocks.
  for (const int length : {1, 17, 100, 120}) {
    sequences.push_back(harness.sequence(length + 1));
    std::vector<std::int32_t> prompt;
    for (int i = 0; i < length; ++i) prompt.push_back(static_cast<std::int32_t>((3 + i * 29 + i * i) % vocab));
    harness.append(sequences.back(), prompt);
  }
  for (int rows = 1; rows <= 4; ++rows) {
    harness.decoder->set_whole(true);
    const auto once = next_logits(harness, sequences, rows), again = next_logits(harness, sequences, rows);
    harness.decoder->set_whole(false);
    const auto want = next_logits(harness, sequences, rows);
    ASSERT_EQ(once.size(), static_cast<std::size_t>(rows * vocab));
    EXPECT_EQ(once, again) << rows << " rows";
    // Other roundings: bf16 between operations as there, activations to 16 bits of fixed point beside integers.
    EXPECT_LT(relative_l2(once, want), c.format == cuda::Format::fp8 || cuda::kv_value_bytes(c.kv) == 1 ? 5e-2 : 2e-2)
        << rows << " rows";
  }
}

// Rows of several stages of the ring with the last one not full, row blocks of more than one turn of the blocks, and
// activations that are no multiple of what all threads fetch at once: no tiny model has them. The small ones are the
// least that has all of that, for compute-sanitizer's racecheck.
struct WideCase {
  cuda::Format format;
  int group, hidden, inner, heads;
};
class WideWholeStep : public testing::TestWithParam<std::tuple<WideCase, int>> {};
const auto kAnyRows = testing::Range(1, cuda::kStepRowsMax + 1);
INSTANTIATE_TEST_SUITE_P(Large, WideWholeStep,
                         testing::Combine(testing::Values(WideCase{cuda::Format::int4, 64, 4096, 11008, 32},
                                                          WideCase{cuda::Format::int4, 128, 4096, 4480, 32},
                                                          WideCase{cuda::Format::int4, 64, 2304, 9216, 18},
                                                          WideCase{cuda::Format::int8, 64, 2304, 5632, 18},
                                                          WideCase{cuda::Format::fp8, 64, 2304, 5632, 18}),
                                          kAnyRows));
INSTANTIATE_TEST_SUITE_P(Small, WideWholeStep,
                         testing::Combine(testing::Values(WideCase{cuda::Format::int4, 64, 2304, 4480, 4},
                                                          WideCase{cuda::Format::int8, 64, 2304, 1152, 4},
                                                          WideCase{cuda::Format::fp8, 64, 2304, 1152, 4}),
                                          kAnyRows));

TEST_P(WideWholeStep, AgreesWithManyKernels) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  const auto [c, rows] = GetParam();
  ModelConfig config;
  config.vocab_size = 1'000, config.hidden_size = c.hidden, config.layers = 1, config.heads = c.heads;
  config.kv_heads = config.heads / 2, config.head_dim = 128, config.intermediate_size = c.inner;
  config.max_position = 512;
  // No trials of the library's products, and prompts in pieces that need none of them: racecheck reports its kernels.
  CudaHarness harness(
      config, {.format = c.format, .int4_group = c.group, .whole_limits = cuda::kNoStepLimits, .tune = false}, 5);
  ASSERT_NE(harness.decoder, nullptr);
  if (!harness.decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  std::vector<CudaHarness::Sequence> sequences;
  constexpr int kLengths[] = {3, 40, 17, 1};
  for (const int length : std::span(kLengths).first(static_cast<std::size_t>(rows))) {
    sequences.push_back(harness.sequence(length + 1));
    std::vector<std::int32_t> prompt;
    for (int i = 0; i < length; ++i) prompt.push_back(i * 37 % 1'000);
    for (std::span<const std::int32_t> rest = prompt; !rest.empty();) {
      const auto piece = rest.first(std::min<std::size_t>(rest.size(), cuda::kFusedRowsMax));
      harness.append(sequences.back(), piece);
      rest = rest.subspan(piece.size());
    }
  }
  harness.decoder->set_whole(true);
  const auto once = next_logits(harness, sequences, rows), again = next_logits(harness, sequences, rows);
  harness.decoder->set_whole(false);
  const auto want = next_logits(harness, sequences, rows);
  EXPECT_EQ(once, again);
  EXPECT_NE(once, want) << "many kernels all along";
  EXPECT_LT(relative_l2(once, want), 2e-2);
}

TEST(WholeStepLong, AttendsInParts) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  CudaHarness harness(std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat",
                      {.format = cuda::Format::int4, .whole_limits = cuda::kNoStepLimits});
  ASSERT_NE(harness.decoder, nullptr);
  if (!harness.decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  const int length = static_cast<int>(std::min<std::int64_t>(harness.decoder->context_max() - 2, 1800));
  std::vector<CudaHarness::Sequence> sequences{harness.sequence(length + 1)};
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < length; ++i) prompt.push_back(3 + i * 31 % 4000);
  harness.append(sequences[0], prompt);
  const auto once = next_logits(harness, sequences, 1), again = next_logits(harness, sequences, 1);
  harness.decoder->set_whole(false);
  EXPECT_EQ(once, again);
  EXPECT_LT(relative_l2(once, next_logits(harness, sequences, 1)), 2e-2);
}

// Needs no device.
TEST(WholeStepLimits, FollowTheMemory) {
  constexpr double kH100 = 3'350, kH200 = 4'920;
  EXPECT_EQ(cuda::step_limits(cuda::Format::bf16, kH200).rows, 0);
  for (const auto format : {cuda::Format::int8, cuda::Format::fp8, cuda::Format::int4}) {
    const auto slow = cuda::step_limits(format, kH100), fast = cuda::step_limits(format, kH200);
    EXPECT_GE(slow.rows, 1) << static_cast<int>(format);
    EXPECT_LE(slow.rows, fast.rows) << static_cast<int>(format);
    EXPECT_LT(slow.context, fast.context) << static_cast<int>(format);
  }
}

TEST(WholeStepRight, OneDecoderADevice) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  auto first = std::make_unique<CudaHarness>(data_dir("llama3_tiny"), CudaOptions{.format = cuda::Format::int8});
  ASSERT_NE(first->decoder, nullptr);
  if (!first->decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  CudaHarness second(data_dir("llama3_tiny"), {.format = cuda::Format::int8});
  ASSERT_NE(second.decoder, nullptr);
  EXPECT_FALSE(second.decoder->steps_whole());
  auto a = first->sequence(2), b = second.sequence(2);
  const std::int32_t token = 9;
  EXPECT_LT(relative_l2(first->append(a, {&token, 1}), second.append(b, {&token, 1})), 2e-2);
  first.reset();
  CudaHarness third(data_dir("llama3_tiny"), {.format = cuda::Format::int8});
  ASSERT_NE(third.decoder, nullptr);
  EXPECT_TRUE(third.decoder->steps_whole());
}

}  // namespace
}  // namespace ganglion::local
