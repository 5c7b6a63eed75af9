#pragma once
// What pages of one byte a value hold, in the type that attention multiplies in (attends_in_half()). Device code only.

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::local::cuda {

// Two of the four bytes of `w`, the first two or the last, exactly; int8 without its scale.
template <KvFormat F, int Pair>
__device__ __forceinline__ std::uint32_t pair_of(std::uint32_t w) {
  static_assert(kv_value_bytes(F) == 1);
  return F == KvFormat::int8 ? bf16_of_int8<Pair>(w) : half_of_fp8<Pair>(w);
}

}  // namespace ganglion::local::cuda
