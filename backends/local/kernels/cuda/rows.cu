// Row-wise work around the products: embedding look-up with the step's rotary angles, residual sum with RMS
// normalisation, the gated activation, quantisation of activations to e4m3 or int8 with one scale a row, and what int8
// products stand for. One block a row.

#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/row_parts.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kThreads = kRowThreads;

__global__ void __launch_bounds__(kThreads) embed_kernel(Embed e) {
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.x, position = e.positions[row];
  const auto* from = static_cast<const bf16*>(e.table) + static_cast<std::int64_t>(e.tokens[row]) * e.stride;
  float* to = e.hidden + static_cast<std::int64_t>(row) * e.width;
  for (int i = threadIdx.x; i < e.width; i += kThreads) to[i] = position < 0 ? 0.0f : __bfloat162float(from[i]);
  for (int i = threadIdx.x; i < e.half; i += kThreads) {
    const float angle = static_cast<float>(max(position, 0)) * e.frequencies[i];
    float s, c;
    sincosf(angle, &s, &c);
    e.cos[row * e.half + i] = c;
    e.sin[row * e.half + i] = s;
  }
}

__global__ void __launch_bounds__(kThreads) normalise_kernel(Normalise n) {
  extern __shared__ float row[];
  __shared__ float reduce[32];
  let_next_start();
  wait_for_previous();
  const int index = blockIdx.x, source = n.pick != nullptr ? n.pick[index] : index;
  float* hidden = n.hidden + static_cast<std::int64_t>(source) * n.width;
  const std::int64_t add = static_cast<std::int64_t>(index) * n.add_stride;
  float squares = 0;
  if (n.width % 4 == 0) {
    for (int i = threadIdx.x; i < n.width / 4; i += kThreads) {
      float4 v = reinterpret_cast<const float4*>(hidden)[i];
      if (n.add != nullptr) {
        const float4 a = four_of(n.add, add / 4 + i, n.add_wide);
        v.x += a.x, v.y += a.y, v.z += a.z, v.w += a.w;
        reinterpret_cast<float4*>(hidden)[i] = v;
      }
      reinterpret_cast<float4*>(row)[i] = v;
      squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
  } else {
    for (int i = threadIdx.x; i < n.width; i += kThreads) {
      float v = hidden[i];
      if (n.add != nullptr) hidden[i] = v += element_of(n.add, add + i, n.add_wide);
      row[i] = v;
      squares += v * v;
    }
  }
  const float inverse = rsqrtf(block_reduce<false>(squares, reduce) / static_cast<float>(n.width) + n.eps);
  // Each thread goes on with what it wrote to `row` itself.
  float top = 0;
  if (n.width % 4 == 0) {
    for (int i = threadIdx.x; i < n.width / 4; i += kThreads) {
      float4& v = reinterpret_cast<float4*>(row)[i];
      const float4 w = reinterpret_cast<const float4*>(n.weight)[i];
      v.x *= inverse * w.x, v.y *= inverse * w.y, v.z *= inverse * w.z, v.w *= inverse * w.w;
      top = fmaxf(top, fmaxf(fmaxf(magnitude_of(v.x), magnitude_of(v.y)), fmaxf(magnitude_of(v.z), magnitude_of(v.w))));
      if (n.out_scales == nullptr) {
        reinterpret_cast<uint2*>(static_cast<bf16*>(n.out) + static_cast<std::int64_t>(index) * n.out_stride)[i] = {
            pack(v.x, v.y), pack(v.z, v.w)};
      }
    }
    if (n.out_scales == nullptr) return;
  } else {
    for (int i = threadIdx.x; i < n.width; i += kThreads) {
      const float v = row[i] * inverse * n.weight[i];
      row[i] = v;
      top = fmaxf(top, magnitude_of(v));
    }
  }
  if (n.out_scales != nullptr) top = block_reduce<true>(top, reduce);
  __syncthreads();
  write_row(row, n.width, top, n.out, n.out_stride, n.out_scales, index, n.int8);
}

__global__ void __launch_bounds__(kThreads) gate_kernel(Gate a) {
  extern __shared__ float row[];
  __shared__ float reduce[32];
  let_next_start();
  wait_for_previous();
  const int index = blockIdx.x;
  const auto* from = static_cast<const bf16*>(a.gate_up) + static_cast<std::int64_t>(index) * a.in_stride;
  float top = 0;
  for (int i = threadIdx.x; i < (a.width + 7) / 8; i += kThreads) {
    const uint4 gates = reinterpret_cast<const uint4*>(from)[2 * i],
                ups = reinterpret_cast<const uint4*>(from)[2 * i + 1];
    const std::uint32_t gw[4] = {gates.x, gates.y, gates.z, gates.w}, uw[4] = {ups.x, ups.y, ups.z, ups.w};
    float v[8];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float2 g = unpack(gw[j]), u = unpack(uw[j]);
      v[2 * j] = g.x / (1.0f + __expf(-g.x)) * u.x;
      v[2 * j + 1] = g.y / (1.0f + __expf(-g.y)) * u.y;
    }
    if (a.out_scales == nullptr && 8 * i + 8 <= a.width) {
      reinterpret_cast<uint4*>(static_cast<bf16*>(a.out) + static_cast<std::int64_t>(index) * a.out_stride)[i] = {
          pack(v[0], v[1]), pack(v[2], v[3]), pack(v[4], v[5]), pack(v[6], v[7])};
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float v0 = v[2 * j], v1 = v[2 * j + 1];
      if (8 * i + 2 * j < a.width) row[8 * i + 2 * j] = v0, top = fmaxf(top, magnitude_of(v0));
      if (8 * i + 2 * j + 1 < a.width) row[8 * i + 2 * j + 1] = v1, top = fmaxf(top, magnitude_of(v1));
    }
  }
  if (a.out_scales == nullptr && a.width % 8 == 0) return;
  if (a.out_scales != nullptr) top = block_reduce<true>(top, reduce);
  __syncthreads();
  write_row(row, a.width, top, a.out, a.out_stride, a.out_scales, index, a.int8);
}

__global__ void __launch_bounds__(kThreads)
    quantise_kernel(const bf16* x, int stride, int width, void* out, int out_stride, float* scales, bool int8) {
  extern __shared__ float row[];
  __shared__ float reduce[32];
  wait_for_previous();
  // The next kernel may start only now: it may be a product whose blocks take a multiprocessor's shared memory each,
  // and attention, which is before this, has blocks that still want some.
  let_next_start();
  const int index = blockIdx.x;
  const bf16* from = x + static_cast<std::int64_t>(index) * stride;
  float top = 0;
  for (int i = threadIdx.x; i < width; i += kThreads) {
    const float v = __bfloat162float(from[i]);
    row[i] = v;
    top = fmaxf(top, magnitude_of(v));
  }
  top = block_reduce<true>(top, reduce);
  write_row(row, width, top, out, out_stride, scales, index, int8);
}

__global__ void __launch_bounds__(kThreads) bias_kernel(const bf16* bias, int width, void* y, int stride, bool wide) {
  let_next_start();
  wait_for_previous();
  for (int i = threadIdx.x; i < width; i += kThreads) {
    add_to(y, static_cast<std::int64_t>(blockIdx.x) * stride + i, __bfloat162float(bias[i]), wide);
  }
}

// A thread takes four columns of a row.
__global__ void __launch_bounds__(kThreads) rescale_kernel(Rescale s) {
  let_next_start();
  wait_for_previous();
  const int row = blockIdx.y, i = blockIdx.x * kThreads + threadIdx.x;
  if (4 * i >= s.cols) return;
  const int4 sum = reinterpret_cast<const int4*>(s.sums + static_cast<std::int64_t>(row) * s.cols)[i];
  const float4 w = reinterpret_cast<const float4*>(s.w_scales)[i];
  const float x = s.x_scales[row];
  float4 v = {static_cast<float>(sum.x) * x * w.x, static_cast<float>(sum.y) * x * w.y,
              static_cast<float>(sum.z) * x * w.z, static_cast<float>(sum.w) * x * w.w};
  if (s.bias != nullptr) {
    const uint2 b = reinterpret_cast<const uint2*>(s.bias)[i];
    const float2 low = unpack(b.x), high = unpack(b.y);
    v.x += low.x, v.y += low.y, v.z += high.x, v.w += high.y;
  }
  const std::int64_t at = static_cast<std::int64_t>(row) * s.y_stride;
  if (s.wide) {
    reinterpret_cast<float4*>(static_cast<float*>(s.y) + at)[i] = v;
  } else {
    reinterpret_cast<uint2*>(static_cast<bf16*>(s.y) + at)[i] = {pack(v.x, v.y), pack(v.z, v.w)};
  }
}

}  // namespace

cudaError_t embed(Queue queue, const Embed& e) {
  return launch(queue, embed_kernel, static_cast<unsigned>(e.rows), kThreads, 0, e);
}

cudaError_t normalise(Queue queue, const Normalise& n) {
  const std::size_t bytes = static_cast<std::size_t>(n.width) * 4;
  if (const auto status = allow_shared(normalise_kernel, bytes); status != cudaSuccess) return status;
  return launch(queue, normalise_kernel, static_cast<unsigned>(n.rows), kThreads, bytes, n);
}

cudaError_t gate(Queue queue, const Gate& a) {
  const std::size_t bytes = static_cast<std::size_t>(padded(a.width, 8)) * 4;
  if (const auto status = allow_shared(gate_kernel, bytes); status != cudaSuccess) return status;
  return launch(queue, gate_kernel, static_cast<unsigned>(a.rows), kThreads, bytes, a);
}

cudaError_t quantise_rows(Queue queue, const void* x, int stride, int width, int rows, void* out, int out_stride,
                          float* scales, bool int8) {
  const std::size_t bytes = static_cast<std::size_t>(width) * 4;
  if (const auto status = allow_shared(quantise_kernel, bytes); status != cudaSuccess) return status;
  return launch(queue, quantise_kernel, static_cast<unsigned>(rows), kThreads, bytes, static_cast<const bf16*>(x),
                stride, width, out, out_stride, scales, int8);
}

cudaError_t add_bias(Queue queue, const void* bias, int width, int rows, void* y, int y_stride, bool wide) {
  return launch(queue, bias_kernel, static_cast<unsigned>(rows), kThreads, 0, static_cast<const bf16*>(bias), width, y,
                y_stride, wide);
}

cudaError_t rescale(Queue queue, const Rescale& s) {
  if (s.cols % 4 != 0 || s.y_stride % 4 != 0) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>((s.cols / 4 + kThreads - 1) / kThreads), static_cast<unsigned>(s.rows));
  return launch(queue, rescale_kernel, grid, kThreads, 0, s);
}

}  // namespace ganglion::local::cuda
