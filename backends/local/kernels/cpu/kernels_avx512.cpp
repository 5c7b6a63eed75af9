// The kernels at the AVX-512 level; see table.hpp.

#include "backends/local/kernels/cpu/table.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

namespace ganglion::local {
namespace {

#include "backends/local/kernels/cpu/simd_avx512.hpp"
// The order matters: the vector type, then what is made of it.
#include "backends/local/kernels/cpu/kernels_gemm.hpp"
#include "backends/local/kernels/cpu/kernels_rows.hpp"
// Attention uses the rows' exponential.
#include "backends/local/kernels/cpu/kernels_attend.hpp"
// Last.
#include "backends/local/kernels/cpu/kernels_table.hpp"

constexpr Kernels kTable = make_table(Isa::avx512);

}  // namespace

const Kernels& avx512_kernels() {
  return kTable;
}

}  // namespace ganglion::local

#endif  // __x86_64__
