#pragma once
// A product's activations on their way to shared memory, in the kernel that runs a whole decode step. Device code only.

#include "backends/local/kernels/cuda/step_hand.cuh"

namespace ganglion::local::cuda {
namespace step {

// Eight activations of a row as bytes of the two planes. int4: in the order in which its nibbles are taken out.
template <Format F>
__device__ __forceinline__ void planes_of(const float (&x)[8], float inverse, uint2& high, uint2& low) {
  std::uint32_t h[8], l[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    // 1.5 * 2^23: the rounded integer is in the lowest bits, in two's complement.
    l[i] = __float_as_uint(fmaf(x[i], inverse, 12582912.0f));
    h[i] = l[i] + 128;  // its second byte
  }
  const auto four = [](const std::uint32_t* v, int a, int b, int c, int d, int byte) {
    const std::uint32_t pick = byte == 0 ? 0x0040 : 0x0051;
    return __byte_perm(__byte_perm(v[a], v[b], pick), __byte_perm(v[c], v[d], pick), 0x5410);
  };
  if constexpr (F == Format::int4) {
    high = {four(h, 0, 4, 1, 5, 1), four(h, 2, 6, 3, 7, 1)};
    low = {four(l, 0, 4, 1, 5, 0), four(l, 2, 6, 3, 7, 0)};
  } else {
    high = {four(h, 0, 1, 2, 3, 1), four(h, 4, 5, 6, 7, 1)};
    low = {four(l, 0, 1, 2, 3, 0), four(l, 4, 5, 6, 7, 0)};
  }
}

// Puts eight activations of a row in their place; with planes, eight neighbouring lanes have a block of columns.
template <Format F>
__device__ __forceinline__ void place_x(uint4 v, char* x, int rows, int cols, int row, int column, float factor) {
  if constexpr (kPlanes<F>) {
    const float2 a = unpack(v.x), b = unpack(v.y), c = unpack(v.z), d = unpack(v.w);
    const float all[8] = {a.x, a.y, b.x, b.y, c.x, c.y, d.x, d.y};
    float top = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) top = fmaxf(top, magnitude_of(all[i]));
#pragma unroll
    for (int apart = 1; apart < 8; apart *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, apart));
    top = fmaxf(top, 1e-30f);
    uint2 high, low;
    planes_of<F>(all, kPlaneMost * __frcp_rn(top), high, low);
    if (row >= rows) return;
    char* to = x + 2 * row * (cols + kRowPad) + column;
    *reinterpret_cast<uint2*>(to) = high;
    *reinterpret_cast<uint2*>(to + cols + kRowPad) = low;
    if (column % kScaleBlock == 0) {
      reinterpret_cast<float*>(x + 2 * rows * (cols + kRowPad))[row * (cols / kScaleBlock) + column / kScaleBlock] =
          top * (1.0f / kPlaneMost);
    }
  } else {
    v = {half_of_bf16(v.x, factor), half_of_bf16(v.y, factor), half_of_bf16(v.z, factor), half_of_bf16(v.w, factor)};
    if (row < rows) *reinterpret_cast<uint4*>(x + row * (2 * cols + kRowPad) + 2 * column) = v;
  }
}

// Sums of a row's squares, as soon as they are there. One warp; one over the root mean square.
__device__ __forceinline__ float await_norm(const Product& p, int row) {
  const float* parts = p.squares + row * p.square_parts;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float sum = 0;
  for (int i = lane; i < p.square_parts; i += 256) {
    float some[8];
    bool all = false;
#pragma unroll 1
    for (int polls = 0; !all; ++polls) {
      if (polls == kPollsMax) __trap();
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        some[j] = 0;
        if (i + 32 * j < p.square_parts) {
          some[j] = __uint_as_float(load_shown(reinterpret_cast<const std::uint32_t*>(parts + i + 32 * j)));
        }
      }
      all = true;
#pragma unroll
      for (int j = 0; j < 8; ++j) all = all && !is_unset(some[j]);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += some[j];
  }
  __syncwarp();
  return rsqrtf(warp_sum(sum) / static_cast<float>(p.norm_width) + p.norm_eps);
}

// Brings a product's activations to shared memory, in the type that it wants, as soon as they are there. All consuming
// warps, behind Gate::wait().
template <Format F>
__device__ __noinline__ void fetch_x(int layer, int m) {
  const Product p = product_of(layer, m);
  char* x = shared_base() + shared().places.x;
  const int cols = p.w.cols, eights = columns_of(shared().step, m) / 8, warp = threadIdx.x / 32,
            lane = threadIdx.x % 32;
  const int whole = (cols / 8 + kConsumers - 1) / kConsumers * kConsumers;  // all lanes of a warp take every turn
  struct Turn {
    int row, i;
  };
  const auto advance = [&](Turn& turn) {
    turn.i += kConsumers;
    if (turn.i >= whole) turn = {turn.row + 1, static_cast<int>(threadIdx.x)};
  };
  Turn next{0, static_cast<int>(threadIdx.x)}, now = next;
  // What runs once a product is not in the instruction cache: the loads stand one behind another, as they must to be on
  // their way together, and what follows them is there once.
  constexpr int kAtOnce = 3;
  const uint4* at[kAtOnce];
  uint4 v[kAtOnce];
  const auto ask_all = [&] {
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      // Rows that only pad attend nothing.
      const bool any = next.row < p.rows && next.i < eights && (m != kOut || shared().positions[next.row] >= 0);
      at[j] = any ? reinterpret_cast<const uint4*>(static_cast<const bf16*>(p.x) +
                                                   static_cast<std::int64_t>(next.row) * p.x_stride + next.i * 8)
                  : nullptr;
      v[j] = {0, 0, 0, 0};
      if (any) v[j] = load_shown(at[j]);
      advance(next);
    }
  };
  const bool there = p.x == shared().step.normed;  // before this kernel
  const auto await_all = [&] {
    bool all = there;
#pragma unroll 1
    for (int polls = 0; !all; ++polls) {
      if (polls == kPollsMax) __trap();
      all = true;
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (!any_unset(v[j])) continue;  // nor where nothing was asked for
        v[j] = load_shown(at[j]);
        all = false;
      }
    }
    __syncwarp();
  };
  ask_all();
  if (p.squares != nullptr && warp < p.rows) {
    const float inverse = await_norm(p, warp);
    if (lane == 0) shared().inverse[warp] = inverse;
  }
  if (!kPlanes<F> && p.squares != nullptr) consumers_sync();
  await_all();
  while (true) {
#pragma unroll 1
    for (int j = 0; j < kAtOnce && now.row < p.rows; ++j) {
      const uint4 eight = j == 0 ? v[0] : j == 1 ? v[1] : v[2];
      const float factor = kPlanes<F> || p.squares == nullptr ? kLess : shared().inverse[now.row];
      place_x<F>(eight, x, p.rows, cols, now.i < cols / 8 ? now.row : p.rows, now.i * 8, factor);
      advance(now);
    }
    if (now.row >= p.rows) break;
    ask_all();
    await_all();
  }
  consumers_sync();
}

}  // namespace step
}  // namespace ganglion::local::cuda
