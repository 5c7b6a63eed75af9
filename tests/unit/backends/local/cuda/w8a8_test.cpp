// Products of int8 by int8: activations rounded by token, sums of integers through the library, and what they stand
// for; then a whole model against logits that were computed with rounded activations elsewhere
// (tools/goldens/int8_rows.py).

#include <algorithm>

#include "backends/local/device/blas.hpp"
#include "backends/local/models/cuda/cuda_decoder.hpp"
#include "tests/unit/backends/local/cuda/device_fixture.hpp"
#include "tests/unit/backends/local/models/goldens.hpp"

namespace ganglion::local {
namespace {

class W8A8Test : public DeviceTest {};

TEST_F(W8A8Test, RowsAreRoundedToAnInt127thOfTheirLargest) {
  for (const int width : {128, 500, 4096}) {
    const int rows = 5, stride = static_cast<int>(cuda::padded(width, 128));
    std::vector<float> x(static_cast<std::size_t>(rows * stride), 0.0f);
    for (int r = 0; r < rows - 1; ++r) {  // the last is all zero
      const auto values = normal(static_cast<std::size_t>(width), r == 0 ? 1e-3f : 3.0f);
      for (int c = 0; c < width; ++c) {
        x[static_cast<std::size_t>(r * stride + c)] = reference::round_to_bf16(values[static_cast<std::size_t>(c)]);
      }
    }
    const auto x_at = up(to_bf16(x));
    const auto out = room(static_cast<std::size_t>(rows * stride)), scales_at = room(rows * 4);
    run(cuda::quantise_rows(queue(), x_at.data(), stride, width, rows, out.data(), stride, scales_at.as<float>(),
                            true));
    const auto got = down<std::int8_t>(out.data(), static_cast<std::size_t>(rows * stride));
    const auto scales = down<float>(scales_at.data(), rows);
    for (int r = 0; r < rows; ++r) {
      float top = 0;
      for (int c = 0; c < width; ++c) top = std::max(top, std::fabs(x[static_cast<std::size_t>(r * stride + c)]));
      ASSERT_FLOAT_EQ(scales[static_cast<std::size_t>(r)], std::max(top / 127.0f, 1e-12f));
      for (int c = 0; c < width; ++c) {
        const auto at = static_cast<std::size_t>(r * stride + c);
        const double exact = static_cast<double>(x[at]) / static_cast<double>(scales[static_cast<std::size_t>(r)]);
        // Half a step, and what the division in float may lose at a tie.
        ASSERT_NEAR(got[at], exact, 0.5 + 1e-4) << "width " << width << " row " << r << " column " << c;
        ASSERT_GE(got[at], -127);
      }
    }
  }
}

TEST_F(W8A8Test, ARowWithWhatIsNotANumberHasAnInfiniteScale) {
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY}) {
    auto x = to_bf16(normal(3 * 256, 1.0f));
    x[256 + 77] = reference::bf16_bits(bad);
    if (std::isnan(bad)) x[256 + 77] = 0x7fc0;
    const auto x_at = up(x);
    const auto out = room(3 * 256), scales_at = room(12);
    run(cuda::quantise_rows(queue(), x_at.data(), 256, 256, 3, out.data(), 256, scales_at.as<float>(), true));
    const auto scales = down<float>(scales_at.data(), 3);
    EXPECT_TRUE(std::isfinite(scales[0]));
    EXPECT_TRUE(std::isinf(scales[1]));
    EXPECT_TRUE(std::isfinite(scales[2]));
    // Zero times infinity is what the product then gives.
    const auto bytes = down<std::int8_t>(out.data(), 3 * 256);
    EXPECT_EQ(std::count(bytes.begin() + 256, bytes.begin() + 512, 0), 256);
  }
}

// The integers exactly, -128 among the weights; the rest to float's rounding, or bf16's.
TEST_F(W8A8Test, ProductsAreTheIntegersTimesBothScales) {
  const auto blas = Blas::make(*arena);
  ASSERT_TRUE(blas) << blas.error().message;
  for (const auto& [m, n, k] : {std::tuple{80, 48, 128}, {128, 256, 1408}, {192, 128, 11008}}) {
    const auto sized = [](int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
    std::vector<std::int8_t> x(sized(m, k)), w(sized(n, k));
    for (auto& v : x) v = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
    for (auto& v : w) v = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
    std::fill_n(w.begin(), k, std::int8_t{-128});  // the largest sums there can be
    std::fill_n(x.begin(), k, std::int8_t{127});
    std::vector<float> x_scales(static_cast<std::size_t>(m)), w_scales(static_cast<std::size_t>(n));
    for (float& v : x_scales) v = 0.001f + static_cast<float>(random() % 1000) * 1e-4f;
    for (float& v : w_scales) v = 0.001f + static_cast<float>(random() % 1000) * 1e-5f;
    const auto bias = to_bf16(normal(static_cast<std::size_t>(n), 0.5f));
    const auto x_at = up(x), w_at = up(w), x_scales_at = up(x_scales), w_scales_at = up(w_scales), bias_at = up(bias);
    const auto sums_at = room(sized(m, n) * 4), y_at = room(sized(m, n) * 2);
    const Blas::Call call{.input = Blas::Input::int8,
                          .x = x_at.data(),
                          .w = w_at.data(),
                          .y = sums_at.data(),
                          .m = m,
                          .n = n,
                          .k = k,
                          .y_stride = n};
    const auto done = (*blas)->multiply(stream.get(), call);
    ASSERT_TRUE(done) << done.error().message;
    cuda::Rescale rescale{.sums = sums_at.as<std::int32_t>(),
                          .rows = m,
                          .cols = n,
                          .x_scales = x_scales_at.as<float>(),
                          .w_scales = w_scales_at.as<float>(),
                          .bias = bias_at.data(),
                          .y = y_at.data(),
                          .y_stride = n};
    run(cuda::rescale(queue(), rescale));
    const auto sums = down<std::int32_t>(sums_at.data(), sized(m, n));
    const auto narrow = down<std::uint16_t>(y_at.data(), sized(m, n));
    rescale.bias = nullptr, rescale.y = sums_at.data(), rescale.wide = true;  // where the sums are
    run(cuda::rescale(queue(), rescale));
    const auto wide = down<float>(sums_at.data(), sized(m, n));
    for (int r = 0; r < m; ++r) {
      for (int c = 0; c < n; ++c) {
        std::int32_t want = 0;
        for (int i = 0; i < k; ++i)
          want += x[sized(r, k) + static_cast<std::size_t>(i)] * w[sized(c, k) + static_cast<std::size_t>(i)];
        const auto at = sized(r, n) + static_cast<std::size_t>(c);
        ASSERT_EQ(sums[at], want) << r << " " << c;
        const double y = static_cast<double>(want) * static_cast<double>(x_scales[static_cast<std::size_t>(r)]) *
                         static_cast<double>(w_scales[static_cast<std::size_t>(c)]);
        ASSERT_NEAR(wide[at], y, 1e-6 * std::fabs(y) + 1e-9);
        const double biased = y + bf16_value(bias[static_cast<std::size_t>(c)]);
        ASSERT_NEAR(bf16_value(narrow[at]), biased, std::fabs(biased) / 256 + 1e-6);
      }
    }
  }
}

// Whatever way was fastest: the same integers, in the same place.
TEST_F(W8A8Test, TriedWaysGiveTheSameIntegers) {
  const auto blas = Blas::make(*arena);
  ASSERT_TRUE(blas) << blas.error().message;
  constexpr int kRows = 192, kColumns = 2048, kInner = 4096;
  std::vector<std::int8_t> x(std::size_t{kRows} * kInner), w(std::size_t{kColumns} * kInner);
  for (auto* values : {&x, &w}) {
    for (auto& v : *values) v = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
  }
  const auto x_at = up(x), w_at = up(w), y_at = room(std::size_t{kRows} * kColumns * 4);
  const Blas::Call call{.input = Blas::Input::int8,
                        .x = x_at.data(),
                        .w = w_at.data(),
                        .y = y_at.data(),
                        .m = kRows,
                        .n = kColumns,
                        .k = kInner,
                        .y_stride = kColumns};
  const auto product = [&] {
    EXPECT_TRUE((*blas)->multiply(stream.get(), call));
    EXPECT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
    return down<std::int32_t>(y_at.data(), std::size_t{kRows} * kColumns);
  };
  const auto before = product();
  const auto done = (*blas)->tune(stream.get(), call);
  ASSERT_TRUE(done) << done.error().message;
  ASSERT_EQ((*blas)->tuned().size(), 1U);
  const Blas::Tuned& tuned = (*blas)->tuned().front();
  EXPECT_GT(tuned.ways, 1);
  EXPECT_GT(tuned.best_ms, 0);
  EXPECT_LE(tuned.best_ms, tuned.first_ms);
  ASSERT_EQ(cudaMemset(y_at.data(), 0, std::size_t{kRows} * kColumns * 4), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // the stream would not wait for it
  EXPECT_EQ(product(), before);
}

std::vector<std::vector<float>> w8a8_logits(std::size_t rows, std::size_t vocab) {
  std::ifstream file(data_dir("w8a8_tiny") + "/logits_w8a8.f32", std::ios::binary);
  std::vector<std::vector<float>> out(rows, std::vector<float>(vocab));
  for (auto& row : out) {
    file.read(reinterpret_cast<char*>(row.data()), static_cast<std::streamsize>(vocab * 4));
  }
  EXPECT_TRUE(file.good());
  return out;
}

// The prompt of 80 tokens in one step, which is past what the streaming products take.
std::vector<float> last_logits(CudaOptions options) {
  const std::string dir = data_dir("w8a8_tiny");
  const auto config = load_model_config(dir);
  const auto checkpoint = Checkpoint::open(dir);
  auto decoder = CudaDecoder::load(*checkpoint, *config, options);
  if (!decoder) {
    ADD_FAILURE() << decoder.error().message;
    return {};
  }
  EXPECT_TRUE((*decoder)->reserve_pages(8));
  const GoldenCase c = read_goldens("w8a8_tiny").back();
  const std::vector<std::int32_t> pages{5, 1, 4, 2, 3};
  const CudaDecoder::Slice slice{c.prompt, pages.data(), 0, true, nullptr};
  EXPECT_TRUE((*decoder)->submit({&slice, 1}));
  auto logits = (*decoder)->logits();
  EXPECT_TRUE(logits);
  return logits ? *logits : std::vector<float>{};
}

TEST_F(W8A8Test, APublishedCheckpointAnswersAsItWasMadeTo) {
  const auto cases = read_goldens("w8a8_tiny");
  std::size_t rows = 0;
  for (const GoldenCase& c : cases) rows += c.positions.size();
  const auto rounded = w8a8_logits(rows, cases.front().logits.front().size()).back();
  const auto& plain = cases.back().logits.back();
  for (const cuda::Format format : {cuda::Format::bf16, cuda::Format::int8}) {  // asked for or not, it is the file's
    const auto got = last_logits({.format = format, .int8_activations = true}),
               without = last_logits({.format = format});
    const double to_rounded = relative_l2(got, rounded), to_plain = relative_l2(without, plain);
    std::printf("w8a8_tiny: %.2e from int8 activations', without %.2e from float's; the two are %.2e apart\n",
                to_rounded, to_plain, relative_l2(rounded, plain));
    // bf16 between the projections moves some activations by a step of int8, which is as far as they can go.
    EXPECT_LT(to_rounded, 8e-2);
    EXPECT_LT(to_plain, 5e-2);
    EXPECT_NE(got, without) << "activations stayed bf16";
  }
}

TEST_F(W8A8Test, SumsInPiecesAreTheSame) {
  // Room for 64 rows of the widest projection at a time: the 80 rows come in two pieces.
  EXPECT_EQ(last_logits({.int8_activations = true, .sums_bytes = 1}), last_logits({.int8_activations = true}));
}

// Every matrix's ways tried, in buffers for few rows: integers to the bit, others to their rounding.
TEST_F(W8A8Test, SumsOfTriedWaysAreTheSame) {
  EXPECT_EQ(last_logits({.int8_activations = true, .rows_max = 80, .tuned_weights_min = 0}),
            last_logits({.int8_activations = true}));
  for (const auto format : {cuda::Format::bf16, cuda::Format::fp8, cuda::Format::int4}) {
    const auto tried = last_logits({.format = format, .rows_max = 80, .batch_max = 8, .tuned_weights_min = 0});
    EXPECT_LT(relative_l2(tried, last_logits({.format = format, .tune = false})), 2e-2) << static_cast<int>(format);
  }
}

}  // namespace
}  // namespace ganglion::local
