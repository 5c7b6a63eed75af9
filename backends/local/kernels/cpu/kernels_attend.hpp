#pragma once
// Attention of a few query rows over one kv head's pages, for whichever vector type V came before. Same inclusion
// rules as kernels_gemm.hpp. One pass with a running maximum and sum ("online softmax") over blocks of keys that are
// aligned to absolute positions, so that a row's result does not depend on the rows computed beside it.

constexpr int kBlockPages = 8;
constexpr int kBlockKeys = kBlockPages * kPageTokens;
constexpr int kPageVectors = kPageTokens / V::W;

struct KvF32 {
  using T = float;
  static constexpr bool kScaled = false;
  static typename V::F load(const T* p) { return V::load(p); }
};
struct KvF16 {
  using T = std::uint16_t;
  static constexpr bool kScaled = false;
  static typename V::F load(const T* p) { return V::load_f16(p); }
};
struct KvI8 {
  using T = std::int8_t;
  static constexpr bool kScaled = true;
  static typename V::F load(const T* p) { return V::load_i8(p); }
  // Of a page's keys; kPageTokens further, of its values.
  static const float* scales(const AttendArgs& a, const char* keys) {
    return reinterpret_cast<const float*>(keys + kPageTokens * (a.head_dim + a.head_dim_padded));
  }
};

// scores[r][t] = q[r] . key t, for one page.
template <class L, int R>
inline void page_scores(const AttendArgs& a, int first_row, const typename L::T* keys, float* scores) {
  constexpr int NV = kPageVectors >= 2 && R * 2 <= V::kMaxAccumulators ? 2 : 1;
  for (int v0 = 0; v0 < kPageVectors; v0 += NV) {
    typename V::F acc[R][NV];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < NV; ++v) acc[r][v] = V::zero();
    }
    for (int d = 0; d < a.head_dim; ++d) {
      for (int v = 0; v < NV; ++v) {
        const typename V::F key = L::load(keys + d * kPageTokens + (v0 + v) * V::W);
        for (int r = 0; r < R; ++r) acc[r][v] = V::fma(V::set1(a.q[first_row + r][d]), key, acc[r][v]);
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < NV; ++v) {
        typename V::F score = acc[r][v];
        if constexpr (L::kScaled) {
          const float* scales = L::scales(a, reinterpret_cast<const char*>(keys));
          score = V::mul(score, V::load(scales + (v0 + v) * V::W));
        }
        V::store(scores + r * kBlockKeys + (v0 + v) * V::W, score);
      }
    }
  }
}

// out[r][d] += sum over t in [t0, t1) of p[r][t] * value[t][d], t counted from the block's first key.
template <class L, int R>
inline void add_values(const AttendArgs& a, const std::int32_t* pages, int t0, int t1, const float* p, float* out) {
  for (int d = 0; d < a.head_dim_padded; d += V::W) {
    typename V::F acc[R];
    for (int r = 0; r < R; ++r) acc[r] = V::load(out + r * a.head_dim_padded + d);
    for (int t = t0; t < t1;) {
      const auto* page = reinterpret_cast<const typename L::T*>(a.v_base + pages[t / kPageTokens] * a.page_bytes);
      const int stop = (t / kPageTokens + 1) * kPageTokens < t1 ? (t / kPageTokens + 1) * kPageTokens : t1;
      const typename L::T* value = page + (t % kPageTokens) * a.head_dim_padded + d;
      for (; t < stop; ++t, value += a.head_dim_padded) {
        const typename V::F v = L::load(value);
        for (int r = 0; r < R; ++r) acc[r] = V::fma(V::set1(p[r * kBlockKeys + t]), v, acc[r]);
      }
    }
    for (int r = 0; r < R; ++r) V::store(out + r * a.head_dim_padded + d, acc[r]);
  }
}

// Takes the values' scales into the weights of one row, whose sum does not have them.
template <class L>
inline void scale_weights(const AttendArgs& a, const std::int32_t* pages, int t0, int t1, float* p) {
  for (int t = t0; t < t1; ++t) {
    const float* scales = L::scales(a, a.k_base + pages[t / kPageTokens] * a.page_bytes);
    p[t] *= scales[kPageTokens + t % kPageTokens];
  }
}

// Turns a block's scores of one row into weights: masks, moves the running maximum, rescales what was summed.
inline void block_softmax(float* scores, int block, int lo, int hi, float* top, float* total, float* out, int width) {
  const int from = lo > block ? lo - block : 0;
  const int to = hi < block + kBlockKeys ? hi - block : kBlockKeys;
  const float masked = -__builtin_inff();
  for (int t = 0; t < from && t < kBlockKeys; ++t) scores[t] = masked;
  for (int t = to < 0 ? 0 : to; t < kBlockKeys; ++t) scores[t] = masked;
  typename V::F best = V::set1(*top);
  for (int t = 0; t < kBlockKeys; t += V::W) best = V::max(V::load(scores + t), best);
  const float new_top = V::max_lane(best);
  if (new_top == masked) {
    for (int t = 0; t < kBlockKeys; ++t) scores[t] = 0.0f;
    return;
  }
  if (new_top != *top) {
    alignas(64) float factor[V::W];
    V::store(factor, exp_v(V::set1(*top - new_top)));
    const typename V::F f = V::set1(factor[0]);
    for (int d = 0; d < width; d += V::W) V::store(out + d, V::mul(V::load(out + d), f));
    *total *= factor[0];
    *top = new_top;
  }
  const typename V::F shift = V::set1(new_top);
  typename V::F sum = V::zero();
  for (int t = 0; t < kBlockKeys; t += V::W) {
    const typename V::F p = exp_v(V::sub(V::load(scores + t), shift));
    V::store(scores + t, p);
    sum = V::add(sum, p);
  }
  *total += V::sum(sum);
}

template <class L, int R>
inline void attend_rows(const AttendArgs& a, int first_row) {
  alignas(64) float scores[R * kBlockKeys];
  float* out = a.scratch + first_row * a.head_dim_padded;
  float top[R], total[R];
  int lo = a.lo[first_row], hi = a.hi[first_row];
  for (int r = 0; r < R; ++r) {
    top[r] = -__builtin_inff();
    total[r] = 0;
    lo = a.lo[first_row + r] < lo ? a.lo[first_row + r] : lo;
    hi = a.hi[first_row + r] > hi ? a.hi[first_row + r] : hi;
  }
  for (int i = 0; i < R * a.head_dim_padded; ++i) out[i] = 0;
  for (int block = lo / kBlockKeys * kBlockKeys; block < hi; block += kBlockKeys) {
    const int end = hi - block < kBlockKeys ? hi - block : kBlockKeys;
    const int begin = lo > block ? lo - block : 0;
    const std::int32_t* pages = a.pages + block / kPageTokens;
    for (int t = begin / kPageTokens * kPageTokens; t < end; t += kPageTokens) {
      page_scores<L, R>(a, first_row,
                        reinterpret_cast<const typename L::T*>(a.k_base + pages[t / kPageTokens] * a.page_bytes),
                        scores + t);
    }
    for (int r = 0; r < R; ++r) {
      if (a.softcap > 0) {
        const int from = begin / kPageTokens * kPageTokens;
        soft_cap(scores + r * kBlockKeys + from, (end - from + kPageTokens - 1) / kPageTokens * kPageTokens, a.softcap);
      }
      block_softmax(scores + r * kBlockKeys, block, a.lo[first_row + r], a.hi[first_row + r], top + r, total + r,
                    out + r * a.head_dim_padded, a.head_dim_padded);
      if constexpr (L::kScaled) scale_weights<L>(a, pages, begin, end, scores + r * kBlockKeys);
    }
    add_values<L, R>(a, pages, begin, end, scores, out);
  }
  for (int r = 0; r < R; ++r) {
    const float scale = 1.0f / total[r];
    for (int d = 0; d < a.head_dim; ++d) a.out[first_row + r][d] = out[r * a.head_dim_padded + d] * scale;
  }
}

template <class L>
inline void attend_all(const AttendArgs& a) {
  int row = 0;
  for (; row + 8 <= a.rows; row += 8) attend_rows<L, 8>(a, row);
  for (; row + 4 <= a.rows; row += 4) attend_rows<L, 4>(a, row);
  for (; row + 2 <= a.rows; row += 2) attend_rows<L, 2>(a, row);
  for (; row < a.rows; ++row) attend_rows<L, 1>(a, row);
}

void attend(const AttendArgs& a) {
  switch (a.element) {
    case KvElement::f32:
      return attend_all<KvF32>(a);
    case KvElement::f16:
      return attend_all<KvF16>(a);
    case KvElement::i8:
      return attend_all<KvI8>(a);
  }
}
