// Attention of one new token per sequence, or of a few, over its pages. Keys and values go from memory straight into
// tensor-core fragments: a page's 16 tokens are the 16 rows of a fragment; its eight columns are the query heads that
// share a key/value head (so grouped heads cost no more than one), of as many new tokens as there is room for. Values
// are transposed in registers. A sequence's pages are split over blocks and warps; the last block of a sequence to
// arrive puts the parts together, always in the same order.

#include <cuda_fp8.h>

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kWarps = 4, kColumns = 8;
constexpr float kLog2e = 1.4426950408889634f;

// Eight consecutive elements as they lie in memory; zero where the token does not count, since what lies there may be
// anything.
template <KvFormat F>
struct Eight {
  uint2 v;
  __device__ __forceinline__ void load(const char* at, bool valid) {
    v = {0, 0};
    if (valid) v = *reinterpret_cast<const uint2*>(at);
  }
  __device__ __forceinline__ void pairs(std::uint32_t (&out)[4]) const {
    constexpr bool kInt8 = F == KvFormat::int8;
    out[0] = bf16_of_byte<0, kInt8>(v.x), out[1] = bf16_of_byte<1, kInt8>(v.x);
    out[2] = bf16_of_byte<0, kInt8>(v.y), out[3] = bf16_of_byte<1, kInt8>(v.y);
  }
};
template <>
struct Eight<KvFormat::bf16> {
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
    if constexpr (kScaled) {
      const auto* scales = reinterpret_cast<const float*>(tile + kPageTokens * Width);
      const auto* more = reinterpret_cast<const float*>(tile + values_after + kPageTokens * Width);
      k_scale[0] = valid0 ? scales[g] : 0.0f, k_scale[1] = valid1 ? scales[g + 8] : 0.0f;
      v_scale[0] = valid0 ? more[g] : 0.0f, v_scale[1] = valid1 ? more[g + 8] : 0.0f;
    }
    const char* at = tile + (g * Width + 8 * t) * kBytes;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      k0[c].load(at + c * 32 * kBytes, valid0);
      k1[c].load(at + (8 * Width + c * 32) * kBytes, valid1);
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      v0[c].load(at + values_after + c * 32 * kBytes, valid0);
      v1[c].load(at + values_after + (8 * Width + c * 32) * kBytes, valid1);
    }
  }
};

// Column c of a fragment is head `head` + c % heads of row `row` + c / heads.
struct Part {
  const DecodeAttention& a;
  int row, rows, kv_head, head, heads;
  int slot;  // of its first column among the partial results
  __device__ __forceinline__ int columns() const { return rows * heads; }
};

// Where a part's page table begins.
template <bool Few>
__device__ __forceinline__ int part_table(const DecodeAttention& a) {
  return Few ? a.tiles[blockIdx.z].page_from : a.page_from[blockIdx.z];
}

// One block's result, [columns][Width] in `sums` relative to the maxima `tops`, with the weights' sum in `totals`.
template <int Width>
struct Merged {
  float sums[kWarps][8][Width];
  float tops[kWarps][8];
  float totals[kWarps][8];
};

// `length`: keys that the first row sees; each row after it sees one more.
template <int Width, KvFormat F, bool Few>
__device__ __forceinline__ void attend_pages(const DecodeAttention& a, const Part& part, int first, int last,
                                             int length, Merged<Width>& merged) {
  constexpr int kChunks = Width / 32;  // of 32 elements
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int columns = part.columns(), behind = Few ? g / part.heads : 0;
  std::uint32_t q[kChunks][4];
  const auto* query =
      static_cast<const char*>(a.query) +
      ((static_cast<std::int64_t>(part.row + behind) * a.heads + part.head + g - behind * part.heads) * Width + 8 * t) *
          2;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    Eight<KvFormat::bf16> eight;
    eight.load(query + c * 64, g < columns);
    eight.pairs(q[c]);
  }

  constexpr std::int64_t kTileBytes = kv_tile_bytes(Width, F);
  const char* keys = static_cast<const char*>(a.kv.base) +
                     (static_cast<std::int64_t>(2 * a.layer) * a.kv.kv_heads + part.kv_head) * kTileBytes;
  const std::int64_t values_after = a.kv.kv_heads * kTileBytes;
  const std::int32_t* table = a.page_table + part_table<Few>(a);
  const float scale = a.softcap > 0 ? a.scale / a.softcap : a.scale * kLog2e, cap = a.softcap * kLog2e;
  const auto score = [&](float s) { return cap > 0 ? cap * tanh_of(s * scale) : s * scale; };
  float out[2 * kChunks][4] = {};
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
  // The next page is on its way while this one is computed with, where there are registers for two.
  constexpr bool kAhead = Width <= 128;
  PageShare<Width, F> share, next;
  if (kAhead && first + warp < last) load(next, first + warp);
  for (int page = first + warp; page < last; page += kWarps) {
    const int token = page * kPageTokens + g;
    if constexpr (kAhead) {
      share = next;
      if (page + kWarps < last) load(next, page + kWarps);
    } else {
      load(share, page);
    }
    float s[4] = {0, 0, 0, 0};
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      std::uint32_t k0[4], k1[4];
      share.k0[c].pairs(k0), share.k1[c].pairs(k1);
      mma(s, k0[0], k1[0], k0[1], k1[1], q[c][0], q[c][1]);
      mma(s, k0[2], k1[2], k0[3], k1[3], q[c][2], q[c][3]);
    }
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
      const float shift = Few && m == -INFINITY ? 0.0f : m;  // a row that has seen no key yet
      fade[h] = exp2f(top[h] - shift);
      top[h] = m;
      p[h] = exp2f(a0 - shift);
      p[2 + h] = exp2f(a1 - shift);
      total[h] = total[h] * fade[h] + p[h] + p[2 + h];
    }
    if constexpr (share.kScaled) {
      p[0] *= share.v_scale[0], p[1] *= share.v_scale[0], p[2] *= share.v_scale[1], p[3] *= share.v_scale[1];
    }
    const std::uint32_t p0 = transpose8x8(pack(p[0], p[1])), p1 = transpose8x8(pack(p[2], p[3]));
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      std::uint32_t v0[4], v1[4];
      share.v0[c].pairs(v0), share.v1[c].pairs(v1);
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float(&o)[4] = out[2 * c + j];
        o[0] *= fade[0], o[1] *= fade[1], o[2] *= fade[0], o[3] *= fade[1];
        mma(o, transpose8x8(v0[2 * j]), transpose8x8(v0[2 * j + 1]), transpose8x8(v1[2 * j]),
            transpose8x8(v1[2 * j + 1]), p0, p1);
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
#pragma unroll
    for (int d = 4; d < 32; d *= 2) total[h] += __shfl_xor_sync(0xffffffffu, total[h], d);
    const int head = 2 * t + h;
    if (g == 0) merged.tops[warp][head] = top[h], merged.totals[warp][head] = total[h];
    if (head >= columns) continue;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int element = 32 * c + 8 * (g / 2) + 4 * j + g % 2;  // fragment row g; row g + 8 is two further
        merged.sums[warp][head][element] = out[2 * c + j][h];
        merged.sums[warp][head][element + 2] = out[2 * c + j][2 + h];
      }
    }
  }
}

__device__ __forceinline__ float weight_of(float top, float best) {
  return top == -INFINITY ? 0.0f : exp2f(top - best);
}

__device__ __forceinline__ void write_out(const DecodeAttention& a, const Part& part, int column, int element,
                                          float v) {
  if (element >= a.kv.head_dim) return;
  const int behind = column / part.heads, head = part.head + column - behind * part.heads;
  static_cast<bf16*>(
      a.out)[static_cast<std::int64_t>(part.row + behind) * a.out_stride + head * a.kv.head_dim + element] =
      __float2bfloat16(v);
}

// Puts this block's part beside the others; the last one to do so for its sequence and heads joins them.
template <int Width>
__device__ __forceinline__ void join(const DecodeAttention& a, const Part& part, const Merged<Width>& merged,
                                     bool& last_block) {
  const int split = blockIdx.x;
  for (int i = threadIdx.x; i < part.columns() * Width; i += kWarps * 32) {
    const int head = i / Width, element = i % Width;
    float best = -INFINITY, total = 0, sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) best = fmaxf(best, merged.tops[w][head]);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float f = weight_of(merged.tops[w][head], best);
      total += f * merged.totals[w][head];
      if (f > 0) sum += f * merged.sums[w][head][element];
    }
    if (a.splits == 1) {
      write_out(a, part, head, element, sum / total);
      continue;
    }
    float* to = a.partial + (static_cast<std::int64_t>(part.slot + head) * a.splits + split) * (Width + 2);
    to[element] = sum;
    if (element == 0) to[Width] = best, to[Width + 1] = total;
  }
  if (a.splits == 1) return;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    std::uint32_t* counter = a.arrived + part.slot / kColumns;
    last_block = atomicAdd(counter, 1u) == static_cast<unsigned>(a.splits) - 1;
    if (last_block) *counter = 0;
  }
  __syncthreads();
  if (!last_block) return;
  __threadfence();
  for (int i = threadIdx.x; i < part.columns() * Width; i += kWarps * 32) {
    const int head = i / Width, element = i % Width;
    const float* from = a.partial + static_cast<std::int64_t>(part.slot + head) * a.splits * (Width + 2);
    float best = -INFINITY, total = 0, sum = 0;
    for (int s = 0; s < a.splits; ++s) best = fmaxf(best, __ldcg(from + s * (Width + 2) + Width));
    for (int s = 0; s < a.splits; ++s) {
      const float f = weight_of(__ldcg(from + s * (Width + 2) + Width), best);
      if (f == 0) continue;
      total += f * __ldcg(from + s * (Width + 2) + Width + 1);
      sum += f * __ldcg(from + s * (Width + 2) + element);
    }
    write_out(a, part, head, element, sum / total);
  }
}

template <int Width, KvFormat F, bool Few>
__global__ void __launch_bounds__(kWarps * 32) decode_kernel(DecodeAttention a) {
  __shared__ Merged<Width> merged;
  __shared__ bool last_block;
  let_next_start();
  // Positions, tiles and page tables were there before the step's first kernel.
  const int group = a.heads / a.kv.kv_heads, tiles = (group + kColumns - 1) / kColumns;
  const int kv_head = blockIdx.y / tiles, tile = blockIdx.y % tiles, head = kv_head * group + kColumns * tile;
  Part part{a, static_cast<int>(blockIdx.z), 1, kv_head, head, min(kColumns, group - kColumns * tile), 0};
  part.slot = static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y) * kColumns;
  int position;
  if constexpr (Few) {
    const PrefillTile some = a.tiles[blockIdx.z];
    part.row = some.row, part.rows = some.rows;
    position = some.rows > 0 ? some.position : -1;
  } else {
    position = a.positions[part.row];
  }
  wait_for_previous();
  if (position < 0) return;  // the whole sequence's blocks go together
  const int length = position + 1, first = a.window > 0 ? max(0, length - a.window) / kPageTokens : 0;
  const int end = (length + part.rows - 1 + kPageTokens - 1) / kPageTokens;
  const int share = (end - first + a.splits - 1) / a.splits, from = first + static_cast<int>(blockIdx.x) * share;
  attend_pages<Width, F, Few>(a, part, from, min(from + share, end), length, merged);
  __syncthreads();
  join<Width>(a, part, merged, last_block);
}

template <int Width, KvFormat F>
cudaError_t decode_width(Queue queue, const DecodeAttention& a) {
  const dim3 grid(static_cast<unsigned>(a.splits),
                  static_cast<unsigned>(a.kv.kv_heads * head_tiles(a.heads, a.kv.kv_heads)),
                  static_cast<unsigned>(a.tiles != nullptr ? a.tile_count : a.rows));
  return a.tiles != nullptr ? launch(queue, decode_kernel<Width, F, true>, grid, kWarps * 32, 0, a)
                            : launch(queue, decode_kernel<Width, F, false>, grid, kWarps * 32, 0, a);
}

template <KvFormat F>
cudaError_t decode_of(Queue queue, const DecodeAttention& a) {
  switch (a.kv.head_width) {
    case 32:
      return decode_width<32, F>(queue, a);
    case 64:
      return decode_width<64, F>(queue, a);
    case 96:
      return decode_width<96, F>(queue, a);
    case 128:
      return decode_width<128, F>(queue, a);
    case 256:
      return decode_width<256, F>(queue, a);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

int decode_splits(int rows, int heads, int kv_heads, int context, int multiprocessors) {
  // A warp should have a page at least, and the card a few blocks a multiprocessor at most.
  const int blocks = rows * kv_heads * head_tiles(heads, kv_heads), pages = (context + kPageTokens - 1) / kPageTokens;
  int splits = 1;
  while (splits < 32 && splits * 2 * kWarps <= pages && blocks * splits * 2 <= multiprocessors * 4) splits *= 2;
  return splits;
}

cudaError_t attend_decode(Queue queue, const DecodeAttention& a) {
  switch (a.kv.format) {
    case KvFormat::bf16:
      return decode_of<KvFormat::bf16>(queue, a);
    case KvFormat::fp8:
      return decode_of<KvFormat::fp8>(queue, a);
    case KvFormat::int8:
      return decode_of<KvFormat::int8>(queue, a);
  }
  return cudaErrorInvalidValue;
}

}  // namespace ganglion::local::cuda
