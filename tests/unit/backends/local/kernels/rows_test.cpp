// Norms, activations, softmax, rotary embedding and conversions at every length around the vector widths.

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/unit/backends/local/kernels/random_rows.hpp"

namespace ganglion::local {
namespace {

using reference::Row;
constexpr int kLengths[] = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 257, 1000};

class RowsEveryLevel : public testing::TestWithParam<Isa> {
 protected:
  const Kernels& k() const { return kernels_for(GetParam()); }
  static void near(const std::vector<float>& got, const Row& want, double tolerance) {
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(got[i], want[i], tolerance * (1.0 + std::fabs(want[i]))) << "element " << i << " of " << want.size();
    }
  }
  RandomRows random_{31};
};
INSTANTIATE_TEST_SUITE_P(Levels, RowsEveryLevel, testing::ValuesIn(supported_isas()), [](const auto& info) {
  std::string name(isa_name(info.param));
  std::erase(name, '-');
  return name;
});

TEST_P(RowsEveryLevel, NormsMatchTheReference) {
  for (int n : kLengths) {
    const auto size = static_cast<std::size_t>(n);
    auto x = random_.floats(size, 3.0f);
    const auto w = random_.floats(size), b = random_.floats(size);
    std::vector<float> y(size);
    k().rms_norm(x.data(), w.data(), y.data(), n, 1e-5f);
    near(y, reference::rms_norm(widen(x), widen(w), 1e-5), 2e-6);
    k().layer_norm(x.data(), w.data(), b.data(), y.data(), n, 1e-5f);
    near(y, reference::layer_norm(widen(x), widen(w), widen(b), 1e-5), 3e-6);
    const Row want = reference::rms_norm(widen(x), widen(w), 1e-6);
    k().rms_norm(x.data(), w.data(), x.data(), n, 1e-6f);
    near(x, want, 2e-6);
  }
}

TEST_P(RowsEveryLevel, ActivationsMatchTheReferenceFromTinyToHuge) {
  for (int n : kLengths) {
    const auto size = static_cast<std::size_t>(n);
    auto x = random_.floats(size, 4.0f);
    const auto up = random_.floats(size);
    if (n > 8) {
      x[0] = 0.0f;
      x[1] = -200.0f;
      x[2] = 200.0f;
      x[3] = 1e-6f;
      x[4] = -90.0f;
    }
    std::vector<float> y(size);
    k().silu_mul(x.data(), up.data(), y.data(), n);
    Row silu(size), gelu(size), gelu_tanh(size), relu(size), capped(size);
    for (std::size_t i = 0; i < size; ++i) {
      silu[i] = reference::silu(x[i]) * up[i];
      gelu[i] = reference::gelu(x[i]);
      gelu_tanh[i] = reference::gelu_tanh(x[i]) * up[i];
      relu[i] = std::max(x[i], 0.0f);
      capped[i] = reference::soft_cap(x[i], 30.0);
    }
    near(y, silu, 1e-6);
    k().gelu_tanh_mul(x.data(), up.data(), y.data(), n);
    near(y, gelu_tanh, 1e-6);
    y = x;
    k().relu(y.data(), n);
    near(y, relu, 0);
    y = x;
    k().soft_cap(y.data(), n, 30.0f);
    near(y, capped, 4e-6);  // 30 times what tanh is off by
    k().gelu(x.data(), n);
    near(x, gelu, 1e-6);
  }
}

TEST_P(RowsEveryLevel, SoftmaxMatchesAndKeepsImpossibleTokensAtZero) {
  for (int n : kLengths) {
    const auto size = static_cast<std::size_t>(n);
    auto x = random_.floats(size, 10.0f);
    if (n > 2) x[1] = -INFINITY;
    const Row want = reference::softmax(widen(x));
    const float top = k().max(x.data(), n);
    EXPECT_EQ(top, *std::max_element(x.begin(), x.end()));
    const double sum = k().sum_exp(x.data(), n, top);
    double expected = 0;
    for (float v : x) expected += std::exp(static_cast<double>(v) - top);
    EXPECT_NEAR(sum, expected, 1e-5 * expected);
    k().softmax(x.data(), n);
    near(x, want, 1e-6);
    if (n > 2) {
      EXPECT_EQ(x[1], 0.0f);
    }
  }
}

TEST_P(RowsEveryLevel, MaximumShowsNotANumberWhereverItIs) {
  for (int n : kLengths) {
    for (int at : {0, n / 2, n - 1}) {
      auto x = random_.floats(static_cast<std::size_t>(n));
      x[static_cast<std::size_t>(at)] = std::nanf("");
      EXPECT_TRUE(std::isnan(k().max(x.data(), n))) << n << " at " << at;
    }
  }
}

TEST_P(RowsEveryLevel, RopeAndAddMatchTheReference) {
  for (int half : kLengths) {
    const auto size = static_cast<std::size_t>(half);
    auto x = random_.floats(2 * size);
    std::vector<float> cos(size), sin(size);
    for (std::size_t i = 0; i < size; ++i) {
      cos[i] = std::cos(static_cast<float>(i));
      sin[i] = std::sin(static_cast<float>(i));
    }
    const Row want = reference::rope(widen(x), widen(cos), widen(sin));
    k().rope(x.data(), cos.data(), sin.data(), half);
    near(x, want, 1e-6);
    const auto before = x, y = random_.floats(2 * size);
    k().add(x.data(), y.data(), 2 * half);
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_EQ(x[i], before[i] + y[i]);
  }
}

TEST_P(RowsEveryLevel, HalfPrecisionConvertsEveryBitPattern) {
  std::vector<std::uint16_t> bits(65536), back(65536);
  std::iota(bits.begin(), bits.end(), std::uint16_t{0});
  std::vector<float> wide(65536);
  k().widen_f16(bits.data(), wide.data(), 65536);
  k().narrow_f16(wide.data(), back.data(), 65536);
  for (std::size_t i = 0; i < bits.size(); ++i) {
    const double want = reference::f16_value(bits[i]);
    if (std::isnan(want)) {
      EXPECT_TRUE(std::isnan(wide[i]));
      continue;
    }
    ASSERT_EQ(wide[i], want) << i;
    ASSERT_EQ(back[i], bits[i]) << i;
  }
  k().widen_bf16(bits.data(), wide.data(), 65535);
  for (std::size_t i = 0; i < 65535; ++i) {
    if (!std::isnan(wide[i])) {
      ASSERT_EQ(reference::bf16_bits(wide[i]), bits[i]);
    }
  }
}

TEST_P(RowsEveryLevel, NarrowingRoundsToNearestEven) {
  std::vector<float> x = random_.floats(4099, 50.0f);
  const float edges[] = {65504.0f, 65519.9f, 65520.0f, 1e9f,    -1e9f,  6.0e-8f,
                         2.9e-8f,  1.0e-9f,  6.1e-5f,  2049.0f, 2051.0f};
  std::copy(std::begin(edges), std::end(edges), x.begin());
  for (std::size_t i = 20; i < 1000; ++i) x[i] *= 1e-6f;
  std::vector<std::uint16_t> got(x.size());
  k().narrow_f16(x.data(), got.data(), static_cast<int>(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(got[i], reference::f16_bits(x[i])) << x[i];
}

TEST_P(RowsEveryLevel, QuantisedGroupsKeepEveryValueWithinHalfAStep) {
  for (int n : {1, 5, 16, 37, 127, 128}) {
    const auto x = random_.floats(static_cast<std::size_t>(n), 5.0f);
    std::vector<std::int8_t> q(static_cast<std::size_t>(n));
    std::int32_t sum = 0;
    const float scale = k().quantize_group(x.data(), n, q.data(), &sum);
    EXPECT_EQ(sum, std::accumulate(q.begin(), q.end(), 0));
    for (std::size_t i = 0; i < x.size(); ++i) EXPECT_LE(std::fabs(q[i] * scale - x[i]), 0.5001f * scale);
  }
  const std::vector<float> zero(128, 0.0f);
  std::vector<std::int8_t> q(128, 1);
  std::int32_t sum = 1;
  EXPECT_EQ(k().quantize_group(zero.data(), 128, q.data(), &sum), 0.0f);
  EXPECT_EQ(sum, 0);
  EXPECT_EQ(q[77], 0);
}

}  // namespace
}  // namespace ganglion::local
