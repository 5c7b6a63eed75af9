// Attention of prompt chunks, causal, over the sequences' pages (which hold the chunk's own keys already, and those of
// everything before it). A block has 64 query rows of one head; keys and values stream through shared memory 64 tokens
// at a time, two stages deep; scores and sums stay in registers (online softmax). bf16 tensor cores, fp32 sums.

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kKeys = 64;  // of one stage
constexpr float kLog2e = 1.4426950408889634f;

// Shared tiles are rows of Width elements in 16-byte chunks. Keys are read 64 bytes of two rows at a time, values
// 16 bytes of eight rows at a time; the chunks' places are mixed so that neither meets a bank twice.
template <int Width>
__device__ __forceinline__ int key_place(int token, int chunk) {
  // Rows of 96 elements lie half the banks apart already.
  return token * (Width / 8) + (Width % 64 == 0 ? chunk ^ ((token & 1) << 2) : chunk);
}
template <int Width>
__device__ __forceinline__ int value_place(int token, int chunk) {
  constexpr int kMask = Width % 64 == 0 ? 7 : 3;
  return token * (Width / 8) + (chunk ^ (token & kMask));
}

template <int Width, bool Fp8>
__device__ __forceinline__ void load_stage(const PrefillAttention& a, const std::int32_t* table, const char* keys,
                                           std::int64_t values_after, int first, int end, uint4* k, uint4* v) {
  constexpr int kChunks = Width / 8;
  for (int i = threadIdx.x; i < kKeys * kChunks; i += kWarps * 32) {
    const int token = i / kChunks, chunk = i % kChunks, at = first + token;
    const bool valid = at < end;
    const int page = valid ? table[at / kPageTokens] : table[0];
    const char* from = keys + page * a.kv.page_bytes + ((at % kPageTokens) * Width + chunk * 8) * (Fp8 ? 1 : 2);
    uint4* to_k = k + key_place<Width>(token, chunk);
    uint4* to_v = v + value_place<Width>(token, chunk);
    if constexpr (Fp8) {
      uint2 x = {0, 0}, y = {0, 0};
      if (valid) x = *reinterpret_cast<const uint2*>(from), y = *reinterpret_cast<const uint2*>(from + values_after);
      *to_k = {bf16_of_fp8<0>(x.x), bf16_of_fp8<1>(x.x), bf16_of_fp8<0>(x.y), bf16_of_fp8<1>(x.y)};
      *to_v = {bf16_of_fp8<0>(y.x), bf16_of_fp8<1>(y.x), bf16_of_fp8<0>(y.y), bf16_of_fp8<1>(y.y)};
    } else {
      copy_async(shared_address(to_k), from, valid ? 16 : 0);
      copy_async(shared_address(to_v), from + values_after, valid ? 16 : 0);
    }
  }
  copy_commit();
}

__device__ __forceinline__ void load_matrix_transposed(std::uint32_t (&out)[4], const uint4* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(at)));
}

// Query rows g and g + 8: in registers, or where heads are too wide for that, fetched for every stage.
template <int Width>
struct Query {
  static constexpr bool kHeld = Width <= 128;
  std::uint32_t held[kHeld ? Width / 32 : 1][2][4];
  const bf16* rows[2];

  __device__ __forceinline__ void load(int c, std::uint32_t (&q)[2][4]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint4 x = *reinterpret_cast<const uint4*>(rows[r] + 32 * c);
      q[r][0] = x.x, q[r][1] = x.y, q[r][2] = x.z, q[r][3] = x.w;
    }
  }
  __device__ __forceinline__ void get(int c, std::uint32_t (&q)[2][4]) const {
    if constexpr (kHeld) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) q[r][i] = held[c][r][i];
      }
    } else {
      load(c, q);
    }
  }
};

struct Scores {
  float scale, cap;  // base 2; cap 0: none
};

template <int Width>
struct State {
  Query<Width> q;
  float out[Width / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
};

// One stage: scores of 16 rows against 64 keys, softmax, and the sums over the values.
template <int Width>
__device__ __forceinline__ void attend_stage(State<Width>& s, const uint4* k, const uint4* v, int first, int position,
                                             int low_distance, bool mask, Scores scores) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float p[kKeys / 8][4];
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) p[n][0] = p[n][1] = p[n][2] = p[n][3] = 0;
#pragma unroll
  for (int c = 0; c < Width / 32; ++c) {
    std::uint32_t q[2][4];
    s.q.get(c, q);
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      const uint4 b = k[key_place<Width>(8 * n + g, 4 * c + t)];
      mma(p[n], q[0][0], q[1][0], q[0][1], q[1][1], b.x, b.y);
      mma(p[n], q[0][2], q[1][2], q[0][3], q[1][3], b.z, b.w);
    }
  }
  float best[2] = {s.top[0], s.top[1]};
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = first + 8 * n + 2 * t + i % 2, own = position + (i / 2) * 8;
      p[n][i] *= scores.scale;
      if (scores.cap > 0) p[n][i] = scores.cap * tanh_of(p[n][i]);
      if (mask && (token > own || token < own - low_distance)) p[n][i] = -INFINITY;
      best[i / 2] = fmaxf(best[i / 2], p[n][i]);
    }
  }
  float fade[2], shift[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    best[r] = fmaxf(best[r], __shfl_xor_sync(0xffffffffu, best[r], 1));
    best[r] = fmaxf(best[r], __shfl_xor_sync(0xffffffffu, best[r], 2));
    shift[r] = best[r] == -INFINITY ? 0.0f : best[r];  // a row that has seen no key yet
    fade[r] = exp2f(s.top[r] - shift[r]);
    s.top[r] = best[r];
    s.total[r] *= fade[r];
  }
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      p[n][i] = exp2f(p[n][i] - shift[i / 2]);
      s.total[i / 2] += p[n][i];
    }
  }
#pragma unroll
  for (int d = 0; d < Width / 8; ++d) {
    s.out[d][0] *= fade[0], s.out[d][1] *= fade[0], s.out[d][2] *= fade[1], s.out[d][3] *= fade[1];
  }
#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    const std::uint32_t a0 = pack(p[2 * j][0], p[2 * j][1]), a1 = pack(p[2 * j][2], p[2 * j][3]),
                        a2 = pack(p[2 * j + 1][0], p[2 * j + 1][1]), a3 = pack(p[2 * j + 1][2], p[2 * j + 1][3]);
    const int token = 16 * j + lane % 16;
#pragma unroll
    for (int d = 0; d < Width / 8; d += 2) {
      std::uint32_t b[4];
      load_matrix_transposed(b, v + value_place<Width>(token, d + lane / 16));
      mma(s.out[d], a0, a1, a2, a3, b[0], b[1]);
      mma(s.out[d + 1], a0, a1, a2, a3, b[2], b[3]);
    }
  }
}

template <int Width, bool Fp8>
__global__ void __launch_bounds__(kWarps * 32, Width == 256   ? 1
                                               : Width == 128 ? 2
                                                              : 3) prefill_kernel(PrefillAttention a) {
  extern __shared__ uint4 shared[];
  constexpr int kStage = kKeys * Width / 8;  // chunks of keys; as many of values follow
  let_next_start();
  wait_for_previous();
  // Later rows see more keys: they go first.
  const PrefillTile tile = a.tiles[a.tile_count - 1 - static_cast<int>(blockIdx.y)];
  const int head = blockIdx.x, kv_head = head / (a.heads / a.kv.kv_heads);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const std::int64_t tile_bytes = std::int64_t{kPageTokens} * Width * (Fp8 ? 1 : 2);
  const char* keys = static_cast<const char*>(a.kv.base) +
                     (static_cast<std::int64_t>(2 * a.layer) * a.kv.kv_heads + kv_head) * tile_bytes;
  const std::int64_t values_after = a.kv.kv_heads * tile_bytes;
  const std::int32_t* table = a.page_table + tile.page_from;
  const int distance = a.window > 0 ? a.window - 1 : 1 << 30, end = tile.position + tile.rows;
  const int begin = max(0, tile.position - distance) / kKeys * kKeys;

  State<Width> s;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = min(warp * 16 + g + 8 * r, tile.rows - 1);
    s.q.rows[r] = static_cast<const bf16*>(a.query) +
                  (static_cast<std::int64_t>(tile.row + row) * a.heads + head) * Width + 8 * t;
  }
  if constexpr (Query<Width>::kHeld) {
#pragma unroll
    for (int c = 0; c < Width / 32; ++c) s.q.load(c, s.q.held[c]);
  }
  const Scores scores{a.softcap > 0 ? a.scale / a.softcap : a.scale * kLog2e, a.softcap * kLog2e};
  load_stage<Width, Fp8>(a, table, keys, values_after, begin, end, shared, shared + kStage);
  int stage = 0;
  for (int first = begin; first < end; first += kKeys, stage ^= 1) {
    uint4* here = shared + stage * 2 * kStage;
    uint4* there = shared + (stage ^ 1) * 2 * kStage;
    if (first + kKeys < end) {
      load_stage<Width, Fp8>(a, table, keys, values_after, first + kKeys, end, there, there + kStage);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    const bool mask = first + kKeys > tile.position + 1 || first < end - distance;
    attend_stage<Width>(s, here, here + kStage, first, tile.position + warp * 16 + g, distance, mask, scores);
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    s.total[r] += __shfl_xor_sync(0xffffffffu, s.total[r], 1);
    s.total[r] += __shfl_xor_sync(0xffffffffu, s.total[r], 2);
    const int row = warp * 16 + g + 8 * r;
    if (row >= tile.rows) continue;
    const float inverse = 1.0f / s.total[r];
    bf16* out =
        static_cast<bf16*>(a.out) + static_cast<std::int64_t>(tile.row + row) * a.out_stride + head * a.kv.head_dim;
#pragma unroll
    for (int d = 0; d < Width / 8; ++d) {
      const int element = 8 * d + 2 * t;  // head_dim is even
      if (element < a.kv.head_dim) {
        *reinterpret_cast<std::uint32_t*>(out + element) =
            pack(s.out[d][2 * r] * inverse, s.out[d][2 * r + 1] * inverse);
      }
    }
  }
}

template <int Width, bool Fp8>
cudaError_t prefill_width(Queue queue, const PrefillAttention& a) {
  constexpr std::size_t kBytes = std::size_t{4} * kKeys * Width * 2;
  const auto status = cudaFuncSetAttribute(prefill_kernel<Width, Fp8>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(kBytes));
  if (status != cudaSuccess) return status;
  const dim3 grid(static_cast<unsigned>(a.heads), static_cast<unsigned>(a.tile_count));
  return launch(queue, prefill_kernel<Width, Fp8>, grid, kWarps * 32, kBytes, a);
}

template <bool Fp8>
cudaError_t prefill_of(Queue queue, const PrefillAttention& a) {
  switch (a.kv.head_width) {
    case 32:
      return prefill_width<32, Fp8>(queue, a);
    case 64:
      return prefill_width<64, Fp8>(queue, a);
    case 96:
      return prefill_width<96, Fp8>(queue, a);
    case 128:
      return prefill_width<128, Fp8>(queue, a);
    case 256:
      return prefill_width<256, Fp8>(queue, a);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t attend_prefill(Queue queue, const PrefillAttention& a) {
  return a.kv.fp8 ? prefill_of<true>(queue, a) : prefill_of<false>(queue, a);
}

}  // namespace ganglion::local::cuda
