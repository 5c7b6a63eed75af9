#pragma once
// Norms, activations, rotary embedding, softmax and conversions of single rows, for whichever vector type V came
// before. Same inclusion rules as kernels_gemm.hpp.

// A vector of which only the first `n` lanes come from memory, the others being `fill`.
inline typename V::F load_part(const float* p, int n, float fill) {
  alignas(64) float lanes[V::W];
  for (int i = 0; i < V::W; ++i) lanes[i] = i < n ? p[i] : fill;
  return V::load(lanes);
}
inline void store_part(float* p, typename V::F x, int n) {
  alignas(64) float lanes[V::W];
  V::store(lanes, x);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

// y[i] = f(x[i]) over n elements, tail included.
template <class Function>
inline void map(const float* x, float* y, int n, Function f) {
  int i = 0;
  for (; i + V::W <= n; i += V::W) V::store(y + i, f(V::load(x + i)));
  if (i < n) store_part(y + i, f(load_part(x + i, n - i, 0.0f)), n - i);
}

// e^x to about 2 ulp: x = n ln2 + r, a degree 6 polynomial in r. Below the smallest normal the result is 0 (so -inf
// gives an exact 0); above 88.37 it stays finite; NaN stays NaN.
inline typename V::F exp_v(typename V::F x) {
  const typename V::F low = V::set1(-87.0f);
  const typename V::F clamped = V::min(V::max(x, low), V::set1(88.37f));
  const typename V::F n = V::round(V::mul(clamped, V::set1(1.44269504f)));
  typename V::F r = V::fma(n, V::set1(-0.693359375f), clamped);
  r = V::fma(n, V::set1(2.12194440e-4f), r);
  typename V::F p = V::set1(1.9875691500e-4f);
  p = V::fma(p, r, V::set1(1.3981999507e-3f));
  p = V::fma(p, r, V::set1(8.3334519073e-3f));
  p = V::fma(p, r, V::set1(4.1665795894e-2f));
  p = V::fma(p, r, V::set1(1.6666665459e-1f));
  p = V::fma(p, r, V::set1(5.0000001201e-1f));
  p = V::fma(V::mul(r, r), p, V::add(r, V::set1(1.0f)));
  return V::zero_if_less(V::scale_by_power(p, n), x, low);
}

// Abramowitz and Stegun 7.1.26, absolute error below 1.5e-7.
inline typename V::F erf_v(typename V::F x) {
  const typename V::F one = V::set1(1.0f);
  const typename V::F a = V::abs(x);
  const typename V::F t = V::div(one, V::fma(V::set1(0.3275911f), a, one));
  typename V::F p = V::set1(1.061405429f);
  p = V::fma(p, t, V::set1(-1.453152027f));
  p = V::fma(p, t, V::set1(1.421413741f));
  p = V::fma(p, t, V::set1(-0.284496736f));
  p = V::fma(p, t, V::set1(0.254829592f));
  p = V::mul(V::mul(p, t), exp_v(V::sub(V::zero(), V::mul(a, a))));
  return V::copysign(V::sub(one, p), x);
}

// Sum of f(x[i]).
template <class Function>
inline float reduce_sum(const float* x, int n, Function f) {
  typename V::F a = V::zero(), b = V::zero();
  int i = 0;
  for (; i + 2 * V::W <= n; i += 2 * V::W) {
    a = V::add(a, f(V::load(x + i)));
    b = V::add(b, f(V::load(x + i + V::W)));
  }
  float tail = 0;
  for (; i < n; i += V::W) {
    const int part = n - i < V::W ? n - i : V::W;
    alignas(64) float lanes[V::W];
    V::store(lanes, f(load_part(x + i, part, 0.0f)));
    for (int j = 0; j < part; ++j) tail += lanes[j];
  }
  return V::sum(V::add(a, b)) + tail;
}

void rms_norm(const float* x, const float* weight, float* y, int n, float eps) {
  const float squares = reduce_sum(x, n, [](typename V::F v) { return V::mul(v, v); });
  const float scale = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps);
  for (int i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

void layer_norm(const float* x, const float* weight, const float* bias, float* y, int n, float eps) {
  const float mean = reduce_sum(x, n, [](typename V::F v) { return v; }) / static_cast<float>(n);
  const typename V::F m = V::set1(mean);
  const float squares = reduce_sum(x, n, [m](typename V::F v) {
    const typename V::F d = V::sub(v, m);
    return V::mul(d, d);
  });
  const float scale = 1.0f / __builtin_sqrtf(squares / static_cast<float>(n) + eps);
  for (int i = 0; i < n; ++i) y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

void rope(float* x, const float* cos, const float* sin, int half) {
  for (int i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i] + a * sin[i];
  }
}

inline typename V::F silu_v(typename V::F x) {
  return V::div(x, V::add(V::set1(1.0f), exp_v(V::sub(V::zero(), x))));
}

void silu_mul(const float* gate, const float* up, float* y, int n) {
  int i = 0;
  for (; i + V::W <= n; i += V::W) V::store(y + i, V::mul(silu_v(V::load(gate + i)), V::load(up + i)));
  if (i < n) {
    const int part = n - i;
    store_part(y + i, V::mul(silu_v(load_part(gate + i, part, 0.0f)), load_part(up + i, part, 0.0f)), part);
  }
}

// Within 1.2e-7 of tanh.
inline typename V::F tanh_v(typename V::F x) {
  const typename V::F one = V::set1(1.0f);
  return V::sub(one, V::div(V::set1(2.0f), V::add(exp_v(V::add(x, x)), one)));
}

inline typename V::F gelu_tanh_v(typename V::F x) {
  const typename V::F inner = V::fma(V::mul(V::mul(x, x), x), V::set1(0.044715f), x);
  const typename V::F t = tanh_v(V::mul(inner, V::set1(0.7978845608f)));
  return V::mul(V::mul(x, V::set1(0.5f)), V::add(V::set1(1.0f), t));
}

void gelu_tanh_mul(const float* gate, const float* up, float* y, int n) {
  int i = 0;
  for (; i + V::W <= n; i += V::W) V::store(y + i, V::mul(gelu_tanh_v(V::load(gate + i)), V::load(up + i)));
  if (i < n) {
    const int part = n - i;
    store_part(y + i, V::mul(gelu_tanh_v(load_part(gate + i, part, 0.0f)), load_part(up + i, part, 0.0f)), part);
  }
}

void relu(float* x, int n) {
  for (int i = 0; i < n; ++i) x[i] = x[i] < 0.0f ? 0.0f : x[i];
}

void soft_cap(float* x, int n, float cap) {
  const typename V::F inverse = V::set1(1.0f / cap), c = V::set1(cap);
  map(x, x, n, [inverse, c](typename V::F v) { return V::mul(c, tanh_v(V::mul(v, inverse))); });
}

void gelu(float* x, int n) {
  map(x, x, n, [](typename V::F v) {
    const typename V::F e = erf_v(V::mul(v, V::set1(0.70710678f)));
    return V::mul(V::mul(v, V::set1(0.5f)), V::add(V::set1(1.0f), e));
  });
}

void add(float* x, const float* y, int n) {
  for (int i = 0; i < n; ++i) x[i] += y[i];
}

float max_row(const float* x, int n) {
  typename V::F best = V::set1(-__builtin_inff());
  bool nan = false;
  int i = 0;
  for (; i + V::W <= n; i += V::W) {
    const typename V::F v = V::load(x + i);
    nan |= V::any_nan(v);
    best = V::max(best, v);
  }
  if (i < n) {
    const typename V::F v = load_part(x + i, n - i, -__builtin_inff());
    nan |= V::any_nan(v);
    best = V::max(best, v);
  }
  return nan ? __builtin_nanf("") : V::max_lane(best);
}

float sum_exp(const float* x, int n, float shift) {
  const typename V::F s = V::set1(shift);
  return reduce_sum(x, n, [s](typename V::F v) { return exp_v(V::sub(v, s)); });
}

void softmax(float* x, int n) {
  const typename V::F shift = V::set1(max_row(x, n));
  map(x, x, n, [shift](typename V::F v) { return exp_v(V::sub(v, shift)); });
  const float scale = 1.0f / reduce_sum(x, n, [](typename V::F v) { return v; });
  for (int i = 0; i < n; ++i) x[i] *= scale;
}

void widen_bf16(const std::uint16_t* x, float* y, int n) {
  for (int i = 0; i < n; ++i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x[i]) << 16;
    __builtin_memcpy(y + i, &bits, 4);
  }
}

void widen_f16(const std::uint16_t* x, float* y, int n) {
  int i = 0;
  for (; i + V::W <= n; i += V::W) V::store(y + i, V::load_f16(x + i));
  if (i < n) {
    std::uint16_t lanes[V::W];
    for (int j = 0; j < V::W; ++j) lanes[j] = i + j < n ? x[i + j] : 0;
    store_part(y + i, V::load_f16(lanes), n - i);
  }
}

void narrow_f16(const float* x, std::uint16_t* y, int n) {
  int i = 0;
  for (; i + V::W <= n; i += V::W) V::store_f16(y + i, V::load(x + i));
  if (i < n) {
    std::uint16_t lanes[V::W];
    V::store_f16(lanes, load_part(x + i, n - i, 0.0f));
    for (int j = 0; i + j < n; ++j) y[i + j] = lanes[j];
  }
}

float quantize_group(const float* x, int n, std::int8_t* q, std::int32_t* sum) {
  typename V::F largest = V::zero();
  bool nan = false;
  int i = 0;
  for (; i < n; i += V::W) {
    const typename V::F v = n - i >= V::W ? V::load(x + i) : load_part(x + i, n - i, 0.0f);
    nan |= V::any_nan(v);
    largest = V::max(largest, V::abs(v));
  }
  const float top = V::max_lane(largest);
  std::int32_t total = 0;
  if (nan || !(top < __builtin_inff()) || top < 1e-30f) {
    for (int j = 0; j < n; ++j) q[j] = 0;
    *sum = 0;
    return nan || !(top < __builtin_inff()) ? __builtin_nanf("") : 0.0f;
  }
  const float scale = top / 127.0f;
  const typename V::F inverse = V::set1(127.0f / top);
  const typename V::F limit = V::set1(127.0f);
  for (i = 0; i < n; i += V::W) {
    const int part = n - i < V::W ? n - i : V::W;
    const typename V::F v = part == V::W ? V::load(x + i) : load_part(x + i, part, 0.0f);
    const typename V::F rounded = V::max(V::min(V::round(V::mul(v, inverse)), limit), V::sub(V::zero(), limit));
    alignas(16) std::int8_t lanes[16];
    V::store_i8(lanes, rounded);
    for (int j = 0; j < part; ++j) {
      q[i + j] = lanes[j];
      total += lanes[j];
    }
  }
  *sum = total;
  return scale;
}
