// Row-wise work of an encoder: embeddings, residual sum with LayerNorm, GELU, pooling. A warp a row, which it keeps in
// registers.

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/encoder.hpp"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kEights = 4;  // of a lane: rows of up to 1,024 elements stay in registers

__device__ __forceinline__ void to_floats(const uint4& v, float (&out)[8]) {
  const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = unpack(words[i]);
    out[2 * i] = f.x, out[2 * i + 1] = f.y;
  }
}
__device__ __forceinline__ uint4 to_bf16(const float (&v)[8]) {
  return {pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7])};
}
__device__ __forceinline__ uint4 eight_at(const void* base, std::int64_t element) {
  return *reinterpret_cast<const uint4*>(static_cast<const bf16*>(base) + element);
}

// Normalises a row that lies in registers, eights l, l + 32 ... of it in lane l; those past the width hold zeros.
__device__ __forceinline__ void finish_row(const LayerNorm& n, int row, float (&v)[kEights][8]) {
  const int lane = threadIdx.x % 32, eights = (n.width + 7) / 8;
  float sum = 0;
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += v[e][i];
  }
  const float mean = warp_sum(sum) / static_cast<float>(n.width);
  float squares = 0;
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float d = v[e][i] - mean;
      if ((lane + 32 * e) * 8 + i < n.width) squares += d * d;
    }
  }
  const float inverse = rsqrtf(warp_sum(squares) / static_cast<float>(n.width) + n.eps);
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    const int eight = lane + 32 * e;
    if (eight >= eights) continue;
    float out[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int c = eight * 8 + i;
      out[i] = c < n.width ? (v[e][i] - mean) * inverse * n.weight[c] + n.bias[c] : 0.0f;
    }
    *reinterpret_cast<uint4*>(static_cast<bf16*>(n.out) + static_cast<std::int64_t>(row) * n.stride + eight * 8) =
        to_bf16(out);
  }
}

__global__ void __launch_bounds__(kThreads) norm_kernel(LayerNorm n) {
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= n.rows) return;
  float v[kEights][8];
#pragma unroll
  for (int e = 0; e < kEights; ++e) {
    const int at = (lane + 32 * e) * 8;
    uint4 x = {0, 0, 0, 0}, add = {0, 0, 0, 0};
    if (at < n.width) x = eight_at(n.x, static_cast<std::int64_t>(row) * n.stride + at);
    if (at < n.width && n.add != nullptr) add = eight_at(n.add, static_cast<std::int64_t>(row) * n.add_stride + at);
    float a[8];
    to_floats(x, v[e]);
    to_floats(add, a);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[e][i] = at + i < n.width ? v[e][i] + a[i] : 0.0f;
  }
  finish_row(n, row, v);
}

__global__ void __launch_bounds__(kThreads) embed_kernel(EncoderEmbed e) {
  let_next_start();
  wait_for_previous();
  const LayerNorm& n = e.norm;
  const int row = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= n.rows) return;
  const std::int64_t word = static_cast<std::int64_t>(e.tokens[row]) * n.stride,
                     place = static_cast<std::int64_t>(e.places[row]) * n.stride;
  float v[kEights][8];
#pragma unroll
  for (int k = 0; k < kEights; ++k) {
    const int at = (lane + 32 * k) * 8;
    const uint4 zero = {0, 0, 0, 0};
    float b[8], c[8];
    to_floats(at < n.width ? eight_at(e.words, word + at) : zero, v[k]);
    to_floats(at < n.width ? eight_at(e.positions, place + at) : zero, b);
    to_floats(at < n.width ? eight_at(e.types, at) : zero, c);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[k][i] = at + i < n.width ? v[k][i] + b[i] + c[i] : 0.0f;
  }
  finish_row(n, row, v);
}

__global__ void __launch_bounds__(256) gelu_kernel(bf16* y, int rows, int eights, int stride) {
  let_next_start();
  wait_for_previous();
  const std::int64_t total = static_cast<std::int64_t>(rows) * eights;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * 256 + threadIdx.x; i < total;
       i += static_cast<std::int64_t>(gridDim.x) * 256) {
    uint4* at = reinterpret_cast<uint4*>(y + i / eights * stride + i % eights * 8);
    float v[8];
    to_floats(*at, v);
#pragma unroll
    for (float& f : v) f = 0.5f * f * (1.0f + erff(f * 0.70710678f));
    *at = to_bf16(v);
  }
}

__global__ void __launch_bounds__(128) pool_kernel(PoolRows p) {
  let_next_start();
  wait_for_previous();
  const int first = p.firsts[blockIdx.x], count = p.counts[blockIdx.x];
  if (count == 0) return;
  const auto* x = static_cast<const bf16*>(p.x);
  for (int c = blockIdx.y * 128 + threadIdx.x; c < p.width; c += gridDim.y * 128) {
    const auto at = [&](int row) { return __bfloat162float(x[static_cast<std::int64_t>(first + row) * p.stride + c]); };
    float v = at(p.pool == Pool::last ? count - 1 : 0);
    if (p.pool == Pool::mean || p.pool == Pool::max) {
      for (int r = 1; r < count; ++r) v = p.pool == Pool::mean ? v + at(r) : fmaxf(v, at(r));
      if (p.pool == Pool::mean) v /= static_cast<float>(count);
    }
    p.out[static_cast<std::int64_t>(blockIdx.x) * p.width + c] = v;
  }
}

unsigned blocks_for(int rows) {
  return static_cast<unsigned>((rows + kWarps - 1) / kWarps);
}

}  // namespace

cudaError_t layer_norm(Queue queue, const LayerNorm& n) {
  if (n.width > kEights * 256) return cudaErrorInvalidValue;
  return launch(queue, norm_kernel, blocks_for(n.rows), kThreads, 0, n);
}

cudaError_t encoder_embed(Queue queue, const EncoderEmbed& e) {
  if (e.norm.width > kEights * 256) return cudaErrorInvalidValue;
  return launch(queue, embed_kernel, blocks_for(e.norm.rows), kThreads, 0, e);
}

cudaError_t gelu(Queue queue, void* y, int rows, int width, int stride) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const std::int64_t total = static_cast<std::int64_t>(rows) * width / 8;
  const auto blocks = static_cast<unsigned>(total / 256 + 1 < 4096 ? total / 256 + 1 : 4096);
  return launch(queue, gelu_kernel, blocks, 256, 0, static_cast<bf16*>(y), rows, width / 8, stride);
}

cudaError_t pool_rows(Queue queue, const PoolRows& p) {
  return launch(queue, pool_kernel,
                dim3(static_cast<unsigned>(p.sequences), static_cast<unsigned>((p.width + 127) / 128)), 128, 0, p);
}

}  // namespace ganglion::local::cuda
