// The kernels that only some families need, against the plain arithmetic.

#include "backends/local/kernels/cuda/general.hpp"

#include <algorithm>

#include "tests/unit/backends/local/cuda/device_fixture.hpp"

namespace ganglion::local {
namespace {

using reference::Row;

class GeneralTest : public DeviceTest {
 protected:
  static Row row_of(const std::vector<float>& values, int row, int width) {
    return {values.begin() + row * width, values.begin() + (row + 1) * width};
  }
  std::vector<float> rounded(std::size_t count, float deviation) {
    auto out = normal(count, deviation);
    for (float& v : out) v = reference::round_to_bf16(v);
    return out;
  }
  std::vector<float> bf16_rows(const void* from, int rows, int stride, int width) {
    std::vector<float> out;
    const auto bits = down<std::uint16_t>(from, static_cast<std::size_t>(rows * stride));
    for (int r = 0; r < rows; ++r) {
      for (int i = 0; i < width; ++i) out.push_back(bf16_value(bits[static_cast<std::size_t>(r * stride + i)]));
    }
    return out;
  }
};

TEST_F(GeneralTest, SettlesWithEveryKindAndPlaceOfNorm) {
  if (arena == nullptr) GTEST_SKIP();
  const int rows = 5;
  for (const int width : {48, 1000, 4097}) {
    const auto size = static_cast<std::size_t>(width);
    const auto w = normal(size, 1.0f), b = normal(size, 1.0f);
    const auto weight = up(w), bias = up(b);
    const Row weights(w.begin(), w.end()), biases(b.begin(), b.end());
    for (int which = 0; which < 32; ++which) {
      const bool has_after = which & 1, has_sum = which & 2, has_next = which & 4, layer = which & 8, wide = which & 16;
      const cuda::NormWeights norm{weight.as<float>(), layer ? bias.as<float>() : nullptr};
      const auto normed = [&](const Row& x) {
        return layer ? reference::layer_norm(x, weights, biases, 1e-5) : reference::rms_norm(x, weights, 1e-5);
      };
      const auto h = normal(size * rows, 2.0f), a = wide ? normal(size * rows, 1.0f) : rounded(size * rows, 1.0f);
      const auto hidden = up(h), add = wide ? up(a) : up(to_bf16(a));
      const int stride = static_cast<int>(cuda::padded(width, 128));
      const auto out = room(static_cast<std::size_t>(rows * stride) * 2);
      run(cuda::settle(queue(), {.hidden = hidden.as<float>(),
                                 .add = add.data(),
                                 .add_wide = wide,
                                 .add_stride = width,
                                 .width = width,
                                 .rows = rows,
                                 .after = has_after ? norm : cuda::NormWeights{},
                                 .sum = has_sum ? norm : cuda::NormWeights{},
                                 .next = has_next ? norm : cuda::NormWeights{},
                                 .eps = 1e-5f,
                                 .out = out.data(),
                                 .out_stride = stride}));
      std::vector<double> want_hidden, want_out;
      for (int r = 0; r < rows; ++r) {
        Row part = row_of(a, r, width), sum = row_of(h, r, width);
        if (has_after) part = normed(part);
        for (std::size_t i = 0; i < size; ++i) sum[i] += part[i];
        if (has_sum) sum = normed(sum);
        want_hidden.insert(want_hidden.end(), sum.begin(), sum.end());
        if (has_next) sum = normed(sum);
        want_out.insert(want_out.end(), sum.begin(), sum.end());
      }
      EXPECT_LT(relative_l2(down<float>(hidden.data(), size * rows), want_hidden), 1e-5) << width << " " << which;
      EXPECT_LT(relative_l2(bf16_rows(out.data(), rows, stride, width), want_out), 4e-3) << width << " " << which;
    }
  }
}

TEST_F(GeneralTest, Activations) {
  if (arena == nullptr) GTEST_SKIP();
  using cuda::Activate;
  const int rows = 3;
  for (const Activate kind : {Activate::gelu_tanh_gate, Activate::silu_gate, Activate::relu, Activate::gelu}) {
    for (const int width : {40, 72, 1001}) {
      const int in_stride = static_cast<int>(cuda::padded(width, 8)) * 2,
                stride = static_cast<int>(cuda::padded(width, 128));
      const auto x = rounded(static_cast<std::size_t>(rows * in_stride), 3.0f);
      const auto in = up(to_bf16(x)), out = room(static_cast<std::size_t>(rows * stride) * 2);
      run(cuda::activate(queue(), kind,
                         {.gate_up = in.data(),
                          .in_stride = in_stride,
                          .width = width,
                          .rows = rows,
                          .out = out.data(),
                          .out_stride = stride}));
      std::vector<double> want;
      for (int r = 0; r < rows; ++r) {
        for (int i = 0; i < width; ++i) {
          const auto at = [&](int k) { return static_cast<double>(x[static_cast<std::size_t>(r * in_stride + k)]); };
          const double gate = at(cuda::is_gate(kind) ? i / 8 * 16 + i % 8 : i),
                       up_value = cuda::is_gate(kind) ? at(i / 8 * 16 + i % 8 + 8) : 1;
          want.push_back(kind == Activate::gelu_tanh_gate ? reference::gelu_tanh(gate) * up_value
                         : kind == Activate::silu_gate    ? reference::silu(gate) * up_value
                         : kind == Activate::relu         ? std::max(gate, 0.0)
                                                          : reference::gelu(gate));
        }
      }
      EXPECT_LT(relative_l2(bf16_rows(out.data(), rows, stride, width), want), 4e-3)
          << static_cast<int>(kind) << " " << width;
    }
  }
}

TEST_F(GeneralTest, CapsLogits) {
  if (arena == nullptr) GTEST_SKIP();
  auto x = normal(2 * 1024, 40.0f);
  x[0] = 1e-4f, x[1] = 1e30f, x[2] = -1e30f;
  const auto at = up(x);
  run(cuda::soft_cap(queue(), at.as<float>(), 1024, 1000, 2, 30.0f));
  const auto got = down<float>(at.data(), x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = i % 1024 < 1000 ? reference::soft_cap(x[i], 30.0) : x[i];
    ASSERT_NEAR(got[i], want, 2e-5 * (1 + std::fabs(want))) << i;
  }
}

// A layer's experts on random routes: lists, products and the weighted sum, in every format.
TEST_F(GeneralTest, ExpertsAgreeWithEachRowAlone) {
  if (arena == nullptr) GTEST_SKIP();
  const int experts = 8, used = 2, width = 160, each = 176;
  for (const cuda::Format format : {cuda::Format::bf16, cuda::Format::int8, cuda::Format::fp8, cuda::Format::int4}) {
    for (const int rows : {1, 7, 300}) {
      const int cols = static_cast<int>(cuda::padded(width, 128)), capacity = rows;
      cuda::Matrix m{
          .format = format, .rows = experts * each, .cols = cols, .group = format == cuda::Format::int4 ? 64 : 0};
      const auto data = room(static_cast<std::size_t>(cuda::matrix_bytes(format, m.rows, m.cols)));
      const auto scales =
          room(std::max<std::size_t>(static_cast<std::size_t>(cuda::scale_bytes(format, m.rows, m.cols, 64)), 1));
      m.data = data.data(), m.scales = scales.data();
      run(cuda::pack_empty(queue(), m));
      const auto w = rounded(static_cast<std::size_t>(m.rows * width), 0.1f);
      const auto source = up(to_bf16(w));
      run(cuda::pack_weights(queue(), source.data(), cuda::Source::bf16, m.rows, width, m, {}));
      // What the format has made of the weights.
      std::vector<float> kept = w;
      if (format != cuda::Format::bf16) {
        const auto wide = room(static_cast<std::size_t>(m.rows * cols) * 2);
        run(cuda::unpack_weights(queue(), m, wide.data()));
        kept = bf16_rows(wide.data(), m.rows, cols, width);
      }
      std::vector<float> x;
      for (int r = 0; r < rows; ++r) {
        for (float v : rounded(static_cast<std::size_t>(cols), 1.0f))
          x.push_back(static_cast<int>(x.size()) % cols < width ? v : 0.0f);
      }
      const auto logits = normal(static_cast<std::size_t>(rows * 16), 1.0f);
      std::vector<std::int32_t> positions(static_cast<std::size_t>(rows), 5);
      if (rows > 3) positions[3] = -1;
      const auto slots = static_cast<std::size_t>(rows * used);
      const auto x_at = up(to_bf16(x)), logits_at = up(logits), positions_at = up(positions), chosen = room(slots * 4),
                 weights = room(slots * 4), lists = room(static_cast<std::size_t>(experts * capacity) * 4),
                 counts = room(experts * 4), y = room(slots * each * 2),
                 out = room(static_cast<std::size_t>(rows * each) * 4);
      run(cuda::route(queue(), {.logits = logits_at.as<float>(),
                                .stride = 16,
                                .experts = experts,
                                .used = used,
                                .rows = rows,
                                .positions = positions_at.as<std::int32_t>(),
                                .chosen = chosen.as<std::int32_t>(),
                                .weights = weights.as<float>(),
                                .slots = lists.as<std::int32_t>(),
                                .counts = counts.as<std::int32_t>(),
                                .capacity = capacity}));
      const cuda::GroupedProduct product{.w = m,
                                         .x = x_at.data(),
                                         .x_stride = cols,
                                         .x_per_row = used,
                                         .y = y.data(),
                                         .y_stride = each,
                                         .experts = experts,
                                         .capacity = capacity,
                                         .slot_count = rows * used,
                                         .slots = lists.as<std::int32_t>(),
                                         .counts = counts.as<std::int32_t>()};
      for (const bool tiles : {false, true}) {
        cudaMemset(y.data(), 0xff, y.size());
        cudaDeviceSynchronize();
        run(tiles ? cuda::grouped_tiles(queue(), product) : cuda::grouped_stream(queue(), product));
        const bool wide = tiles;
        run(cuda::combine(queue(), y.data(), each, weights.as<float>(), used, each, rows, out.data(), each, wide));
        std::vector<double> want;
        for (int r = 0; r < rows; ++r) {
          const float* route = logits.data() + r * 16;
          std::vector<int> order(experts);
          for (int e = 0; e < experts; ++e) order[static_cast<std::size_t>(e)] = e;
          std::sort(order.begin(), order.end(), [&](int a, int b) { return route[a] > route[b]; });
          const double second = std::exp(route[order[1]] - route[order[0]]),
                       share[] = {1 / (1 + second), second / (1 + second)};
          for (int i = 0; i < each; ++i) {
            double v = 0;
            for (int j = 0; j < used && positions[static_cast<std::size_t>(r)] >= 0; ++j) {
              double dot = 0;
              for (int k = 0; k < width; ++k)
                dot +=
                    static_cast<double>(
                        kept[static_cast<std::size_t>((order[static_cast<std::size_t>(j)] * each + i) * width + k)]) *
                    x[static_cast<std::size_t>(r * cols + k)];
              v += share[j] * dot;
            }
            want.push_back(v);
          }
        }
        const auto got = wide ? down<float>(out.data(), static_cast<std::size_t>(rows * each))
                              : bf16_rows(out.data(), rows, each, each);
        EXPECT_LT(relative_l2(got, want), 8e-3)
            << static_cast<int>(format) << " " << rows << (tiles ? " in tiles" : "");
      }
    }
  }
}

TEST_F(GeneralTest, AdaptersAddToTheirOwnRowsOnly) {
  if (arena == nullptr) GTEST_SKIP();
  const int rows = 9, cols = 100, stride = 128, y_cols = 64, rank = 5;
  const auto a = rounded(rank * 104, 0.3f), b = rounded(24 * rank, 0.3f);  // rows of a are padded to 8
  auto a_clean = a;
  for (int r = 0; r < rank; ++r) std::fill(a_clean.begin() + r * 104 + cols, a_clean.begin() + (r + 1) * 104, 0.0f);
  const auto a_at = up(to_bf16(a_clean)), b_at = up(to_bf16(b));
  std::vector<cuda::AdapterPart> parts(2 * cuda::kAdapterPartsMax);
  parts[0] = {a_at.data(), b_at.data(), rank, cols, 24, 16, 1};
  parts[static_cast<std::size_t>(cuda::kAdapterPartsMax) + 1] = {a_at.data(), b_at.data(), rank, cols, 24, 8, 2};
  std::vector<float> x;
  for (int r = 0; r < rows; ++r) {
    const auto row = rounded(stride, 1.0f);
    for (int i = 0; i < stride; ++i) x.push_back(i < cols ? row[static_cast<std::size_t>(i)] : 0.0f);
  }
  const std::vector<std::int32_t> adapters{0, -1, 1, 0, -1, -1, 1, 1, 0};
  const auto y = rounded(rows * y_cols, 1.0f);
  const auto parts_at = up(parts), adapters_at = up(adapters), x_at = up(to_bf16(x)),
             middle = room(static_cast<std::size_t>(rows * cuda::kAdapterPartsMax * cuda::kAdapterRankMax) * 4);
  std::vector<double> want(y.begin(), y.end());
  for (int r = 0; r < rows; ++r) {
    const int adapter = adapters[static_cast<std::size_t>(r)];
    if (adapter < 0) continue;
    for (int i = 0; i < 24; ++i) {
      double v = 0;
      for (int k = 0; k < rank; ++k) {
        double dot = 0;
        for (int c = 0; c < cols; ++c)
          dot += static_cast<double>(a_clean[static_cast<std::size_t>(k * 104 + c)]) *
                 x[static_cast<std::size_t>(r * stride + c)];
        v += static_cast<double>(b[static_cast<std::size_t>(i * rank + k)]) * dot;
      }
      const int column = adapter == 0 ? i + 16 : i / 8 * 16 + i % 8 + 8;
      want[static_cast<std::size_t>(r * y_cols + column)] += v;
    }
  }
  for (const bool wide : {false, true}) {
    const auto y_at = wide ? up(y) : up(to_bf16(y));
    run(cuda::adapt(queue(), {.parts = parts_at.as<cuda::AdapterPart>(),
                              .adapters = adapters_at.as<std::int32_t>(),
                              .rows = rows,
                              .x = x_at.data(),
                              .x_stride = stride,
                              .y = y_at.data(),
                              .y_stride = y_cols,
                              .wide = wide,
                              .middle = middle.as<float>()}));
    const auto got = wide ? down<float>(y_at.data(), static_cast<std::size_t>(rows * y_cols))
                          : bf16_rows(y_at.data(), rows, y_cols, y_cols);
    EXPECT_LT(relative_l2(got, want), wide ? 1e-5 : 4e-3);
    for (int i = 0; i < y_cols; ++i)
      EXPECT_EQ(got[static_cast<std::size_t>(y_cols + i)], y[static_cast<std::size_t>(y_cols + i)]);
  }
}

}  // namespace
}  // namespace ganglion::local
