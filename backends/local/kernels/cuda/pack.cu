// Checkpoint tensors into the layouts that the products read, quantised on the way: symmetric, to the nearest, with a
// scale a row (int8, e4m3) or a row and group of columns (int4). Runs at load; one block a row.

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float element(const void* from, Source type, std::int64_t at) {
  switch (type) {
    case Source::f32:
      return static_cast<const float*>(from)[at];
    case Source::bf16:
      return __bfloat162float(static_cast<const bf16*>(from)[at]);
    default:
      return __half2float(static_cast<const __half*>(from)[at]);
  }
}

// Where in its word a column of int4 lies.
__device__ __forceinline__ int int4_bit(int column) {
  const int e = column % 8;
  return 4 * (e / 2 + (e % 2) * 4);
}

__device__ __forceinline__ void pack_int4(const void* source, Source type, std::int64_t from, int cols,
                                          const Matrix& to, std::int64_t row) {
  __shared__ std::uint32_t words[16];
  auto* out = static_cast<std::uint32_t*>(const_cast<void*>(to.data));
  auto* scales = static_cast<__half*>(const_cast<void*>(to.scales));
  // 128 columns at a time by the first 128 threads.
  for (int begin = 0; begin < to.cols; begin += 128) {
    const int column = begin + static_cast<int>(threadIdx.x);
    if (threadIdx.x < 16) words[threadIdx.x] = 0;
    __shared__ float tops[4];
    float v = 0;
    if (threadIdx.x < 128) {
      v = column < cols ? element(source, type, from + column) : 0.0f;
      const float top = warp_max(fabsf(v));
      if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;
    }
    __syncthreads();
    if (threadIdx.x < 128) {
      const int half = threadIdx.x / 64;
      float top = fmaxf(tops[2 * half], tops[2 * half + 1]);
      if (to.group == 128) top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], tops[3]));
      const __half scale = __float2half(top / 7.0f);
      const float s = __half2float(scale);
      const int q = s > 0 ? min(max(__float2int_rn(v / s), -8), 7) : 0;
      atomicOr(&words[int4_word_place(0, static_cast<int>(threadIdx.x), 128)], static_cast<std::uint32_t>(q + 8)
                                                                                   << int4_bit(threadIdx.x));
      if (threadIdx.x % to.group == 0) {
        scales[int4_scale_place(row, column / to.group, to.cols / to.group)] = scale;
      }
    }
    __syncthreads();
    if (threadIdx.x < 16) out[int4_word_place(row, begin, to.cols) + threadIdx.x] = words[threadIdx.x];
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads)
    pack_kernel(const void* source, Source type, int cols, Matrix to, PackPlace place) {
  __shared__ float reduce[32];
  const std::int64_t from = static_cast<std::int64_t>(blockIdx.x) * cols;
  const int r = place.first + static_cast<int>(blockIdx.x);
  const std::int64_t row = static_cast<std::int64_t>(r / 8) * 8 * place.spread + r % 8 + place.offset;
  if (to.format == Format::int4) {
    pack_int4(source, type, from, cols, to, row);
    return;
  }
  if (to.format == Format::bf16) {
    auto* out = static_cast<bf16*>(const_cast<void*>(to.data)) + row * to.cols;
    for (int i = threadIdx.x; i < cols; i += kThreads) out[i] = __float2bfloat16(element(source, type, from + i));
    return;
  }
  float top = 0;
  for (int i = threadIdx.x; i < cols; i += kThreads) top = fmaxf(top, fabsf(element(source, type, from + i)));
  top = block_reduce<true>(top, reduce);
  const float scale = top / (to.format == Format::int8 ? 127.0f : 448.0f), inverse = scale > 0 ? 1.0f / scale : 0.0f;
  if (threadIdx.x == 0) static_cast<float*>(const_cast<void*>(to.scales))[row] = scale;
  auto* out = static_cast<unsigned char*>(const_cast<void*>(to.data)) + row * to.cols;
  for (int i = threadIdx.x; i < cols; i += kThreads) {
    const float v = element(source, type, from + i) * inverse;
    out[i] = to.format == Format::int8 ? static_cast<unsigned char>(min(max(__float2int_rn(v), -127), 127))
                                       : __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
  }
}

__device__ __forceinline__ std::int64_t placed_row(const PackPlace& place) {
  const int r = place.first + static_cast<int>(blockIdx.x);
  return static_cast<std::int64_t>(r / 8) * 8 * place.spread + r % 8 + place.offset;
}

__global__ void __launch_bounds__(kThreads)
    place_int4_kernel(const std::int8_t* values, const float* scales, const float* zeros, int cols, Matrix to,
                      PackPlace place) {
  const std::int64_t row = placed_row(place);
  const int ours = (cols + to.group - 1) / to.group, groups = to.cols / to.group;
  values += static_cast<std::int64_t>(blockIdx.x) * cols;
  auto* out = static_cast<std::uint32_t*>(const_cast<void*>(to.data));
  // A thread makes a word: eight consecutive columns are one.
  for (int w = threadIdx.x; w < to.cols / 8; w += kThreads) {
    std::uint32_t packed = 0x88888888u;
    for (int e = 0; e < 8 && 8 * w + e < cols; ++e) {
      const int at = int4_bit(e);
      packed = (packed & ~(15u << at)) | static_cast<std::uint32_t>(values[8 * w + e] + 8) << at;
    }
    out[int4_word_place(row, 8 * w, to.cols)] = packed;
  }
  for (int g = threadIdx.x; g < ours; g += kThreads) {
    const std::int64_t at = int4_scale_place(row, g, groups), from = static_cast<std::int64_t>(blockIdx.x) * ours + g;
    static_cast<__half*>(const_cast<void*>(to.scales))[at] = __float2half(scales[from]);
    if (to.zeros != nullptr) static_cast<__half*>(const_cast<void*>(to.zeros))[at] = __float2half(zeros[from]);
  }
}

__global__ void __launch_bounds__(kThreads)
    place_bytes_kernel(const std::uint8_t* bytes, const float* scales, int cols, Matrix to, PackPlace place) {
  const std::int64_t row = placed_row(place);
  auto* out = static_cast<std::uint8_t*>(const_cast<void*>(to.data)) + row * to.cols;
  for (int i = threadIdx.x; i < cols; i += kThreads) {
    out[i] = bytes[static_cast<std::int64_t>(blockIdx.x) * cols + i];
  }
  if (threadIdx.x == 0) static_cast<float*>(const_cast<void*>(to.scales))[row] = scales[blockIdx.x];
}

__global__ void fill_words_kernel(std::uint32_t* to, std::int64_t n, std::uint32_t v) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x)
    to[i] = v;
}

__global__ void widen_kernel(const void* from, Source type, std::int64_t n, float* to) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    to[i] = element(from, type, i);
  }
}

__global__ void narrow_kernel(const void* from, Source type, int cols, bf16* to, int stride) {
  for (int i = threadIdx.x; i < cols; i += blockDim.x) {
    to[static_cast<std::int64_t>(blockIdx.x) * stride + i] =
        __float2bfloat16(element(from, type, static_cast<std::int64_t>(blockIdx.x) * cols + i));
  }
}

__global__ void __launch_bounds__(kThreads) unpack_kernel(Matrix from, bf16* to) {
  let_next_start();
  wait_for_previous();
  const std::int64_t row = blockIdx.x;
  bf16* out = to + row * from.cols;
  if (from.format == Format::int4) {
    const auto* words = static_cast<const std::uint32_t*>(from.data);
    const auto* scales = static_cast<const __half*>(from.scales);
    for (int i = threadIdx.x; i < from.cols / 8; i += kThreads) {
      // Eight consecutive columns are one word.
      const std::uint32_t w = words[int4_word_place(row, 8 * i, from.cols)];
      const std::int64_t at = int4_scale_place(row, 8 * i / from.group, from.cols / from.group);
      const float s = __half2float(scales[at]);
      const float z = from.zeros != nullptr ? __half2float(static_cast<const __half*>(from.zeros)[at]) : 0.0f;
      uint4 v;
      std::uint32_t* pairs = &v.x;
      const std::uint32_t q[4] = {bf16_of_int4<0>(w), bf16_of_int4<1>(w), bf16_of_int4<2>(w), bf16_of_int4<3>(w)};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 f = unpack(q[j]);
        pairs[j] = pack((f.x - z) * s, (f.y - z) * s);
      }
      reinterpret_cast<uint4*>(out)[i] = v;
    }
    return;
  }
  const auto* words = reinterpret_cast<const std::uint32_t*>(static_cast<const char*>(from.data) + row * from.cols);
  const float s = static_cast<const float*>(from.scales)[row];
  for (int i = threadIdx.x; i < from.cols / 4; i += kThreads) {
    const std::uint32_t w = words[i];
    const bool int8 = from.format == Format::int8;
    const float2 a = unpack(int8 ? bf16_of_int8<0>(w) : bf16_of_fp8<0>(w)),
                 b = unpack(int8 ? bf16_of_int8<1>(w) : bf16_of_fp8<1>(w));
    reinterpret_cast<uint2*>(out)[i] = {pack(a.x * s, a.y * s), pack(b.x * s, b.y * s)};
  }
}

__device__ __forceinline__ std::uint64_t mix(std::uint64_t x) {  // splitmix64's finaliser
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__global__ void normal_kernel(void* to, Source type, std::int64_t n, float deviation, std::uint64_t seed) {
  for (std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x; i < n;
       i += std::int64_t{gridDim.x} * blockDim.x) {
    const std::uint64_t bits = mix(mix(seed) ^ static_cast<std::uint64_t>(i));
    const float u = (static_cast<float>(bits >> 40) + 0.5f) * 0x1p-24f,
                w = static_cast<float>(bits & 0xffffff) * 0x1p-24f;
    const float v = deviation * sqrtf(-2.0f * __logf(u)) * __cosf(6.2831853f * w);
    if (type == Source::f32) {
      static_cast<float*>(to)[i] = v;
    } else if (type == Source::bf16) {
      static_cast<bf16*>(to)[i] = __float2bfloat16(v);
    } else {
      static_cast<__half*>(to)[i] = __float2half(v);
    }
  }
}

__global__ void __launch_bounds__(512) read_kernel(const uint4* from, std::int64_t n, std::uint32_t* sum) {
  constexpr int kUnroll = 8;
  std::uint32_t total = 0;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  for (; i + (kUnroll - 1) * stride < n; i += kUnroll * stride) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) v[u] = load_stream(from + i + u * stride);
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) total += v[u].x ^ v[u].y ^ v[u].z ^ v[u].w;
  }
  for (; i < n; i += stride) {
    const uint4 v = load_stream(from + i);
    total += v.x ^ v.y ^ v.z ^ v.w;
  }
  if (total == 0x12345678u) atomicAdd(sum, total);  // keeps the loads
}

constexpr unsigned kManyBlocks = 2048;

}  // namespace

cudaError_t pack_weights(Queue queue, const void* source, Source type, int rows, int cols, const Matrix& to,
                         PackPlace place) {
  return launch(queue, pack_kernel, static_cast<unsigned>(rows), kThreads, 0, source, type, cols, to, place);
}

cudaError_t place_int4(Queue queue, const std::int8_t* values, const float* scales, const float* zeros, int rows,
                       int cols, const Matrix& to, PackPlace place) {
  return launch(queue, place_int4_kernel, static_cast<unsigned>(rows), kThreads, 0, values, scales, zeros, cols, to,
                place);
}

cudaError_t place_bytes(Queue queue, const std::uint8_t* bytes, const float* scales, int rows, int cols,
                        const Matrix& to, PackPlace place) {
  return launch(queue, place_bytes_kernel, static_cast<unsigned>(rows), kThreads, 0, bytes, scales, cols, to, place);
}

cudaError_t pack_empty(Queue queue, const Matrix& to) {
  const std::uint32_t zero = to.format == Format::int4 ? 0x88888888u : 0u;
  const std::int64_t words = matrix_bytes(to.format, to.rows, to.cols) / 4;
  auto* data = static_cast<std::uint32_t*>(const_cast<void*>(to.data));
  if (const auto status = launch(queue, fill_words_kernel, kManyBlocks, kThreads, 0, data, words, zero);
      status != cudaSuccess) {
    return status;
  }
  const auto bytes = static_cast<std::size_t>(scale_bytes(to.format, to.rows, to.cols, to.group == 0 ? 64 : to.group));
  if (bytes == 0) return cudaSuccess;
  if (to.zeros != nullptr) {
    const auto status = cudaMemsetAsync(const_cast<void*>(to.zeros), 0, bytes, queue.stream);
    if (status != cudaSuccess) return status;
  }
  return cudaMemsetAsync(const_cast<void*>(to.scales), 0, bytes, queue.stream);
}

cudaError_t widen_to_float(Queue queue, const void* source, Source type, std::int64_t n, float* to) {
  return launch(queue, widen_kernel, 64, kThreads, 0, source, type, n, to);
}

cudaError_t narrow_to_bf16(Queue queue, const void* source, Source type, int rows, int cols, void* to, int stride) {
  return launch(queue, narrow_kernel, static_cast<unsigned>(rows), kThreads, 0, source, type, cols,
                static_cast<bf16*>(to), stride);
}

cudaError_t unpack_weights(Queue queue, const Matrix& from, void* to) {
  if (from.format == Format::bf16) return cudaErrorInvalidValue;
  return launch(queue, unpack_kernel, static_cast<unsigned>(from.rows), kThreads, 0, from, static_cast<bf16*>(to));
}

cudaError_t fill_normal(Queue queue, void* to, Source type, std::int64_t n, float deviation, std::uint64_t seed) {
  return launch(queue, normal_kernel, kManyBlocks, kThreads, 0, to, type, n, deviation, seed);
}

cudaError_t read_all(Queue queue, const void* from, std::int64_t bytes, std::uint32_t* sum) {
  return launch(queue, read_kernel, kManyBlocks, 512, 0, static_cast<const uint4*>(from), bytes / 16, sum);
}

}  // namespace ganglion::local::cuda
