#pragma once
// Where a token's keys and values go in the pages, shared by the two kernels that append. Device code only.

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::local::cuda {

__device__ __forceinline__ char* kv_tile(const KvLayout& kv, std::int32_t page, int layer, bool values, int kv_head) {
  return static_cast<char*>(kv.base) + page * kv.page_bytes +
         ((2 * layer + (values ? 1 : 0)) * kv.kv_heads + kv_head) * kv_tile_bytes(kv.head_width, kv.format);
}

// int8: the scale of the token's head behind the tile's values. A whole warp calls it, with the largest magnitude of
// what each lane has; 1 / scale.
__device__ __forceinline__ float keep_scale(const KvLayout& kv, char* tile, int position, float top) {
  const float scale = fmaxf(warp_max(top) / kInt8Max, kScaleMin);
  if (threadIdx.x % 32 == 0) {
    reinterpret_cast<float*>(tile + kPageTokens * kv.head_width)[position % kPageTokens] = scale;
  }
  return 1.0f / scale;
}

}  // namespace ganglion::local::cuda
