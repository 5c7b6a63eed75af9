#pragma once
// One lane: the portable fallback, and the plain reading of what the wide versions do.
// Included inside an anonymous namespace by kernels_scalar.cpp only.

struct V {
  static constexpr int W = 1;
  static constexpr int kMaxVectors = 8;  // output vectors of one pass
  static constexpr int kMaxAccumulators = 16;
  using F = float;
  using I = std::int32_t;
  struct W8 {
    std::int8_t b[4];
  };

  static F zero() { return 0; }
  static F set1(float x) { return x; }
  static F load(const float* p) { return *p; }
  static void store(float* p, F x) { *p = x; }
  static F fma(F a, F b, F c) { return a * b + c; }
  static F mul(F a, F b) { return a * b; }
  static F add(F a, F b) { return a + b; }
  static F sub(F a, F b) { return a - b; }
  static F div(F a, F b) { return a / b; }
  static F max(F a, F b) { return a > b || a != a ? a : b; }  // NaN in a is kept
  static F min(F a, F b) { return a < b || a != a ? a : b; }
  static F abs(F x) { return x < 0 ? -x : x; }
  static F copysign(F x, F sign) { return __builtin_copysignf(x, sign); }
  static F round(F x) { return __builtin_rintf(x); }
  static F zero_if_less(F value, F x, F bound) { return x < bound ? 0.0f : value; }
  static F scale_by_power(F x, F n) {
    if (n != n) return x;
    std::uint32_t bits = static_cast<std::uint32_t>(static_cast<std::int32_t>(n) + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, 4);
    return x * power;
  }
  static float sum(F x) { return x; }
  static float max_lane(F x) { return x; }
  static bool any_nan(F x) { return x != x; }

  static F load_bf16(const std::uint16_t* p) {
    std::uint32_t bits = static_cast<std::uint32_t>(*p) << 16;
    float x;
    __builtin_memcpy(&x, &bits, 4);
    return x;
  }
  static F load_f16(const std::uint16_t* p) {
    const std::uint32_t h = *p, sign = (h & 0x8000u) << 16, rest = h & 0x7fffu;
    float x;
    if (rest >= 0x7c00u) {
      const std::uint32_t bits = sign | 0x7f800000u | (rest & 0x3ffu) << 13;
      __builtin_memcpy(&x, &bits, 4);
    } else if (rest >= 0x400u) {
      const std::uint32_t bits = sign | ((rest << 13) + (112u << 23));
      __builtin_memcpy(&x, &bits, 4);
    } else {
      x = static_cast<float>(rest) * 5.9604644775390625e-8f;  // subnormal: units of 2^-24
      if (sign != 0) x = -x;
    }
    return x;
  }
  static F load_i8(const std::int8_t* p) { return static_cast<float>(*p); }
  static void store_f16(std::uint16_t* p, F x) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    const std::uint32_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    std::uint32_t h;
    if (bits > 0x7f800000u) {
      h = 0x7e00u;
    } else if (bits >= 0x477ff000u) {  // rounds past 65504
      h = 0x7c00u;
    } else if (bits >= 0x38800000u) {
      h = (bits - (112u << 23) + 0xfffu + (bits >> 13 & 1u)) >> 13;
    } else {
      float magnitude;
      __builtin_memcpy(&magnitude, &bits, 4);
      h = static_cast<std::uint32_t>(__builtin_rintf(magnitude * 16777216.0f));
    }
    *p = static_cast<std::uint16_t>(sign | h);
  }

  static I i_set1(std::int32_t x) { return x; }
  static F to_float(I x) { return static_cast<float>(x); }
  static constexpr bool kUnsignedWeights = false;
  static W8 load_w8(const std::uint8_t* p) {
    W8 w;
    for (int i = 0; i < 4; ++i) w.b[i] = static_cast<std::int8_t>(p[i] ^ 0x80u);
    return w;
  }
  static I dot4(I acc, W8 w, std::int32_t x) {
    for (int i = 0; i < 4; ++i) {
      acc += static_cast<std::int32_t>(w.b[i]) * static_cast<std::int8_t>(static_cast<std::uint32_t>(x) >> (8 * i));
    }
    return acc;
  }
  static void store_i8(std::int8_t* p, F x) { *p = static_cast<std::int8_t>(static_cast<std::int32_t>(x)); }
};
