#pragma once
// A whole decode step's layers and head in one kernel, for the models and sizes that decode_step_fits() names. By the
// rules of kernels.hpp.

#include <cstddef>

#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::local::cuda {

inline constexpr int kStepRowsMax = 4;
// Up to so many rows, and so many tokens of the longest sequence, one kernel is faster than many. Measured on an H200
// and, with the slower memory, on an H100 (bench/results/gpu.md): activations of more rows leave less of shared memory
// to the ring, and longer contexts want more blocks for attention than there are. Where memory is slower, what many
// kernels lose between them counts less. bf16 gains nothing at one row: launches are the smaller a part the more bytes
// there are.
struct StepLimits {
  int rows, context;
};
constexpr StepLimits kNoStepLimits{kStepRowsMax, 4096};  // wherever it fits, faster or not
constexpr double kFastMemory = 4000;  // GB/s by the device's own word: an H100 has 3,350, an H200 4,920
constexpr StepLimits step_limits(Format f, double memory_gb) {
  const bool fast = memory_gb >= kFastMemory;
  switch (f) {
    case Format::int4:
      return {kStepRowsMax, fast ? 4096 : 2048};
    case Format::fp8:
      return {fast ? kStepRowsMax : 2, fast ? 2048 : 512};
    case Format::int8:
      return {2, fast ? 2048 : 512};
    case Format::bf16:
      break;
  }
  return {0, 0};
}
inline constexpr int kStepLayersMax = 96;
enum StepMatrix : int { kQkv, kOut, kGateUp, kDown, kStepMatrices };

constexpr Format step_head_format(Format layers) {
  return layers == Format::int4 ? Format::int8 : layers;
}

// What one layer has for itself, in device memory.
struct StepLayer {
  const void* data[kStepMatrices];
  const void* scales[kStepMatrices];
  const void* bias[kStepMatrices];
  const float *out_norm, *down_norm;  // of what reads the sums after these two: the layer's own, the next one's
  const float *q_norm, *k_norm;
  std::int64_t window;
};

// Rows are sequences that decode one token each. `normed`, `hidden`, angles: as the embedding and the first
// normalisation leave them, normed divided by its root mean square.
struct DecodeStep {
  const StepLayer* layers = nullptr;
  int layer_count = 0;
  Matrix matrices[kStepMatrices];  // the shape that all layers share; pointers are not looked at
  Matrix head;                     // data null: no logits; else of step_head_format()
  int rows = 0, width = 0, inner = 0, heads = 0;
  float norm_eps = 0;
  void* normed = nullptr;  // bf16 [rows][normed_stride]; without a head, what one would multiply afterwards
  int normed_stride = 0;
  float* hidden = nullptr;   // fp32 [rows][width]
  float* squares = nullptr;  // [rows][matrices[kOut].rows / 16], written without a head
  float* logits = nullptr;   // fp32 [rows][head.rows]
  void* handed = nullptr;    // step_handed_bytes() of 0xff before and after: what parts leave to each other
  KvLayout kv;
  float score_scale = 0;
  const float *cos = nullptr, *sin = nullptr;
  const std::int32_t *positions = nullptr, *row_pages = nullptr, *page_from = nullptr, *page_table = nullptr;
  int splits = 1;  // parts of each sequence's keys
  float* partial = nullptr;
  std::uint32_t* arrived = nullptr;
  std::uint32_t* counter = nullptr;  // two words, zero before and after
};
std::size_t step_handed_bytes(const DecodeStep&);
// In how many parts it attends sequences of up to `context` tokens.
int step_splits(const DecodeStep&, int context, int multiprocessors);
// Compute capability 9.0 and `multiprocessors` blocks, one each.
bool decode_step_fits(const DecodeStep&);
// Launched cooperatively: the device runs all blocks at once or none. Two such kernels at a time, from one process or
// several, must still not be asked for: see docs/engine.md.
cudaError_t decode_step(Queue, const DecodeStep&, int multiprocessors);

}  // namespace ganglion::local::cuda
