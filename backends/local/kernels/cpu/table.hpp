#pragma once
// The table of CPU kernels that one instruction-set level provides, and the packed layouts that all levels share.
// Kernels are plain functions on one thread: no allocation, no errors; the callers split work and own memory.
// This header is compiled under every level's flags, so it holds plain data only.

#include <cstdint>

namespace ganglion::local {

enum class Isa : std::uint8_t { scalar, avx2, avx512, avx512_vnni };
inline constexpr int kIsaCount = 4;

// Element types of weights in memory.
enum class WeightType : std::uint8_t { f32, bf16, f16, i8 };

// Rows of a weight matrix are packed in panels of kPanel; within a panel the rows are interleaved per column, so a
// product reads memory as one stream and needs no horizontal sums:
//   f32/bf16/f16: [panel][column][32]      i8: [panel][column / 4][32][4], value + 128 as unsigned bytes
inline constexpr int kPanel = 32;
inline constexpr int kTile = 8;          // most activation rows that one kernel call multiplies
inline constexpr int kQuantGroup = 128;  // columns that share one activation scale

// y[m][r] = sum_k x[m][k] * w[r][k] (+ bias[r]) for one panel of rows and `mt` activation rows.
// Every output is accumulated over k in ascending order in one chain, whatever mt is: results do not depend on
// which other rows are in the batch.
struct PanelArgs {
  const float* x;     // [k][ldx]: column-interleaved rows
  const void* w;      // one panel
  const float* bias;  // [rows] or null
  float* y;           // [mt][ldy]
  std::int64_t ldy;
  int k, ldx, mt, rows;  // mt in 1..kTile, rows in 1..kPanel
};

// The same for int8: activations are quantised per row and group of kQuantGroup columns.
struct PanelArgsI8 {
  const std::int32_t* x;      // [k4][ldx]: four int8 columns of one row in each element
  const float* x_scale;       // [groups][ldx]
  const std::int32_t* x_fix;  // [groups][ldx]: -128 * sum of the group's int8 values
  const void* w;              // one panel
  const float* w_scale;       // [kPanel], whatever rows is
  const float* bias;          // [rows] or null
  float* y;
  std::int64_t ldy;
  int k4, ldx, mt, rows;
};

// Keys and values are kept in pages of kPageTokens tokens per layer and kv head.
//   keys:   [head_dim][kPageTokens]   values: [kPageTokens][head_dim_padded]
// i8: behind them the scales of the keys and those of the values, float[kPageTokens] each: max|x| / 127 of the token's
// head.
inline constexpr int kPageTokens = 16;
enum class KvElement : std::uint8_t { f32, f16, i8 };
inline constexpr int kAttendRows = 8;  // most query rows in one attend call

struct AttendArgs {
  const float* q[kAttendRows];  // query rows, scaled; head_dim floats each
  float* out[kAttendRows];      // head_dim floats each
  int lo[kAttendRows];          // row r sees the keys in [lo, hi), at least one
  int hi[kAttendRows];
  const std::int32_t* pages;  // page of token t: pages[t / kPageTokens]
  const char* k_base;         // page p's keys of this layer and head at k_base + p * page_bytes
  const char* v_base;
  std::int64_t page_bytes;
  float* scratch;  // attend_scratch_floats(head_dim) floats, 64-byte aligned
  int rows, head_dim, head_dim_padded;
  KvElement element;
  float softcap;  // 0, or scores become softcap * tanh(score / softcap)
};

constexpr int pad_head_dim(int head_dim) {
  return (head_dim + 15) / 16 * 16;
}
constexpr int attend_scratch_floats(int head_dim) {
  return kAttendRows * pad_head_dim(head_dim);
}

struct Kernels {
  Isa isa;
  void (*panel_f32)(const PanelArgs&);
  void (*panel_bf16)(const PanelArgs&);
  void (*panel_f16)(const PanelArgs&);
  void (*panel_i8)(const PanelArgsI8&);
  void (*attend)(const AttendArgs&);
  // q[n] = round(x / scale), scale = max|x| / 127; returns the scale, writes the sum of q. Not-finite input gives a
  // NaN scale, so that it is not lost.
  float (*quantize_group)(const float* x, int n, std::int8_t* q, std::int32_t* sum);
  void (*rms_norm)(const float* x, const float* weight, float* y, int n, float eps);  // y may be x
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float* y, int n, float eps);
  // Rotates x[0..2*half) in place, halves paired: (x[i], x[i + half]) by angle i.
  void (*rope)(float* x, const float* cos, const float* sin, int half);
  void (*silu_mul)(const float* gate, const float* up, float* y, int n);       // y = silu(gate) * up
  void (*gelu_tanh_mul)(const float* gate, const float* up, float* y, int n);  // y = gelu(gate) * up, tanh form
  void (*gelu)(float* x, int n);                                               // exact (erf) form, in place
  void (*relu)(float* x, int n);                                               // in place
  void (*soft_cap)(float* x, int n, float cap);                                // x = cap * tanh(x / cap)
  void (*add)(float* x, const float* y, int n);                                // x += y
  void (*softmax)(float* x, int n);                                            // in place
  float (*max)(const float* x, int n);                                         // NaN anywhere gives NaN
  float (*sum_exp)(const float* x, int n, float shift);                        // sum of exp(x - shift)
  void (*widen_bf16)(const std::uint16_t* x, float* y, int n);
  void (*widen_f16)(const std::uint16_t* x, float* y, int n);
  void (*narrow_f16)(const float* x, std::uint16_t* y, int n);  // round to nearest even
};

const Kernels& scalar_kernels();
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512_vnni_kernels();

}  // namespace ganglion::local
