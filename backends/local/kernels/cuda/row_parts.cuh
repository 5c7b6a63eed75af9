#pragma once
// Writing a finished row as bf16, or as e4m3 or int8 with a scale: shared by the row-wise kernels. Device code only.

#include <cuda_fp8.h>

#include "backends/local/kernels/cuda/common.cuh"

namespace ganglion::local::cuda {

// Rows in bf16, or `wide`: in fp32. Element `at`; and elements 4i to 4i + 3.
__device__ __forceinline__ float element_of(const void* x, std::int64_t at, bool wide) {
  return wide ? static_cast<const float*>(x)[at] : __bfloat162float(static_cast<const bf16*>(x)[at]);
}
__device__ __forceinline__ float4 four_of(const void* x, std::int64_t i, bool wide) {
  if (wide) return static_cast<const float4*>(x)[i];
  const uint2 v = static_cast<const uint2*>(x)[i];
  const float2 low = unpack(v.x), high = unpack(v.y);
  return {low.x, low.y, high.x, high.y};
}
// Adds to element `at`.
__device__ __forceinline__ void add_to(void* y, std::int64_t at, float v, bool wide) {
  if (wide) {
    static_cast<float*>(y)[at] += v;
  } else {
    bf16& to = static_cast<bf16*>(y)[at];
    to = __float2bfloat16(__bfloat162float(to) + v);
  }
}

constexpr int kRowThreads = 256;
constexpr float kFp8Max = 448.0f;

__device__ __forceinline__ unsigned char fp8_of(float v) {
  return __nv_cvt_float_to_fp8(v, __NV_SATFINITE, __NV_E4M3);
}

// A row of fp32 in shared memory to its place, as bf16, or as e4m3 or int8 with a scale. `top`: largest magnitude_of().
// Rows are `stride` apart; in 8 bits what lies behind a row's width is made zero.
__device__ __forceinline__ void write_row(const float* row, int width, float top, void* out, int stride, float* scales,
                                          int index, bool int8) {
  const std::int64_t at = static_cast<std::int64_t>(index) * stride;
  if (scales == nullptr) {
    auto* to = static_cast<bf16*>(out) + at;
    if (width % 4 == 0) {
      for (int i = threadIdx.x; i < width / 4; i += kRowThreads) {
        const float4 v = reinterpret_cast<const float4*>(row)[i];
        reinterpret_cast<uint2*>(to)[i] = {pack(v.x, v.y), pack(v.z, v.w)};
      }
      return;
    }
    for (int i = threadIdx.x; i < width; i += kRowThreads) to[i] = __float2bfloat16(row[i]);
    return;
  }
  const float scale = fmaxf(top / (int8 ? kInt8Max : kFp8Max), kScaleMin);
  if (threadIdx.x == 0) scales[index] = scale;
  const float inverse = 1.0f / scale;
  const auto eight = [&](float v) {
    return int8 ? static_cast<unsigned char>(int8_of(v, inverse)) : fp8_of(v * inverse);
  };
  auto* to = static_cast<unsigned char*>(out) + at;
  for (int i = width + threadIdx.x; i < stride; i += kRowThreads) to[i] = 0;  // another row's of another width
  if (width % 4 == 0) {
    for (int i = threadIdx.x; i < width / 4; i += kRowThreads) {
      const float4 v = reinterpret_cast<const float4*>(row)[i];
      reinterpret_cast<uchar4*>(to)[i] = {eight(v.x), eight(v.y), eight(v.z), eight(v.w)};
    }
    return;
  }
  for (int i = threadIdx.x; i < width; i += kRowThreads) to[i] = eight(row[i]);
}

// A row must fit in shared memory.
template <class Kernel>
cudaError_t allow_shared(Kernel kernel, std::size_t bytes) {
  if (bytes <= 40 * 1024) return cudaSuccess;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

}  // namespace ganglion::local::cuda
