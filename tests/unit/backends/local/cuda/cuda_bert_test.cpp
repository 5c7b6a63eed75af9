// The encoder's kernels against sums in double, and whole models against sentence-transformers' goldens.

#include "backends/local/models/cuda/cuda_bert.hpp"

#include <algorithm>
#include <numeric>

#include "backends/local/engine/engine.hpp"
#include "tests/unit/backends/local/cuda/device_fixture.hpp"
#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

class EncoderKernels : public DeviceTest {
 protected:
  // Rows as bf16 with a stride, rounded values kept in `values`.
  DeviceBuffer rows_up(std::vector<float>& values, int rows, int width, int stride) {
    std::vector<float> wide(static_cast<std::size_t>(rows * stride), 0.0f);
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < width; ++c) {
        float& v = values[static_cast<std::size_t>(r * width + c)];
        v = reference::round_to_bf16(v);
        wide[static_cast<std::size_t>(r * stride + c)] = v;
      }
    }
    return up(to_bf16(wide));
  }
  std::vector<float> rows_down(const DeviceBuffer& from, int rows, int width, int stride) {
    const auto bits = down<std::uint16_t>(from.data(), static_cast<std::size_t>(rows * stride));
    std::vector<float> out;
    for (int r = 0; r < rows; ++r) {
      for (int c = 0; c < width; ++c) out.push_back(bf16_value(bits[static_cast<std::size_t>(r * stride + c)]));
    }
    return out;
  }
};

TEST_F(EncoderKernels, ResidualSumAndNormalisation) {
  for (const int width : {32, 264, 384, 768, 1024}) {
    constexpr int kRows = 37;
    const int stride = static_cast<int>(cuda::padded(width, 128));
    const auto count = static_cast<std::size_t>(kRows * width);
    auto x = normal(count, 2.0f), add = normal(count, 3.0f);
    for (float& v : x) v += 1.5f;  // a mean that is not zero
    const auto x_at = rows_up(x, kRows, width, stride), add_at = rows_up(add, kRows, width, stride);
    const auto weight = normal(static_cast<std::size_t>(width), 1.0f),
               bias = normal(static_cast<std::size_t>(width), 1.0f);
    const auto weight_at = up(weight), bias_at = up(bias);
    run(cuda::layer_norm(queue(), {.x = x_at.data(),
                                   .add = add_at.data(),
                                   .out = x_at.data(),
                                   .rows = kRows,
                                   .width = width,
                                   .stride = stride,
                                   .add_stride = stride,
                                   .weight = weight_at.as<float>(),
                                   .bias = bias_at.as<float>(),
                                   .eps = 1e-12f}));
    std::vector<double> want;
    for (int r = 0; r < kRows; ++r) {
      std::vector<double> row;
      for (int c = 0; c < width; ++c) {
        row.push_back(static_cast<double>(x[static_cast<std::size_t>(r * width + c)]) +
                      static_cast<double>(add[static_cast<std::size_t>(r * width + c)]));
      }
      const double mean = std::accumulate(row.begin(), row.end(), 0.0) / width;
      double squares = 0;
      for (double v : row) squares += (v - mean) * (v - mean);
      for (int c = 0; c < width; ++c) {
        want.push_back((row[static_cast<std::size_t>(c)] - mean) / std::sqrt(squares / width + 1e-12) *
                           static_cast<double>(weight[static_cast<std::size_t>(c)]) +
                       static_cast<double>(bias[static_cast<std::size_t>(c)]));
      }
    }
    EXPECT_LT(relative_l2(rows_down(x_at, kRows, width, stride), want), 3e-3) << width;
    const auto padding = down<std::uint16_t>(x_at.data(), static_cast<std::size_t>(stride));
    for (int c = width; c < stride; ++c) ASSERT_EQ(padding[static_cast<std::size_t>(c)], 0) << "padding is zero";
  }
}

TEST_F(EncoderKernels, GeluByTheErrorFunction) {
  constexpr int kRows = 5, kWidth = 72, kStride = 128;
  auto x = normal(kRows * kWidth, 2.0f);
  const auto at = rows_up(x, kRows, kWidth, kStride);
  run(cuda::gelu(queue(), at.data(), kRows, kWidth, kStride));
  std::vector<double> want;
  for (const float v : x)
    want.push_back(0.5 * static_cast<double>(v) * (1 + std::erf(static_cast<double>(v) / std::sqrt(2.0))));
  EXPECT_LT(relative_l2(rows_down(at, kRows, kWidth, kStride), want), 3e-3);
}

TEST_F(EncoderKernels, RaggedAttentionBothWays) {
  for (const auto& [heads, dim] : {std::pair{4, 8}, {3, 32}, {2, 64}, {2, 72}, {2, 96}, {2, 128}}) {
    const std::vector<int> lengths{1, 63, 64, 65, 7, 200};
    const int rows = std::accumulate(lengths.begin(), lengths.end(), 0), columns = 3 * heads * dim;
    const int stride = static_cast<int>(cuda::padded(columns, 16)),
              out_stride = static_cast<int>(cuda::padded(heads * dim, 128));
    auto qkv = normal(static_cast<std::size_t>(rows * columns), 1.0f);
    const auto qkv_at = rows_up(qkv, rows, columns, stride);
    std::vector<cuda::EncodeTile> tiles;
    std::vector<double> want;
    int first = 0;
    for (const int length : lengths) {
      for (int at = 0; at < length; at += 64) tiles.push_back({first + at, std::min(64, length - at), first, length});
      const auto value = [&](int row, int part, int head, int i) {
        return static_cast<double>(
            qkv[static_cast<std::size_t>((first + row) * columns + part * heads * dim + head * dim + i)]);
      };
      for (int r = 0; r < length; ++r) {
        for (int h = 0; h < heads; ++h) {
          std::vector<reference::Row> keys, values;
          reference::Row query;
          for (int i = 0; i < dim; ++i) query.push_back(value(r, 0, h, i) / std::sqrt(static_cast<double>(dim)));
          for (int t = 0; t < length; ++t) {
            reference::Row k, v;
            for (int i = 0; i < dim; ++i) k.push_back(value(t, 1, h, i)), v.push_back(value(t, 2, h, i));
            keys.push_back(k), values.push_back(v);
          }
          for (const double v : reference::attention(query, keys, values, 0, length)) want.push_back(v);
        }
      }
      first += length;
    }
    tiles.push_back({0, 0, 0, 0});  // pads
    const auto tiles_at = up(tiles);
    const auto out = room(static_cast<std::size_t>(rows * out_stride) * 2);
    run(cuda::attend_encode(queue(), {.qkv = qkv_at.data(),
                                      .stride = stride,
                                      .heads = heads,
                                      .head_dim = dim,
                                      .scale = 1.0f / std::sqrt(static_cast<float>(dim)),
                                      .tiles = tiles_at.as<cuda::EncodeTile>(),
                                      .tile_count = static_cast<int>(tiles.size()),
                                      .out = out.data(),
                                      .out_stride = out_stride}));
    EXPECT_LT(relative_l2(rows_down(out, rows, heads * dim, out_stride), want), 8e-3) << heads << " x " << dim;
  }
}

TEST_F(EncoderKernels, Pooling) {
  constexpr int kRows = 12, kWidth = 40, kStride = 128;
  auto x = normal(kRows * kWidth, 1.0f);
  const auto x_at = rows_up(x, kRows, kWidth, kStride);
  const std::vector<std::int32_t> firsts{0, 5, 6, 0}, counts{5, 1, 6, 0};
  const auto firsts_at = up(firsts), counts_at = up(counts);
  for (const cuda::Pool pool : {cuda::Pool::first, cuda::Pool::last, cuda::Pool::mean, cuda::Pool::max}) {
    const auto out = room(4 * kWidth * 4, 0);
    run(cuda::pool_rows(queue(), {.x = x_at.data(),
                                  .stride = kStride,
                                  .width = kWidth,
                                  .sequences = 4,
                                  .firsts = firsts_at.as<std::int32_t>(),
                                  .counts = counts_at.as<std::int32_t>(),
                                  .pool = pool,
                                  .out = out.as<float>()}));
    const auto got = down<float>(out.data(), 4 * kWidth);
    for (std::size_t s = 0; s < 4; ++s) {
      for (std::size_t c = 0; c < kWidth; ++c) {
        float want = 0;
        const auto at = [&](int r) { return x[static_cast<std::size_t>(firsts[s] + r) * kWidth + c]; };
        if (counts[s] > 0) want = at(pool == cuda::Pool::last ? counts[s] - 1 : 0);
        for (int r = 1; r < counts[s]; ++r) {
          if (pool == cuda::Pool::mean) want += at(r);
          if (pool == cuda::Pool::max) want = std::max(want, at(r));
        }
        if (pool == cuda::Pool::mean && counts[s] > 0) want /= static_cast<float>(counts[s]);
        ASSERT_NEAR(got[s * kWidth + c], want, 1e-5) << "sequence " << s;
      }
    }
  }
}

struct EmbeddingCase {
  std::vector<std::int32_t> ids;
  std::vector<float> want;
};

class CudaBertGoldens : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (!find_devices()) GTEST_SKIP() << "no GPU";
  }
  std::unique_ptr<CudaBert> load(Pooling pooling, CudaBertOptions options = {}) {
    auto config = load_model_config(data_dir(GetParam()));
    auto checkpoint = Checkpoint::open(data_dir(GetParam()));
    EXPECT_TRUE(config && checkpoint);
    config->pooling = pooling;
    auto loaded = CudaBert::load(&*checkpoint, *config, options);
    EXPECT_TRUE(loaded) << (loaded ? "" : loaded.error().message);
    return loaded ? std::move(*loaded) : nullptr;
  }
  std::vector<EmbeddingCase> cases(const std::string& pooling) {
    std::ifstream file(data_dir(GetParam()) + "/goldens.json");
    const nlohmann::json json = nlohmann::json::parse(file);
    std::vector<EmbeddingCase> out;
    for (const auto& item : json.at("cases")) {
      out.push_back({item.at("ids").get<std::vector<std::int32_t>>(), item.at(pooling).get<std::vector<float>>()});
    }
    EXPECT_GT(out.size(), 2u);
    return out;
  }
};
INSTANTIATE_TEST_SUITE_P(Models, CudaBertGoldens, testing::Values("bert_tiny", "bert_tiny_mean"),
                         [](const auto& info) { return std::string(info.param); });

// bf16 costs these random models of width 32 about a percent.
TEST_P(CudaBertGoldens, VectorsAreTheGoldenOnes) {
  for (const Pooling pooling : {Pooling::cls, Pooling::mean}) {
    const auto bert = load(pooling);
    ASSERT_NE(bert, nullptr);
    double worst = 0;
    for (int round = 0; round < 3; ++round) {  // as it is, captured, replayed
      for (const auto& c : cases(pooling == Pooling::cls ? "cls" : "mean")) {
        const std::span<const std::int32_t> ids = c.ids;
        const auto got = bert->encode({&ids, 1});
        ASSERT_TRUE(got) << got.error().message;
        worst = std::max(worst, relative_l2(got->front(), c.want));
      }
    }
    std::printf("%s pooling %d: worst relative error %.2e\n", GetParam(), static_cast<int>(pooling), worst);
    EXPECT_LT(worst, 3e-2);
  }
}

TEST_P(CudaBertGoldens, ARaggedPassOfAnySizeIsEachAlone) {
  const auto all = cases("mean");
  for (const bool fused : {true, false}) {
    const auto bert = load(Pooling::mean, {.rows_max = 4'096, .fused_gelu = fused});
    ASSERT_NE(bert, nullptr);
    for (const std::size_t most : {3U, 12U, 100U}) {  // a few rows, some hundred, more than graphs are kept for
      std::vector<std::span<const std::int32_t>> inputs;
      std::size_t rows = 0;
      for (std::size_t i = 0; i < most && rows + 80 < 4'096; ++i) {
        inputs.emplace_back(all[i % all.size()].ids);
        rows += inputs.back().size();
      }
      for (int round = 0; round < 2; ++round) {
        const auto together = bert->encode(inputs);
        ASSERT_TRUE(together) << together.error().message;
        ASSERT_EQ(together->size(), inputs.size());
        for (std::size_t i = 0; i < inputs.size(); ++i) {
          ASSERT_LT(relative_l2((*together)[i], all[i % all.size()].want), 3e-2)
              << "sequence " << i << " of " << inputs.size() << ", fused " << fused;
        }
      }
    }
  }
}

TEST_P(CudaBertGoldens, TheEngineRunsItWhereThereIsAGpu) {
  auto engine = EmbeddingEngine::load({.dir = data_dir(GetParam()), .device = "auto", .threads = 1});
  ASSERT_TRUE(engine) << engine.error().message;
  EXPECT_TRUE((*engine)->device().starts_with("cuda:")) << (*engine)->device();
}

TEST(CudaBertChoice, WhatIsNotThereIsRefusedAndAutoServesAnyway) {
  const auto refused = EmbeddingEngine::load({.dir = data_dir("bert_tiny"), .device = "cuda:98", .threads = 1});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::unsupported);
  const auto engine = EmbeddingEngine::load({.dir = data_dir("bert_tiny"), .device = "auto", .threads = 1});
  ASSERT_TRUE(engine) << engine.error().message;
  if (!find_devices()) EXPECT_TRUE((*engine)->device().starts_with("cpu: ")) << (*engine)->device();
}

}  // namespace
}  // namespace ganglion::local
