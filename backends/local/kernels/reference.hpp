#pragma once
// The slow, obvious reading of every kernel, in double precision: what the fast ones are tested against.

#include <cstdint>
#include <vector>

namespace ganglion::local::reference {

using Row = std::vector<double>;

// y[r] = sum_k w[r * cols + k] * x[k] (+ bias[r])
Row linear(const std::vector<float>& w, int rows, const Row& x, const Row& bias);
Row rms_norm(const Row& x, const Row& weight, double eps);
Row layer_norm(const Row& x, const Row& weight, const Row& bias, double eps);
// Rotate-half rotary embedding of one head.
Row rope(const Row& x, const Row& cos, const Row& sin);
Row softmax(const Row& x);
double silu(double x);
double gelu(double x);  // exact form
double gelu_tanh(double x);
double soft_cap(double x, double cap);  // cap 0: x
// One query over keys[lo..hi) and values[lo..hi); scores are q . k, already scaled.
Row attention(const Row& q, const std::vector<Row>& keys, const std::vector<Row>& values, int lo, int hi,
              double softcap = 0);

// Widths of the storage types, by arithmetic on the value.
float round_to_bf16(float x);  // to nearest even
std::uint16_t bf16_bits(float x);
double f16_value(std::uint16_t bits);
std::uint16_t f16_bits(double x);  // to nearest even; overflow gives infinity

}  // namespace ganglion::local::reference
