// After the query/key/value product: per-head RMS normalisation where the model has it, rotary embedding, queries to
// their padded place, keys and values to the pages. One warp a head.

#include "backends/local/kernels/cuda/append_parts.cuh"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kWarps = 8;

__global__ void __launch_bounds__(kWarps * 32) append_kernel(RotateAppend r) {
  let_next_start();
  const int row = blockIdx.y, head = blockIdx.x * kWarps + threadIdx.x / 32;
  const int position = r.positions[row];  // there before the step's first kernel
  wait_for_previous();
  if (head >= r.heads + 2 * r.kv.kv_heads || position < 0) return;
  const std::int64_t at = (static_cast<std::int64_t>(row) * r.heads + head) * r.kv.head_width;
  append_head(r, row, head, position, static_cast<std::uint16_t*>(r.query) + at);
}

}  // namespace

cudaError_t rotate_append(Queue queue, const RotateAppend& r) {
  const int heads = r.heads + 2 * r.kv.kv_heads;
  if (r.kv.head_dim > 128 || r.kv.head_dim % 4 != 0) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>((heads + kWarps - 1) / kWarps), static_cast<unsigned>(r.rows));
  return launch(queue, append_kernel, grid, kWarps * 32, 0, r);
}

}  // namespace ganglion::local::cuda
