#pragma once
// The operations that a decoder needs on the device, one function each: they queue work on a stream and return the
// launch's status. Plain C++20, so that nvcc and the rest of the product both read it. All pointers are device memory
// unless said otherwise; nothing is allocated and nothing waits.
//
// Activations are bf16 rows with a stride that is a multiple of 128 elements; what lies between a row's end and its
// stride is zero. The residual stream is fp32.

#include <cuda_runtime.h>

#include <cstdint>

namespace ganglion::local::cuda {

inline constexpr int kPageTokens = 16;
inline constexpr int kColumnBlock = 128;         // weights' columns are padded to a multiple of this, with zeros
inline constexpr int kRowBlock = 16;             // weights' rows likewise
inline constexpr int kFusedRowsMax = 8;          // most rows for the fused product kernels
inline constexpr int kSmallRowsMax = 64;         // most rows for the product kernels that stream weights
inline constexpr int kInt8ColumnsMax = 1 << 17;  // 128 * 127 times as many still fit into 32 bits

constexpr std::int64_t padded(std::int64_t n, std::int64_t to) {
  return (n + to - 1) / to * to;
}

// How a matrix lies in memory, [rows][cols] padded:
//   bf16; int8 with one scale a row; fp8 (e4m3) with one scale a row; int4 with one fp16 scale a row and group of 64
//   or 128 columns. int4 is packed by pack_weights and read by this folder alone: in tiles of 16 rows by 128 columns, a
//   row block's one behind another, so that what a ring wants next is one piece. The others are plain row-major.
enum class Format : std::uint8_t { bf16, int8, fp8, int4 };

struct Matrix {
  Format format = Format::bf16;
  const void* data = nullptr;
  const void* scales = nullptr;  // int8, fp8: float[rows]; int4: half, see int4_scale_place
  const void* bias = nullptr;    // bf16[rows] or null
  int rows = 0, cols = 0;        // padded
  int group = 0;                 // int4: columns that share a scale, 64 or 128
  const void* zeros = nullptr;   // int4: half, where the scales are: zero points less 8; null: all are 8
};
constexpr std::int64_t matrix_bytes(Format f, std::int64_t rows, std::int64_t cols) {
  return f == Format::bf16 ? rows * cols * 2 : f == Format::int4 ? rows * cols / 2 : rows * cols;
}
constexpr std::int64_t scale_bytes(Format f, std::int64_t rows, std::int64_t cols, int group) {
  return f == Format::bf16 ? 0 : f == Format::int4 ? rows * (cols / group) * 2 : rows * 4;
}

// Where the scale of a row's column group lies: rows in blocks of 16, so that a block's scales are contiguous.
constexpr std::int64_t int4_scale_place(std::int64_t row, int column_group, int groups) {
  return (row / kRowBlock * groups + column_group) * kRowBlock + row % kRowBlock;
}

// Which 32-bit word of an int4 matrix has columns [column, column + 8) of a row, and where in it the even ones and the
// odd ones are: nibbles 0 to 3, 4 to 7. Of a tile's row a lane of the product kernels (four share a row) has 16 bytes:
// 16 of the first 64 columns and 16 of the second.
constexpr std::int64_t int4_word_place(std::int64_t row, int column, int cols) {
  const int in = column % 128, lane = in % 64 / 16, half = in / 64, eight = in % 16 / 8;
  const std::int64_t tile = row / kRowBlock * (cols / 128) + column / 128;
  return (tile * kRowBlock + row % kRowBlock) * 16 + lane * 4 + half * 2 + eight;
}

// One launch's place: PDL lets it start before the kernel ahead of it in the stream has ended.
struct Queue {
  cudaStream_t stream = nullptr;
  bool overlap = false;
};

// ---- loading ----

enum class Source : std::uint8_t { f32, bf16, f16 };
// Converts `rows` rows of `cols` elements of a checkpoint (dense, on the device) into rows of `to`, quantising on the
// way. Source row r, counted from `first`, becomes row (r / 8) * 8 * spread + r % 8 + offset: with spread 1 matrices
// follow each other, with spread 2 two of them share the target in alternating blocks of eight rows (gate and up).
// Padding is left as it is; it must be zero, and for int4 made so by pack_empty.
struct PackPlace {
  int first = 0, spread = 1, offset = 0;
};
cudaError_t pack_weights(Queue, const void* source, Source type, int rows, int cols, const Matrix& to, PackPlace);
cudaError_t pack_empty(Queue, const Matrix& to);  // all of it stands for zero
// What was quantised before, as it is: int4 values less 8 [rows][cols] with scales and zero points less 8
// [rows][groups of to.group columns] (`zeros` is looked at where `to` has some); e4m3 or int8 bytes with a scale a row.
cudaError_t place_int4(Queue, const std::int8_t* values, const float* scales, const float* zeros, int rows, int cols,
                       const Matrix& to, PackPlace);
cudaError_t place_bytes(Queue, const std::uint8_t* bytes, const float* scales, int rows, int cols, const Matrix& to,
                        PackPlace);
cudaError_t widen_to_float(Queue, const void* source, Source type, std::int64_t n, float* to);
cudaError_t narrow_to_bf16(Queue, const void* source, Source type, int rows, int cols, void* to, int stride);
// Back to bf16, row-major: for products through a library that cannot read the format.
cudaError_t unpack_weights(Queue, const Matrix& from, void* to);
// Pseudo-random normal values of the given deviation, from the seed alone; for measurements.
cudaError_t fill_normal(Queue, void* to, Source type, std::int64_t n, float deviation, std::uint64_t seed);

// ---- products that stream the weights ----

enum class Epilogue : std::uint8_t {
  store_bf16,  // y = W x (+ bias)
  store_f32,   // the same in fp32, `y_stride` apart
  residual,    // hidden += W x; also next_x = bf16(hidden * next_norm) and the sums of squares for next_norm
  silu_gate,   // rows in alternating eights of gate and up: y = silu(gate) * up
};
struct Product {
  Matrix w;
  const void* x = nullptr;  // bf16 [rows][x_stride]
  int x_stride = 0, rows = 0;
  // Where x still lacks the division by its root mean square: partial sums of squares, [rows][square_parts].
  const float* squares = nullptr;
  int square_parts = 0, norm_width = 0;
  float norm_eps = 0;
  Epilogue epilogue = Epilogue::store_bf16;
  void* y = nullptr;
  int y_stride = 0, y_cols = 0;  // y_cols: columns written
  // residual: hidden fp32 [rows][y_cols]; next_norm float[y_cols]; next_squares [rows][w.rows / 16]
  float* hidden = nullptr;
  const float* next_norm = nullptr;
  float* next_squares = nullptr;
};
// rows <= kSmallRowsMax; residual and `squares` only for rows <= kFusedRowsMax.
cudaError_t product(Queue, const Product&);
// The same through a ring of bulk copies: compute capability 9.0, rows <= kFusedRowsMax, and columns whose activations
// fit in registers; `stream_product_fits` says so. `stages`: of the ring, with the
// activations in registers; 0: whatever is usual for the shape.
bool stream_product_fits(const Product&);
cudaError_t stream_product(Queue, const Product&, int multiprocessors, int stages);

// y = x w^T with both in 8 bits, e4m3 or int8 (sums in fp32, or exact in int32), times the scales of both (+ bias).
inline constexpr int kEightBitRowsMax = 64;
inline constexpr int kEightBitTilesMax = 4096;  // of 128 weight rows
struct EightBitProduct {
  Matrix w;                         // fp8 or int8
  const void* x = nullptr;          // of the same type, [rows][w.cols]
  const float* x_scales = nullptr;  // one a row
  int rows = 0;                     // at most kEightBitRowsMax
  void* y = nullptr;                // bf16, or fp32 when `wide`; [rows][y_stride], w.rows columns are written
  int y_stride = 0;                 // even
  bool wide = false;
  float* partial = nullptr;          // eight_bit_partial_bytes(); int32 where the sums are
  std::uint32_t* arrived = nullptr;  // kEightBitTilesMax counters, zero before and after
};
constexpr std::int64_t eight_bit_partial_bytes(int multiprocessors) {
  return std::int64_t{2} * multiprocessors * 128 * kEightBitRowsMax * 4;
}
// Compute capability 9.0 and nothing else: its matrix instructions are no later card's.
bool eight_bit_product_fits(const Matrix& w, int rows, int capability);
cudaError_t eight_bit_product(Queue, const EightBitProduct&, int multiprocessors);

// ---- rows ----

struct Embed {
  const void* table = nullptr;  // bf16 [vocab][stride]
  int stride = 0, width = 0, rows = 0;
  const std::int32_t* tokens = nullptr;     // null: from `chosen`
  const std::int32_t* positions = nullptr;  // negative: a row that only pads
  float* hidden = nullptr;                  // [rows][width]
  const float* frequencies = nullptr;       // [half]
  int half = 0;
  float* cos = nullptr;  // [rows][half]
  float* sin = nullptr;
};
cudaError_t embed(Queue, const Embed&);

struct Normalise {
  float* hidden = nullptr;    // fp32 [rows][width]; gets `add`
  const void* add = nullptr;  // [rows][add_stride] or null; bf16, or fp32
  bool add_wide = false;      // fp32
  int add_stride = 0, width = 0, rows = 0;
  const std::int32_t* pick = nullptr;  // null, or the rows of hidden to normalise (`add` must be null)
  const float* weight = nullptr;
  float eps = 0;
  void* out = nullptr;  // bf16, or with out_scales e4m3 or int8; [rows][out_stride]
  int out_stride = 0;
  float* out_scales = nullptr;  // one a row; infinite where the row has what is not a number
  bool int8 = false;
};
cudaError_t normalise(Queue, const Normalise&);

// y = silu(gate) * up from alternating eights; optionally as e4m3 or int8 with one scale a row.
struct Gate {
  const void* gate_up = nullptr;
  int in_stride = 0, width = 0, rows = 0;
  void* out = nullptr;
  int out_stride = 0;
  float* out_scales = nullptr;
  bool int8 = false;
};
cudaError_t gate(Queue, const Gate&);

// bf16 rows to e4m3 or int8 with one scale a row.
cudaError_t quantise_rows(Queue, const void* x, int stride, int width, int rows, void* out, int out_stride,
                          float* scales, bool int8);

// What an int8 product has summed up, as what it stands for: y[r][c] = sums[r][c] * x_scales[r] * w_scales[c]
// (+ bias[c]). In fp32 y may be where the sums are.
struct Rescale {
  const std::int32_t* sums = nullptr;  // [rows][cols]
  int rows = 0, cols = 0;              // cols: a multiple of 4
  const float *x_scales = nullptr, *w_scales = nullptr;
  const void* bias = nullptr;  // bf16[cols] or null
  void* y = nullptr;           // bf16, or fp32 when `wide`; [rows][y_stride]
  int y_stride = 0;
  bool wide = false;
};
cudaError_t rescale(Queue, const Rescale&);

// y[row][c] += bias[c] for c in [0, width), y bf16 or, when `wide`, fp32.
cudaError_t add_bias(Queue, const void* bias, int width, int rows, void* y, int y_stride, bool wide);

// ---- attention ----

// Keys and values in pages of kPageTokens tokens of all layers: page -> layer -> keys, values -> kv head -> tile. A
// tile is [token][head_dim padded to 32, 64, 96, 128 or 256] in bf16, in fp16, in e4m3 without scales, or in int8,
// where the tokens' scales follow, float[kPageTokens]: max |x| / 127 of the token's head. What is too large for fp16 or
// e4m3 becomes the largest number of these.
enum class KvFormat : std::uint8_t { bf16, fp16, fp8, int8 };
constexpr int kv_value_bytes(KvFormat f) {
  return f == KvFormat::bf16 || f == KvFormat::fp16 ? 2 : 1;
}
// Whether queries beside pages of the format, and attention's products, are fp16: they hold every e4m3 exactly and keep
// three bits more than bf16, which they are elsewhere. (int8's scales would leave fp16's range.)
constexpr bool attends_in_half(KvFormat f) {
  return f == KvFormat::fp16 || f == KvFormat::fp8;
}
constexpr std::int64_t kv_tile_bytes(int width, KvFormat f) {
  return std::int64_t{kPageTokens} * (width * kv_value_bytes(f) + (f == KvFormat::int8 ? 4 : 0));
}
struct KvLayout {
  void* base = nullptr;
  std::int64_t page_bytes = 0;
  int layers = 0, kv_heads = 0, head_dim = 0, head_width = 0;  // head_width: padded
  KvFormat format = KvFormat::bf16;
};
constexpr int head_width(int head_dim) {
  return head_dim <= 32    ? 32
         : head_dim <= 64  ? 64
         : head_dim <= 96  ? 96
         : head_dim <= 128 ? 128
         : head_dim <= 256 ? 256
                           : 0;
}
constexpr std::int64_t kv_page_bytes(int layers, int kv_heads, int width, KvFormat f) {
  return std::int64_t{2} * layers * kv_heads * kv_tile_bytes(width, f);
}

struct RotateAppend {
  const void* qkv = nullptr;  // [rows][stride]: queries, keys, values; bf16, or fp32
  bool wide = false;          // fp32
  int stride = 0, rows = 0, heads = 0, layer = 0;
  KvLayout kv;
  const float* cos = nullptr;
  const float* sin = nullptr;
  const float* q_norm = nullptr;  // float[head_dim] or null
  const float* k_norm = nullptr;
  float eps = 0;
  const std::int32_t* positions = nullptr;  // of each row; negative: nothing is written
  const std::int32_t* pages = nullptr;      // page of each row's token; negative: only its query is wanted
  void* query = nullptr;                    // [rows][heads][head_width] in bf16 or fp16: attends_in_half()
};
cudaError_t rotate_append(Queue, const RotateAppend&);

// Consecutive query rows of one sequence; each sees its sequence up to itself.
struct PrefillTile {
  std::int32_t row, rows;  // in the batch; rows 0: pads
  std::int32_t position;   // of the first
  std::int32_t page_from;  // in the page table
};

// The sequences of a step that compute one token each; or, with `tiles`, a few each.
struct DecodeAttention {
  const void* query = nullptr;  // [rows][heads][head_width] in bf16 or fp16: attends_in_half()
  KvLayout kv;
  int layer = 0, heads = 0, rows = 0, window = 0;  // window 0: all
  float scale = 0;
  float softcap = 0;                        // 0, or scores become softcap * tanh(score / softcap)
  const std::int32_t* positions = nullptr;  // of the query; negative: the row pads
  const std::int32_t* page_from = nullptr;  // [rows]: where the row's page table begins in page_table
  const std::int32_t* page_table = nullptr;
  void* out = nullptr;  // bf16 [rows][out_stride]: heads * head_dim
  int out_stride = 0;
  int splits = 1;                    // parts of each sequence's keys
  float* partial = nullptr;          // splits > 1: decode_partial_floats() floats
  std::uint32_t* arrived = nullptr;  // decode_blocks() counters, zero before and after
  // Tiles of up to few_rows() rows instead of `rows`, `positions` and `page_from`.
  const PrefillTile* tiles = nullptr;
  int tile_count = 0;
};
constexpr int head_tiles(int heads, int kv_heads) {
  return (heads / kv_heads + 7) / 8;
}
// `rows`: or tiles.
constexpr int decode_blocks(int rows, int heads, int kv_heads) {
  return rows * kv_heads * head_tiles(heads, kv_heads);
}
constexpr std::int64_t decode_partial_floats(int blocks, int width, int splits) {
  return std::int64_t{8} * blocks * splits * (width + 2);
}
constexpr int few_rows(int heads, int kv_heads) {
  const int group = heads / kv_heads;
  return group >= 8 ? 1 : 8 / group;
}
// For sequences of up to `context` tokens; `rows`: or tiles.
int decode_splits(int rows, int heads, int kv_heads, int context, int multiprocessors);
cudaError_t attend_decode(Queue, const DecodeAttention&);

// Prompt chunks.
inline constexpr int kPrefillRows = 64;  // of a tile, at most
struct PrefillAttention {
  const void* query = nullptr;
  KvLayout kv;
  int layer = 0, heads = 0, window = 0;
  float scale = 0;
  float softcap = 0;  // 0, or scores become softcap * tanh(score / softcap)
  const PrefillTile* tiles = nullptr;
  int tile_count = 0;
  const std::int32_t* page_table = nullptr;
  void* out = nullptr;
  int out_stride = 0;
};
cudaError_t attend_prefill(Queue, const PrefillAttention&);

// ---- sampling ----

inline constexpr int kTopLogprobsMax = 20;
// What one row asks for; the meaning and order of the fields is SamplingParams' (engine/events.hpp).
struct SampleRow {
  std::int32_t logits_row = 0;
  float temperature = 0, top_p = 1, min_p = 0;
  std::int32_t top_k = 0;
  float frequency = 0, presence = 0, repetition = 1;
  std::int32_t adjust_from = 0, adjust_count = 0;  // in the step's list of adjustments
  std::int32_t logprobs = 0, top_logprobs = 0;
  double uniform = 0;           // in [0, 1): the row's random number for this token
  std::int32_t mask_from = -1;  // the row's first word in the step's masks; < 0: every token may be chosen
};
struct SampleAdjust {
  std::int32_t id, times;  // times: in the generated tokens
  float bias;
  std::int32_t repeated;  // 1: repetition_penalty applies
};
struct SampleResult {
  std::int32_t id = 0, ok = 0;
  float logprob = 0;
  std::int32_t top_count = 0;
  std::int32_t top_id[kTopLogprobsMax] = {};
  float top_logprob[kTopLogprobsMax] = {};
};
struct Sample {
  float* logits = nullptr;  // fp32 [rows][stride]; overwritten
  int stride = 0, vocab = 0, count = 0;
  const SampleRow* rows = nullptr;
  const SampleAdjust* adjust = nullptr;
  const std::uint32_t* masks = nullptr;  // one bit a token, (vocab + 31) / 32 words a row
  SampleResult* results = nullptr;
};
cudaError_t sample(Queue, const Sample&);

// ---- measurement ----

// Reads `bytes` (a multiple of 16 KiB) and leaves a checksum, as fast as the memory allows.
cudaError_t read_all(Queue, const void* from, std::int64_t bytes, std::uint32_t* sum);

}  // namespace ganglion::local::cuda
