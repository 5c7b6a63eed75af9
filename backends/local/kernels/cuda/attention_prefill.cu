// Attention of prompt chunks, causal, over the sequences' pages (which hold the chunk's own keys already, and those of
// everything before it). A block has 64 query rows of one head; keys and values stream through shared memory 64 tokens
// at a time, two stages deep; scores and sums stay in registers (online softmax). Tensor cores in bf16 or fp16, fp32
// sums.

#include "backends/local/kernels/cuda/attention_parts.cuh"
#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/page_values.cuh"

namespace ganglion::local::cuda {
namespace {

// Eight bytes of a token's head in the type that attention multiplies in, with the token's scale where it has one.
template <KvFormat F>
__device__ __forceinline__ uint4 widened(uint2 x, float scale) {
  uint4 y = {pair_of<F, 0>(x.x), pair_of<F, 1>(x.x), pair_of<F, 0>(x.y), pair_of<F, 1>(x.y)};
  if constexpr (F == KvFormat::int8) {
    for (std::uint32_t* two : {&y.x, &y.y, &y.z, &y.w}) {
      const float2 v = unpack(*two);
      *two = pack(v.x * scale, v.y * scale);
    }
  }
  return y;
}

template <int Width, KvFormat F>
__device__ __forceinline__ void load_stage(const PrefillAttention& a, const std::int32_t* table, const char* keys,
                                           std::int64_t values_after, int first, int end, uint4* k, uint4* v) {
  constexpr int kChunks = Width / 8;
  for (int i = threadIdx.x; i < kKeys * kChunks; i += kAttendWarps * 32) {
    const int token = i / kChunks, chunk = i % kChunks, at = first + token;
    const bool valid = at < end;
    const int page = valid ? table[at / kPageTokens] : table[0];
    const char* tile = keys + page * a.kv.page_bytes;
    const char* from = tile + ((at % kPageTokens) * Width + chunk * 8) * kv_value_bytes(F);
    uint4* to_k = k + key_place<Width>(token, chunk);
    uint4* to_v = v + value_place<Width>(token, chunk);
    if constexpr (kv_value_bytes(F) == 1) {
      uint2 x = {0, 0}, y = {0, 0};
      float x_scale = 0, y_scale = 0;
      if (valid) {
        x = *reinterpret_cast<const uint2*>(from), y = *reinterpret_cast<const uint2*>(from + values_after);
        if constexpr (F == KvFormat::int8) {
          const char* scale = tile + kPageTokens * Width + (at % kPageTokens) * 4;
          x_scale = *reinterpret_cast<const float*>(scale);
          y_scale = *reinterpret_cast<const float*>(scale + values_after);
        }
      }
      *to_k = widened<F>(x, x_scale);
      *to_v = widened<F>(y, y_scale);
    } else {
      copy_async(shared_address(to_k), from, valid ? 16 : 0);
      copy_async(shared_address(to_v), from + values_after, valid ? 16 : 0);
    }
  }
  copy_commit();
}

template <int Width, KvFormat F>
__global__ void __launch_bounds__(kAttendWarps * 32, Width == 256   ? 1
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
  constexpr std::int64_t kTileBytes = kv_tile_bytes(Width, F);
  const char* keys = static_cast<const char*>(a.kv.base) +
                     (static_cast<std::int64_t>(2 * a.layer) * a.kv.kv_heads + kv_head) * kTileBytes;
  const std::int64_t values_after = a.kv.kv_heads * kTileBytes;
  const std::int32_t* table = a.page_table + tile.page_from;
  const int distance = a.window > 0 ? a.window - 1 : 1 << 30, end = tile.position + tile.rows;
  const int begin = max(0, tile.position - distance) / kKeys * kKeys;

  State<Width> s;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = min(warp * 16 + g + 8 * r, tile.rows - 1);
    s.q.rows[r] = static_cast<const std::uint16_t*>(a.query) +
                  (static_cast<std::int64_t>(tile.row + row) * a.heads + head) * Width + 8 * t;
  }
  if constexpr (Query<Width>::kHeld) {
#pragma unroll
    for (int c = 0; c < Width / 32; ++c) s.q.load(c, s.q.held[c]);
  }
  const Scores scores{a.softcap > 0 ? a.scale / a.softcap : a.scale * kLog2e, a.softcap * kLog2e};
  load_stage<Width, F>(a, table, keys, values_after, begin, end, shared, shared + kStage);
  int stage = 0;
  for (int first = begin; first < end; first += kKeys, stage ^= 1) {
    uint4* here = shared + stage * 2 * kStage;
    uint4* there = shared + (stage ^ 1) * 2 * kStage;
    if (first + kKeys < end) {
      load_stage<Width, F>(a, table, keys, values_after, first + kKeys, end, there, there + kStage);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    const bool mask = first + kKeys > tile.position + 1 || first < end - distance;
    attend_stage<Width, true, attends_in_half(F)>(s, here, here + kStage, first, tile.position + warp * 16 + g,
                                                  distance, mask, scores);
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

template <int Width, KvFormat F>
cudaError_t prefill_width(Queue queue, const PrefillAttention& a) {
  constexpr std::size_t kBytes = std::size_t{4} * kKeys * Width * 2;
  const auto status = cudaFuncSetAttribute(prefill_kernel<Width, F>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(kBytes));
  if (status != cudaSuccess) return status;
  const dim3 grid(static_cast<unsigned>(a.heads), static_cast<unsigned>(a.tile_count));
  return launch(queue, prefill_kernel<Width, F>, grid, kAttendWarps * 32, kBytes, a);
}

template <KvFormat F>
cudaError_t prefill_of(Queue queue, const PrefillAttention& a) {
  switch (a.kv.head_width) {
    case 32:
      return prefill_width<32, F>(queue, a);
    case 64:
      return prefill_width<64, F>(queue, a);
    case 96:
      return prefill_width<96, F>(queue, a);
    case 128:
      return prefill_width<128, F>(queue, a);
    case 256:
      return prefill_width<256, F>(queue, a);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t attend_prefill(Queue queue, const PrefillAttention& a) {
  switch (a.kv.format) {
    case KvFormat::bf16:
      return prefill_of<KvFormat::bf16>(queue, a);
    case KvFormat::fp16:
      return prefill_of<KvFormat::fp16>(queue, a);
    case KvFormat::fp8:
      return prefill_of<KvFormat::fp8>(queue, a);
    case KvFormat::int8:
      return prefill_of<KvFormat::int8>(queue, a);
  }
  return cudaErrorInvalidValue;
}

}  // namespace ganglion::local::cuda
