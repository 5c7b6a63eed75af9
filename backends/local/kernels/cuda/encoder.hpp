#pragma once
// The operations of an encoder (BERT) that a decoder has none of. As in kernels.hpp: work is queued, nothing waits.
// Rows are bf16 with a stride that is a multiple of 128 elements; sequences lie one after the other, without padding.

#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::local::cuda {

struct LayerNorm {
  const void* x = nullptr;    // bf16 [rows][stride]
  const void* add = nullptr;  // bf16 [rows][add_stride] or null
  void* out = nullptr;        // bf16 [rows][stride]; may be x
  int rows = 0, width = 0, stride = 0, add_stride = 0;
  const float* weight = nullptr;
  const float* bias = nullptr;
  float eps = 0;
};
cudaError_t layer_norm(Queue, const LayerNorm&);

// Word, position and type embeddings, summed up and normalised.
struct EncoderEmbed {
  const void* words = nullptr;      // bf16 [vocab][stride]
  const void* positions = nullptr;  // bf16 [max_position][stride]
  const void* types = nullptr;      // bf16: the first type's row
  const std::int32_t* tokens = nullptr;
  const std::int32_t* places = nullptr;  // of each row in its sequence
  LayerNorm norm;                        // x and add are not used
};
cudaError_t encoder_embed(Queue, const EncoderEmbed&);

// y = gelu(y), by the error function, of [rows][width].
cudaError_t gelu(Queue, void* y, int rows, int width, int stride);

// Query rows of one sequence that see all of it.
struct EncodeTile {
  std::int32_t row, rows;     // query rows, up to kPrefillRows; rows 0: pads
  std::int32_t first, count;  // the sequence's rows
};
struct EncodeAttention {
  const void* qkv = nullptr;                // bf16 [rows][stride]: queries, keys, values of `heads` heads
  int stride = 0, heads = 0, head_dim = 0;  // head_dim: a multiple of 8, at most 128
  float scale = 0;
  const EncodeTile* tiles = nullptr;
  int tile_count = 0;
  void* out = nullptr;  // bf16 [rows][out_stride]
  int out_stride = 0;
};
cudaError_t attend_encode(Queue, const EncodeAttention&);

enum class Pool : std::uint8_t { first, last, mean, max };
// One vector of each sequence's rows.
struct PoolRows {
  const void* x = nullptr;  // bf16 [rows][stride]
  int stride = 0, width = 0, sequences = 0;
  const std::int32_t* firsts = nullptr;  // of each sequence
  const std::int32_t* counts = nullptr;  // 0: pads
  Pool pool = Pool::first;
  float* out = nullptr;  // [sequences][width]
};
cudaError_t pool_rows(Queue, const PoolRows&);

}  // namespace ganglion::local::cuda
