// Attention of prompt chunks, causal, over the sequences' pages (which hold the chunk's own keys already, and those of
// everything before it). A block has 64 query rows of one head; keys and values stream through shared memory 64 tokens
// at a time, two stages deep; scores and sums stay in registers (online softmax). bf16 tensor cores, fp32 sums.

#include "backends/local/kernels/cuda/attention_parts.cuh"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

template <int Width, bool Fp8>
__device__ __forceinline__ void load_stage(const PrefillAttention& a, const std::int32_t* table, const char* keys,
                                           std::int64_t values_after, int first, int end, uint4* k, uint4* v) {
  constexpr int kChunks = Width / 8;
  for (int i = threadIdx.x; i < kKeys * kChunks; i += kAttendWarps * 32) {
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

template <int Width, bool Fp8>
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
  return launch(queue, prefill_kernel<Width, Fp8>, grid, kAttendWarps * 32, kBytes, a);
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
