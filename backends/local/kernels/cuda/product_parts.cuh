#pragma once
// What the two streaming products share: a lane's share of one step of the weights, its product with activation
// fragments, and what becomes of a finished sum. Device code only.

#include <cuda_fp16.h>

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::local::cuda {

constexpr int kStepBytes = 64;  // of one weight row, per warp and step

template <Format F>
constexpr int kStepColumns = F == Format::bf16   ? 32
                             : F == Format::int4 ? 128
                                                 : 64;
template <Format F>
constexpr int kStepWords = kStepColumns<F> / 8;  // of activations, per lane, step and tile of eight rows

// How a lane walks through a row block's weights: from one step to the next, and from row g to g + 8, in bytes. int4 is
// in tiles, of which lane 4g + t has the 16 bytes of that number.
template <Format F>
constexpr bool kTiled = F == Format::int4;
template <Format F>
constexpr int kNextStep = kTiled<F> ? kRowBlock * kStepBytes : kStepBytes;
template <Format F>
__device__ __forceinline__ std::int64_t eighth_row(std::int64_t row_bytes) {
  return 8 * (kTiled<F> ? kStepBytes : row_bytes);
}
template <Format F>
__device__ __forceinline__ const char* lane_weights(const void* data, int panel, std::int64_t row_bytes) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  return static_cast<const char*>(data) + panel * kRowBlock * row_bytes + g * (kTiled<F> ? kStepBytes : row_bytes) +
         t * 16;
}

struct Weights {
  uint4 low, high;         // rows g and g + 8 of the block
  std::uint32_t scale[2];  // int4: halves for rows g and g + 8, of the step's two groups of 64 columns
};

// The scales of a row and of the eighth after it.
__device__ __forceinline__ std::uint32_t half_pair(const __half* scales) {
  const auto* s = reinterpret_cast<const unsigned short*>(scales);
  return static_cast<std::uint32_t>(s[0]) | static_cast<std::uint32_t>(s[8]) << 16;
}
__device__ __forceinline__ float2 halves(std::uint32_t v) {
  return __half22float2(*reinterpret_cast<const __half2*>(&v));
}

template <Format F>
__device__ __forceinline__ void multiply_word(float (&acc)[4], std::uint32_t low, std::uint32_t high,
                                              const std::uint32_t* x) {
  if constexpr (F == Format::int8) {
    mma(acc, bf16_of_int8<0>(low), bf16_of_int8<0>(high), bf16_of_int8<1>(low), bf16_of_int8<1>(high), x[0], x[1]);
  } else {
    mma(acc, bf16_of_fp8<0>(low), bf16_of_fp8<0>(high), bf16_of_fp8<1>(low), bf16_of_fp8<1>(high), x[0], x[1]);
  }
}

// Activations of one lane for one step and tile of eight rows.
template <Format F>
__device__ __forceinline__ void load_x(const bf16* x, bool valid, std::uint32_t* out) {
  constexpr int kLoads = kStepColumns<F> / 32;
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    // int4: a lane's 32 columns are 16 of each half of the step.
    const int offset = F == Format::int4 ? (i / 2) * 64 + (i % 2) * 8 : i * 8;
    uint4 v = {0, 0, 0, 0};
    if (valid) v = *reinterpret_cast<const uint4*>(x + offset);
    out[4 * i] = v.x, out[4 * i + 1] = v.y, out[4 * i + 2] = v.z, out[4 * i + 3] = v.w;
  }
}

// acc += the step's weights times one tile of eight activation rows.
template <Format F>
__device__ __forceinline__ void multiply_tile(const Weights& w, const std::uint32_t* x, float (&acc)[4]) {
  const std::uint32_t low[4] = {w.low.x, w.low.y, w.low.z, w.low.w};
  const std::uint32_t high[4] = {w.high.x, w.high.y, w.high.z, w.high.w};
  if constexpr (F == Format::bf16) {
    mma(acc, low[0], high[0], low[1], high[1], x[0], x[1]);
    mma(acc, low[2], high[2], low[3], high[3], x[2], x[3]);
  } else if constexpr (F == Format::int4) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum[4] = {0, 0, 0, 0};
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        mma(sum, bf16_of_int4<0>(low[i]), bf16_of_int4<0>(high[i]), bf16_of_int4<1>(low[i]), bf16_of_int4<1>(high[i]),
            x[4 * i], x[4 * i + 1]);
        mma(sum, bf16_of_int4<2>(low[i]), bf16_of_int4<2>(high[i]), bf16_of_int4<3>(low[i]), bf16_of_int4<3>(high[i]),
            x[4 * i + 2], x[4 * i + 3]);
      }
      const float2 s = halves(w.scale[half]);
      acc[0] += s.x * sum[0], acc[1] += s.x * sum[1];
      acc[2] += s.y * sum[2], acc[3] += s.y * sum[3];
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) multiply_word<F>(acc, low[i], high[i], x + 2 * i);
  }
}

// The same for int8 and int4 with activations in fp16.
template <Format F>
__device__ __forceinline__ void multiply_tile_half(const Weights& w, const std::uint32_t* x, float (&acc)[4]) {
  const std::uint32_t low[4] = {w.low.x, w.low.y, w.low.z, w.low.w};
  const std::uint32_t high[4] = {w.high.x, w.high.y, w.high.z, w.high.w};
  if constexpr (F == Format::int8) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::uint32_t a = low[i] ^ 0x80808080u, b = high[i] ^ 0x80808080u;
      mma_half(acc, half_of_int8<0>(a), half_of_int8<0>(b), half_of_int8<1>(a), half_of_int8<1>(b), x[2 * i],
               x[2 * i + 1]);
    }
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum[4] = {0, 0, 0, 0};
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        const std::uint32_t a = low[i], b = high[i], c = a >> 8, d = b >> 8;
        mma_half(sum, half_of_int4<false>(a), half_of_int4<false>(b), half_of_int4<true>(a), half_of_int4<true>(b),
                 x[4 * i], x[4 * i + 1]);
        mma_half(sum, half_of_int4<false>(c), half_of_int4<false>(d), half_of_int4<true>(c), half_of_int4<true>(d),
                 x[4 * i + 2], x[4 * i + 3]);
      }
      const float2 s = halves(w.scale[half]);
      acc[0] += s.x * sum[0], acc[1] += s.x * sum[1];
      acc[2] += s.y * sum[2], acc[3] += s.y * sum[3];
    }
  }
}

// Two bf16 as fp16, times `factor`: no further from zero than fp16 goes; what is not a number stays that.
__device__ __forceinline__ std::uint32_t half_of_bf16(std::uint32_t v, float factor) {
  const __half2 most = __half2half2(__ushort_as_half(0x7bff)), least = __hneg2(most);  // 65504
  const float2 f = unpack(v);
  const __half2 h = __hmin2_nan(__hmax2_nan(__floats2half2_rn(f.x * factor, f.y * factor), least), most);
  return *reinterpret_cast<const std::uint32_t*>(&h);
}

// One over the root mean square of activation row `row`, from its partial sums of squares. One warp.
__device__ __forceinline__ float inverse_norm(const Product& p, int row) {
  float sum = 0;
  for (int i = threadIdx.x % 32; i < p.square_parts; i += 32) sum += p.squares[row * p.square_parts + i];
  return rsqrtf(warp_sum(sum) / static_cast<float>(p.norm_width) + p.norm_eps);
}

// What finishing one output needs besides its sum; fetched early where the kernel can.
struct Operands {
  float scale = 1, bias = 0, hidden = 0, norm = 0;
};

template <Format F>
__device__ __forceinline__ Operands operands_of(const Product& p, int panel, int r, int n) {
  Operands out;
  const int row = panel * kRowBlock + r;
  if constexpr (F == Format::int8 || F == Format::fp8) out.scale = static_cast<const float*>(p.w.scales)[row];
  if (p.w.bias != nullptr) out.bias = __bfloat162float(static_cast<const bf16*>(p.w.bias)[row]);
  if (p.epilogue == Epilogue::residual && n < p.rows && row < p.y_cols) {
    out.hidden = p.hidden[static_cast<std::int64_t>(n) * p.y_cols + row];
    out.norm = p.next_norm[row];
  }
  return out;
}

// `v`: output (row r of the block, activation row n), scaled and normalised; lanes of a half-warp hold r = 0..15 of one
// n. All lanes call it. `Pairs`: bf16 goes out two neighbours at a time, as accesses of one size are what memory
// orders; all columns and strides are even.
template <bool Pairs = false>
__device__ __forceinline__ void finish(const Product& p, int panel, int r, int n, float v, const Operands& o) {
  const int row = panel * kRowBlock + r;
  int column = row;
  v += o.bias;
  const float up = __shfl_down_sync(0xffffffffu, v, 8, 16);
  bool valid = n < p.rows;
  if (p.epilogue == Epilogue::silu_gate) {
    v = __fdividef(v, 1.0f + __expf(-v)) * up;
    column = panel * 8 + r;
    valid = valid && r < 8;
  }
  valid = valid && column < p.y_cols;
  float square = 0;
  if (p.epilogue == Epilogue::residual) {
    v += o.hidden;
    if (valid) p.hidden[static_cast<std::int64_t>(n) * p.y_cols + row] = v, square = v * v;
    v *= o.norm;
  }
  if (p.epilogue == Epilogue::store_f32) {
    if (valid) static_cast<float*>(p.y)[static_cast<std::int64_t>(n) * p.y_stride + row] = v;
    return;
  }
  auto* to = static_cast<bf16*>(p.y) + static_cast<std::int64_t>(n) * p.y_stride + column;
  if constexpr (Pairs) {
    const float second = __shfl_down_sync(0xffffffffu, v, 1, 16);
    if (valid && r % 2 == 0) store_shown(reinterpret_cast<std::uint32_t*>(to), pack(v, second));
  } else if (valid) {
    *to = __float2bfloat16(v);
  }
  if (p.epilogue != Epilogue::residual) return;
#pragma unroll
  for (int d = 8; d > 0; d /= 2) square += __shfl_xor_sync(0xffffffffu, square, d, 16);
  if (r == 0 && n < p.rows) store_shown(p.next_squares + n * (p.w.rows / kRowBlock) + panel, square);
}

}  // namespace ganglion::local::cuda
