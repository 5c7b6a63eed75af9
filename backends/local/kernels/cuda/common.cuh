#pragma once
// What the CUDA kernels share: tensor-core and copy instructions, reductions, programmatic launch. Device code only.
//
// Every kernel is launched so that it may start while the one before it still runs (programmatic dependent launch),
// and therefore calls wait_for_previous() before it touches anything that an earlier kernel wrote, and before it
// writes anything that an earlier kernel reads. Data of earlier kernels is never read through const __restrict__:
// the compiler could move such reads above the wait.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace ganglion::local::cuda {

using bf16 = __nv_bfloat16;

__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// From here on the next kernel's blocks may take the places that this one leaves.
__device__ __forceinline__ void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// c[16x8] += a[16x16] b[16x8]. Lane (g = lane / 4, t = lane % 4) holds a0: row g, columns 2t and 2t+1; a1: row g+8;
// a2, a3: the same with columns + 8; b0: rows 2t and 2t+1 of column g; b1: rows + 8; c0, c1: row g, columns 2t and
// 2t+1; c2, c3: row g+8. Which columns of a meet which rows of b is free, as long as both agree.
__device__ __forceinline__ void mma(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                    std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// The same in fp16.
__device__ __forceinline__ void mma_half(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                         std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

template <bool Half>
__device__ __forceinline__ void mma_as(float (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                       std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  Half ? mma_half(c, a0, a1, a2, a3, b0, b1) : mma(c, a0, a1, a2, a3, b0, b1);
}

// Transposes an 8x8 tile of 16-bit elements: lane (g, t) holds row g, columns 2t and 2t+1, before and after.
__device__ __forceinline__ std::uint32_t transpose8x8(std::uint32_t x) {
  std::uint32_t y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

// Weights are read once: past the first-level cache.
__device__ __forceinline__ uint4 load_stream(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}

// What blocks of one kernel tell each other while they run: single accesses in the second-level cache, with no order
// among them.
__device__ __forceinline__ void store_shown(std::uint32_t* to, std::uint32_t v) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(to), "r"(v) : "memory");
}
__device__ __forceinline__ void store_shown(float* to, float v) {
  asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(to), "f"(v) : "memory");
}
__device__ __forceinline__ void store_shown(uint4* to, uint4 v) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}
__device__ __forceinline__ uint4 load_shown(const uint4* from) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}
__device__ __forceinline__ std::uint32_t load_shown(const std::uint32_t* from) {
  std::uint32_t v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
  return v;
}

__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&v);
}
__device__ __forceinline__ std::uint32_t pack_half(float low, float high) {
  const __half2 v = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&v);
}
template <bool Half>
__device__ __forceinline__ std::uint32_t pack_as(float low, float high) {
  return Half ? pack_half(low, high) : pack(low, high);
}
// No further from zero than fp16 goes; what is not a number stays that.
__device__ __forceinline__ float cut_to_half(float v) {
  constexpr float kMost = 65504.0f;
  return fabsf(v) > kMost ? copysignf(kMost, v) : v;
}
__device__ __forceinline__ float2 unpack(std::uint32_t v) {
  return {__uint_as_float(v << 16), __uint_as_float(v & 0xffff0000u)};
}
__device__ __forceinline__ std::uint32_t sub2(std::uint32_t a, std::uint32_t b) {
  const __nv_bfloat162 v =
      __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const std::uint32_t*>(&v);
}
__device__ __forceinline__ std::uint32_t mul2(std::uint32_t a, std::uint32_t b) {
  const __nv_bfloat162 v =
      __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a), *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const std::uint32_t*>(&v);
}

// Two of the four signed bytes of `w` as bf16, exactly. 0x43uu is 128 + (u & 127) without u's sign bit; the sign bit
// turns the 128 to take away into 256.
template <int Pair>
__device__ __forceinline__ std::uint32_t bf16_of_int8(std::uint32_t w) {
  const std::uint32_t x = __byte_perm(w, 0x43434343u, Pair == 0 ? 0x4140 : 0x4342);
  return sub2(x & 0xff7fff7fu, x & 0xff80ff80u);
}

// Two of the four e4m3 bytes of `w` as bf16, exactly: exponent and mantissa moved into place are 2^-120 times the
// value, subnormals included.
template <int Pair>
__device__ __forceinline__ std::uint32_t bf16_of_fp8(std::uint32_t w) {
  const std::uint32_t x = __byte_perm(w, 0, Pair == 0 ? 0x1404 : 0x3424);
  return mul2((x & 0x80008000u) | ((x & 0x7f007f00u) >> 4), 0x7b807b80u);
}

// The same as fp16, exactly: one instruction, or where there is none, 2^-8 times the value and that undone.
template <int Pair>
__device__ __forceinline__ std::uint32_t half_of_fp8(std::uint32_t w) {
  std::uint32_t out = 0;
#if __CUDA_ARCH__ >= 890
  asm("{.reg .b16 low, high; mov.b32 {low, high}, %1; cvt.rn.f16x2.e4m3x2 %0, low;}"
      : "=r"(out)
      : "r"(Pair == 0 ? w : w >> 16));
#else
  const std::uint32_t x = __byte_perm(w, 0, Pair == 0 ? 0x1404 : 0x3424);
  const std::uint32_t less = (x & 0x80008000u) | ((x & 0x7f007f00u) >> 1), much = 0x5c005c00u;  // 256
  const __half2 v = __hmul2(*reinterpret_cast<const __half2*>(&less), *reinterpret_cast<const __half2*>(&much));
  out = *reinterpret_cast<const std::uint32_t*>(&v);
#endif
  return out;
}

// Nibbles J and J + 4 of `w`, less 8, as bf16.
template <int J>
__device__ __forceinline__ std::uint32_t bf16_of_int4(std::uint32_t w) {
  return sub2(((w >> (4 * J)) & 0x000f000fu) | 0x43004300u, 0x43084308u);
}

// The integers as fp16 instead, which takes half as many instructions: 0x64uu is 1024 + u.
__device__ __forceinline__ std::uint32_t half2_sub(std::uint32_t a, std::uint32_t b) {
  const __half2 v = __hsub2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const std::uint32_t*>(&v);
}
__device__ __forceinline__ std::uint32_t half2_fma(std::uint32_t a, std::uint32_t b, std::uint32_t c) {
  const __half2 v = __hfma2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b),
                            *reinterpret_cast<const __half2*>(&c));
  return *reinterpret_cast<const std::uint32_t*>(&v);
}
// `biased`: four signed bytes, each xor 0x80.
template <int Pair>
__device__ __forceinline__ std::uint32_t half_of_int8(std::uint32_t biased) {
  return half2_sub(__byte_perm(biased, 0x64646464u, Pair == 0 ? 0x4140 : 0x4342), 0x64806480u);
}
// Nibbles 0 and 4 (Odd: 1 and 5) of `w`, less 8. The odd ones are 16 times too large, which the product undoes.
template <bool Odd>
__device__ __forceinline__ std::uint32_t half_of_int4(std::uint32_t w) {
  if constexpr (Odd) return half2_fma((w & 0x00f000f0u) | 0x64006400u, 0x2c002c00u, 0xd480d480u);
  return half2_sub((w & 0x000f000fu) | 0x64006400u, 0x64086408u);
}

// Precise where x is small too: 1 - 2 / (e^2x + 1).
__device__ __forceinline__ float tanh_of(float x) {
  return 1.0f - __fdividef(2.0f, __expf(2.0f * x) + 1.0f);
}

__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
  for (int d = 16; d > 0; d /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
  return v;
}

// For the largest magnitude of what becomes int8: what is not a number counts as infinite, so that the scale tells.
__device__ __forceinline__ float magnitude_of(float v) {
  return v == v ? fabsf(v) : INFINITY;
}
constexpr float kInt8Max = 127.0f;
constexpr float kScaleMin = 1e-12f;  // of what is all zero
// `inverse`: 1 / scale; 0 where the scale is infinite, which leaves 0 times infinity: not a number.
__device__ __forceinline__ signed char int8_of(float v, float inverse) {
  return static_cast<signed char>(max(-127, min(127, __float2int_rn(v * inverse))));
}

// Over a whole block; every thread gets the result, always summed in the same order. `shared` holds 32 floats and is
// free again after the call.
template <bool Max>
__device__ __forceinline__ float block_reduce(float v, float* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
  v = Max ? warp_max(v) : warp_sum(v);
  if (lane == 0) shared[warp] = v;
  __syncthreads();
  v = lane < warps ? shared[lane] : (Max ? -INFINITY : 0.0f);
  v = Max ? warp_max(v) : warp_sum(v);
  __syncthreads();
  return v;
}

// Asynchronous copies of 16 bytes to shared memory; bytes past `valid` (0 or 16) become zero.
__device__ __forceinline__ std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
__device__ __forceinline__ void copy_async(std::uint32_t to, const void* from, int valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid));
}
__device__ __forceinline__ void copy_commit() {
  asm volatile("cp.async.commit_group;");
}
template <int Pending>
__device__ __forceinline__ void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

}  // namespace ganglion::local::cuda
