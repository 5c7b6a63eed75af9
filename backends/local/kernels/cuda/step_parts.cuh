#pragma once
// The frame of the kernel that runs a whole decode step (step_kernel.cuh): where its shared memory is, the barrier over
// all blocks, and how a product is shared out. Device code only.
//
// Orders that hold it together. A block's consumers pass the device-wide barrier k before they touch part k + 1; a
// block arrives at barrier k + 1 when it has finished its share of part k + 1. So nobody arrives twice before all have
// arrived once, and one growing counter is enough. Producers wait for room in the ring and for their own earlier
// copies: weights depend on nothing. Consumers wait for producers, for the finisher's buffers and for the barrier; the
// finisher for consumers; the barrier for finishers of parts that all consumers have been let into. No wait leads back
// to itself.

#include "backends/local/kernels/cuda/product_parts.cuh"
#include "backends/local/kernels/cuda/ring.cuh"
#include "backends/local/kernels/cuda/step.hpp"

namespace ganglion::local::cuda {

namespace step {

constexpr int kWarps = 16;  // that consume
constexpr int kConsumers = kWarps * 32;
constexpr int kProducers = 3;  // with the finishing warp 20 in all: five to each quarter, 96 registers
constexpr int kThreads = kConsumers + (kProducers + 1) * 32;  // and one warp that finishes
// Of a ring whose stages have D steps of each consuming warp. A copy costs its producer as much whatever its size, and
// int4 rows are short; where copies are fewer anyway, many small stages are worth more.
template <int D>
struct Stage {
  static constexpr int kRowBytes = D * kWarps * kStepBytes;
  static constexpr int kPitch = kRowBytes + 64;       // two rows' 64 bytes lie in different banks
  static constexpr int kScales = kRowBlock * kPitch;  // where int4 scales are, 1 KiB a step at most
};
template <Format F>
constexpr int kDepth = F == Format::int4 ? 2 : 1;
constexpr int kStagesMax = 12, kStagesMin = 3;
constexpr int kSumBuffers = 4;
// Bytes of a block's ring that may be on their way at once. What is asked for beyond that comes no sooner, and makes
// everything else that goes through the second-level cache wait behind it: the barrier over all blocks most of all.
constexpr int kAskedBytes = 70 * 1024;
constexpr int kWholeShared = 227 * 1024;
constexpr float kLess = 1.0f / 16, kMore = 16;  // activations on the way to fp16, and sums afterwards

template <Format F>
constexpr int kStageBytes = Stage<kDepth<F>>::kScales + (F == Format::int4 ? kDepth<F> * 1024 : 0);
// How activations lie in shared memory beside weights of the format: in fp16, normalised or scaled down; or as two
// planes of int8, 256 * high + low, with a scale for each block of 64 columns: 16 bits of fixed point, so that integer
// weights need no conversion. The planes of up to four rows are the eight columns of one tensor-core product.
template <Format F>
constexpr bool kPlanes = F == Format::int8 || F == Format::int4;
constexpr int kRowPad = 64;  // two rows of activations, or planes, meet in no bank
constexpr int kScaleBlock = 64;
constexpr float kPlaneMost = 32512.0f;  // largest magnitude of 16 bits whose high plane fits
constexpr int x_bytes(int rows, int cols) {
  return rows * (2 * (cols + kRowPad) + cols / kScaleBlock * 4);
}

// Bytes from the start of shared memory; the ring is at 0.
struct Places {
  int stages = 0, stage_bytes = 0;
  int asked = 0;            // stages on their way at most; 0: any number
  int x = 0, x_bytes = 0;   // activations of one product; what a block's warps attended
  int sums = 0, table = 0;  // [kSumBuffers][kWarps][kRowBlock][pitch]; StepLayer[layers]
  int small = 0;            // Small
  int bytes = 0;
};
constexpr int sum_pitch(int rows) {
  return rows | 1;
}

// The query heads [head, head + heads) of a row, which share keys, and a part of the pages of these: [from, to) of end.
struct Unit {
  int row, position, kv_head, head, heads, slot, split, length, from, to, end;
};

struct Small {
  std::uint64_t full[kStagesMax], empty[kStagesMax], sums_full[kSumBuffers], sums_empty[kSumBuffers];
  float inverse[kStepRowsMax];
  Places places;
  DecodeStep step;  // where functions reach it sooner than the kernel's parameters
  float cos[kStepRowsMax * 64], sin[kStepRowsMax * 64];
  std::int32_t positions[kStepRowsMax], row_pages[kStepRowsMax], page_from[kStepRowsMax];
  float tops[kWarps * 8], totals[kWarps * 8];
  alignas(16) std::uint16_t queries[8 * 128];  // bf16 or fp16: attends_in_half()
  Unit unit;                                   // the block's first, where all layers see as far back as the first one
  int window;                                  // of the first layer
  bool last_block;
};

// ---- the barrier over all blocks ----

__device__ __forceinline__ void grid_arrive(std::uint32_t* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
// One thread waits until all blocks have arrived `epochs` times. What never comes is an error after some seconds.
__device__ __forceinline__ void grid_wait(const std::uint32_t* counter, std::uint32_t epochs) {
  constexpr int kPollsMax = 1 << 24;
  const std::uint32_t target = epochs * gridDim.x;
#pragma unroll 1
  for (int i = 0; i < kPollsMax; ++i) {
    std::uint32_t seen;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    if (seen >= target) return;
  }
  __trap();
}
// All warps that consume.
__device__ __forceinline__ void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

// ---- the parts ----

__device__ __forceinline__ bool is_residual(int m) {
  return m == kOut || m == kDown;
}

// Product m of a layer, or with `layer` null the head. `first`: of the first layer, whose input is normalised whole.
__device__ __forceinline__ Product product_of(const DecodeStep& s, const StepLayer* layer, int m, bool first) {
  Product p{.w = layer != nullptr ? s.matrices[m] : s.head, .rows = s.rows};
  if (layer != nullptr) p.w.data = layer->data[m], p.w.scales = layer->scales[m], p.w.bias = layer->bias[m];
  p.x = m == kOut ? s.attended : m == kDown ? s.gated : s.normed;
  p.x_stride = m == kOut ? s.attended_stride : m == kDown ? s.gated_stride : s.normed_stride;
  if (!is_residual(m) && !(first && m == kQkv)) p.squares = s.squares;
  p.square_parts = s.matrices[kOut].rows / kRowBlock;
  p.norm_width = s.width, p.norm_eps = s.norm_eps;
  if (layer == nullptr) {
    p.epilogue = Epilogue::store_f32;
    p.y = s.logits, p.y_stride = p.y_cols = s.head.rows;
  } else if (m == kQkv) {
    p.epilogue = Epilogue::store_bf16;
    p.y = s.qkv, p.y_stride = p.y_cols = p.w.rows;
  } else if (m == kGateUp) {
    p.epilogue = Epilogue::silu_gate;
    p.y = s.gated, p.y_stride = s.gated_stride, p.y_cols = s.inner;
  } else {
    p.epilogue = Epilogue::residual;
    p.y = s.normed, p.y_stride = s.normed_stride, p.y_cols = s.width;
    p.hidden = s.hidden, p.next_norm = m == kOut ? layer->out_norm : layer->down_norm;
    p.next_squares = s.squares;
  }
  return p;
}

// ---- the three roles in one product ----

// A block's share of a product: row blocks first, first + gridDim.x and so on. What adds to `hidden` goes up by block,
// so that the same thread finishes the same rows always; the others go down, so that the blocks which have one less of
// the former have one more of these.
struct Share {
  int first, panels, cols, group;
  __device__ __forceinline__ Share(const Matrix& w, bool residual)
      : first(residual ? blockIdx.x : gridDim.x - 1 - blockIdx.x),
        panels(w.rows / kRowBlock),
        cols(w.cols),
        group(w.group) {}
};

// A thread's place in the block's ring and among the buffers of sums, which it keeps from one product to the next. The
// functions below are not inlined and have it as one word: with everything in one, what must live through the whole
// kernel pushes what the loops need into local memory.
struct Place {
  int slot, parity, buffer, sums_parity;
  __device__ __forceinline__ explicit Place(unsigned word)
      : slot(word & 255), parity(word >> 8 & 1), buffer(word >> 16 & 255), sums_parity(word >> 24) {}
  __device__ __forceinline__ unsigned word() const {
    return static_cast<unsigned>(slot | parity << 8 | buffer << 16 | sums_parity << 24);
  }
  __device__ __forceinline__ void next_stage(int stages) {
    if (++slot == stages) slot = 0, parity ^= 1;
  }
  __device__ __forceinline__ void next_sums() {
    if (++buffer == kSumBuffers) buffer = 0, sums_parity ^= 1;
  }
};

__device__ __forceinline__ char* shared_base() {
  extern __shared__ __align__(128) char step_shared[];
  return step_shared;
}

// ---- one file a format ----

template <Format F>
bool has_room(const DecodeStep& s);
template <Format F>
cudaError_t step_of(Queue queue, const DecodeStep& s, int multiprocessors);
template <>
bool has_room<Format::int8>(const DecodeStep& s);
template <>
bool has_room<Format::fp8>(const DecodeStep& s);
template <>
bool has_room<Format::int4>(const DecodeStep& s);
template <>
cudaError_t step_of<Format::int8>(Queue queue, const DecodeStep& s, int multiprocessors);
template <>
cudaError_t step_of<Format::fp8>(Queue queue, const DecodeStep& s, int multiprocessors);
template <>
cudaError_t step_of<Format::int4>(Queue queue, const DecodeStep& s, int multiprocessors);

}  // namespace step
}  // namespace ganglion::local::cuda
