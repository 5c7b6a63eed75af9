#pragma once
// What the kernels that attend few query rows over pages share: pages straight into tensor-core fragments, and putting
// together what warps and blocks found. attention_decode.cu says how. Device code only.

#include <type_traits>

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/kernels.hpp"
#include "backends/local/kernels/cuda/page_values.cuh"

namespace ganglion::local::cuda {

constexpr int kColumns = 8;  // of a fragment
constexpr float kLog2e = 1.4426950408889634f;

// Eight consecutive elements as they lie in memory; zero where the token does not count, since what lies there may be
// anything. pairs(): in the type that attention multiplies in.
template <KvFormat F, int Bytes = kv_value_bytes(F)>
struct Eight {
  uint2 v;
  __device__ __forceinline__ void load(const char* at, bool valid) {
    v = {0, 0};
    if (valid) v = *reinterpret_cast<const uint2*>(at);
  }
  __device__ __forceinline__ void pairs(std::uint32_t (&out)[4]) const {
    out[0] = pair_of<F, 0>(v.x), out[1] = pair_of<F, 1>(v.x);
    out[2] = pair_of<F, 0>(v.y), out[3] = pair_of<F, 1>(v.y);
  }
};
template <KvFormat F>
struct Eight<F, 2> {
  uint4 v;
  __device__ __forceinline__ void load(const char* at, bool valid) {
    v = {0, 0, 0, 0};
    if (valid) v = *reinterpret_cast<const uint4*>(at);
  }
  __device__ __forceinline__ void pairs(std::uint32_t (&out)[4]) const {
    out[0] = v.x, out[1] = v.y, out[2] = v.z, out[3] = v.w;
  }
};

// A lane's share of one page: tokens g and g + 8.
template <int Width, KvFormat F>
struct PageShare {
  static constexpr int kChunks = Width / 32, kBytes = kv_value_bytes(F);
  static constexpr bool kScaled = F == KvFormat::int8;
  Eight<F> k0[kChunks], k1[kChunks], v0[kChunks], v1[kChunks];
  float k_scale[kScaled ? 2 : 1], v_scale[kScaled ? 2 : 1];

  // `tile`: the keys' tile; `g`, `t`: the lane's place.
  __device__ __forceinline__ void load(const char* tile, std::int64_t values_after, int g, int t, bool valid0,
                                       bool valid1) {
    load_keys(tile, g, t, valid0, valid1);
    load_values(tile + values_after, g, t, valid0, valid1);
  }
  __device__ __forceinline__ void load_keys(const char* tile, int g, int t, bool valid0, bool valid1) {
    load_half(tile, g, t, valid0, valid1, k0, k1, k_scale);
  }
  // `tile`: the values'.
  __device__ __forceinline__ void load_values(const char* tile, int g, int t, bool valid0, bool valid1) {
    load_half(tile, g, t, valid0, valid1, v0, v1, v_scale);
  }

 private:
  __device__ __forceinline__ void load_half(const char* tile, int g, int t, bool valid0, bool valid1,
                                            Eight<F> (&first)[kChunks], Eight<F> (&second)[kChunks],
                                            float (&scale)[kScaled ? 2 : 1]) {
    if constexpr (kScaled) {
      const auto* scales = reinterpret_cast<const float*>(tile + kPageTokens * Width);
      scale[0] = valid0 ? scales[g] : 0.0f, scale[1] = valid1 ? scales[g + 8] : 0.0f;
    }
    const char* at = tile + (g * Width + 8 * t) * kBytes;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      first[c].load(at + c * 32 * kBytes, valid0);
      second[c].load(at + (8 * Width + c * 32) * kBytes, valid1);
    }
  }
};

// How a warp goes through its pages, by the registers that it may take: the next page on its way while this one is
// computed with; one whole page at a time; or the first page handed over, of the others keys first, then values, and
// the query read anew for each page.
enum class Pace { ahead, page, lean };

// Column c of a fragment is head `head` + c % heads of row `row` + c / heads.
struct Part {
  const DecodeAttention& a;
  int row, rows, kv_head, head, heads;
  int slot;  // of its first column among the partial results
  __device__ __forceinline__ int columns() const { return rows * heads; }
};

// What a block's warps found, in shared memory: `sums` [warps][columns][Width] relative to the maxima `tops`
// [warps][kColumns], with the weights' sums in `totals` likewise. `columns`: that there is room for.
struct Merged {
  float *sums, *tops, *totals;
  int columns, warps;
};

// Attends pages [first, last) of the part's sequence, whose table is `table`; the first merged.warps warps call it.
// `length`: keys that the first row sees; each row after it sees one more. `query`: the lane's column lane / 4, from
// element 8 * (lane % 4) on. Lean: `share` is the lane's of page first + warp, zeros if there is no such page.
template <int Width, KvFormat F, bool Few, Pace P>
__device__ __forceinline__ void attend_pages(const DecodeAttention& a, const Part& part, const std::int32_t* table,
                                             const void* query, int first, int last, int length, const Merged& merged,
                                             PageShare<Width, F> share = {}) {
  constexpr int kChunks = Width / 32;  // of 32 elements
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int columns = part.columns(), warps = merged.warps;
  constexpr bool kHalf = attends_in_half(F);
  std::uint32_t q[kChunks][4];
  const auto load_query = [&](int c) {
    Eight<KvFormat::bf16> eight;  // or fp16: two bytes either way
    eight.load(static_cast<const char*>(query) + 64 * c, g < columns);
    eight.pairs(q[c]);
  };
#pragma unroll
  for (int c = 0; P != Pace::lean && c < kChunks; ++c) load_query(c);

  constexpr std::int64_t kTileBytes = kv_tile_bytes(Width, F);
  const char* keys = static_cast<const char*>(a.kv.base) +
                     (static_cast<std::int64_t>(2 * a.layer) * a.kv.kv_heads + part.kv_head) * kTileBytes;
  const std::int64_t values_after = a.kv.kv_heads * kTileBytes;
  const float scale = a.softcap > 0 ? a.scale / a.softcap : a.scale * kLog2e, cap = a.softcap * kLog2e;
  const auto score = [&](float s) { return cap > 0 ? cap * tanh_of(s * scale) : s * scale; };
  constexpr int kNoPage = 1 << 26;  // whose tokens nobody sees
  float out[2 * kChunks][4];
  if constexpr (P != Pace::lean) {
#pragma unroll
    for (auto& fragment : out) fragment[0] = fragment[1] = fragment[2] = fragment[3] = 0;
  }
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};

  // What this lane's two columns see, and what any column does.
  int seen[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) seen[h] = length + (Few ? min((2 * t + h) / part.heads, part.rows - 1) : 0);
  const int all = length + (Few ? part.rows - 1 : 0), low = a.window > 0 ? max(0, length - a.window) : 0;
  const auto valid = [&](int token) { return token >= low && token < all; };
  const auto sees = [&](int token, int h) { return token < seen[h] && (a.window == 0 || token >= seen[h] - a.window); };
  const auto load = [&](PageShare<Width, F>& share, int page) {
    const int token = page * kPageTokens + g;
    share.load(keys + table[page] * a.kv.page_bytes, values_after, g, t, valid(token), valid(token + 8));
  };
  PageShare<Width, F> next;
  if (P == Pace::ahead && first + warp < last) load(next, first + warp);
  std::int32_t number = P == Pace::lean && first + warp + warps < last ? table[first + warp + warps] : 0;
  const auto attend = [&](int page, auto is_fresh) {  // fresh: the warp's first, which nothing is to be added to
    constexpr bool kFresh = decltype(is_fresh)::value, kHanded = P == Pace::lean && kFresh;
    const int token = page * kPageTokens + g;
    const char* tile = keys + number * a.kv.page_bytes;
    if constexpr (P == Pace::ahead) {
      share = next;
      if (page + warps < last) load(next, page + warps);
    } else if constexpr (P == Pace::page) {
      load(share, page);
    } else if constexpr (!kHanded) {
      share.load_keys(tile, g, t, valid(token), valid(token + 8));
      if (page + warps < last) number = table[page + warps];  // there when it is wanted
    }
    float s[4] = {0, 0, 0, 0};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (P == Pace::lean) load_query(c);
      std::uint32_t k0[4], k1[4];
      share.k0[c].pairs(k0), share.k1[c].pairs(k1);
      mma_as<kHalf>(s, k0[0], k1[0], k0[1], k1[1], q[c][0], q[c][1]);
      mma_as<kHalf>(s, k0[2], k1[2], k0[3], k1[3], q[c][2], q[c][3]);
    }
    if constexpr (P == Pace::lean && !kHanded)
      share.load_values(tile + values_after, g, t, valid(token), valid(token + 8));
    // s: tokens g and g + 8 (rows) of heads 2t and 2t + 1.
    if constexpr (share.kScaled) {
      s[0] *= share.k_scale[0], s[1] *= share.k_scale[0], s[2] *= share.k_scale[1], s[3] *= share.k_scale[1];
    }
    float p[4];
    float fade[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float a0 = sees(token, h) ? score(s[h]) : -INFINITY, a1 = sees(token + 8, h) ? score(s[2 + h]) : -INFINITY;
      float m = fmaxf(a0, a1);
#pragma unroll
      for (int d = 4; d < 32; d *= 2) m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, d));
      m = fmaxf(m, top[h]);
      const float shift = (Few || kHanded) && m == -INFINITY ? 0.0f : m;  // a row that has seen no key yet
      fade[h] = exp2f(top[h] - shift);
      top[h] = m;
      p[h] = exp2f(a0 - shift);
      p[2 + h] = exp2f(a1 - shift);
      total[h] = total[h] * fade[h] + p[h] + p[2 + h];
    }
    if constexpr (share.kScaled) {
      p[0] *= share.v_scale[0], p[1] *= share.v_scale[0], p[2] *= share.v_scale[1], p[3] *= share.v_scale[1];
    }
    const std::uint32_t p0 = transpose8x8(pack_as<kHalf>(p[0], p[1])), p1 = transpose8x8(pack_as<kHalf>(p[2], p[3]));
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      std::uint32_t v0[4], v1[4];
      share.v0[c].pairs(v0), share.v1[c].pairs(v1);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float(&o)[4] = out[2 * c + j];
        if constexpr (kHanded) {
          o[0] = o[1] = o[2] = o[3] = 0;
        } else {
          o[0] *= fade[0], o[1] *= fade[1], o[2] *= fade[0], o[3] *= fade[1];
        }
        mma_as<kHalf>(o, transpose8x8(v0[2 * j]), transpose8x8(v0[2 * j + 1]), transpose8x8(v1[2 * j]),
                      transpose8x8(v1[2 * j + 1]), p0, p1);
      }
    }
  };
  int page = first + warp;
  if constexpr (P == Pace::lean) {
    attend(page < last ? page : kNoPage, std::true_type{});  // so that there are no sums before it
    page += warps;
  }
  for (; page < last; page += warps) attend(page, std::false_type{});
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int d = 4; d < 32; d *= 2) total[h] += __shfl_xor_sync(0xffffffffu, total[h], d);
    const int head = 2 * t + h;
    if (g == 0) merged.tops[warp * kColumns + head] = top[h], merged.totals[warp * kColumns + head] = total[h];
    if (head >= columns) continue;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int element = 32 * c + 8 * (g / 2) + 4 * j + g % 2;  // fragment row g; row g + 8 is two further
        float* at = merged.sums + (warp * merged.columns + head) * Width + element;
        at[0] = out[2 * c + j][h], at[2] = out[2 * c + j][2 + h];
      }
    }
  }
}

__device__ __forceinline__ float weight_of(float top, float best) {
  return top == -INFINITY ? 0.0f : exp2f(top - best);
}

// By all lanes of a warp, which hold neighbouring elements; two of them go out at a time, where another block of the
// same kernel may be waiting for them (step_hand.cuh).
__device__ __forceinline__ void write_out(const DecodeAttention& a, const Part& part, int column, int element,
                                          float v) {
  const float second = __shfl_down_sync(0xffffffffu, v, 1);
  if (element % 2 != 0 || element >= a.kv.head_dim) return;
  const int behind = column / part.heads, head = part.head + column - behind * part.heads;
  auto* to = static_cast<bf16*>(a.out) + static_cast<std::int64_t>(part.row + behind) * a.out_stride +
             head * a.kv.head_dim + element;
  store_shown(reinterpret_cast<std::uint32_t*>(to), pack(v, second));
}

// Puts this block's part beside the others; the last one to do so for its sequence and heads joins them.
// `threads` of the block call it and meet in `sync`; `last_block` is in shared memory.
template <int Width, class Sync>
__device__ __forceinline__ void join(const DecodeAttention& a, const Part& part, const Merged& merged, int split,
                                     int threads, bool& last_block, Sync sync) {
  // A column's weights, by a warp: what each of its warps or splits counts, in place of what is no longer needed.
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, columns = part.columns();
  float* weights = merged.tops;
  float* partial = a.partial + static_cast<std::int64_t>(part.slot) * a.splits * (Width + 2);
#pragma unroll 1
  for (int c = warp; c < columns; c += threads / 32) {
    const bool mine = lane < merged.warps;
    const float top = mine ? merged.tops[lane * kColumns + c] : -INFINITY, best = warp_max(top);
    const float weight = weight_of(top, best);
    // Nothing times what is not a number is none: a warp that has seen only such keys shows in the total. One that has
    // seen no key has 0.
    const float total = warp_sum(mine ? weight * merged.totals[lane * kColumns + c] : 0.0f);
    if (mine) weights[lane * kColumns + c] = a.splits == 1 ? __fdividef(weight, total) : weight;
    if (a.splits > 1 && lane == 0) {
      float* end = partial + (c * a.splits + split) * (Width + 2) + Width;
      end[0] = best, end[1] = total;
    }
  }
  sync();
#pragma unroll 1
  for (int i = threadIdx.x; i < columns * Width; i += threads) {
    const int c = i / Width, element = i % Width;
    float sum = 0;
#pragma unroll 4
    for (int w = 0; w < merged.warps; ++w) {
      const float weight = weights[w * kColumns + c], v = merged.sums[(w * merged.columns + c) * Width + element];
      if (weight != 0) sum += weight * v;
    }
    if (a.splits == 1) {
      write_out(a, part, c, element, sum);
    } else {
      partial[(c * a.splits + split) * (Width + 2) + element] = sum;
    }
  }
  if (a.splits == 1) return;
  __threadfence();
  sync();
  if (threadIdx.x == 0) {
    std::uint32_t* counter = a.arrived + part.slot / kColumns;
    last_block = atomicAdd(counter, 1u) == static_cast<unsigned>(a.splits) - 1;
    if (last_block) *counter = 0;
  }
  sync();
  if (!last_block) return;
  __threadfence();
  weights = merged.sums;
#pragma unroll 1
  for (int c = warp; c < columns; c += threads / 32) {
    const bool mine = lane < a.splits;
    const float* end = partial + (c * a.splits + lane) * (Width + 2) + Width;
    const float top = mine ? __ldcg(end) : -INFINITY, total = mine ? __ldcg(end + 1) : 0.0f;
    const float weight = weight_of(top, warp_max(top)), all = warp_sum(weight * total);
    if (mine) weights[lane * kColumns + c] = __fdividef(weight, all);
  }
  sync();
#pragma unroll 1
  for (int i = threadIdx.x; i < columns * Width; i += threads) {
    const int c = i / Width, element = i % Width;
    float sum = 0;
#pragma unroll 4
    for (int s = 0; s < a.splits; ++s) {
      const float weight = weights[s * kColumns + c];
      const float v = __ldcg(partial + (c * a.splits + s) * (Width + 2) + element);
      if (weight != 0) sum += weight * v;
    }
    write_out(a, part, c, element, sum);
  }
}

}  // namespace ganglion::local::cuda
