// The kernels at the scalar level; see table.hpp.

#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {
namespace {

#include "backends/local/kernels/cpu/simd_scalar.hpp"
// The order matters: the vector type, then what is made of it.
#include "backends/local/kernels/cpu/kernels_gemm.hpp"
#include "backends/local/kernels/cpu/kernels_rows.hpp"
// Attention uses the rows' exponential.
#include "backends/local/kernels/cpu/kernels_attend.hpp"
// Last.
#include "backends/local/kernels/cpu/kernels_table.hpp"

constexpr Kernels kTable = make_table(Isa::scalar);

}  // namespace

const Kernels& scalar_kernels() {
  return kTable;
}

}  // namespace ganglion::local
