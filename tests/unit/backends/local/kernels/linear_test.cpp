// Packed products against the double-precision reference, at odd shapes, for every weight type and level.

#include "backends/local/kernels/linear.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/unit/backends/local/kernels/random_rows.hpp"

namespace ganglion::local {
namespace {

struct Shape {
  int rows, cols, count;
};
constexpr Shape kShapes[] = {{1, 1, 1},    {31, 7, 1},    {32, 64, 1},  {33, 129, 2},  {65, 130, 3},
                             {96, 256, 4}, {48, 100, 5},  {70, 33, 6},  {17, 200, 7},  {128, 512, 8},
                             {100, 48, 9}, {64, 131, 17}, {40, 96, 64}, {1024, 200, 3}};

// A matrix in a file's bytes, at an odd address, with the values that the type really holds.
struct Matrix {
  std::vector<float> values;
  std::vector<std::byte> bytes;
  LinearPart part;
};

Matrix make_matrix(RandomRows& random, int rows, int cols, WeightType type) {
  Matrix m;
  m.values = random.floats(static_cast<std::size_t>(rows * cols), 0.2f);
  const std::size_t size = type == WeightType::f32 ? 4 : 2;
  m.bytes.resize(m.values.size() * size + 1);
  for (std::size_t i = 0; i < m.values.size(); ++i) {
    std::byte* to = m.bytes.data() + 1 + i * size;
    if (type == WeightType::f32) {
      std::memcpy(to, &m.values[i], 4);
      continue;
    }
    const std::uint16_t bits =
        type == WeightType::bf16 ? reference::bf16_bits(m.values[i]) : reference::f16_bits(m.values[i]);
    m.values[i] = type == WeightType::bf16 ? reference::round_to_bf16(m.values[i])
                                           : static_cast<float>(reference::f16_value(bits));
    std::memcpy(to, &bits, 2);
  }
  m.part = {m.bytes.data() + 1, rows, type};
  return m;
}

// Largest error relative to the size of the product's terms.
double error_of(const std::vector<float>& y, const Matrix& m, const std::vector<float>& x,
                const std::vector<float>& bias, const Shape& s, std::int64_t ldx, std::int64_t ldy) {
  double worst = 0;
  for (int i = 0; i < s.count; ++i) {
    const auto row = widen(x.data() + i * ldx, static_cast<std::size_t>(s.cols));
    const auto want = reference::linear(m.values, s.rows, row, widen(bias));
    for (int r = 0; r < s.rows; ++r) {
      double size = 1e-6;
      for (int k = 0; k < s.cols; ++k)
        size += std::pow(m.values[static_cast<std::size_t>(r * s.cols + k)] * row[static_cast<std::size_t>(k)], 2);
      worst = std::max(worst, std::fabs(y[static_cast<std::size_t>(i * ldy + r)] - want[static_cast<std::size_t>(r)]) /
                                  (std::sqrt(size) + 0.05));
    }
  }
  return worst;
}

class LinearEveryLevel : public testing::TestWithParam<Isa> {};
INSTANTIATE_TEST_SUITE_P(Levels, LinearEveryLevel, testing::ValuesIn(supported_isas()), [](const auto& info) {
  std::string name(isa_name(info.param));
  std::erase(name, '-');
  return name;
});

TEST_P(LinearEveryLevel, FloatTypesMatchTheReferenceAtOddShapes) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(2);
  LinearScratch scratch;
  for (WeightType type : {WeightType::f32, WeightType::bf16, WeightType::f16}) {
    RandomRows random(7);
    for (const Shape& s : kShapes) {
      const Matrix m = make_matrix(random, s.rows, s.cols, type);
      const auto bias = s.rows % 2 == 0 ? random.floats(static_cast<std::size_t>(s.rows)) : std::vector<float>{};
      const Linear linear = Linear::pack({&m.part, 1}, s.cols, false, bias, pool);
      const std::int64_t ldx = s.cols + 3, ldy = s.rows + 1;
      const auto x = random.floats(static_cast<std::size_t>(s.count * ldx));
      std::vector<float> y(static_cast<std::size_t>(s.count * ldy), -77.0f);
      ASSERT_TRUE(linear.forward(kernels, pool, scratch, x.data(), ldx, s.count, y.data(), ldy));
      // One chain of float additions: about sqrt(cols) half-ulps.
      EXPECT_LT(error_of(y, m, x, bias, s, ldx, ldy), 6e-6) << s.rows << "x" << s.cols << " batch " << s.count;
      for (int i = 0; i < s.count; ++i) {
        EXPECT_EQ(y[static_cast<std::size_t>(i * ldy + s.rows)], -77.0f) << "wrote past the row";
      }
    }
  }
}

TEST_P(LinearEveryLevel, Int8IsCloseToTheUnquantisedProduct) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(2);
  LinearScratch scratch;
  RandomRows random(8);
  for (const Shape& s : kShapes) {
    const Matrix m = make_matrix(random, s.rows, s.cols, WeightType::bf16);
    const auto bias = random.floats(static_cast<std::size_t>(s.rows));
    const Linear linear = Linear::pack({&m.part, 1}, s.cols, true, bias, pool);
    const auto x = random.floats(static_cast<std::size_t>(s.count * s.cols));
    std::vector<float> y(static_cast<std::size_t>(s.count * s.rows));
    ASSERT_TRUE(linear.forward(kernels, pool, scratch, x.data(), s.cols, s.count, y.data(), s.rows));
    // Two roundings to 127 steps of a maximum of 2 to 3.5 standard deviations: 1 % of a term each, independent.
    EXPECT_LT(error_of(y, m, x, bias, s, s.cols, s.rows), 0.06) << s.rows << "x" << s.cols << " batch " << s.count;
  }
}

TEST_P(LinearEveryLevel, Int8AgreesWithTheScalarLevelToRounding) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(1);
  LinearScratch scratch;
  RandomRows random(9);
  for (const Shape& s : kShapes) {
    const Matrix m = make_matrix(random, s.rows, s.cols, WeightType::f32);
    const Linear linear = Linear::pack({&m.part, 1}, s.cols, true, {}, pool);
    const auto x = random.floats(static_cast<std::size_t>(s.count * s.cols), 30.0f);
    std::vector<float> want(static_cast<std::size_t>(s.count * s.rows)), got(want.size());
    ASSERT_TRUE(linear.forward(scalar_kernels(), pool, scratch, x.data(), s.cols, s.count, want.data(), s.rows));
    ASSERT_TRUE(linear.forward(kernels, pool, scratch, x.data(), s.cols, s.count, got.data(), s.rows));
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-4 + 1e-5 * std::fabs(want[i]));
  }
}

TEST_P(LinearEveryLevel, Int8SurvivesExtremeBytes) {
  // All weights and activations at their limits with one sign: the case in which 16-bit pair sums saturate.
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(1);
  LinearScratch scratch;
  const std::vector<float> w(32 * 256, -1.0f);
  const LinearPart part{reinterpret_cast<const std::byte*>(w.data()), 32, WeightType::f32};
  const Linear linear = Linear::pack({&part, 1}, 256, true, {}, pool);
  for (float sign : {1.0f, -1.0f}) {
    const std::vector<float> x(256, sign * 3.0f);
    std::vector<float> y(32);
    ASSERT_TRUE(linear.forward(kernels, pool, scratch, x.data(), 256, 1, y.data(), 32));
    for (float v : y) EXPECT_NEAR(v, -sign * 3.0f * 256, 0.01f);
  }
}

// Rows that come in int8 stay what they are, to the lowest byte: the product is that of the integers, which is exact,
// times both scales.
TEST_P(LinearEveryLevel, Int8RowsOfAFileAreKept) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(2);
  LinearScratch scratch;
  RandomRows random(13);
  for (const Shape& s : kShapes) {
    std::vector<std::int8_t> w(static_cast<std::size_t>(s.rows * s.cols));
    for (auto& v : w) v = static_cast<std::int8_t>(random.below(256) - 128);
    std::fill_n(w.begin(), s.cols, std::int8_t{-128});
    std::vector<float> scales(static_cast<std::size_t>(s.rows));
    for (float& v : scales) v = 1e-3f + 1e-4f * static_cast<float>(random.below(100));
    auto x = random.floats(static_cast<std::size_t>(s.count * s.cols));
    std::fill_n(x.begin(), s.cols, 2.0f);  // with the first row: the largest sums of all
    const LinearPart part{reinterpret_cast<const std::byte*>(w.data()), s.rows, WeightType::i8, scales.data()};
    const Linear linear = Linear::pack({&part, 1}, s.cols, false, {}, pool);
    EXPECT_EQ(linear.type(), WeightType::i8);
    std::vector<float> y(static_cast<std::size_t>(s.count * s.rows));
    ASSERT_TRUE(linear.forward(kernels, pool, scratch, x.data(), s.cols, s.count, y.data(), s.rows));
    for (int i = 0; i < s.count; ++i) {
      std::vector<double> want(static_cast<std::size_t>(s.rows)), size(want.size());
      for (int at = 0; at < s.cols; at += kQuantGroup) {
        const int n = std::min(kQuantGroup, s.cols - at);
        std::int8_t q[kQuantGroup];
        std::int32_t unused;
        const double scale = kernels.quantize_group(x.data() + i * s.cols + at, n, q, &unused);
        for (int r = 0; r < s.rows; ++r) {
          std::int64_t sum = 0;
          for (int k = 0; k < n; ++k) sum += q[k] * w[static_cast<std::size_t>(r * s.cols + at + k)];
          const double term = static_cast<double>(sum) * scale * scales[static_cast<std::size_t>(r)];
          want[static_cast<std::size_t>(r)] += term, size[static_cast<std::size_t>(r)] += std::fabs(term);
        }
      }
      for (int r = 0; r < s.rows; ++r) {
        ASSERT_NEAR(y[static_cast<std::size_t>(i * s.rows + r)], want[static_cast<std::size_t>(r)],
                    1e-6 * size[static_cast<std::size_t>(r)] + 1e-6)
            << s.rows << "x" << s.cols << " batch " << s.count << " row " << r;
      }
    }
  }
}

TEST_P(LinearEveryLevel, ARowDoesNotDependOnTheRowsBesideIt) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(2);
  LinearScratch scratch;
  RandomRows random(10);
  const int rows = 100, cols = 300, count = 21;
  const Matrix m = make_matrix(random, rows, cols, WeightType::bf16);
  const auto x = random.floats(count * cols);
  for (bool int8 : {false, true}) {
    const Linear linear = Linear::pack({&m.part, 1}, cols, int8, {}, pool);
    std::vector<float> together(count * rows), alone(rows);
    ASSERT_TRUE(linear.forward(kernels, pool, scratch, x.data(), cols, count, together.data(), rows));
    for (int i = 0; i < count; ++i) {
      ASSERT_TRUE(linear.forward(kernels, pool, scratch, x.data() + i * cols, cols, 1, alone.data(), rows));
      EXPECT_EQ(std::memcmp(alone.data(), together.data() + i * rows, rows * 4), 0) << "row " << i;
    }
  }
}

TEST_P(LinearEveryLevel, NotANumberIsNotLost) {
  const Kernels& kernels = kernels_for(GetParam());
  ThreadPool pool(1);
  LinearScratch scratch;
  RandomRows random(11);
  const Matrix m = make_matrix(random, 40, 200, WeightType::f32);
  for (float bad : {std::nanf(""), INFINITY}) {
    auto x = random.floats(3 * 200);
    x[200 + 150] = bad;
    for (bool int8 : {false, true}) {
      const Linear linear = Linear::pack({&m.part, 1}, 200, int8, {}, pool);
      std::vector<float> y(3 * 40);
      ASSERT_TRUE(linear.forward(kernels, pool, scratch, x.data(), 200, 3, y.data(), 40));
      EXPECT_TRUE(std::isfinite(y[0]));
      EXPECT_FALSE(std::isfinite(y[40]));
      EXPECT_TRUE(std::isfinite(y[80]));
    }
  }
}

TEST(Linear, PartsOfDifferentTypesAreJoinedInOrder) {
  ThreadPool pool(1);
  LinearScratch scratch;
  RandomRows random(12);
  const Matrix a = make_matrix(random, 5, 24, WeightType::f16), b = make_matrix(random, 40, 24, WeightType::f32);
  const LinearPart parts[] = {a.part, b.part};
  const Linear linear = Linear::pack(parts, 24, false, {}, pool);
  ASSERT_EQ(linear.rows(), 45);
  EXPECT_EQ(linear.type(), WeightType::f32);
  const auto x = random.floats(24);
  std::vector<float> y(45);
  ASSERT_TRUE(linear.forward(scalar_kernels(), pool, scratch, x.data(), 24, 1, y.data(), 45));
  const auto first = reference::linear(a.values, 5, widen(x), {}),
             second = reference::linear(b.values, 40, widen(x), {});
  for (std::size_t r = 0; r < 5; ++r) EXPECT_NEAR(y[r], first[r], 1e-5);
  for (std::size_t r = 0; r < 40; ++r) EXPECT_NEAR(y[5 + r], second[r], 1e-5);
}

}  // namespace
}  // namespace ganglion::local
