// The residual stream between layers on the device: what enters each of them and what leaves the last, so that a
// mistake shows in the layer that makes it. Against transformers' rows where the goldens have them (the last row of a
// prompt), and in every row of every model against the CPU's decoder, which computes in float32 and is held to
// transformers itself (decoder_golden_test.cpp).

#include <algorithm>

#include "tests/unit/backends/local/cuda/cuda_harness.hpp"

namespace ganglion::local {
namespace {

// [layer][row][hidden_size], gathered over the steps of one sequence.
class Streams {
 public:
  void add(int layer, std::span<const float> hidden) {
    const auto at = static_cast<std::size_t>(layer);
    if (of_.size() <= at) of_.resize(at + 1);
    of_[at].insert(of_[at].end(), hidden.begin(), hidden.end());
  }
  std::size_t layers() const { return of_.size(); }
  const std::vector<float>& of(std::size_t layer) const { return of_[layer]; }
  std::vector<float> row(std::size_t layer, std::size_t row, std::size_t width) const {
    const auto first = of_[layer].begin() + static_cast<std::ptrdiff_t>(row * width);
    return {first, first + static_cast<std::ptrdiff_t>(width)};
  }

 private:
  std::vector<std::vector<float>> of_;
};

// The first `begin` tokens of a prompt in one step, the others in steps of `rows`.
Streams device_streams(CudaHarness& harness, const GoldenCase& c, std::size_t begin, std::size_t rows) {
  Streams out;
  harness.decoder->set_tap([&](int layer, std::span<const float> hidden) { out.add(layer, hidden); });
  auto s = harness.sequence(static_cast<int>(c.prompt.size()), c.long_positions);
  for (std::span<const std::int32_t> rest = c.prompt; !rest.empty();) {
    const bool first = rest.size() == c.prompt.size();
    const auto piece = rest.first(std::min(first && begin > 0 ? begin : rows, rest.size()));
    harness.append(s, piece);
    rest = rest.subspan(piece.size());
  }
  harness.decoder->set_tap({});
  return out;
}

struct CpuTap {
  Streams out;
  std::size_t width;
};
Streams cpu_streams(DecoderHarness& harness, const GoldenCase& c, std::size_t width) {
  CpuTap tap{{}, width};
  harness.decoder->set_tap(
      [](void* context, int layer, const float* hidden, int rows) {
        auto& to = *static_cast<CpuTap*>(context);
        to.out.add(layer, {hidden, static_cast<std::size_t>(rows) * to.width});
      },
      &tap);
  auto s = harness.sequence(static_cast<int>(c.prompt.size()), c.long_positions);
  harness.append(s, c.prompt);
  return std::move(tap.out);
}

class CudaLayers : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (no_gpu()) GTEST_SKIP() << "no GPU";
    const auto config = load_model_config(data_dir(GetParam()));
    ASSERT_TRUE(config);
    layers_ = static_cast<std::size_t>(config->layers), width_ = static_cast<std::size_t>(config->hidden_size);
  }
  std::size_t layers_ = 0, width_ = 0;
};

// As far as logits may be (CudaGoldens): these models cost transformers in bf16 up to 4.3e-2 of theirs.
constexpr double kMost = 5e-2;

using CudaLayersOfGoldens = CudaLayers;
INSTANTIATE_TEST_SUITE_P(Models, CudaLayersOfGoldens, testing::ValuesIn(kLayerGoldenModels),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(CudaLayersOfGoldens, WhatEntersEveryLayerIsTheGoldenOne) {
  CudaHarness harness(data_dir(GetParam()), {});
  ASSERT_NE(harness.decoder, nullptr);
  double worst = 0;
  std::size_t compared = 0;
  const auto cases = read_goldens(GetParam());
  for (const GoldenCase& c : cases) {
    ASSERT_EQ(c.hidden.size(), layers_);
    for (const std::size_t tail : {c.prompt.size(), std::size_t{1}}) {  // as a prompt; as a decode step
      const Streams got = device_streams(harness, c, c.prompt.size() - tail, tail);
      ASSERT_EQ(got.layers(), layers_ + 1);
      for (std::size_t i = 0; i < layers_; ++i, ++compared) {
        ASSERT_EQ(got.of(i).size(), c.prompt.size() * width_) << "layer " << i;
        const double error = relative_l2(got.row(i, c.prompt.size() - 1, width_), c.hidden[i]);
        EXPECT_LT(error, kMost) << "layer " << i << ", " << c.prompt.size() << " tokens, the last " << tail;
        worst = std::max(worst, error);
      }
    }
  }
  EXPECT_EQ(compared, 2 * layers_ * cases.size());
  std::printf("%s bf16: worst relative error of what enters a layer, goldens' rows: %.2e\n", GetParam(), worst);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaLayers, testing::ValuesIn(kGoldenModels),
                         [](const auto& info) { return std::string(info.param); });

double middle(std::vector<double> values) {
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

// In steps of one row and of eight, which fused kernels take where they can, of nine and of the whole prompt. Of one
// row the last eight tokens alone: racecheck takes minutes for them.
TEST_P(CudaLayers, EveryRowBetweenLayersIsTheFloatDecoders) {
  CudaHarness harness(data_dir(GetParam()), {});
  DecoderHarness cpu(GetParam());
  ASSERT_TRUE(harness.decoder && cpu.decoder);
  // A route that bf16 decides otherwise sends a row to another expert: there the middle row is held.
  const bool routed = std::string_view(GetParam()) == "mixtral_tiny";
  double worst = 0;
  std::size_t compared = 0;
  for (const GoldenCase& c : read_goldens(GetParam())) {
    const Streams want = cpu_streams(cpu, c, width_);
    ASSERT_EQ(want.layers(), layers_ + 1);
    const std::size_t rows = c.prompt.size();
    for (const std::size_t step : {std::size_t{1}, std::size_t{8}, std::size_t{9}, rows}) {
      const Streams got = device_streams(harness, c, step == 1 && rows > 8 ? rows - 8 : 0, step);
      ASSERT_EQ(got.layers(), layers_ + 1);
      for (std::size_t i = 0; i <= layers_; ++i, ++compared) {
        ASSERT_EQ(got.of(i).size(), rows * width_) << "layer " << i;
        ASSERT_EQ(want.of(i).size(), rows * width_) << "layer " << i;
        double error = relative_l2(got.of(i), want.of(i));
        if (routed) {
          std::vector<double> each;
          for (std::size_t r = 0; r < rows; ++r) {
            each.push_back(relative_l2(got.row(i, r, width_), want.row(i, r, width_)));
          }
          EXPECT_LT(error, 0.5);
          error = middle(each);
        }
        EXPECT_LT(error, kMost) << "layer " << i << " of " << layers_ << ", " << rows << " tokens by " << step;
        worst = std::max(worst, error);
      }
    }
  }
  EXPECT_GE(compared, 3 * 4 * (layers_ + 1));
  std::printf("%s bf16: worst relative error between layers, all rows: %.2e\n", GetParam(), worst);
}

// Steps that would be one kernel, or replayed, are neither while somebody looks; and both again afterwards.
TEST(CudaTap, SeesEveryLayerOfStepsThatWouldBeOneKernel) {
  if (no_gpu()) GTEST_SKIP() << "no GPU";
  CudaHarness harness(data_dir("llama3_tiny"), {.format = cuda::Format::fp8});
  ASSERT_NE(harness.decoder, nullptr);
  const CudaDecoder::SampleSpec greedy;
  const std::int32_t token = 9;
  const auto s = harness.sequence(8);
  std::vector<int> seen;
  const auto step = [&] {
    const CudaDecoder::Slice slice{{&token, 1}, s.pages.data(), 0, true, &greedy};
    const auto queued = harness.decoder->submit({&slice, 1});
    EXPECT_TRUE(queued) << (queued ? "" : queued.error().message);
    const auto results = harness.decoder->collect();
    EXPECT_TRUE(results && results->front().ok == 1);
    return results ? results->front().id : -1;
  };
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(step());
  harness.decoder->set_tap([&](int layer, std::span<const float> hidden) {
    EXPECT_EQ(hidden.size(), 64u);
    seen.push_back(layer);
  });
  for (int i = 0; i < 3; ++i) ids.push_back(step());
  EXPECT_EQ(seen, (std::vector<int>{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}));
  harness.decoder->set_tap({});
  for (int i = 0; i < 3; ++i) ids.push_back(step());
  EXPECT_EQ(seen.size(), 12u);
  // Other kernels round otherwise, and may choose another token; the same ones may not.
  for (const std::size_t i : {1U, 2U, 6U, 7U, 8U}) EXPECT_EQ(ids[i], ids[0]) << i;
  for (const std::size_t i : {4U, 5U}) EXPECT_EQ(ids[i], ids[3]) << i;
}

}  // namespace
}  // namespace ganglion::local
