#pragma once
// The frame of the kernel that runs a whole decode step (step_kernel.cuh): where its shared memory is, and how a
// product is shared out. Device code only.
//
// Orders that hold it together. Producers wait for room in the ring and for their own earlier copies: weights depend on
// nothing. Consumers wait for producers, for the finisher's buffers and for what other blocks leave (step_hand.cuh);
// the finisher for consumers. Blocks wait for parts before their own alone. No wait leads back to itself. Of pages a
// step writes the newest token's place alone, and what reads that place has written it itself.

#include "backends/local/kernels/cuda/product_parts.cuh"
#include "backends/local/kernels/cuda/ring.cuh"
#include "backends/local/kernels/cuda/step.hpp"

namespace ganglion::local::cuda {

namespace step {

constexpr int kWarps = 16;  // that consume
constexpr int kConsumers = kWarps * 32;
constexpr int kProducers = 3;  // with the finishing warp 20 in all: five to each quarter, 96 registers
constexpr int kThreads = kConsumers + (kProducers + 1) * 32;  // and one warp that finishes
// Of a ring whose stages have D steps of each consuming warp. A barrier and a copy cost their producer as much whatever
// the stage's size, and int4's steps are soonest through; of the others many small stages are worth more. Measured
// while int4's rows were copied one by one.
template <int D>
struct Stage {
  static constexpr int kRowBytes = D * kWarps * kStepBytes;
  static constexpr int kPitch = kRowBytes + 64;       // of rows: two rows' 64 bytes lie in different banks
  static constexpr int kScales = kRowBlock * kPitch;  // where int4 scales are, 1 KiB a step at most
};
template <Format F>
constexpr int kDepth = F == Format::int4 ? 2 : 1;
// How a lane's weights lie in a stage: from row to row, and from step to step. Tiles are as they are in memory.
template <Format F, int D>
constexpr int kLanePitch = kTiled<F> ? kStepBytes : Stage<D>::kPitch;
constexpr int kStagesMax = 12, kStagesMin = 3;
constexpr int kSumBuffers = 4;
// Bytes of a block's ring that may be on their way at once. What is asked for beyond that comes no sooner, and makes
// everything else that goes through the second-level cache wait behind it: what parts hand over most of all.
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

// Parts whose values others read: the products by their StepMatrix, and attention.
constexpr int kAttention = kStepMatrices, kHands = kAttention + 1;
// What `rows` rows of one need; the residual ones with sums of squares, behind the values.
constexpr int hand_bytes(const DecodeStep& s, int hand, int rows) {
  const int columns = hand == kQkv         ? s.matrices[kQkv].rows
                      : hand == kGateUp    ? s.matrices[kDown].cols
                      : hand == kAttention ? s.matrices[kOut].cols
                                           : s.normed_stride;
  const bool squares = hand == kOut || hand == kDown;
  return rows * columns * 2 + (squares ? (rows * (s.matrices[kOut].rows / kRowBlock) * 4 + 15) / 16 * 16 : 0);
}

// Bytes from the start of shared memory, where Small is and then the ring.
struct Places {
  int stages = 0, stage_bytes = 0;
  int asked = 0;            // stages on their way at most; 0: any number
  int x = 0, x_bytes = 0;   // activations of one product; what a block's warps attended
  int sums = 0, table = 0;  // [kSumBuffers][kWarps][kRowBlock][pitch]; StepLayer[layers]
  int bytes = 0;
  int handed[kHands + 1] = {};  // of DecodeStep::handed: where each part's values begin, and the end
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
  std::uint64_t fetched;  // a product's activations: what they were read from is the finisher's to make unset
  float inverse[kStepRowsMax];
  Places places;
  DecodeStep step;  // where functions reach it sooner than the kernel's parameters
  float cos[kStepRowsMax * 64], sin[kStepRowsMax * 64];
  std::int32_t positions[kStepRowsMax], row_pages[kStepRowsMax], page_from[kStepRowsMax];
  float tops[kWarps * 8], totals[kWarps * 8];
  alignas(16) std::uint16_t queries[8 * 128];  // bf16 or fp16: attends_in_half()
  alignas(16) char newest[2][2 * 128 + 16];    // the newest token's key and value as a page has them: append_head()
  Unit unit;                                   // the block's first, where all layers see as far back as the first one
  int window;                                  // of the first layer
  bool last_block;
  bool all_take_part;  // every block in every product
};

constexpr int kRing = (sizeof(Small) + 127) / 128 * 128;
// The same place in all functions, so that none has to be told of it: registers are what the kernel has least of.
__device__ __forceinline__ char* shared_base() {
  extern __shared__ __align__(128) char step_shared[];
  return step_shared;
}
__device__ __forceinline__ Small& shared() {
  return *reinterpret_cast<Small*>(shared_base());
}
__device__ __forceinline__ StepLayer& layer_of(int index) {
  return reinterpret_cast<StepLayer*>(shared_base() + shared().places.table)[index];
}

// ---- what blocks wait for ----

constexpr int kPollsMax = 1 << 24;  // what never comes is an error after some seconds

// All warps that consume.
__device__ __forceinline__ void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

// ---- the parts ----

__device__ __forceinline__ bool is_residual(int m) {
  return m == kOut || m == kDown;
}

constexpr int kHead = -1;  // in place of a StepMatrix
__device__ __forceinline__ const Matrix& matrix_of(int m) {
  return m == kHead ? shared().step.head : shared().step.matrices[m];
}

// What a part leaves for others, bf16 [rows][columns]; and the sums of squares behind it.
__device__ __forceinline__ bf16* handed(int hand) {
  return reinterpret_cast<bf16*>(static_cast<char*>(shared().step.handed) + shared().places.handed[hand]);
}
__device__ __forceinline__ float* handed_squares(int hand) {
  return reinterpret_cast<float*>(handed(hand) + shared().step.rows * shared().step.normed_stride);
}

// Product m of a layer, or the head. What the first layer multiplies is there before the kernel, and normalised whole;
// what the last one leaves without a head is for after it.
__device__ __forceinline__ Product product_of(int layer, int m) {
  const DecodeStep& s = shared().step;
  Product p{.w = matrix_of(m), .rows = s.rows};
  const StepLayer& own = layer_of(layer);
  if (m != kHead) p.w.data = own.data[m], p.w.scales = own.scales[m], p.w.bias = own.bias[m];
  if (m == kOut || m == kDown) {
    p.x = handed(m == kOut ? kAttention : kGateUp), p.x_stride = p.w.cols;
  } else if (m == kQkv && layer == 0) {
    p.x = s.normed, p.x_stride = s.normed_stride;
  } else {
    const int before = m == kGateUp ? kOut : kDown;
    p.x = handed(before), p.x_stride = s.normed_stride, p.squares = handed_squares(before);
  }
  p.square_parts = s.matrices[kOut].rows / kRowBlock;
  p.norm_width = s.width, p.norm_eps = s.norm_eps;
  if (m == kHead) {
    p.epilogue = Epilogue::store_f32;
    p.y = s.logits, p.y_stride = p.y_cols = s.head.rows;
  } else if (m == kQkv) {
    p.epilogue = Epilogue::store_bf16;
    p.y = handed(kQkv), p.y_stride = p.w.rows, p.y_cols = (s.heads + 2 * s.kv.kv_heads) * s.kv.head_dim;
  } else if (m == kGateUp) {
    p.epilogue = Epilogue::silu_gate;
    p.y = handed(kGateUp), p.y_stride = s.matrices[kDown].cols, p.y_cols = s.inner;
  } else {
    const bool after = m == kDown && layer == s.layer_count - 1 && s.head.data == nullptr;
    p.epilogue = Epilogue::residual;
    p.y = after ? s.normed : handed(m), p.y_stride = s.normed_stride, p.y_cols = s.width;
    p.hidden = s.hidden, p.next_norm = m == kOut ? own.out_norm : own.down_norm;
    p.next_squares = after ? s.squares : handed_squares(m);
  }
  return p;
}
// Columns of its activations that a part writes; those behind them are zeros.
__device__ __forceinline__ int columns_of(const DecodeStep& s, int m) {
  return m == kOut ? s.heads * s.kv.head_dim : m == kDown ? s.inner : s.width;
}

// ---- the three roles in one product ----

// A block's share of a product: row blocks first, first + gridDim.x and so on. What adds to `hidden` goes up by block,
// so that the same thread finishes the same rows always; the others go down, so that the blocks which have one less of
// the former have one more of these.
struct Share {
  int first, panels, cols, group;
  __device__ __forceinline__ explicit Share(int m)
      : first(is_residual(m) ? blockIdx.x : gridDim.x - 1 - blockIdx.x),
        panels(matrix_of(m).rows / kRowBlock),
        cols(matrix_of(m).cols),
        group(matrix_of(m).group) {}
  __device__ __forceinline__ bool any() const { return first < panels; }
  // Blocks that take part.
  __device__ __forceinline__ int takers() const { return min(static_cast<int>(gridDim.x), panels); }
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
