// Low-rank adapters of a step's rows: A x, then B of that, added to the projection's result. Rows of different adapters
// and of none stand in one launch; a row without one costs an empty block. One block a row and part.

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/general.hpp"
#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/row_parts.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ const AdapterPart* part_of(const Adapt& a, int row) {
  const int adapter = a.adapters[row];
  if (adapter < 0) return nullptr;
  const AdapterPart* part = a.parts + adapter * kAdapterPartsMax + blockIdx.y;
  return part->rank > 0 ? part : nullptr;
}

// One warp a rank: the products of eight columns at a time.
__global__ void __launch_bounds__(kThreads) down_kernel(Adapt a) {
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.x, lane = threadIdx.x % 32;
  const AdapterPart* part = part_of(a, row);
  if (part == nullptr) return;
  const int stride = static_cast<int>(padded(part->cols, 8));
  const auto* x = static_cast<const bf16*>(a.x) + static_cast<std::int64_t>(row) * a.x_stride;
  float* middle = a.middle + (static_cast<std::int64_t>(row) * kAdapterPartsMax + blockIdx.y) * kAdapterRankMax;
  for (int rank = threadIdx.x / 32; rank < part->rank; rank += kThreads / 32) {
    const auto* w = static_cast<const bf16*>(part->a) + static_cast<std::int64_t>(rank) * stride;
    float sum = 0;
    for (int i = 8 * lane; i < stride; i += 256) {
      const uint4 u = *reinterpret_cast<const uint4*>(x + i), v = *reinterpret_cast<const uint4*>(w + i);
      const std::uint32_t us[4] = {u.x, u.y, u.z, u.w}, vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 p = unpack(us[k]), q = unpack(vs[k]);
        sum += p.x * q.x + p.y * q.y;
      }
    }
    sum = warp_sum(sum);
    if (lane == 0) middle[rank] = sum;
  }
}

__global__ void __launch_bounds__(kThreads) up_kernel(Adapt a) {
  __shared__ float middle[kAdapterRankMax];
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.x;
  const AdapterPart* part = part_of(a, row);
  if (part == nullptr) return;
  const float* from = a.middle + (static_cast<std::int64_t>(row) * kAdapterPartsMax + blockIdx.y) * kAdapterRankMax;
  if (threadIdx.x < part->rank) middle[threadIdx.x] = from[threadIdx.x];
  __syncthreads();
  const std::int64_t y = static_cast<std::int64_t>(row) * a.y_stride + part->first;
  for (int r = threadIdx.x; r < part->rows; r += kThreads) {
    const auto* w = static_cast<const bf16*>(part->b) + static_cast<std::int64_t>(r) * part->rank;
    float sum = 0;
    for (int k = 0; k < part->rank; ++k) sum += __bfloat162float(w[k]) * middle[k];
    add_to(a.y, y + r / 8 * 8 * part->spread + r % 8, sum, a.wide);
  }
}

}  // namespace

cudaError_t adapt(Queue queue, const Adapt& a) {
  const dim3 grid(static_cast<unsigned>(a.rows), kAdapterPartsMax);
  if (const auto status = launch(queue, down_kernel, grid, kThreads, 0, a); status != cudaSuccess) return status;
  return launch(queue, up_kernel, grid, kThreads, 0, a);
}

}  // namespace ganglion::local::cuda
