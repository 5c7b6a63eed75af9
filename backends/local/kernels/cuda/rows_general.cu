// Row-wise work of the families that are not llama's kind: LayerNorm and norms after a part, scaled or projected
// embeddings, learned positions, other activations, capped logits, and heads that are wide or rotated in part. One
// block a row, or one warp a head.

#include "backends/local/kernels/cuda/append_parts.cuh"
#include "backends/local/kernels/cuda/general.hpp"
#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/row_parts.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kThreads = kRowThreads;

// Normalises the row in shared memory; each thread goes on with the elements that are its own.
__device__ __forceinline__ void norm_row(float* row, int width, const NormWeights& n, float eps, float* reduce) {
  float mean = 0;
  if (n.bias != nullptr) {
    float sum = 0;
    for (int i = threadIdx.x; i < width; i += kThreads) sum += row[i];
    mean = block_reduce<false>(sum, reduce) / static_cast<float>(width);
  }
  float squares = 0;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    const float d = row[i] - mean;
    squares += d * d;
  }
  const float inverse = rsqrtf(block_reduce<false>(squares, reduce) / static_cast<float>(width) + eps);
  for (int i = threadIdx.x; i < width; i += kThreads) {
    row[i] = (row[i] - mean) * inverse * n.weight[i] + (n.bias != nullptr ? n.bias[i] : 0.0f);
  }
}

__global__ void __launch_bounds__(kThreads) settle_kernel(Settle s) {
  extern __shared__ float row[];
  __shared__ float reduce[32];
  let_next_start();
  wait_for_previous();
  const int index = blockIdx.x, source = s.pick != nullptr ? s.pick[index] : index;
  float* hidden = s.hidden + static_cast<std::int64_t>(source) * s.width;
  if (s.add != nullptr) {
    const std::int64_t add = static_cast<std::int64_t>(index) * s.add_stride;
    for (int i = threadIdx.x; i < s.width; i += kThreads) row[i] = element_of(s.add, add + i, s.add_wide);
    if (s.after.weight != nullptr) norm_row(row, s.width, s.after, s.eps, reduce);
    for (int i = threadIdx.x; i < s.width; i += kThreads) row[i] += hidden[i];
    if (s.sum.weight != nullptr) norm_row(row, s.width, s.sum, s.eps, reduce);
    for (int i = threadIdx.x; i < s.width; i += kThreads) hidden[i] = row[i];
  } else {
    for (int i = threadIdx.x; i < s.width; i += kThreads) row[i] = hidden[i];
  }
  if (s.next.weight != nullptr) norm_row(row, s.width, s.next, s.eps, reduce);
  float top = 0;
  if (s.out_scales != nullptr) {
    for (int i = threadIdx.x; i < s.width; i += kThreads) top = fmaxf(top, magnitude_of(row[i]));
    top = block_reduce<true>(top, reduce);
  }
  __syncthreads();
  write_row(row, s.width, top, s.out, s.out_stride, s.out_scales, index, s.int8);
}

__device__ __forceinline__ void angles(int position, const float* frequencies, int half, float magnitude, float* cos,
                                       float* sin) {
  for (int i = threadIdx.x; i < half; i += kThreads) {
    float s, c;
    sincosf(static_cast<float>(max(position, 0)) * frequencies[i], &s, &c);
    cos[i] = c * magnitude;
    sin[i] = s * magnitude;
  }
}

__global__ void __launch_bounds__(kThreads) embed_general_kernel(EmbedGeneral e) {
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.x, position = e.positions[row];
  const auto* from = static_cast<const bf16*>(e.table) + static_cast<std::int64_t>(e.tokens[row]) * e.stride;
  for (int i = threadIdx.x; i < e.width; i += kThreads) {
    const float v = position < 0 ? 0.0f : __bfloat162float(from[i]) * e.scale;
    if (e.hidden != nullptr) {
      e.hidden[static_cast<std::int64_t>(row) * e.width + i] = v;
    } else {
      static_cast<bf16*>(e.narrow)[static_cast<std::int64_t>(row) * e.narrow_stride + i] = __float2bfloat16(v);
    }
  }
  if (e.half == 0) return;
  const bool is_long = e.long_frequencies != nullptr && e.long_rows[row] != 0;
  const std::int64_t at = static_cast<std::int64_t>(row) * e.half;
  angles(position, is_long ? e.long_frequencies : e.frequencies, e.half, e.magnitude, e.cos + at, e.sin + at);
  if (e.local_frequencies != nullptr) {
    angles(position, e.local_frequencies, e.half, 1.0f, e.local_cos + at, e.local_sin + at);
  }
}

__global__ void __launch_bounds__(kThreads) positions_kernel(const bf16* table, int stride, int offset,
                                                             const std::int32_t* positions, int width, float* hidden) {
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.x, position = positions[row];
  if (position < 0) return;
  const bf16* from = table + static_cast<std::int64_t>(position + offset) * stride;
  float* to = hidden + static_cast<std::int64_t>(row) * width;
  for (int i = threadIdx.x; i < width; i += kThreads) to[i] += __bfloat162float(from[i]);
}

// ---- activations ----

template <Activate A>
__device__ __forceinline__ float activated(float gate, float up) {
  if constexpr (A == Activate::silu_gate) return gate / (1.0f + __expf(-gate)) * up;
  if constexpr (A == Activate::gelu_tanh_gate) {
    const float inner = 0.7978845608f * (gate + 0.044715f * gate * gate * gate);
    return 0.5f * gate * (1.0f + tanh_of(inner)) * up;
  }
  if constexpr (A == Activate::relu) return fmaxf(gate, 0.0f);
  return 0.5f * gate * (1.0f + erff(gate * 0.70710678f));
}

template <Activate A>
__global__ void __launch_bounds__(kThreads) activate_kernel(Gate a) {
  extern __shared__ float row[];
  __shared__ float reduce[32];
  let_next_start();
  wait_for_previous();
  const int index = blockIdx.x;
  const auto* from = static_cast<const bf16*>(a.gate_up) + static_cast<std::int64_t>(index) * a.in_stride;
  float top = 0;
  for (int i = threadIdx.x; i < a.width; i += kThreads) {
    const int at = is_gate(A) ? i / 8 * 16 + i % 8 : i;
    const float v = activated<A>(__bfloat162float(from[at]), is_gate(A) ? __bfloat162float(from[at + 8]) : 0.0f);
    row[i] = v;
    top = fmaxf(top, magnitude_of(v));
  }
  if (a.out_scales != nullptr) top = block_reduce<true>(top, reduce);
  __syncthreads();
  write_row(row, a.width, top, a.out, a.out_stride, a.out_scales, index, a.int8);
}

template <Activate A>
cudaError_t activate_of(Queue queue, const Gate& a) {
  const std::size_t bytes = static_cast<std::size_t>(padded(a.width, 8)) * 4;
  if (const auto status = allow_shared(activate_kernel<A>, bytes); status != cudaSuccess) return status;
  return launch(queue, activate_kernel<A>, static_cast<unsigned>(a.rows), kThreads, bytes, a);
}

__global__ void __launch_bounds__(kThreads) cap_kernel(float* x, int stride, int width, float cap) {
  let_next_start();
  wait_for_previous();
  float* row = x + static_cast<std::int64_t>(blockIdx.y) * stride;
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < width) row[i] = cap * tanh_of(row[i] / cap);
}

// ---- zero points ----

__global__ void __launch_bounds__(kThreads)
    zeros_kernel(Matrix w, const bf16* x, int x_stride, void* y, int y_stride, bool wide) {
  extern __shared__ float sums[];  // of x, by group
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.y, groups = w.cols / w.group, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  x += static_cast<std::int64_t>(row) * x_stride;
  for (int g = warp; g < groups; g += kThreads / 32) {
    float sum = 0;
    for (int i = lane; i < w.group; i += 32) sum += __bfloat162float(x[g * w.group + i]);
    sum = warp_sum(sum);
    if (lane == 0) sums[g] = sum;
  }
  __syncthreads();
  const int r = blockIdx.x * kThreads + threadIdx.x;
  if (r >= w.rows) return;
  float less = 0;
  for (int g = 0; g < groups; ++g) {
    const std::int64_t at = int4_scale_place(r, g, groups);
    less += __half2float(static_cast<const __half*>(w.scales)[at]) *
            __half2float(static_cast<const __half*>(w.zeros)[at]) * sums[g];
  }
  add_to(y, static_cast<std::int64_t>(row) * y_stride + r, -less, wide);
}

// ---- heads ----

constexpr int kWarps = 8, kHeadMax = 256;

// fp16 or bf16.
__device__ __forceinline__ std::uint16_t sixteen_of(bool half, float v) {
  return static_cast<std::uint16_t>(pack_sixteen(half, v, 0.0f));
}

// `inverse`: 1 / scale, where there are scales.
__device__ __forceinline__ void store_kv(const KvLayout& kv, char* tile, int at, float v, float inverse) {
  if (kv.format == KvFormat::int8) {
    reinterpret_cast<signed char*>(tile)[at] = int8_of(v, inverse);
  } else if (kv.format == KvFormat::fp8) {
    reinterpret_cast<unsigned char*>(tile)[at] = fp8_of(v);
  } else {
    reinterpret_cast<std::uint16_t*>(tile)[at] = sixteen_of(kv.format == KvFormat::fp16, v);
  }
}

__global__ void __launch_bounds__(kWarps * 32) append_general_kernel(RotateAppend r, int half) {
  __shared__ float heads[kWarps][kHeadMax];
  let_next_start();
  const int row = blockIdx.y, head = blockIdx.x * kWarps + threadIdx.x / 32, lane = threadIdx.x % 32;
  const int position = r.positions[row];  // there before the step's first kernel
  wait_for_previous();
  if (head >= r.heads + 2 * r.kv.kv_heads || position < 0) return;
  float* x = heads[threadIdx.x / 32];
  const int dim = r.kv.head_dim, width = r.kv.head_width;
  const std::int64_t from = static_cast<std::int64_t>(row) * r.stride + head * dim;
  const bool is_query = head < r.heads, is_value = head >= r.heads + r.kv.kv_heads;
  if (!is_query && r.pages[row] < 0) return;
  const float* norm = is_query ? r.q_norm : is_value ? nullptr : r.k_norm;
  float squares = 0;
  for (int i = lane; i < width; i += 32) {
    const float v = i < dim ? element_of(r.qkv, from + i, r.wide) : 0.0f;
    x[i] = v;
    squares += v * v;
  }
  if (norm != nullptr) {
    const float inverse = rsqrtf(warp_sum(squares) / static_cast<float>(dim) + r.eps);
    for (int i = lane; i < dim; i += 32) x[i] *= inverse * norm[i];
  }
  __syncwarp();
  if (!is_value && r.cos != nullptr) {
    const std::int64_t at = static_cast<std::int64_t>(row) * half;
    for (int i = lane; i < half; i += 32) {
      const float c = r.cos[at + i], s = r.sin[at + i], a = x[i], b = x[i + half];
      x[i] = a * c - b * s;
      x[i + half] = b * c + a * s;
    }
    __syncwarp();
  }
  if (is_query) {
    auto* to = static_cast<std::uint16_t*>(r.query) + (static_cast<std::int64_t>(row) * r.heads + head) * width;
    for (int i = lane; i < width; i += 32) to[i] = sixteen_of(attends_in_half(r.kv.format), x[i]);
    return;
  }
  const int kv_head = is_value ? head - r.heads - r.kv.kv_heads : head - r.heads;
  char* tile = kv_tile(r.kv, r.pages[row], r.layer, is_value, kv_head);
  const int slot = position % kPageTokens * width;
  float inverse = 1;
  if (r.kv.format == KvFormat::int8) {
    float top = 0;
    for (int i = lane; i < width; i += 32) top = fmaxf(top, magnitude_of(x[i]));
    inverse = keep_scale(r.kv, tile, position, top);
  }
  for (int i = lane; i < width; i += 32) store_kv(r.kv, tile, slot + i, x[i], inverse);
}

}  // namespace

cudaError_t settle(Queue queue, const Settle& s) {
  const std::size_t bytes = static_cast<std::size_t>(s.width) * 4;
  if (const auto status = allow_shared(settle_kernel, bytes); status != cudaSuccess) return status;
  return launch(queue, settle_kernel, static_cast<unsigned>(s.rows), kThreads, bytes, s);
}

cudaError_t embed_general(Queue queue, const EmbedGeneral& e) {
  return launch(queue, embed_general_kernel, static_cast<unsigned>(e.rows), kThreads, 0, e);
}

cudaError_t add_positions(Queue queue, const void* table, int stride, int offset, const std::int32_t* positions,
                          int width, int rows, float* hidden) {
  return launch(queue, positions_kernel, static_cast<unsigned>(rows), kThreads, 0, static_cast<const bf16*>(table),
                stride, offset, positions, width, hidden);
}

cudaError_t rotate_append_general(Queue queue, const RotateAppend& r, int half) {
  const int heads = r.heads + 2 * r.kv.kv_heads;
  if (r.kv.head_width > kHeadMax || 2 * half > r.kv.head_dim) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>((heads + kWarps - 1) / kWarps), static_cast<unsigned>(r.rows));
  return launch(queue, append_general_kernel, grid, kWarps * 32, 0, r, half);
}

cudaError_t activate(Queue queue, Activate kind, const Gate& a) {
  switch (kind) {
    case Activate::gelu_tanh_gate:
      return activate_of<Activate::gelu_tanh_gate>(queue, a);
    case Activate::silu_gate:
      return activate_of<Activate::silu_gate>(queue, a);
    case Activate::relu:
      return activate_of<Activate::relu>(queue, a);
    case Activate::gelu:
      return activate_of<Activate::gelu>(queue, a);
  }
  return cudaErrorInvalidValue;
}

cudaError_t correct_zeros(Queue queue, const Matrix& w, const void* x, int x_stride, int rows, void* y, int y_stride,
                          bool wide) {
  const dim3 grid(static_cast<unsigned>((w.rows + kThreads - 1) / kThreads), static_cast<unsigned>(rows));
  const std::size_t bytes = static_cast<std::size_t>(w.cols / w.group) * 4;
  return launch(queue, zeros_kernel, grid, kThreads, bytes, w, static_cast<const bf16*>(x), x_stride, y, y_stride,
                wide);
}

cudaError_t soft_cap(Queue queue, float* x, int stride, int width, int rows, float cap) {
  const dim3 grid(static_cast<unsigned>((width + kThreads - 1) / kThreads), static_cast<unsigned>(rows));
  return launch(queue, cap_kernel, grid, kThreads, 0, x, stride, width, cap);
}

}  // namespace ganglion::local::cuda
