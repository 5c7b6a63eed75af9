// Which decode steps one kernel runs, and handing them to the file of their format.

#include "backends/local/kernels/cuda/step_parts.cuh"

namespace ganglion::local::cuda {

std::size_t step_handed_bytes(const DecodeStep& s) {
  std::size_t bytes = 0;
  for (int hand = 0; hand < step::kHands; ++hand)
    bytes += static_cast<std::size_t>(step::hand_bytes(s, hand, kStepRowsMax));
  return bytes;
}

int step_splits(const DecodeStep& s, int context, int multiprocessors) {
  // A block's warps should have two pages each at most, as long as every unit has a block of its own.
  const int units = decode_blocks(s.rows, s.heads, s.kv.kv_heads), pages = (context + kPageTokens - 1) / kPageTokens;
  int splits = 1;
  while (splits < 16 && 2 * units * splits <= multiprocessors && splits * step::kWarps * 2 < pages) splits *= 2;
  return splits;
}

bool decode_step_fits(const DecodeStep& s) {
  const Format f = s.matrices[0].format;
  for (const Matrix& m : s.matrices) {
    if (m.format != f || m.zeros != nullptr || m.group != s.matrices[0].group) return false;
  }
  const int width = s.kv.head_width;
  if (s.rows < 1 || s.rows > kStepRowsMax || s.layer_count < 1 || s.layer_count > kStepLayersMax) return false;
  if (width != 32 && width != 64 && width != 128) return false;
  // Activations are read by eights. Every row block leaves something that others read, and so do all of a product's
  // blocks: step_hand.cuh.
  if (s.width % 8 != 0 || s.inner % 8 != 0 || s.heads * s.kv.head_dim % 8 != 0) return false;
  const auto all_blocks_count = [&](int m, int columns, int a_block) {
    return (columns + a_block - 1) / a_block == s.matrices[m].rows / kRowBlock;
  };
  if (!all_blocks_count(kQkv, (s.heads + 2 * s.kv.kv_heads) * s.kv.head_dim, kRowBlock) ||
      !all_blocks_count(kOut, s.width, kRowBlock) || !all_blocks_count(kDown, s.width, kRowBlock) ||
      !all_blocks_count(kGateUp, s.inner, kRowBlock / 2)) {
    return false;
  }
  if (s.head.data != nullptr && s.head.format != step_head_format(f)) return false;
  switch (f) {
    case Format::int8:
      return step::has_room<Format::int8>(s);
    case Format::fp8:
      return step::has_room<Format::fp8>(s);
    case Format::int4:
      return step::has_room<Format::int4>(s);
    case Format::bf16:
      break;
  }
  return false;
}

cudaError_t decode_step(Queue queue, const DecodeStep& s, int multiprocessors) {
  if (!decode_step_fits(s)) return cudaErrorInvalidValue;
  switch (s.matrices[0].format) {
    case Format::int8:
      return step::step_of<Format::int8>(queue, s, multiprocessors);
    case Format::fp8:
      return step::step_of<Format::fp8>(queue, s, multiprocessors);
    case Format::int4:
      return step::step_of<Format::int4>(queue, s, multiprocessors);
    case Format::bf16:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace ganglion::local::cuda
