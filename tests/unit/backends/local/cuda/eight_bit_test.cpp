// Products of few rows by a streamed matrix, both in 8 bits: against sums in double, every column written and none
// beside it, the same bits every time, and a model's logits with and without them.

#include <algorithm>
#include <cstring>

#include "backends/local/models/cuda/cuda_decoder.hpp"
#include "tests/unit/backends/local/cuda/device_fixture.hpp"

namespace ganglion::local {
namespace {

std::size_t sized(int a, int b) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
}

struct Operands {
  std::vector<std::uint8_t> x, w;
  std::vector<float> x_scales, w_scales;
  std::vector<std::uint16_t> bias;
};

class EightBitTest : public DeviceTest {
 protected:
  void SetUp() override {
    DeviceTest::SetUp();
    if (!IsSkipped() && !HasFatalFailure() && capability != 90) GTEST_SKIP() << "needs compute capability 9.0";
  }

  // Scales as rounding makes them: values of about 1 (times the column's or row's own size).
  Operands draw(bool int8, int rows, int columns, int inner) {
    Operands out{.x = std::vector<std::uint8_t>(sized(rows, inner)),
                 .w = std::vector<std::uint8_t>(sized(columns, inner))};
    for (auto* bytes : {&out.x, &out.w}) {
      for (auto& b : *bytes) {
        b = static_cast<std::uint8_t>(random());
        if (!int8 && (b & 0x7f) == 0x7f) b = 0x38;  // not a number
      }
    }
    const auto scales = [&](int count) {
      std::vector<float> of;
      for (int i = 0; i < count; ++i) of.push_back((1.0f + static_cast<float>(random() % 100) / 50) / 128);
      return of;
    };
    out.x_scales = scales(rows), out.w_scales = scales(columns);
    out.bias = to_bf16(normal(static_cast<std::size_t>(columns), 1.0f));
    return out;
  }
  static double value(bool int8, std::uint8_t b) {
    return int8 ? static_cast<double>(static_cast<std::int8_t>(b)) : fp8_value(b);
  }

  struct Case {
    bool int8 = false;
    int rows = 0, columns = 0, inner = 0, stride = 0, blocks = 0;
    bool biased = false;
  };

  // y [rows + 1][stride], with poison wherever nothing should be written.
  template <class T>
  std::vector<T> product(const Case& c, const Operands& o) {
    const auto x = up(o.x), w = up(o.w), x_scales = up(o.x_scales), w_scales = up(o.w_scales), bias = up(o.bias);
    const auto y = room(sized(c.rows + 1, c.stride) * sizeof(T), 0x7b),
               partial = room(static_cast<std::size_t>(cuda::eight_bit_partial_bytes(c.blocks))),
               arrived = room(std::size_t{cuda::kEightBitTilesMax} * 4, 0);
    const cuda::EightBitProduct p{.w = {.format = c.int8 ? cuda::Format::int8 : cuda::Format::fp8,
                                        .data = w.data(),
                                        .scales = w_scales.data(),
                                        .bias = c.biased ? bias.data() : nullptr,
                                        .rows = c.columns,
                                        .cols = c.inner},
                                  .x = x.data(),
                                  .x_scales = x_scales.template as<float>(),
                                  .rows = c.rows,
                                  .y = y.data(),
                                  .y_stride = c.stride,
                                  .wide = sizeof(T) == 4,
                                  .partial = partial.template as<float>(),
                                  .arrived = arrived.template as<std::uint32_t>()};
    run(cuda::eight_bit_product(queue(), p, c.blocks));
    const auto first = down<T>(y.data(), sized(c.rows + 1, c.stride));
    // Again, behind itself without waiting: the counters are as they were, and so is every bit.
    run(cuda::eight_bit_product({stream.get(), true}, p, c.blocks));
    run(cuda::eight_bit_product({stream.get(), true}, p, c.blocks));
    const auto again = down<T>(y.data(), sized(c.rows + 1, c.stride));
    EXPECT_EQ(std::memcmp(first.data(), again.data(), first.size() * sizeof(T)), 0);
    const auto counters = down<std::uint32_t>(arrived.data(), std::size_t{cuda::kEightBitTilesMax});
    EXPECT_EQ(std::count(counters.begin(), counters.end(), 0u), cuda::kEightBitTilesMax);
    return first;
  }

  // The sum in double, and how large its terms are.
  static std::pair<double, double> exact(const Case& c, const Operands& o, int r, int column) {
    double sum = 0, size = 0;
    for (int i = 0; i < c.inner; ++i) {
      const double term = value(c.int8, o.x[sized(r, c.inner) + static_cast<std::size_t>(i)]) *
                          value(c.int8, o.w[sized(column, c.inner) + static_cast<std::size_t>(i)]);
      sum += term, size += std::fabs(term);
    }
    const double scale = static_cast<double>(o.x_scales[static_cast<std::size_t>(r)]) *
                         static_cast<double>(o.w_scales[static_cast<std::size_t>(column)]);
    return {sum * scale, size * scale};
  }

  // All outputs of small products, of others those at both ends of each row block and some between.
  template <class T>
  void expect_right(const Case& c) {
    const Operands o = draw(c.int8, c.rows, c.columns, c.inner);
    const auto y = product<T>(c, o);
    constexpr bool kWide = sizeof(T) == 4;
    for (int r = 0; r < c.rows + 1; ++r) {
      for (int column = 0; column < c.stride; ++column) {
        const T got = y[sized(r, c.stride) + static_cast<std::size_t>(column)];
        if (r == c.rows || column >= c.columns) {
          T poison;
          std::memset(&poison, 0x7b, sizeof poison);
          ASSERT_EQ(std::memcmp(&got, &poison, sizeof got), 0) << "row " << r << " column " << column;
          continue;
        }
        const int at = column % 128;
        if (c.columns > 200 && at != 0 && at != 127 && (r * 31 + column) % 53 != 0) continue;
        auto [want, size] = exact(c, o, r, column);
        if (c.biased) want += static_cast<double>(bf16_value(o.bias[static_cast<std::size_t>(column)]));
        double v;
        if constexpr (kWide) {
          v = static_cast<double>(got);
        } else {
          v = static_cast<double>(bf16_value(got));
        }
        // e4m3: what the tensor cores drop of 128 terms at a time; int8: nothing. Then fp32's and bf16's rounding.
        const double allowed =
            (c.int8 ? 0.0 : size * 0x1.8p-10) + std::fabs(want) * (kWide ? 0x1p-21 : 0x1p-8) + (c.biased ? 1e-6 : 0.0);
        ASSERT_LE(std::fabs(v - want), allowed)
            << (c.int8 ? "int8 " : "e4m3 ") << c.rows << " x " << c.columns << " x " << c.inner << " on " << c.blocks
            << ", row " << r << " column " << column << ": " << v << ", not " << want;
      }
    }
  }
  void expect_right(const Case& c, bool wide) { wide ? expect_right<float>(c) : expect_right<std::uint16_t>(c); }
};

// Row blocks that end early, one piece across, more blocks than multiprocessors and fewer; every count of rows that an
// instruction is made for, and those beside it.
TEST_F(EightBitTest, ProductsAreTheSumsTimesBothScales) {
  for (const auto& [columns, inner] : {std::pair{16, 128}, {144, 256}, {1040, 1408}, {24'576, 128}}) {
    for (const int rows : {1, 9, 16, 17, 30, 32, 33, 45, 60, 64}) {
      for (const bool int8 : {false, true}) {
        expect_right({.int8 = int8,
                      .rows = rows,
                      .columns = columns,
                      .inner = inner,
                      .stride = columns + (rows % 5 == 0 ? 16 : 0),
                      .blocks = multiprocessors,
                      .biased = rows % 2 == 0},
                     rows % 3 == 0);
      }
    }
  }
}

// Runs of so many pieces that the ring comes round several times, over three row blocks and more: parts at both ends
// and whole ones between.
TEST_F(EightBitTest, LongRunsGoRoundTheRing) {
  for (const int blocks : {1, 2, 3, 7}) {
    for (const int rows : {16, 32, 64}) {
      for (const bool int8 : {false, true}) {
        const Case c{.int8 = int8, .rows = rows, .columns = 1040, .inner = 1408, .stride = 1040, .blocks = blocks};
        expect_right(c, rows == 32);
      }
    }
  }
  for (const bool int8 : {false, true}) {
    expect_right(
        {.int8 = int8, .rows = 48, .columns = 4096, .inner = 11'008, .stride = 4096, .blocks = multiprocessors}, false);
  }
}

// For compute-sanitizer: the same, as little as shows it.
TEST_F(EightBitTest, ASmallRunGoesRoundTheRing) {
  for (const bool int8 : {false, true}) {
    expect_right({.int8 = int8, .rows = 12, .columns = 400, .inner = 1024, .stride = 400, .blocks = 2}, int8);
  }
}

TEST_F(EightBitTest, ARowThatIsNoNumberSpoilsNoOther) {
  const int rows = 20, columns = 256, inner = 256;
  Operands o = draw(true, rows, columns, inner);
  std::fill_n(o.x.begin() + 7 * inner, inner, std::uint8_t{0});
  o.x_scales[7] = INFINITY;  // what rounding leaves of such a row
  const auto y = product<float>(
      {.int8 = true, .rows = rows, .columns = columns, .inner = inner, .stride = columns, .blocks = multiprocessors},
      o);
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      ASSERT_EQ(std::isfinite(y[sized(r, columns) + static_cast<std::size_t>(c)]), r != 7) << r << " " << c;
    }
  }
}

TEST_F(EightBitTest, RefusesWhatItCannotMultiply) {
  const cuda::Matrix fp8{.format = cuda::Format::fp8, .rows = 256, .cols = 256},
      bf16{.format = cuda::Format::bf16, .rows = 256, .cols = 256};
  EXPECT_TRUE(cuda::eight_bit_product_fits(fp8, cuda::kEightBitRowsMax, 90));
  EXPECT_FALSE(cuda::eight_bit_product_fits(fp8, cuda::kEightBitRowsMax + 1, 90));
  EXPECT_FALSE(cuda::eight_bit_product_fits(fp8, 64, 80));
  EXPECT_FALSE(cuda::eight_bit_product_fits(fp8, 64, 100));
  EXPECT_FALSE(cuda::eight_bit_product_fits(bf16, 64, 90));
  EXPECT_EQ(cuda::eight_bit_product(queue(), {.w = bf16, .rows = 64}, multiprocessors), cudaErrorInvalidValue);
  EXPECT_EQ(cuda::eight_bit_product(queue(), {.w = fp8, .rows = 64, .y_stride = 257}, multiprocessors),
            cudaErrorInvalidValue);
  cuda::Matrix narrow = fp8;
  narrow.cols = 200;
  EXPECT_EQ(cuda::eight_bit_product(queue(), {.w = narrow, .rows = 64, .y_stride = 256}, multiprocessors),
            cudaErrorInvalidValue);
}

// A model's steps through them and through the library, the same weights: as near to what activations in bf16 give (in
// steps of few tokens).
TEST_F(EightBitTest, AModelsLogitsAreAsTrueAsTheLibrarys) {
  ModelConfig c;
  c.vocab_size = 1'000, c.hidden_size = 512, c.layers = 3, c.heads = 8, c.kv_heads = 4, c.head_dim = 64;
  c.intermediate_size = 1'408, c.max_position = 512;
  for (const bool int8 : {false, true}) {
    const auto made = [&](int rows_max) {
      auto d = CudaDecoder::random(c,
                                   {.format = int8 ? cuda::Format::int8 : cuda::Format::fp8,
                                    .int8_activations = int8,
                                    .eight_bit_rows_max = rows_max},
                                   11);
      EXPECT_TRUE(d);
      EXPECT_TRUE((*d)->reserve_pages(16));
      return std::move(*d);
    };
    const auto own = made(cuda::kEightBitRowsMax), library = made(0);
    for (const int tokens : {80, 96, 128}) {  // in two steps; in one the library multiplies them, in both formats
      std::vector<std::int32_t> prompt;
      const std::vector<std::int32_t> pages{3, 1, 4, 0, 5, 9, 2, 6, 8};
      for (int i = 0; i < tokens; ++i) prompt.push_back(static_cast<std::int32_t>((i * 977 + 13) % 1'000));
      const auto logits = [&](CudaDecoder& d, int each) {
        std::vector<float> got;
        for (int at = 0; at < tokens; at += each) {
          const CudaDecoder::Slice slice{
              std::span(prompt).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(each)), pages.data(), at,
              true, nullptr};
          EXPECT_TRUE(d.submit({&slice, 1}));
          auto out = d.logits();
          EXPECT_TRUE(out);
          if (out) got = *out;
        }
        return got;
      };
      const auto ours = logits(*own, tokens / 2), theirs = logits(*library, tokens), fine = logits(*library, 8);
      const double off = relative_l2(ours, fine), library_off = relative_l2(theirs, fine);
      std::printf("%s, %d tokens: %.1e off, the library's %.1e\n", int8 ? "w8a8" : "fp8", tokens, off, library_off);
      EXPECT_LT(off, 1.25 * library_off);
      EXPECT_GT(off, 0.3 * library_off);  // or activations were not rounded
    }
    EXPECT_GT(own->eight_bit_products(), 0);
    EXPECT_EQ(library->eight_bit_products(), 0);
  }
}

}  // namespace
}  // namespace ganglion::local
