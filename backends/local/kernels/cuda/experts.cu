// Mixtures of experts: each row's choices, each expert's list of them, products of every expert with its own rows in
// one launch, and the weighted sum. Nothing of it is known to the host, so steps can be captured and replayed. The
// product is that of product.cu, with a list of rows instead of consecutive ones.

#include "backends/local/kernels/cuda/general.hpp"
#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/product_parts.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUsedMax = 64;
constexpr int kStreamRowsMax = 24;  // of an expert, on average: more are computed in tiles

// One warp a row: `used` times the highest route that is left, the lowest index of equals.
__global__ void __launch_bounds__(kThreads) choose_kernel(Routes r) {
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= r.rows) return;
  if (r.positions[row] < 0) {
    for (int j = lane; j < r.used; j += 32) r.chosen[row * r.used + j] = -1, r.weights[row * r.used + j] = 0;
    return;
  }
  const float* logits = r.logits + static_cast<std::int64_t>(row) * r.stride;
  float last = INFINITY, first = 0, total = 0;
  int last_index = -1;
  for (int j = 0; j < r.used; ++j) {
    float best = -INFINITY;
    int index = r.experts;
    for (int e = lane; e < r.experts; e += 32) {
      const float v = logits[e];
      const bool left = v < last || (v == last && e > last_index);
      if (left && (v > best || (v == best && e < index))) best = v, index = e;
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
      const float other = __shfl_xor_sync(0xffffffffu, best, d);
      const int other_index = __shfl_xor_sync(0xffffffffu, index, d);
      if (other > best || (other == best && other_index < index)) best = other, index = other_index;
    }
    if (j == 0) first = best;
    last = best, last_index = index;
    const float weight = __expf(best - first);
    total += weight;
    if (lane == 0) {
      // A row whose routes are not numbers goes where it can be read: its logits show what is wrong.
      r.chosen[row * r.used + j] = min(index, r.experts - 1);
      r.weights[row * r.used + j] = weight;
    }
  }
  __syncwarp();
  for (int j = lane; j < r.used; j += 32) r.weights[row * r.used + j] /= total;
}

// One block an expert: its slots in ascending order.
__global__ void __launch_bounds__(kThreads) list_kernel(Routes r) {
  __shared__ int warp_counts[kThreads / 32];
  let_next_start();
  wait_for_previous();
  const int expert = blockIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32, all = r.rows * r.used;
  std::int32_t* to = r.slots + static_cast<std::int64_t>(expert) * r.capacity;
  int count = 0;
  for (int from = 0; from < all; from += kThreads) {
    const int slot = from + static_cast<int>(threadIdx.x);
    const bool mine = slot < all && r.chosen[slot] == expert;
    const unsigned votes = __ballot_sync(0xffffffffu, mine);
    if (lane == 0) warp_counts[warp] = __popc(votes);
    __syncthreads();
    int before = count;
    for (int w = 0; w < kThreads / 32; ++w) {
      if (w < warp) before += warp_counts[w];
      count += warp_counts[w];
    }
    const int at = before + __popc(votes & ((1u << lane) - 1));
    if (mine && at < r.capacity) to[at] = slot;
    __syncthreads();
  }
  if (threadIdx.x == 0) r.counts[expert] = min(count, r.capacity);
}

constexpr int kWarps = 8, kTiles = 4;  // of eight rows at a time

template <Format F>
__global__ void __launch_bounds__(kWarps * 32) grouped_kernel(GroupedProduct p) {
  constexpr int kRows = 8 * kTiles, kPitch = kRows + 1;
  __shared__ float sums[kWarps][kRowBlock][kPitch];
  __shared__ std::int32_t slots[kRows];
  let_next_start();
  wait_for_previous();
  const int expert = blockIdx.y, count = p.counts[expert];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int each = p.w.rows / p.experts, panel = expert * (each / kRowBlock) + static_cast<int>(blockIdx.x);
  const int row = panel * kRowBlock + g;
  const std::int64_t row_bytes = matrix_bytes(F, 1, p.w.cols);
  const int steps = static_cast<int>(row_bytes / kStepBytes), groups = F == Format::int4 ? p.w.cols / p.w.group : 0;
  const char* base = lane_weights<F>(p.w.data, panel, row_bytes);
  const int lane_columns = F == Format::bf16 ? 8 : 16;
  for (int first = 0; first < count; first += kRows) {
    const int rows = min(kRows, count - first);
    if (threadIdx.x < kRows) {
      slots[threadIdx.x] = p.slots[static_cast<std::int64_t>(expert) * p.capacity +
                                   min(first + static_cast<int>(threadIdx.x), count - 1)];
    }
    __syncthreads();
    const bf16* x[kTiles];
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      x[n] = static_cast<const bf16*>(p.x) + static_cast<std::int64_t>(slots[8 * n + g] / p.x_per_row) * p.x_stride +
             t * lane_columns;
    }
    float acc[kTiles][4] = {};
    for (int step = warp; step < steps; step += kWarps) {
      Weights w;
      const char* at = base + static_cast<std::int64_t>(step) * kNextStep<F>;
      w.low = load_stream(at);
      w.high = load_stream(at + eighth_row<F>(row_bytes));
      if constexpr (F == Format::int4) {
        const auto* scales = static_cast<const __half*>(p.w.scales);
        const int column = step * kStepColumns<F>;
        w.scale[0] = half_pair(scales + int4_scale_place(row, column / p.w.group, groups));
        w.scale[1] = half_pair(scales + int4_scale_place(row, (column + 64) / p.w.group, groups));
      }
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        if (8 * n >= rows) break;
        std::uint32_t words[kStepWords<F>];
        load_x<F>(x[n] + step * kStepColumns<F>, 8 * n + g < rows, words);
        multiply_tile<F>(w, words, acc[n]);
      }
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      sums[warp][g][8 * n + 2 * t] = acc[n][0];
      sums[warp][g][8 * n + 2 * t + 1] = acc[n][1];
      sums[warp][g + 8][8 * n + 2 * t] = acc[n][2];
      sums[warp][g + 8][8 * n + 2 * t + 1] = acc[n][3];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kRowBlock * rows; i += kWarps * 32) {
      const int n = i / kRowBlock, r = i % kRowBlock;
      float v = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) v += sums[w][r][n];
      if constexpr (F == Format::int8 || F == Format::fp8) {
        v *= static_cast<const float*>(p.w.scales)[panel * kRowBlock + r];
      }
      static_cast<bf16*>(p.y)[static_cast<std::int64_t>(slots[n]) * p.y_stride + blockIdx.x * kRowBlock + r] =
          __float2bfloat16(v);
    }
    __syncthreads();
  }
}

template <Format F>
cudaError_t grouped_of(Queue queue, const GroupedProduct& p) {
  const dim3 grid(static_cast<unsigned>(p.w.rows / p.experts / kRowBlock), static_cast<unsigned>(p.experts));
  return launch(queue, grouped_kernel<F>, grid, kWarps * 32, 0, p);
}

__global__ void __launch_bounds__(kThreads) combine_kernel(const bf16* x, int x_stride, const float* weights, int used,
                                                           int width, void* out, int out_stride, bool wide) {
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.x;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    float v = 0;
    for (int j = 0; j < used; ++j) {
      const std::int64_t slot = static_cast<std::int64_t>(row) * used + j;
      if (weights[slot] != 0) v += weights[slot] * __bfloat162float(x[slot * x_stride + i]);
    }
    const std::int64_t at = static_cast<std::int64_t>(row) * out_stride + i;
    if (wide) {
      static_cast<float*>(out)[at] = v;
    } else {
      static_cast<bf16*>(out)[at] = __float2bfloat16(v);
    }
  }
}

}  // namespace

cudaError_t route(Queue queue, const Routes& r) {
  if (r.used < 1 || r.used > r.experts || r.used > kUsedMax) return cudaErrorInvalidValue;
  constexpr int kRowsEach = kThreads / 32;
  const auto status =
      launch(queue, choose_kernel, static_cast<unsigned>((r.rows + kRowsEach - 1) / kRowsEach), kThreads, 0, r);
  if (status != cudaSuccess) return status;
  return launch(queue, list_kernel, static_cast<unsigned>(r.experts), kThreads, 0, r);
}

cudaError_t grouped_product(Queue queue, const GroupedProduct& p) {
  return p.slot_count > kStreamRowsMax * p.experts ? grouped_tiles(queue, p) : grouped_stream(queue, p);
}

cudaError_t grouped_stream(Queue queue, const GroupedProduct& p) {
  if (p.experts < 1 || p.w.rows % (p.experts * kRowBlock) != 0) return cudaErrorInvalidValue;
  switch (p.w.format) {
    case Format::bf16:
      return grouped_of<Format::bf16>(queue, p);
    case Format::int8:
      return grouped_of<Format::int8>(queue, p);
    case Format::fp8:
      return grouped_of<Format::fp8>(queue, p);
    case Format::int4:
      return grouped_of<Format::int4>(queue, p);
  }
  return cudaErrorInvalidValue;
}

cudaError_t combine(Queue queue, const void* x, int x_stride, const float* weights, int used, int width, int rows,
                    void* out, int out_stride, bool wide) {
  return launch(queue, combine_kernel, static_cast<unsigned>(rows), kThreads, 0, static_cast<const bf16*>(x), x_stride,
                weights, used, width, out, out_stride, wide);
}

}  // namespace ganglion::local::cuda
