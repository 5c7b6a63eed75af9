// Rungs of the int8 product, slowest first. What each changes and what it gained is in bench/results/gpu-notes.md.

#include "bench/cuda/ladder.cuh"

#include "backends/local/kernels/cuda/common.cuh"

namespace ganglion::bench {
namespace {

using namespace local::cuda;

// Rung 1: one warp a row, one byte a lane at a time. The memory system sees 32-byte requests, one in flight a lane.
__global__ void bytes_kernel(Product p) {
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= p.w.rows) return;
  const auto* w = static_cast<const signed char*>(p.w.data) + static_cast<std::int64_t>(row) * p.w.cols;
  const auto* x = static_cast<const bf16*>(p.x);
  float sum = 0;
  for (int k = lane; k < p.w.cols; k += 32) sum += static_cast<float>(w[k]) * __bfloat162float(x[k]);
  sum = warp_sum(sum) * static_cast<const float*>(p.w.scales)[row];
  if (lane == 0) static_cast<bf16*>(p.y)[row] = __float2bfloat16(sum);
}

// Rung 2: 16 bytes a lane and four loads in flight, multiplied on the ordinary cores (a byte becomes a float by placing
// it into the mantissa of 2^23). The next rung is product.cu: the same loads, but tensor cores do the arithmetic, so
// that eight activation rows cost what one does; the last is product_stream.cu.
__global__ void __launch_bounds__(256) vectors_kernel(Product p) {
  constexpr int kUnroll = 4;
  const int row = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= p.w.rows) return;
  const char* w = static_cast<const char*>(p.w.data) + static_cast<std::int64_t>(row) * p.w.cols;
  const auto* x = static_cast<const bf16*>(p.x);
  float sum = 0;
  for (int k = 16 * lane; k < p.w.cols; k += 512 * kUnroll) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) v[u] = k + 512 * u < p.w.cols ? load_stream(w + k + 512 * u) : uint4{0, 0, 0, 0};
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (k + 512 * u >= p.w.cols) break;
      const std::uint32_t words[4] = {v[u].x, v[u].y, v[u].z, v[u].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const uint2 xs = *reinterpret_cast<const uint2*>(x + k + 512 * u + 4 * i);
        const float2 a = unpack(xs.x), b = unpack(xs.y);
        const std::uint32_t biased = words[i] ^ 0x80808080u;
        constexpr float kBias = 8388608.0f + 128.0f;
        sum += (__uint_as_float(__byte_perm(biased, 0x4b000000u, 0x7440)) - kBias) * a.x;
        sum += (__uint_as_float(__byte_perm(biased, 0x4b000000u, 0x7441)) - kBias) * a.y;
        sum += (__uint_as_float(__byte_perm(biased, 0x4b000000u, 0x7442)) - kBias) * b.x;
        sum += (__uint_as_float(__byte_perm(biased, 0x4b000000u, 0x7443)) - kBias) * b.y;
      }
    }
  }
  sum = warp_sum(sum) * static_cast<const float*>(p.w.scales)[row];
  if (lane == 0) static_cast<bf16*>(p.y)[row] = __float2bfloat16(sum);
}

}  // namespace

cudaError_t ladder_product(cudaStream_t stream, Rung rung, const Product& p) {
  const auto blocks = static_cast<unsigned>((p.w.rows + 7) / 8);
  if (rung == Rung::bytes) {
    bytes_kernel<<<blocks, 256, 0, stream>>>(p);
  } else {
    vectors_kernel<<<blocks, 256, 0, stream>>>(p);
  }
  return cudaGetLastError();
}

}  // namespace ganglion::bench
