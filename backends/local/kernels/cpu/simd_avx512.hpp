#pragma once
// Sixteen lanes: AVX-512 F, BW, VL, DQ, and VNNI's byte products where the file is compiled with them.
// Included inside an anonymous namespace by kernels_avx512.cpp and kernels_avx512_vnni.cpp only.

struct V {
  static constexpr int W = 16;
  static constexpr int kMaxVectors = 2;
  static constexpr int kMaxAccumulators = 16;
  using F = __m512;
  using I = __m512i;

  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(b, a); }  // maxps gives its second operand when either is NaN
  static F min(F a, F b) { return _mm512_min_ps(b, a); }
  static F abs(F x) { return _mm512_abs_ps(x); }
  static F copysign(F x, F sign) {
    const __m512 mask = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(mask, x), _mm512_and_ps(mask, sign));
  }
  static F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  static F zero_if_less(F value, F x, F bound) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_NLT_UQ), value);
  }
  static F scale_by_power(F x, F n) { return _mm512_scalef_ps(x, n); }
  static float sum(F x) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  static float max_lane(F x) {
    const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
  }
  static bool any_nan(F x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q) != 0; }

  static F load_bf16(const std::uint16_t* p) {
    const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
  }
  static F load_f16(const std::uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load_i8(const std::int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  }
  static void store_f16(std::uint16_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }

  static I i_set1(std::int32_t x) { return _mm512_set1_epi32(x); }
  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
#if defined(__AVX512VNNI__)
  // vpdpbusd multiplies unsigned by signed bytes: the weights carry an offset of 128, which x_fix takes back.
  static constexpr bool kUnsignedWeights = true;
  using W8 = __m512i;
  static W8 load_w8(const std::uint8_t* p) { return _mm512_loadu_si512(p); }
  static I dot4(I acc, W8 w, std::int32_t x) { return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(x)); }
#else
  static constexpr bool kUnsignedWeights = false;
  struct W8 {
    __m512i magnitude;
    __mmask64 negative;
  };
  static W8 load_w8(const std::uint8_t* p) {
    const __m512i value = _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(static_cast<char>(0x80)));
    return {_mm512_abs_epi8(value), _mm512_movepi8_mask(value)};
  }
  // |w| * (x with w's sign): within 128 and 127, so the pairwise int16 sums (<= 32512) cannot saturate.
  static I dot4(I acc, W8 w, std::int32_t x) {
    const __m512i bytes = _mm512_set1_epi32(x);
    const __m512i sx = _mm512_mask_sub_epi8(bytes, w.negative, _mm512_setzero_si512(), bytes);
    const __m512i pairs = _mm512_maddubs_epi16(w.magnitude, sx);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
#endif
  static void store_i8(std::int8_t* p, F x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
  }
};
