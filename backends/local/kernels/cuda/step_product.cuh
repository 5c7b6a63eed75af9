#pragma once
// The three roles' part in one product of the kernel that runs a whole decode step: bringing weights, multiplying them,
// and making sums whole. Device code only.

#include "backends/local/kernels/cuda/step_hand.cuh"

namespace ganglion::local::cuda {
namespace step {

// One producing thread of kProducers: a whole stage whenever it is its turn. Its copies' operands are uniform in the
// warp, as the instruction wants them; lanes with a copy each would take turns. `turn`: stages until this one's next.
// `word`: the place, with `turn` in the upper half.
template <Format F, int D>
__device__ __noinline__ unsigned produce(unsigned word, int layer, int m) {
  const Share share(m);
  const auto bytes = [](const void* p) { return static_cast<const char*>(p); };
  const char* data = bytes(m == kHead ? matrix_of(m).data : layer_of(layer).data[m]);
  const char* all_scales = bytes(m == kHead ? matrix_of(m).scales : layer_of(layer).scales[m]);
  const std::uint64_t policy = cache_policy<true>();
  const int row_bytes = static_cast<int>(matrix_bytes(F, 1, share.cols)), stages = shared().places.stages;
  const int stage_bytes = shared().places.stage_bytes, asked = shared().places.asked;
  const std::uint32_t base = shared_address(shared_base()) + kRing, full_at = shared_address(shared().full),
                      empty_at = shared_address(shared().empty);
  constexpr bool kScaled = F == Format::int4;
  const int panel_scales = kScaled ? share.cols / share.group * kRowBlock * 2 : 0;
  constexpr int kRowBytes = Stage<D>::kRowBytes, kPitch = Stage<D>::kPitch;  // the latter: where it copies rows
  const int stage_scales = kScaled ? kRowBytes * 2 / share.group * kRowBlock * 2 : 0;
  Place place(word & 0xffff);
  int turn = static_cast<int>(word >> 16);
  for (int panel = share.first; panel < share.panels; panel += gridDim.x) {
    const char* from = data + static_cast<std::int64_t>(panel) * kRowBlock * row_bytes;
    const char* scales = all_scales + static_cast<std::int64_t>(panel) * panel_scales;
    for (int at = 0, scales_at = 0; at < row_bytes; at += kRowBytes, scales_at += stage_scales) {
      if (turn == 0) {
        const std::uint32_t full = full_at + 8 * place.slot, to = base + place.slot * stage_bytes;
        const int copied = min(kRowBytes, row_bytes - at);
        const int scale_bytes = kScaled ? min(stage_scales, panel_scales - scales_at) : 0;
        const std::uint32_t empty = empty_at + 8 * place.slot;
        barrier_wait(empty, place.parity ^ 1);  // at once where nobody has filled it yet
        // Until the stage so many before has come. Where its place has been filled anew since, by a producer that is
        // ahead, consumers are through with it.
        const auto wait_for = [&](int back) {
          const int before = place.slot - back, wraps = before < 0 ? 1 : 0;
          const std::uint32_t there = 8 * (before + wraps * stages);
          while (!barrier_passed(full_at + there, place.parity ^ wraps) &&
                 !barrier_passed(empty_at + there, place.parity ^ wraps)) {
          }
        };
        if (asked > 0) wait_for(asked);
        barrier_expect(full, kRowBlock * copied + scale_bytes);
        if constexpr (kTiled<F>) {
          const int half = kRowBlock / 2 * copied;
          copy_bulk(to, from + kRowBlock * at, half, full, policy);
          if (asked > 1) wait_for(asked - 1);
          copy_bulk(to + half, from + kRowBlock * at + half, half, full, policy);
        } else {
#pragma unroll
          for (int row = 0; row < kRowBlock; ++row) {
            copy_bulk(to + row * kPitch, from + static_cast<std::int64_t>(row) * row_bytes + at, copied, full, policy);
          }
        }
        if (kScaled) copy_bulk(to + Stage<D>::kScales, scales + scales_at, scale_bytes, full, policy);
        turn = kProducers;
      }
      --turn;
      place.next_stage(stages);
    }
  }
  return place.word() | static_cast<unsigned>(turn) << 16;
}

// Of one step of a warp. `at`: the lane's first bytes in the stage; int4: `scales` of the lane's row, at both groups.
template <Format F, int D>
__device__ __forceinline__ Weights load_shared(const char* at, const __half* scales0, const __half* scales1) {
  Weights out;
  out.low = *reinterpret_cast<const uint4*>(at);
  out.high = *reinterpret_cast<const uint4*>(at + 8 * kLanePitch<F, D>);
  if constexpr (F == Format::int4) out.scale[0] = half_pair(scales0), out.scale[1] = half_pair(scales1);
  return out;
}

__device__ __forceinline__ void multiply_fp8_half(const Weights& w, const std::uint32_t* x, float (&acc)[4]) {
  const std::uint32_t low[4] = {w.low.x, w.low.y, w.low.z, w.low.w};
  const std::uint32_t high[4] = {w.high.x, w.high.y, w.high.z, w.high.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    mma_half(acc, half_of_fp8<0>(low[i]), half_of_fp8<0>(high[i]), half_of_fp8<1>(low[i]), half_of_fp8<1>(high[i]),
             x[2 * i], x[2 * i + 1]);
  }
}

// Where a lane's activations begin in shared memory, and a step's distance from the one before.
template <Format F>
struct LaneX {
  const char* from;
  const float* scales;  // planes: of the lane's activation row
  bool mine;
  __device__ __forceinline__ LaneX(const char* x, int rows, int cols) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    if constexpr (kPlanes<F>) {
      mine = g < 2 * rows;
      from = x + (mine ? g : 0) * (cols + kRowPad) + 16 * t + warp * kStepColumns<F>;
      scales = reinterpret_cast<const float*>(x + 2 * rows * (cols + kRowPad)) +
               min(t, rows - 1) * (cols / kScaleBlock) + warp * (kStepColumns<F> / kScaleBlock);
    } else {
      mine = g < rows;
      from = x + (mine ? g : 0) * (2 * cols + kRowPad) + t * 32 + warp * kStepColumns<F> * 2;
      scales = nullptr;
    }
  }
  static constexpr int kNext = kWarps * kStepColumns<F> * (kPlanes<F> ? 1 : 2);
};

// c[16x8] += a[16x32] b[32x8] in integers. As mma(), with four bytes where that has two elements: a0, a1: rows g and
// g + 8, columns 4t to 4t+3; a2, a3: columns + 16; b0, b1: likewise of column g.
__device__ __forceinline__ void mma_int8(int (&c)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                                         std::uint32_t a3, std::uint32_t b0, std::uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// The value of both planes: c0 and c1 of rows g, c2 and c3 of rows g + 8. 64 columns fit: 64 * 127 * 128 * 256 < 2^31.
__device__ __forceinline__ float plane_sum(int high, int low) {
  return static_cast<float>(high * 256 + low);
}
// Nibbles 0, 2, 4, 6 of `w`, less 8, each times 16, as int8; Odd: nibbles 1, 3, 5, 7.
template <bool Odd>
__device__ __forceinline__ std::uint32_t int8_of_int4(std::uint32_t w) {
  std::uint32_t out;  // (w & mask) ^ sign in one instruction
  asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(out) : "r"(Odd ? w : w << 4), "r"(0xf0f0f0f0u), "r"(0x80808080u));
  return out;
}

// acc: (row g, activation row t) and (row g + 8, activation row t). `x`: of one half (int4), or of the step.
template <Format F>
__device__ __forceinline__ void multiply_planes(const Weights& w, const uint4* x, const float* scales,
                                                float (&acc)[2]) {
  if constexpr (F == Format::int8) {
    int c[4] = {0, 0, 0, 0};
    mma_int8(c, w.low.x, w.high.x, w.low.y, w.high.y, x[0].x, x[0].y);
    mma_int8(c, w.low.z, w.high.z, w.low.w, w.high.w, x[0].z, x[0].w);
    acc[0] += scales[0] * plane_sum(c[0], c[1]);
    acc[1] += scales[0] * plane_sum(c[2], c[3]);
  } else {
    const std::uint32_t low[4] = {w.low.x, w.low.y, w.low.z, w.low.w};
    const std::uint32_t high[4] = {w.high.x, w.high.y, w.high.z, w.high.w};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int c[4] = {0, 0, 0, 0};
      const std::uint32_t b[4] = {x[half].x, x[half].y, x[half].z, x[half].w};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const std::uint32_t u = low[2 * half + i], v = high[2 * half + i];
        mma_int8(c, int8_of_int4<false>(u), int8_of_int4<false>(v), int8_of_int4<true>(u), int8_of_int4<true>(v),
                 b[2 * i], b[2 * i + 1]);
      }
      const float2 s = halves(w.scale[half]);
      acc[0] += s.x * scales[half] * plane_sum(c[0], c[1]);
      acc[1] += s.y * scales[half] * plane_sum(c[2], c[3]);
    }
  }
}

// One consuming warp.
template <Format F, int D>
__device__ __noinline__ unsigned consume(unsigned word, int m) {
  const Share share(m);
  constexpr int kPieces = F == Format::int4 ? 2 : 1;  // of a step, with planes
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int row_bytes = static_cast<int>(matrix_bytes(F, 1, share.cols)), steps = row_bytes / kStepBytes;
  const int rows = shared().step.rows, pitch = sum_pitch(rows), stages = shared().places.stages;
  const int stage_bytes = shared().places.stage_bytes;
  float* sums = reinterpret_cast<float*>(shared_base() + shared().places.sums) + (warp * kRowBlock + g) * pitch;
  const std::uint32_t full_at = shared_address(shared().full), empty_at = shared_address(shared().empty);
  const LaneX<F> x(shared_base() + shared().places.x, rows, share.cols);
  Place place(word);
  // int4: where a step's scales are among the stage's; the same in all stages.
  const int column = warp * kStepColumns<F>, group = F == Format::int4 ? share.group : 1;
  const int scales0 = column / group * kRowBlock, scales1 = (column + 64) / group * kRowBlock;
  const int next_scales = kWarps * kStepColumns<F> / group * kRowBlock;
  const char* mine = shared_base() + kRing + g * kLanePitch<F, D> + warp * kNextStep<F> + t * 16;
  const auto* scales_base = reinterpret_cast<const __half*>(shared_base() + kRing + Stage<D>::kScales) + g;
  for (int panel = share.first; panel < share.panels; panel += gridDim.x) {
    float acc[4] = {0, 0, 0, 0}, planes[2] = {0, 0};
    const char* from = x.from;
    const float* scales_at = x.scales;
    for (int first = 0; first < steps; first += D * kWarps) {
      uint4 eights[D][kPieces] = {};
      float scales[D][kPieces] = {};
      std::uint32_t words[D][kPlanes<F> ? 1 : kStepWords<F>];
#pragma unroll
      for (int d = 0; d < D; ++d) {
        const bool any = first + d * kWarps + warp < steps;
        if constexpr (kPlanes<F>) {
#pragma unroll
          for (int i = 0; i < kPieces; ++i) {
            if (x.mine && any) eights[d][i] = *reinterpret_cast<const uint4*>(from + i * kScaleBlock);
            if (any) scales[d][i] = scales_at[i];
          }
          scales_at += kWarps * kPieces;
        } else {
          load_x<F>(reinterpret_cast<const bf16*>(from), x.mine && any, words[d]);
        }
        from += x.kNext;
      }
      barrier_wait(full_at + 8 * place.slot, place.parity);
      Weights w[D] = {};
#pragma unroll
      for (int d = 0; d < D; ++d) {
        if (kArrivals > 1 && first + d * kWarps + warp >= steps) break;  // racecheck sees what lies there
        const int stage = place.slot * stage_bytes;
        const auto* stage_scales = scales_base + stage / 2 + d * next_scales;
        w[d] =
            load_shared<F, D>(mine + stage + d * kWarps * kNextStep<F>, stage_scales + scales0, stage_scales + scales1);
      }
      warp_arrive(empty_at + 8 * place.slot);
      place.next_stage(stages);
#pragma unroll
      for (int d = 0; d < D; ++d) {
        if (first + d * kWarps + warp >= steps) break;  // past the row's end: what lies there is older
        if constexpr (kPlanes<F>) {
          multiply_planes<F>(w[d], eights[d], scales[d], planes);
        } else {
          multiply_fp8_half(w[d], words[d], acc);
        }
      }
    }
    barrier_wait(shared_address(shared().sums_empty) + 8 * place.buffer, place.sums_parity ^ 1);
    float* out = sums + place.buffer * (kWarps * kRowBlock) * pitch;
    if constexpr (kPlanes<F>) {
      if (t < rows) out[t] = planes[0], out[8 * pitch + t] = planes[1];
    } else {
      if (2 * t < rows) out[2 * t] = acc[0], out[8 * pitch + 2 * t] = acc[2];
      if (2 * t + 1 < rows) out[2 * t + 1] = acc[1], out[8 * pitch + 2 * t + 1] = acc[3];
    }
    warp_arrive(shared_address(shared().sums_full) + 8 * place.buffer);
    place.next_sums();
  }
  return place.word();
}

// The same for int4 weights and one row, which leaves six of a tensor-core product's eight columns free: the four
// pieces of 64 columns that a warp has of a stage get two columns each, and lane t has the sums of piece t in the end.
// So what makes floats of integers and scales them, more than the products themselves, is done once a stage and not
// four times.
template <Format F>
__device__ __noinline__ unsigned consume_row(unsigned word, int m) {
  const Share share(m);
  static_assert(F == Format::int4);
  constexpr int D = kDepth<F>, kPieces = 2 * D, kSteps = D * kWarps;
  static_assert(kPieces == 4);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int steps = static_cast<int>(matrix_bytes(F, 1, share.cols)) / kStepBytes, stages = shared().places.stages;
  const int stage_bytes = shared().places.stage_bytes;
  float* sums = reinterpret_cast<float*>(shared_base() + shared().places.sums) + warp * kRowBlock + g;
  const std::uint32_t full_at = shared_address(shared().full), empty_at = shared_address(shared().empty);
  Place place(word);
  const auto column_of = [&](int piece) {  // in a row's first stage
    return (piece / 2 * kWarps + warp) * kStepColumns<F> + piece % 2 * kScaleBlock;
  };
  // Lanes of column g bring piece g / 2 of the plane g % 2 and zeros for the other pieces.
  const char* x = shared_base() + shared().places.x;
  const char* x_from = x + g % 2 * (share.cols + kRowPad) + column_of(g / 2) + 16 * t;
  const float* x_scales = reinterpret_cast<const float*>(x + 2 * (share.cols + kRowPad)) + column_of(t) / kScaleBlock;
  const char* mine = shared_base() + kRing + g * kLanePitch<F, D> + warp * kNextStep<F> + t * 16;
  const auto* scales = reinterpret_cast<const __half*>(shared_base() + kRing + Stage<D>::kScales) +
                       column_of(t) / share.group * kRowBlock + g;
  const bool one_stage = steps <= kSteps;  // the same activations for every row block
  uint4 b[kPieces] = {};
  float x_scale = 0;
  for (int panel = share.first; panel < share.panels; panel += gridDim.x) {
    float acc[2] = {0, 0};
    for (int first = 0; first < steps; first += kSteps) {
      const bool counts = first + t / 2 * kWarps + warp < steps;  // the lane's piece is within the row
      if (!one_stage || panel == share.first) {
        uint4 v = {0, 0, 0, 0};
        if (first + g / 4 * kWarps + warp < steps) {
          v = *reinterpret_cast<const uint4*>(x_from + first * kStepColumns<F>);
        }
#pragma unroll
        for (int j = 0; j < kPieces; ++j) {  // not b[g / 2] = v: an index that is not known puts b in local memory
          const bool own = g / 2 == j;
          b[j] = {own ? v.x : 0, own ? v.y : 0, own ? v.z : 0, own ? v.w : 0};
        }
        if (counts) x_scale = x_scales[first * (kStepColumns<F> / kScaleBlock)];
      }
      barrier_wait(full_at + 8 * place.slot, place.parity);
      const int stage = place.slot * stage_bytes;
      uint4 low[D] = {}, high[D] = {};
#pragma unroll
      for (int d = 0; d < D; ++d) {
        if (kArrivals > 1 && first + d * kWarps + warp >= steps) break;  // racecheck sees what lies there
        const char* at = mine + stage + d * kWarps * kNextStep<F>;
        low[d] = *reinterpret_cast<const uint4*>(at);
        high[d] = *reinterpret_cast<const uint4*>(at + 8 * kLanePitch<F, D>);
      }
      float factor[2] = {0, 0};
      if (counts) {
        factor[0] = x_scale * __half2float(scales[stage / 2]);
        factor[1] = x_scale * __half2float(scales[stage / 2 + 8]);
      }
      warp_arrive(empty_at + 8 * place.slot);
      place.next_stage(stages);
      int c[D][4] = {};
#pragma unroll
      for (int d = 0; d < D; ++d) {
        if (first + d * kWarps + warp >= steps) break;  // past the row's end: what lies there is older
        const std::uint32_t us[4] = {low[d].x, low[d].y, low[d].z, low[d].w};
        const std::uint32_t vs[4] = {high[d].x, high[d].y, high[d].z, high[d].w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const uint4 eight = b[2 * d + i / 2];
          mma_int8(c[d], int8_of_int4<false>(us[i]), int8_of_int4<false>(vs[i]), int8_of_int4<true>(us[i]),
                   int8_of_int4<true>(vs[i]), i % 2 == 0 ? eight.x : eight.z, i % 2 == 0 ? eight.y : eight.w);
        }
      }
      acc[0] += factor[0] * plane_sum(c[0][0] + c[1][0], c[0][1] + c[1][1]);
      acc[1] += factor[1] * plane_sum(c[0][2] + c[1][2], c[0][3] + c[1][3]);
    }
#pragma unroll
    for (float& sum : acc) {
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    }
    barrier_wait(shared_address(shared().sums_empty) + 8 * place.buffer, place.sums_parity ^ 1);
    float* out = sums + place.buffer * (kWarps * kRowBlock);
    if (t == 0) out[0] = acc[0], out[8] = acc[1];
    warp_arrive(shared_address(shared().sums_full) + 8 * place.buffer);
    place.next_sums();
  }
  return place.word();
}

// The finishing warp, for product m of `layer`. Of the place it has the sums' half; `parity` is that of `fetched`.
template <Format F>
__device__ __noinline__ unsigned finish_all(unsigned word, int layer, int m) {
  const Product p = product_of(layer, m);
  const Share share(m);
  const int lane = threadIdx.x % 32, r = lane % kRowBlock, upper = lane / kRowBlock, pitch = sum_pitch(p.rows);
  const float* sums = reinterpret_cast<const float*>(shared_base() + shared().places.sums);
  Place place(word);
  Operands operands[kStepRowsMax / 2], next[kStepRowsMax / 2];
  const auto ask = [&](int panel) {  // long before they are wanted
#pragma unroll
    for (int i = 0; i < kStepRowsMax / 2; ++i) {
      if (2 * i < p.rows && panel < share.panels) next[i] = operands_of<F>(p, panel, r, 2 * i + upper);
    }
  };
  ask(share.first);
  if (m != kHead) {
    barrier_wait(shared_address(&shared().fetched), place.parity);
    place.parity ^= 1;
    unset_behind(m, share.first, share.takers());
  }
  for (int panel = share.first; panel < share.panels; panel += gridDim.x) {
#pragma unroll
    for (int i = 0; i < kStepRowsMax / 2; ++i) operands[i] = next[i];
    ask(panel + gridDim.x);
    barrier_wait(shared_address(shared().sums_full) + 8 * place.buffer, place.sums_parity);
    const float* at = sums + place.buffer * (kWarps * kRowBlock) * pitch + r * pitch;
    float v[kStepRowsMax / 2] = {};
    if (p.rows == 1) {  // each half of the warp adds up half of the warps' sums
#pragma unroll
      for (int w = 0; w < kWarps / 2; ++w) v[0] += at[(upper * (kWarps / 2) + w) * kRowBlock];
      v[0] += __shfl_xor_sync(0xffffffffu, v[0], 16);
    } else {
#pragma unroll
      for (int i = 0; i < kStepRowsMax / 2; ++i) {
        if (2 * i + upper >= p.rows) continue;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) v[i] += at[w * kRowBlock * pitch + 2 * i + upper];
      }
    }
    warp_arrive(shared_address(shared().sums_empty) + 8 * place.buffer);
    place.next_sums();
#pragma unroll
    for (int i = 0; i < kStepRowsMax / 2; ++i) {
      int n = 2 * i + upper;
      if (2 * i >= p.rows) continue;
      float whole = v[i] * operands[i].scale;
      if constexpr (F == Format::int4) whole *= 1.0f / 16;  // int8_of_int4()
      if constexpr (kPlanes<F>) {
        if (p.squares != nullptr) whole *= n < p.rows ? shared().inverse[n] : 0.0f;
      } else {
        if (p.squares == nullptr) whole *= kMore;
      }
      if (m == kQkv && n < p.rows && shared().positions[n] < 0) n = p.rows;  // which nobody reads: step_hand.cuh
      finish<true>(p, panel, r, n, whole, operands[i]);
    }
  }
  return place.word();
}

}  // namespace step
}  // namespace ganglion::local::cuda
