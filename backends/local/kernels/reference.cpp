// Plain loops; nothing here is shared with the fast kernels.

#include "backends/local/kernels/reference.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

namespace ganglion::local::reference {

Row linear(const std::vector<float>& w, int rows, const Row& x, const Row& bias) {
  Row y(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < y.size(); ++r) {
    y[r] = bias.empty() ? 0.0 : bias[r];
    for (std::size_t k = 0; k < x.size(); ++k) y[r] += static_cast<double>(w[r * x.size() + k]) * x[k];
  }
  return y;
}

Row rms_norm(const Row& x, const Row& weight, double eps) {
  double squares = 0;
  for (double v : x) squares += v * v;
  const double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + eps);
  Row y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * weight[i];
  return y;
}

Row layer_norm(const Row& x, const Row& weight, const Row& bias, double eps) {
  double mean = 0, variance = 0;
  for (double v : x) mean += v / static_cast<double>(x.size());
  for (double v : x) variance += (v - mean) * (v - mean) / static_cast<double>(x.size());
  Row y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) y[i] = (x[i] - mean) / std::sqrt(variance + eps) * weight[i] + bias[i];
  return y;
}

Row rope(const Row& x, const Row& cos, const Row& sin) {
  const std::size_t half = x.size() / 2;
  Row y(x.size());
  for (std::size_t i = 0; i < half; ++i) {
    y[i] = x[i] * cos[i] - x[i + half] * sin[i];
    y[i + half] = x[i + half] * cos[i] + x[i] * sin[i];
  }
  return y;
}

Row softmax(const Row& x) {
  const double top = *std::max_element(x.begin(), x.end());
  Row y(x.size());
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += y[i] = std::exp(x[i] - top);
  for (double& v : y) v /= sum;
  return y;
}

double silu(double x) {
  return x / (1.0 + std::exp(-x));
}
double gelu(double x) {
  return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
}
double gelu_tanh(double x) {
  return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}
double soft_cap(double x, double cap) {
  return cap > 0 ? cap * std::tanh(x / cap) : x;
}

Row attention(const Row& q, const std::vector<Row>& keys, const std::vector<Row>& values, int lo, int hi,
              double softcap) {
  Row scores;
  for (int t = lo; t < hi; ++t) {
    double s = 0;
    for (std::size_t d = 0; d < q.size(); ++d) s += q[d] * keys[static_cast<std::size_t>(t)][d];
    scores.push_back(soft_cap(s, softcap));
  }
  const Row p = softmax(scores);
  Row out(q.size(), 0.0);
  for (int t = lo; t < hi; ++t) {
    for (std::size_t d = 0; d < q.size(); ++d) {
      out[d] += p[static_cast<std::size_t>(t - lo)] * values[static_cast<std::size_t>(t)][d];
    }
  }
  return out;
}

std::uint16_t bf16_bits(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

float round_to_bf16(float x) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bf16_bits(x)) << 16);
}

double f16_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

std::uint16_t f16_bits(double x) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  if (std::isnan(x)) return sign | 0x7e00;
  const double a = std::fabs(x);
  if (a >= 65520.0) return sign | 0x7c00;
  if (a < std::ldexp(1.0, -14))
    return static_cast<std::uint16_t>(sign | static_cast<int>(std::nearbyint(std::ldexp(a, 24))));
  int exponent = std::ilogb(a);
  const int mantissa = static_cast<int>(std::nearbyint(std::ldexp(a, 10 - exponent)));  // 1024..2048
  return static_cast<std::uint16_t>(sign | ((exponent + 14) * 1024 + mantissa));
}

}  // namespace ganglion::local::reference
