// Decode steps as one kernel against the same steps as many, on whole models.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/temp_dir.hpp"
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

// A prompt in pieces that need no product of the library's, whose kernels racecheck reports (nor, with `tune` off, are
// those tried at load).
void append_in_pieces(CudaHarness& harness, CudaHarness::Sequence& sequence, std::span<const std::int32_t> prompt) {
  while (!prompt.empty()) {
    const auto piece = prompt.first(std::min<std::size_t>(prompt.size(), cuda::kFusedRowsMax));
    harness.append(sequence, piece);
    prompt = prompt.subspan(piece.size());
  }
}

// The same step, sampled: the ids chosen.
std::vector<std::int32_t> greedy_ids(CudaHarness& harness, const std::vector<CudaHarness::Sequence>& sequences,
                                     int rows) {
  const CudaDecoder::SampleSpec greedy;
  std::vector<std::int32_t> tokens, ids;
  for (int i = 0; i < rows; ++i) tokens.push_back(5 + 7 * i);
  std::vector<CudaDecoder::Slice> slices;
  for (std::size_t i = 0; i < static_cast<std::size_t>(rows); ++i) {
    slices.push_back({{&tokens[i], 1}, sequences[i].pages.data(), sequences[i].length, true, &greedy});
  }
  EXPECT_TRUE(harness.decoder->submit(slices));
  const auto results = harness.decoder->collect();
  EXPECT_TRUE(results) << (results ? "" : results.error().message);
  if (!results) return {};
  for (const auto& one : *results) {
    EXPECT_EQ(one.ok, 1);
    ids.push_back(one.id);
  }
  return ids;
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
  std::vector<std::vector<float>> seen(5);
  // Each number of rows behind more of them and behind fewer: what one step leaves must not be taken for the next
  // one's.
  for (const int rows : {1, 2, 3, 4, 3, 1, 4, 2, 1}) {
    harness.decoder->set_whole(true);
    const auto once = next_logits(harness, sequences, rows), again = next_logits(harness, sequences, rows);
    harness.decoder->set_whole(false);
    const auto want = next_logits(harness, sequences, rows);
    ASSERT_EQ(once.size(), static_cast<std::size_t>(rows * vocab));
    EXPECT_EQ(once, again) << rows << " rows";
    auto& first = seen[static_cast<std::size_t>(rows)];
    if (first.empty()) first = once;
    EXPECT_EQ(once, first) << rows << " rows";
    // Other roundings: bf16 between operations as there, activations to 16 bits of fixed point beside integers.
    EXPECT_LT(relative_l2(once, want), c.format == cuda::Format::fp8 || cuda::kv_value_bytes(c.kv) == 1 ? 5e-2 : 2e-2)
        << rows << " rows";
  }
}

// A prompt that was found whole: its last token is asked for its logits and writes nothing, as its key and value are
// there. Behind a step that left another sequence's newest ones in shared memory.
TEST_P(WholeStep, AKeptLastTokenIsReadAndNotWritten) {
  const WholeCase c = GetParam();
  CudaHarness harness(dir(), {.format = c.format, .kv = c.kv, .whole_limits = cuda::kNoStepLimits});
  ASSERT_NE(harness.decoder, nullptr);
  if (!harness.decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  const auto vocab = harness.decoder->vocab_size();
  std::vector<std::int32_t> prompt;
  for (int i = 0; i < 48; ++i) prompt.push_back(static_cast<std::int32_t>((i * 37 + i * i) % vocab));
  auto other = harness.sequence(20), s = harness.sequence(48);
  harness.append(other, std::span(prompt).first(15));
  harness.append(s, prompt);
  const auto kept = [&](bool whole) {
    harness.decoder->set_whole(whole);
    harness.append(other, {&prompt[20], 1});
    const CudaDecoder::Slice slice{{&prompt.back(), 1}, s.pages.data(), 47, true, nullptr, true};
    EXPECT_TRUE(harness.decoder->submit({&slice, 1}));
    auto logits = harness.decoder->logits();
    EXPECT_TRUE(logits);
    return logits ? *logits : std::vector<float>();
  };
  const auto want = kept(false), got = kept(true);
  ASSERT_EQ(got.size(), static_cast<std::size_t>(vocab));
  EXPECT_LT(relative_l2(got, want), c.format == cuda::Format::fp8 || cuda::kv_value_bytes(c.kv) == 1 ? 5e-2 : 2e-2);
  EXPECT_EQ(kept(true), got);
}

// Three sequences that are sampled take a captured step of four rows, of which one only pads.
TEST_P(WholeStep, RowsThatOnlyPadChangeNothing) {
  const WholeCase c = GetParam();
  CudaHarness harness(dir(), {.format = c.format, .kv = c.kv, .whole_limits = cuda::kNoStepLimits});
  ASSERT_NE(harness.decoder, nullptr);
  if (!harness.decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  const auto vocab = static_cast<std::size_t>(harness.decoder->vocab_size());
  std::vector<CudaHarness::Sequence> sequences;
  for (const int length : {40, 3, 100}) {
    sequences.push_back(harness.sequence(length + 1));
    std::vector<std::int32_t> prompt;
    for (int i = 0; i < length; ++i) prompt.push_back(static_cast<std::int32_t>((1 + i * 29 + i * i) % vocab));
    harness.append(sequences.back(), prompt);
  }
  const auto logits = next_logits(harness, sequences, 3);
  for (int times = 0; times < 4; ++times) {  // as it is, captured, replayed
    const auto ids = greedy_ids(harness, sequences, 3);
    ASSERT_EQ(ids.size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) {
      const auto row = std::span(logits).subspan(i * vocab, vocab);
      EXPECT_EQ(ids[i], std::ranges::max_element(row) - row.begin()) << "sequence " << i;
    }
    // Behind them a step whose parts leave theirs at other places, where that row's may have been.
    EXPECT_EQ(next_logits(harness, sequences, 3), logits);
  }
}

// Rows of several stages of the ring with the last one not full, row blocks of more than one turn of the blocks, and
// activations that are no multiple of what all threads fetch at once: no tiny model has them. Nor has one a row block
// of every product for every block, as those of three layers have for up to 144 of them. The small ones are the least
// that has all of that, for compute-sanitizer's racecheck.
struct WideCase {
  cuda::Format format;
  int group, hidden, inner, heads, layers = 1;
};
class WideWholeStep : public testing::TestWithParam<std::tuple<WideCase, int>> {};
const auto kAnyRows = testing::Range(1, cuda::kStepRowsMax + 1);
INSTANTIATE_TEST_SUITE_P(Large, WideWholeStep,
                         testing::Combine(testing::Values(WideCase{cuda::Format::int4, 64, 4096, 11008, 32},
                                                          WideCase{cuda::Format::int4, 128, 4096, 4480, 32},
                                                          WideCase{cuda::Format::int4, 64, 2304, 9216, 18},
                                                          WideCase{cuda::Format::int8, 64, 2304, 5632, 18},
                                                          WideCase{cuda::Format::fp8, 64, 2304, 5632, 18},
                                                          WideCase{cuda::Format::int4, 64, 2304, 4480, 18, 3},
                                                          WideCase{cuda::Format::int8, 64, 2304, 5632, 18, 3},
                                                          WideCase{cuda::Format::fp8, 64, 2304, 5632, 18, 3}),
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
  config.vocab_size = 1'000, config.hidden_size = c.hidden, config.layers = c.layers, config.heads = c.heads;
  config.kv_heads = config.heads / 2, config.head_dim = 128, config.intermediate_size = c.inner;
  config.max_position = 512;
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
    append_in_pieces(harness, sequences.back(), prompt);
  }
  harness.decoder->set_whole(true);
  const auto once = next_logits(harness, sequences, rows), again = next_logits(harness, sequences, rows);
  harness.decoder->set_whole(false);
  const auto want = next_logits(harness, sequences, rows);
  EXPECT_EQ(once, again);
  EXPECT_NE(once, want) << "many kernels all along";
  EXPECT_LT(relative_l2(once, want), c.layers > 1 && c.format == cuda::Format::fp8 ? 5e-2 : 2e-2);
  if (rows != 3) return;
  harness.decoder->set_whole(true);  // a captured step, in which a fourth row only pads, behind others and before one
  const auto ids = greedy_ids(harness, sequences, rows);
  const auto row = static_cast<std::size_t>(config.vocab_size);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto own = std::span(once).subspan(i * row, row);
    EXPECT_EQ(ids[i], std::ranges::max_element(own) - own.begin());
  }
  EXPECT_EQ(greedy_ids(harness, sequences, rows), ids);
  EXPECT_EQ(greedy_ids(harness, sequences, rows), ids);
  EXPECT_EQ(next_logits(harness, sequences, rows), once);
}

// Attention's units: key heads with more query heads than a fragment has columns, more units than blocks, and a window
// that begins inside a page.
struct HeadsCase {
  int heads, kv_heads, head_dim, window;
};
class WholeStepHeads : public testing::TestWithParam<std::tuple<HeadsCase, cuda::KvFormat>> {};
INSTANTIATE_TEST_SUITE_P(Shapes, WholeStepHeads,
                         testing::Combine(testing::Values(HeadsCase{32, 2, 64, 0}, HeadsCase{12, 1, 128, 0},
                                                          HeadsCase{48, 48, 32, 0}, HeadsCase{8, 2, 64, 21}),
                                          testing::Values(kBf16, cuda::KvFormat::fp16, cuda::KvFormat::fp8,
                                                          cuda::KvFormat::int8)));

TEST_P(WholeStepHeads, AgreesWithManyKernels) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  const auto [c, kv] = GetParam();
  ModelConfig config;
  config.vocab_size = 500, config.hidden_size = 512, config.layers = 2, config.heads = c.heads;
  config.kv_heads = c.kv_heads, config.head_dim = c.head_dim, config.intermediate_size = 512;
  config.max_position = 512;
  if (c.window > 0) config.sliding_window = c.window, config.layer_sliding = {true, false};
  CudaHarness harness(config,
                      {.format = cuda::Format::int4, .kv = kv, .whole_limits = cuda::kNoStepLimits, .tune = false}, 11);
  ASSERT_NE(harness.decoder, nullptr);
  if (!harness.decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  std::vector<CudaHarness::Sequence> sequences;
  for (const int length : {30, 1, 47, 200}) {
    sequences.push_back(harness.sequence(length + 1));
    std::vector<std::int32_t> prompt;
    for (int i = 0; i < length; ++i) prompt.push_back(i * 37 % 500);
    append_in_pieces(harness, sequences.back(), prompt);
  }
  for (int rows = 1; rows <= cuda::kStepRowsMax; ++rows) {
    harness.decoder->set_whole(true);
    const auto once = next_logits(harness, sequences, rows), again = next_logits(harness, sequences, rows);
    harness.decoder->set_whole(false);
    EXPECT_EQ(once, again) << rows << " rows";
    EXPECT_LT(relative_l2(once, next_logits(harness, sequences, rows)), cuda::kv_value_bytes(kv) == 1 ? 5e-2 : 2e-2)
        << rows << " rows";
  }
}

TEST(WholeStepLong, AttendsInParts) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  CudaHarness harness(std::string(GANGLION_SOURCE_DIR) + "/models/demo-chat",
                      {.format = cuda::Format::int4, .whole_limits = cuda::kNoStepLimits});
  ASSERT_NE(harness.decoder, nullptr);
  if (!harness.decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  const int length = static_cast<int>(std::min<std::int64_t>(harness.decoder->context_max() - 2, 1800));
  std::vector<CudaHarness::Sequence> sequences;
  for (const int tokens : {length, length / 2, 5}) {  // of the last one most parts are empty
    sequences.push_back(harness.sequence(tokens + 1));
    std::vector<std::int32_t> prompt;
    for (int i = 0; i < tokens; ++i) prompt.push_back(3 + i * 31 % 4000);
    harness.append(sequences.back(), prompt);
  }
  for (const int rows : {1, 2, 3}) {
    harness.decoder->set_whole(true);
    const auto once = next_logits(harness, sequences, rows), again = next_logits(harness, sequences, rows);
    harness.decoder->set_whole(false);
    EXPECT_EQ(once, again) << rows << " rows";
    EXPECT_LT(relative_l2(once, next_logits(harness, sequences, rows)), 2e-2) << rows << " rows";
  }
}

// Values go from block to block as their own sign that they are there: what is not a number must be one like others. A
// checkpoint whose embedding of one token has every bit set, which is also what stands where nothing has been left.
class WholeStepNumbers : public testing::TestWithParam<cuda::Format> {};
INSTANTIATE_TEST_SUITE_P(Formats, WholeStepNumbers,
                         testing::Values(cuda::Format::int4, cuda::Format::int8, cuda::Format::fp8));

TEST_P(WholeStepNumbers, WhatIsNotANumberIsHandedOver) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  const test::TempDir dir;
  std::filesystem::copy(data_dir("llama2_tiny"), dir.path(), std::filesystem::copy_options::recursive);
  const std::string file = dir / "model.safetensors";
  std::fstream weights(file, std::ios::in | std::ios::out | std::ios::binary);
  std::uint64_t header = 0;
  weights.read(reinterpret_cast<char*>(&header), 8);
  std::string json(header, ' ');
  weights.read(json.data(), static_cast<std::streamsize>(header));
  const auto embedding = nlohmann::json::parse(json).at("model.embed_tokens.weight");
  const auto begin = embedding.at("data_offsets")[0].get<std::uint64_t>(),
             end = embedding.at("data_offsets")[1].get<std::uint64_t>();
  const auto row = (end - begin) / embedding.at("shape")[0].get<std::uint64_t>();
  constexpr std::int32_t kNone = 9;
  weights.seekp(static_cast<std::streamoff>(8 + header + begin + kNone * row));
  weights << std::string(row, '\xff') << std::flush;
  CudaHarness harness(dir.path(), {.format = GetParam(), .whole_limits = cuda::kNoStepLimits});
  ASSERT_NE(harness.decoder, nullptr);
  if (!harness.decoder->steps_whole()) GTEST_SKIP() << "compute capability 9.0 only";
  auto before = harness.sequence(2), none = harness.sequence(2), after = harness.sequence(2);
  const std::int32_t token = 7;
  const auto want = harness.append(before, {&token, 1});
  const auto is_none = [](float v) { return std::isnan(v); };
  EXPECT_TRUE(std::ranges::all_of(harness.append(none, {&kNone, 1}), is_none));
  EXPECT_EQ(harness.append(after, {&token, 1}), want);
  harness.decoder->set_whole(false);
  auto many = harness.sequence(1);
  EXPECT_TRUE(std::ranges::all_of(harness.append(many, {&kNone, 1}), is_none)) << "by many kernels";
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
