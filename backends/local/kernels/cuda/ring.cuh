#pragma once
// What a ring of bulk copies in shared memory is made of: barriers of one block, copies that report to them, and the
// cache policy of what is read once. Compute capability 9.0; empty before. Device code only.

#include <cstdint>

namespace ganglion::local::cuda {

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int count) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
#endif
}
// After barrier_init: the copies that report to them may be started once the block has synchronised.
__device__ __forceinline__ void barriers_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ __forceinline__ void barrier_expect(std::uint32_t barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
#endif
}
__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
#endif
}
// Arrivals of a warp that is through with what it read or wrote in shared memory: lane 0's behind a __syncwarp(), which
// orders all lanes' accesses before it. compute-sanitizer's racecheck follows a barrier lane by lane and needs all of
// them.
#ifdef GANGLION_CHECKED
constexpr int kArrivals = 32;
#else
constexpr int kArrivals = 1;
#endif
__device__ __forceinline__ void warp_arrive(std::uint32_t barrier) {
  if constexpr (kArrivals == 1) __syncwarp();
  if (kArrivals > 1 || threadIdx.x % 32 == 0) barrier_arrive(barrier);
}
// Whether the phase of that parity is over; waits for it a little.
__device__ __forceinline__ bool barrier_passed(std::uint32_t barrier, int parity) {
  std::uint32_t done = 1;
#if __CUDA_ARCH__ >= 900
  asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
               : "=r"(done)
               : "r"(barrier), "r"(parity)
               : "memory");
#endif
  return done != 0;
}
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, int parity) {
  while (!barrier_passed(barrier, parity)) {
  }
}
// To the second-level cache.
__device__ __forceinline__ void prefetch_bulk(const void* from, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
#endif
}
__device__ __forceinline__ void copy_bulk(std::uint32_t to, const void* from, int bytes, std::uint32_t barrier,
                                          std::uint64_t policy) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
#endif
}
// A tile of the tensor that `map` (a CUtensorMap) describes, from its place (column, row).
__device__ __forceinline__ void copy_tile(std::uint32_t to, const void* map, int column, int row, std::uint32_t barrier,
                                          std::uint64_t policy) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, "
      "%3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "l"(policy)
      : "memory");
#endif
}
__device__ __forceinline__ void prefetch_map(const void* map) {
#if __CUDA_ARCH__ >= 900
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
#endif
}

// What the second-level cache is told of a copy: that it is read once, or that others will read it too.
template <bool Once>
__device__ __forceinline__ std::uint64_t cache_policy() {
  std::uint64_t policy = 0;
#if __CUDA_ARCH__ >= 900
  if constexpr (Once) {
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  } else {
    asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  }
#endif
  return policy;
}

}  // namespace ganglion::local::cuda
