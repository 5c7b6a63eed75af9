// Attention of whole sequences, both ways, straight from the query/key/value rows: a block has 64 query rows of one
// head and reads its own sequence's rows alone, so nothing is padded. The inside is that of the prompts' attention.

#include "backends/local/kernels/cuda/attention_parts.cuh"
#include "backends/local/kernels/cuda/encoder.hpp"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

template <int Width>
__device__ __forceinline__ void load_rows(const EncodeAttention& a, const bf16* keys, std::int64_t values_after,
                                          int first, int count, uint4* k, uint4* v) {
  constexpr int kChunks = Width / 8;
  for (int i = threadIdx.x; i < kKeys * kChunks; i += kAttendWarps * 32) {
    const int token = i / kChunks, chunk = i % kChunks, at = first + token;
    const bool valid = at < count && chunk * 8 < a.head_dim;
    const bf16* from = keys + (valid ? static_cast<std::int64_t>(at) * a.stride + chunk * 8 : 0);
    copy_async(shared_address(k + key_place<Width>(token, chunk)), from, valid ? 16 : 0);
    copy_async(shared_address(v + value_place<Width>(token, chunk)), from + values_after, valid ? 16 : 0);
  }
  copy_commit();
}

template <int Width>
__global__ void __launch_bounds__(kAttendWarps * 32, Width == 128 ? 2 : 3) encode_kernel(EncodeAttention a) {
  extern __shared__ uint4 shared[];
  constexpr int kStage = kKeys * Width / 8;  // chunks of keys; as many of values follow
  let_next_start();
  const EncodeTile tile = a.tiles[blockIdx.y];  // there before the pass's first kernel
  wait_for_previous();
  if (tile.rows == 0) return;
  const int head = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const std::int64_t values_after = static_cast<std::int64_t>(a.heads) * a.head_dim;
  const bf16* queries = static_cast<const bf16*>(a.qkv) + head * a.head_dim;
  const bf16* keys = queries + values_after + static_cast<std::int64_t>(tile.first) * a.stride;

  State<Width> s;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = min(warp * 16 + g + 8 * r, tile.rows - 1);
    const bf16* query = queries + static_cast<std::int64_t>(tile.row + row) * a.stride + 8 * t;
#pragma unroll
    for (int c = 0; c < Width / 32; ++c) {
      uint4 x = {0, 0, 0, 0};
      if (32 * c + 8 * t < a.head_dim) x = *reinterpret_cast<const uint4*>(query + 32 * c);
      s.q.held[c][r][0] = x.x, s.q.held[c][r][1] = x.y, s.q.held[c][r][2] = x.z, s.q.held[c][r][3] = x.w;
    }
  }
  load_rows<Width>(a, keys, values_after, 0, tile.count, shared, shared + kStage);
  int stage = 0;
  for (int first = 0; first < tile.count; first += kKeys, stage ^= 1) {
    uint4* here = shared + stage * 2 * kStage;
    uint4* there = shared + (stage ^ 1) * 2 * kStage;
    if (first + kKeys < tile.count) {
      load_rows<Width>(a, keys, values_after, first + kKeys, tile.count, there, there + kStage);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    __syncthreads();
    attend_stage<Width, false>(s, here, here + kStage, first, tile.count - 1, 1 << 30, first + kKeys > tile.count,
                               Scores{a.scale * kLog2e, 0});
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
        static_cast<bf16*>(a.out) + static_cast<std::int64_t>(tile.row + row) * a.out_stride + head * a.head_dim;
#pragma unroll
    for (int d = 0; d < Width / 8; ++d) {
      const int element = 8 * d + 2 * t;
      if (element < a.head_dim) {
        *reinterpret_cast<std::uint32_t*>(out + element) =
            pack(s.out[d][2 * r] * inverse, s.out[d][2 * r + 1] * inverse);
      }
    }
  }
}

template <int Width>
cudaError_t encode_width(Queue queue, const EncodeAttention& a) {
  constexpr std::size_t kBytes = std::size_t{4} * kKeys * Width * 2;
  const auto status =
      cudaFuncSetAttribute(encode_kernel<Width>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes));
  if (status != cudaSuccess) return status;
  const dim3 grid(static_cast<unsigned>(a.heads), static_cast<unsigned>(a.tile_count));
  return launch(queue, encode_kernel<Width>, grid, kAttendWarps * 32, kBytes, a);
}

}  // namespace

cudaError_t attend_encode(Queue queue, const EncodeAttention& a) {
  if (a.head_dim % 8 != 0) return cudaErrorInvalidValue;
  switch (head_width(a.head_dim)) {
    case 32:
      return encode_width<32>(queue, a);
    case 64:
      return encode_width<64>(queue, a);
    case 96:
      return encode_width<96>(queue, a);
    case 128:
      return encode_width<128>(queue, a);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace ganglion::local::cuda
