#pragma once
// A warpgroup's matrix instructions on bytes in shared memory (compute capability 9.0 alone: sm_90a; empty elsewhere),
// and the tiles that they read: rows of 128 bytes, the eight 16-byte pieces of row r in the order piece ^ (r % 8),
// which is how a tensor copy with 128-byte swizzling leaves them. Device code only.

#include <cuda_runtime.h>

#include <cstdint>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define GANGLION_HAS_WGMMA 1
#endif

namespace ganglion::local::cuda {

constexpr int kSwizzledRow = 128;  // bytes

// Where a tile begins, as the instruction wants to be told; `shared` is a multiple of 1,024 (or that plus the bytes of
// a row that earlier instructions took, a multiple of 32).
__device__ __forceinline__ std::uint64_t tile_descriptor(std::uint32_t shared) {
  constexpr std::uint64_t kEightRows = 8 * kSwizzledRow, kSwizzle128 = 1;
  return (shared & 0x3ffffu) >> 4 | std::uint64_t{1} << 16 | (kEightRows >> 4) << 32 | kSwizzle128 << 62;
}

// Sums are what they are here: the compiler moves no use of them past this.
template <int Count>
__device__ __forceinline__ void hold(float (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int Count>
__device__ __forceinline__ void hold(std::int32_t (&d)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; ++i) asm volatile("" : "+r"(d[i])::"memory");
}
// Before and after the instructions that make `d`: nobody else touches its registers in between.
template <class Sum, int Count>
__device__ __forceinline__ void wgmma_begin(Sum (&d)[Count]) {
  hold(d);
#if GANGLION_HAS_WGMMA
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
template <class Sum, int Count>
__device__ __forceinline__ void wgmma_finish(Sum (&d)[Count]) {  // waits for them
#if GANGLION_HAS_WGMMA
  asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;" ::: "memory");
#endif
  hold(d);
}

// d[64 x N] = a[64 x 32] b[N x 32]^T (+ d, where `add`), e4m3 to fp32 or int8 to int32. Lane (g = lane / 4, t = lane %
// 4) of warp w holds, for j < N / 8: d[4j], d[4j + 1] of row 16w + g and columns 8j + 2t and the one after it;
// d[4j + 2], d[4j + 3] of row 16w + g + 8.
template <int N>
__device__ void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int add);
template <int N>
__device__ void wgmma(std::int32_t (&d)[N / 2], std::uint64_t a, std::uint64_t b, int add);

#if GANGLION_HAS_WGMMA
#define GANGLION_D8(c, i) \
  c(d[i]), c(d[i + 1]), c(d[i + 2]), c(d[i + 3]), c(d[i + 4]), c(d[i + 5]), c(d[i + 6]), c(d[i + 7])
#define GANGLION_D16(c, i) GANGLION_D8(c, i), GANGLION_D8(c, i + 8)
#define GANGLION_D32(c, i) GANGLION_D16(c, i), GANGLION_D16(c, i + 16)
#define GANGLION_N8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define GANGLION_N16 GANGLION_N8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define GANGLION_N32 GANGLION_N16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
// `n`: columns; `r`: registers, half as many; a, b, add: the numbers of the operands after them.
#define GANGLION_WGMMA(n, r, a_at, b_at, add_at)                                                             \
  template <>                                                                                                \
  __device__ __forceinline__ void wgmma<n>(float(&d)[r], std::uint64_t a, std::uint64_t b, int add) {        \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " add_at ", 0; wgmma.mma_async.sync.aligned.m64n" #n         \
                 "k32.f32.e4m3.e4m3 {" GANGLION_N##r "}, " a_at ", " b_at ", p, 1, 1;}"                      \
                 : GANGLION_D##r("+f", 0)                                                                    \
                 : "l"(a), "l"(b), "r"(add));                                                                \
  }                                                                                                          \
  template <>                                                                                                \
  __device__ __forceinline__ void wgmma<n>(std::int32_t(&d)[r], std::uint64_t a, std::uint64_t b, int add) { \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " add_at ", 0; wgmma.mma_async.sync.aligned.m64n" #n         \
                 "k32.s32.s8.s8 {" GANGLION_N##r "}, " a_at ", " b_at ", p;}"                                \
                 : GANGLION_D##r("+r", 0)                                                                    \
                 : "l"(a), "l"(b), "r"(add));                                                                \
  }
GANGLION_WGMMA(16, 8, "%8", "%9", "%10")
GANGLION_WGMMA(32, 16, "%16", "%17", "%18")
GANGLION_WGMMA(64, 32, "%32", "%33", "%34")
#undef GANGLION_WGMMA
#undef GANGLION_N32
#undef GANGLION_N16
#undef GANGLION_N8
#undef GANGLION_D32
#undef GANGLION_D16
#undef GANGLION_D8
#else
template <int N>
__device__ void wgmma(float (&)[N / 2], std::uint64_t, std::uint64_t, int) {}
template <int N>
__device__ void wgmma(std::int32_t (&)[N / 2], std::uint64_t, std::uint64_t, int) {}
#endif

}  // namespace ganglion::local::cuda
