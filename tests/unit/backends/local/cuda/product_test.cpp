// The products that stream weights, in every format, against sums in double over what the packed bytes say.

#include "tests/unit/backends/local/cuda/device_fixture.hpp"

namespace ganglion::local {
namespace {

using cuda::Epilogue;
using cuda::Format;

struct Weights {
  cuda::Matrix matrix;
  DeviceBuffer data, scales;
  std::vector<double> values;  // [rows][cols], padded
};

class ProductTest : public DeviceTest {
 protected:
  Weights pack(const std::vector<float>& source, int rows, int cols, Format format, int group, int spread = 1) {
    Weights w;
    w.matrix = {.format = format, .group = group};
    w.matrix.rows = static_cast<int>(cuda::padded(spread == 2 ? 2 * cuda::padded(rows / 2, 8) : rows, 16));
    w.matrix.cols = static_cast<int>(cuda::padded(cols, 128));
    w.data = room(static_cast<std::size_t>(cuda::matrix_bytes(format, w.matrix.rows, w.matrix.cols)));
    w.scales = room(std::max<std::size_t>(
        static_cast<std::size_t>(cuda::scale_bytes(format, w.matrix.rows, w.matrix.cols, std::max(group, 64))), 1));
    w.matrix.data = w.data.data(), w.matrix.scales = w.scales.data();
    run(cuda::pack_empty(queue(), w.matrix));
    const auto on_device = up(source);
    const int each = spread == 2 ? rows / 2 : rows;
    for (int part = 0; part < spread; ++part) {
      const float* from = on_device.as<float>() + static_cast<std::ptrdiff_t>(part) * each * cols;
      run(cuda::pack_weights(queue(), from, cuda::Source::f32, each, cols, w.matrix, {0, spread, 8 * part}));
    }
    read(w);
    return w;
  }

  // The layouts as kernels.hpp and pack.cu describe them.
  void read(Weights& w) {
    const auto rows = static_cast<std::size_t>(w.matrix.rows), cols = static_cast<std::size_t>(w.matrix.cols);
    const auto bytes = down<std::uint8_t>(w.matrix.data, w.data.size());
    const auto scales = down<float>(w.scales.data(), w.scales.size() / 4);
    const auto halves = down<std::uint16_t>(w.scales.data(), w.scales.size() / 2);
    w.values.resize(rows * cols);
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t c = 0; c < cols; ++c) {
        double& v = w.values[r * cols + c];
        const std::size_t at = r * cols + c;
        switch (w.matrix.format) {
          case Format::bf16:
            v = bf16_value(static_cast<std::uint16_t>(bytes[2 * at] | bytes[2 * at + 1] << 8));
            break;
          case Format::int8:
            v = static_cast<double>(static_cast<std::int8_t>(bytes[at])) * scales[r];
            break;
          case Format::fp8:
            v = fp8_value(bytes[at]) * scales[r];
            break;
          case Format::int4: {
            const std::size_t in = c % 128, lane = in % 64 / 16, e = in % 8;
            const std::size_t tile = r / 16 * (cols / 128) + c / 128, nibble = e / 2 + (e % 2) * 4;
            const std::size_t word = tile * 256 + r % 16 * 16 + lane * 4 + in / 64 * 2 + in % 16 / 8;
            const int q = bytes[word * 4 + nibble / 2] >> (nibble % 2 * 4) & 15;
            const std::size_t group = static_cast<std::size_t>(w.matrix.group);
            v = (q - 8) * reference::f16_value(halves[(r / 16 * (cols / group) + c / group) * 16 + r % 16]);
          }
        }
      }
    }
  }

  // Rows of activations at a padded stride, zero between.
  std::vector<float> activations(int rows, int cols, int stride) {
    std::vector<float> out(static_cast<std::size_t>(rows * stride), 0.0f);
    for (int r = 0; r < rows; ++r) {
      const auto values = normal(static_cast<std::size_t>(cols), 1.0f);
      for (int c = 0; c < cols; ++c) {
        // A few columns are far larger than the rest, as in trained models.
        out[static_cast<std::size_t>(r * stride + c)] =
            reference::round_to_bf16(values[static_cast<std::size_t>(c)] * (c % 200 == 3 ? 20.0f : 1.0f));
      }
    }
    return out;
  }

  static std::vector<double> reference_product(const Weights& w, const std::vector<float>& x, int rows) {
    const auto n = static_cast<std::size_t>(w.matrix.rows), k = static_cast<std::size_t>(w.matrix.cols);
    std::vector<double> y(static_cast<std::size_t>(rows) * n, 0.0);
    for (std::size_t m = 0; m < static_cast<std::size_t>(rows); ++m) {
      for (std::size_t r = 0; r < n; ++r) {
        for (std::size_t c = 0; c < k; ++c) y[m * n + r] += w.values[r * k + c] * x[m * k + c];
      }
    }
    return y;
  }
};

struct FormatCase {
  Format format;
  int group;
  double step;  // largest rounding error of a weight over the largest of its row or group
};
constexpr FormatCase kFormats[] = {{Format::bf16, 0, 1.0 / 256},
                                   {Format::int8, 0, 0.5 / 127 + 1e-6},
                                   {Format::fp8, 0, 1.0 / 16},
                                   {Format::int4, 64, 0.5 / 7 + 1e-3},
                                   {Format::int4, 128, 0.5 / 7 + 1e-3}};

TEST_F(ProductTest, PackedWeightsStandForTheirSource) {
  for (const FormatCase& c : kFormats) {
    const int rows = 37, cols = 200;
    const auto source = normal(static_cast<std::size_t>(rows * cols), 0.05f);
    const Weights w = pack(source, rows, cols, c.format, c.group);
    for (int r = 0; r < w.matrix.rows; ++r) {
      float top = 0;
      for (int k = 0; r < rows && k < cols; ++k)
        top = std::max(top, std::fabs(source[static_cast<std::size_t>(r * cols + k)]));
      for (int k = 0; k < w.matrix.cols; ++k) {
        const double want = r < rows && k < cols ? source[static_cast<std::size_t>(r * cols + k)] : 0.0;
        ASSERT_NEAR(w.values[static_cast<std::size_t>(r * w.matrix.cols + k)], want, c.step * top)
            << "format " << static_cast<int>(c.format) << " row " << r << " column " << k;
      }
    }
    if (c.format == Format::bf16) continue;
    const auto room_for = room(static_cast<std::size_t>(w.matrix.rows) * static_cast<std::size_t>(w.matrix.cols) * 2);
    run(cuda::unpack_weights(queue(), w.matrix, room_for.data()));
    const auto unpacked = down<std::uint16_t>(room_for.data(), w.values.size());
    for (std::size_t i = 0; i < unpacked.size(); ++i) {
      ASSERT_NEAR(bf16_value(unpacked[i]), w.values[i], std::fabs(w.values[i]) / 256 + 1e-9);
    }
  }
}

TEST_F(ProductTest, EveryFormatAndRowCountAgreesWithDouble) {
  struct ShapeCase {
    int rows, cols;
  };
  for (const FormatCase& c : kFormats) {
    for (const ShapeCase shape : {ShapeCase{40, 96}, ShapeCase{256, 1408}, ShapeCase{128, 11008}}) {
      const Weights w = pack(normal(static_cast<std::size_t>(shape.rows * shape.cols), 0.02f), shape.rows, shape.cols,
                             c.format, c.group);
      const auto bias = to_bf16(normal(static_cast<std::size_t>(w.matrix.rows), 0.5f));
      const auto bias_at = up(bias);
      for (int rows : {1, 2, 7, 8, 9, 16, 31, 33, 64}) {
        const int k = w.matrix.cols, n = w.matrix.rows;
        const auto x = activations(rows, shape.cols, k);
        const auto x_at = up(to_bf16(x));
        const auto y_at = room(static_cast<std::size_t>(rows * n) * 4);
        cuda::Product p{.w = w.matrix,
                        .x = x_at.data(),
                        .x_stride = k,
                        .rows = rows,
                        .epilogue = Epilogue::store_f32,
                        .y = y_at.data(),
                        .y_stride = n,
                        .y_cols = n};
        p.w.bias = bias_at.data();
        run(cuda::product(queue(), p));
        auto want = reference_product(w, x, rows);
        for (std::size_t i = 0; i < want.size(); ++i) want[i] += bf16_value(bias[i % static_cast<std::size_t>(n)]);
        const auto got = down<float>(y_at.data(), want.size());
        ASSERT_LT(relative_l2(got, want), 2e-6 * std::sqrt(k))
            << "format " << static_cast<int>(c.format) << " group " << c.group << " rows " << rows << " columns " << k;
        if (capability < 90 || !cuda::stream_product_fits(p)) continue;
        // Few blocks with many row blocks each, and a short ring, so that it goes round often.
        for (const auto& [stages, blocks] : {std::pair{2, 3}, {5, 3}, {0, 3}, {0, multiprocessors}}) {
          cudaMemset(y_at.data(), 0xff, y_at.size());
          cudaDeviceSynchronize();
          run(cuda::stream_product(queue(), p, blocks, stages));
          ASSERT_LT(relative_l2(down<float>(y_at.data(), want.size()), want), 2e-6 * std::sqrt(k))
              << "ring of " << stages << ", format " << static_cast<int>(c.format) << " group " << c.group << " rows "
              << rows << " columns " << k;
        }
      }
    }
  }
}

TEST_F(ProductTest, ARowDoesNotDependOnItsNeighbours) {
  for (const FormatCase& c : kFormats) {
    const Weights w = pack(normal(64 * 512, 0.02f), 64, 512, c.format, c.group);
    const auto x = activations(8, 512, 512);
    const auto x_at = up(to_bf16(x));
    const auto one_at = room(64 * 4), all_at = room(8 * 64 * 4);
    cuda::Product p{.w = w.matrix,
                    .x = x_at.data(),
                    .x_stride = 512,
                    .rows = 8,
                    .epilogue = Epilogue::store_f32,
                    .y = all_at.data(),
                    .y_stride = 64,
                    .y_cols = 64};
    run(cuda::product(queue(), p));
    p.rows = 1, p.y = one_at.data();
    run(cuda::product(queue(), p));
    const auto all = down<float>(all_at.data(), 64), one = down<float>(one_at.data(), 64);
    EXPECT_EQ(all, one) << static_cast<int>(c.format);
  }
}

TEST_F(ProductTest, ResidualNormAndGateAreWhatTheySay) {
  constexpr int kWidth = 240, kInner = 344, kRows = 5;
  constexpr float kEps = 1e-5f;
  for (const FormatCase& c : kFormats) {
    const Weights out = pack(normal(kWidth * kWidth, 0.05f), kWidth, kWidth, c.format, c.group);
    const Weights gate_up = pack(normal(2 * kInner * kWidth, 0.05f), 2 * kInner, kWidth, c.format, c.group, 2);
    const int stride = out.matrix.cols, inner_stride = 384;
    const auto x = activations(kRows, kWidth, stride);
    auto hidden = normal(kRows * kWidth, 2.0f);
    const auto norm = normal(kWidth, 1.0f);
    const auto x_at = up(to_bf16(x)), hidden_at = up(hidden), norm_at = up(norm);
    const auto next_at = up(std::vector<std::uint16_t>(static_cast<std::size_t>(kRows * stride), 0));
    const auto squares_at = room(static_cast<std::size_t>(kRows * out.matrix.rows / 16) * 4);
    const auto gated_at = up(std::vector<std::uint16_t>(static_cast<std::size_t>(kRows * inner_stride), 0));
    cuda::Product p{.w = out.matrix,
                    .x = x_at.data(),
                    .x_stride = stride,
                    .rows = kRows,
                    .epilogue = Epilogue::residual,
                    .y = next_at.data(),
                    .y_stride = stride,
                    .y_cols = kWidth,
                    .hidden = hidden_at.as<float>(),
                    .next_norm = norm_at.as<float>(),
                    .next_squares = squares_at.as<float>()};
    run(cuda::product(queue(), p));
    const cuda::Product q{.w = gate_up.matrix,
                          .x = next_at.data(),
                          .x_stride = stride,
                          .rows = kRows,
                          .squares = squares_at.as<float>(),
                          .square_parts = out.matrix.rows / 16,
                          .norm_width = kWidth,
                          .norm_eps = kEps,
                          .epilogue = Epilogue::silu_gate,
                          .y = gated_at.data(),
                          .y_stride = inner_stride,
                          .y_cols = kInner};
    run(cuda::product(queue(), q));

    const auto added = reference_product(out, x, kRows);
    std::vector<float> got_hidden = down<float>(hidden_at.data(), hidden.size());
    std::vector<double> want_gated;
    const auto got_gated = down<std::uint16_t>(gated_at.data(), static_cast<std::size_t>(kRows * inner_stride));
    std::vector<float> gated;
    for (int r = 0; r < kRows; ++r) {
      std::vector<float> row(static_cast<std::size_t>(stride), 0.0f);
      double squares = 0;
      for (int i = 0; i < kWidth; ++i) {
        const double h =
            hidden[static_cast<std::size_t>(r * kWidth + i)] + added[static_cast<std::size_t>(r * out.matrix.rows + i)];
        ASSERT_NEAR(got_hidden[static_cast<std::size_t>(r * kWidth + i)], h, 1e-4);
        squares += h * h;
        row[static_cast<std::size_t>(i)] = static_cast<float>(h * norm[static_cast<std::size_t>(i)]);
      }
      const double inverse = 1.0 / std::sqrt(squares / kWidth + static_cast<double>(kEps));
      const auto wide = reference_product(gate_up, row, 1);
      for (int i = 0; i < kInner; ++i) {
        const auto at = static_cast<std::size_t>(i / 8 * 16 + i % 8);
        want_gated.push_back(reference::silu(wide[at] * inverse) * wide[at + 8] * inverse);
        gated.push_back(bf16_value(got_gated[static_cast<std::size_t>(r * inner_stride + i)]));
      }
      for (int i = kInner; i < inner_stride; ++i)
        ASSERT_EQ(got_gated[static_cast<std::size_t>(r * inner_stride + i)], 0);
    }
    EXPECT_LT(relative_l2(gated, want_gated), 6e-3) << static_cast<int>(c.format);
  }
}

}  // namespace
}  // namespace ganglion::local
