// Products of a few activation rows with a streamed weight matrix: what decoding spends its time on, so the one goal
// is to read the weights at the memory's speed. A block owns 16 weight rows and its warps share the columns. Each lane
// reads 16 bytes of two rows at a time, straight into the layout of a tensor-core fragment: which column a fragment
// slot means is free, so a lane's consecutive bytes fill consecutive slots and weights need no shared memory. Integers
// become bf16 exactly in registers; scales are applied to fp32 sums. The first weights are asked for before the
// previous kernel has ended. RMS normalisation, residual sum and gated activation are part of the kernel, so that one
// decode layer is six launches. product_stream.cu is the faster way where it can be taken.

#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/product_parts.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kWarps = 8;

template <Format F>
__device__ __forceinline__ Weights load_weights(const Matrix& w, const char* lane_base, std::int64_t row_bytes, int row,
                                                int step) {
  Weights out;
  const char* at = lane_base + static_cast<std::int64_t>(step) * kNextStep<F>;
  out.low = load_stream(at);
  out.high = load_stream(at + eighth_row<F>(row_bytes));
  if constexpr (F == Format::int4) {
    const auto* scales = static_cast<const __half*>(w.scales);
    const int column = step * kStepColumns<F>, groups = w.cols / w.group;
    out.scale[0] = half_pair(scales + int4_scale_place(row, column / w.group, groups));
    out.scale[1] = half_pair(scales + int4_scale_place(row, (column + 64) / w.group, groups));
  }
  return out;
}

template <Format F, int Tiles>
__device__ __forceinline__ void multiply(const Weights& w, const bf16* x, std::int64_t tile_stride, int rows_left,
                                         float (&acc)[Tiles][4]) {
#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    std::uint32_t words[kStepWords<F>];
    load_x<F>(x + n * tile_stride, 8 * n < rows_left, words);
    multiply_tile<F>(w, words, acc[n]);
  }
}

template <Format F, int Tiles>
__global__ void __launch_bounds__(kWarps * 32, 2) product_kernel(Product p) {
  constexpr int kUnroll = Tiles <= 2 ? 4 : 2;
  constexpr int kPitch = Tiles * 8 + 1;
  __shared__ float sums[kWarps][kRowBlock][kPitch];
  __shared__ float inverse[kFusedRowsMax];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int panel = blockIdx.x, row = panel * kRowBlock + g;
  const std::int64_t row_bytes = matrix_bytes(F, 1, p.w.cols);
  const int steps = static_cast<int>(row_bytes / kStepBytes);
  const int mine = (steps - warp + kWarps - 1) / kWarps;
  const char* base = lane_weights<F>(p.w.data, panel, row_bytes);

  Weights next[kUnroll];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    if (u < mine) next[u] = load_weights<F>(p.w, base, row_bytes, row, warp + u * kWarps);
  }
  let_next_start();
  wait_for_previous();
  if (p.squares != nullptr && warp < p.rows) {
    const float v = inverse_norm(p, warp);
    if (lane == 0) inverse[warp] = v;
  }

  float acc[Tiles][4] = {};
  const int lane_columns = F == Format::bf16 ? 8 : 16;
  const bf16* x = static_cast<const bf16*>(p.x) + static_cast<std::int64_t>(g) * p.x_stride + t * lane_columns;
  for (int i = 0; i < mine; i += kUnroll) {
    Weights current[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) current[u] = next[u];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int at = i + kUnroll + u;
      if (at < mine) next[u] = load_weights<F>(p.w, base, row_bytes, row, warp + at * kWarps);
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      if (i + u >= mine) break;
      const bf16* at = x + static_cast<std::int64_t>(warp + (i + u) * kWarps) * kStepColumns<F>;
      multiply<F, Tiles>(current[u], at, std::int64_t{8} * p.x_stride, p.rows - g, acc);
    }
  }

#pragma unroll
  for (int n = 0; n < Tiles; ++n) {
    sums[warp][g][8 * n + 2 * t] = acc[n][0];
    sums[warp][g][8 * n + 2 * t + 1] = acc[n][1];
    sums[warp][g + 8][8 * n + 2 * t] = acc[n][2];
    sums[warp][g + 8][8 * n + 2 * t + 1] = acc[n][3];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kRowBlock * Tiles * 8; i += kWarps * 32) {
    const int n = i / kRowBlock, r = i % kRowBlock;
    float v = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) v += sums[w][r][n];
    const Operands o = operands_of<F>(p, panel, r, n);
    v *= o.scale;
    if (p.squares != nullptr) v *= n < p.rows ? inverse[n % kFusedRowsMax] : 0.0f;
    finish(p, panel, r, n, v, o);
  }
}

template <Format F>
cudaError_t product_of(Queue queue, const Product& p) {
  const dim3 grid(static_cast<unsigned>(p.w.rows / kRowBlock));
  if (p.rows <= 8) return launch(queue, product_kernel<F, 1>, grid, kWarps * 32, 0, p);
  if (p.rows <= 16) return launch(queue, product_kernel<F, 2>, grid, kWarps * 32, 0, p);
  if (p.rows <= 32) return launch(queue, product_kernel<F, 4>, grid, kWarps * 32, 0, p);
  return launch(queue, product_kernel<F, 8>, grid, kWarps * 32, 0, p);
}

}  // namespace

cudaError_t product(Queue queue, const Product& p) {
  const bool fused = p.squares != nullptr || p.epilogue == Epilogue::residual;
  if (p.rows < 1 || p.rows > (fused ? kFusedRowsMax : kSmallRowsMax)) return cudaErrorInvalidValue;
  switch (p.w.format) {
    case Format::bf16:
      return product_of<Format::bf16>(queue, p);
    case Format::int8:
      return product_of<Format::int8>(queue, p);
    case Format::fp8:
      return product_of<Format::fp8>(queue, p);
    case Format::int4:
      return product_of<Format::int4>(queue, p);
  }
  return cudaErrorInvalidValue;
}

}  // namespace ganglion::local::cuda
