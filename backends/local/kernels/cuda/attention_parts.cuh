#pragma once
// What the attention of many query rows consists of, wherever keys and values come from: tiles of 64 of them in shared
// memory, scores of 16 query rows a warp against them, online softmax, sums over the values. Device code only.

#include "backends/local/kernels/cuda/common.cuh"

namespace ganglion::local::cuda {

constexpr int kAttendWarps = 4;
constexpr int kKeys = 64;  // of one stage
constexpr float kLog2e = 1.4426950408889634f;

// Shared tiles are rows of Width elements in 16-byte chunks. Keys are read 64 bytes of two rows at a time, values
// 16 bytes of eight rows at a time; the chunks' places are mixed so that neither meets a bank twice.
template <int Width>
__device__ __forceinline__ int key_place(int token, int chunk) {
  // Rows of 96 elements lie half the banks apart already.
  return token * (Width / 8) + (Width % 64 == 0 ? chunk ^ ((token & 1) << 2) : chunk);
}
template <int Width>
__device__ __forceinline__ int value_place(int token, int chunk) {
  constexpr int kMask = Width % 64 == 0 ? 7 : 3;
  return token * (Width / 8) + (chunk ^ (token & kMask));
}

__device__ __forceinline__ void load_matrix_transposed(std::uint32_t (&out)[4], const uint4* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(at)));
}

// Query rows g and g + 8: in registers, or where heads are too wide for that, fetched for every stage.
template <int Width>
struct Query {
  static constexpr bool kHeld = Width <= 128;
  std::uint32_t held[kHeld ? Width / 32 : 1][2][4];
  const std::uint16_t* rows[2];  // bf16 or fp16

  __device__ __forceinline__ void load(int c, std::uint32_t (&q)[2][4]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint4 x = *reinterpret_cast<const uint4*>(rows[r] + 32 * c);
      q[r][0] = x.x, q[r][1] = x.y, q[r][2] = x.z, q[r][3] = x.w;
    }
  }
  __device__ __forceinline__ void get(int c, std::uint32_t (&q)[2][4]) const {
    if constexpr (kHeld) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) q[r][i] = held[c][r][i];
      }
    } else {
      load(c, q);
    }
  }
};

struct Scores {
  float scale, cap;  // base 2; cap 0: none
};

template <int Width>
struct State {
  Query<Width> q;
  float out[Width / 8][4] = {};
  float top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
};

// One stage: scores of 16 rows against 64 keys, softmax, and the sums over the values. `position`: the last key that
// row g sees, and row g + 8 eight more; not causal: that all rows see. Half: queries, keys and values are fp16.
template <int Width, bool Causal = true, bool Half = false>
__device__ __forceinline__ void attend_stage(State<Width>& s, const uint4* k, const uint4* v, int first, int position,
                                             int low_distance, bool mask, Scores scores) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  float p[kKeys / 8][4];
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) p[n][0] = p[n][1] = p[n][2] = p[n][3] = 0;
#pragma unroll
  for (int c = 0; c < Width / 32; ++c) {
    std::uint32_t q[2][4];
    s.q.get(c, q);
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
      const uint4 b = k[key_place<Width>(8 * n + g, 4 * c + t)];
      mma_as<Half>(p[n], q[0][0], q[1][0], q[0][1], q[1][1], b.x, b.y);
      mma_as<Half>(p[n], q[0][2], q[1][2], q[0][3], q[1][3], b.z, b.w);
    }
  }
  float best[2] = {s.top[0], s.top[1]};
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int token = first + 8 * n + 2 * t + i % 2, own = position + (Causal ? (i / 2) * 8 : 0);
      p[n][i] *= scores.scale;
      if (scores.cap > 0) p[n][i] = scores.cap * tanh_of(p[n][i]);
      if (mask && (token > own || token < own - low_distance)) p[n][i] = -INFINITY;
      best[i / 2] = fmaxf(best[i / 2], p[n][i]);
    }
  }
  float fade[2], shift[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    best[r] = fmaxf(best[r], __shfl_xor_sync(0xffffffffu, best[r], 1));
    best[r] = fmaxf(best[r], __shfl_xor_sync(0xffffffffu, best[r], 2));
    shift[r] = best[r] == -INFINITY ? 0.0f : best[r];  // a row that has seen no key yet
    fade[r] = exp2f(s.top[r] - shift[r]);
    s.top[r] = best[r];
    s.total[r] *= fade[r];
  }
#pragma unroll
  for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      p[n][i] = exp2f(p[n][i] - shift[i / 2]);
      s.total[i / 2] += p[n][i];
    }
  }
#pragma unroll
  for (int d = 0; d < Width / 8; ++d) {
    s.out[d][0] *= fade[0], s.out[d][1] *= fade[0], s.out[d][2] *= fade[1], s.out[d][3] *= fade[1];
  }
#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    const auto &left = p[2 * j], &right = p[2 * j + 1];
    const std::uint32_t a0 = pack_as<Half>(left[0], left[1]), a1 = pack_as<Half>(left[2], left[3]),
                        a2 = pack_as<Half>(right[0], right[1]), a3 = pack_as<Half>(right[2], right[3]);
    const int token = 16 * j + lane % 16;
#pragma unroll
    for (int d = 0; d < Width / 8; d += 2) {
      std::uint32_t b[4];
      load_matrix_transposed(b, v + value_place<Width>(token, d + lane / 16));
      mma_as<Half>(s.out[d], a0, a1, a2, a3, b[0], b[1]);
      mma_as<Half>(s.out[d + 1], a0, a1, a2, a3, b[2], b[3]);
    }
  }
}

}  // namespace ganglion::local::cuda
