#pragma once
// The operations that only some families of decoders need, beside kernels.hpp and by its rules: other norms and where
// they stand, learned positions, rotation of a part of a head, activations, experts, adapters.

#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::local::cuda {

// A norm's weights, float[width]; weight null: no norm. With a bias it is a LayerNorm, else an RMS norm.
struct NormWeights {
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// hidden += after(add); hidden = sum(hidden), where those norms are; out = next(hidden), or hidden itself.
struct Settle {
  float* hidden = nullptr;             // fp32 [rows][width]
  const void* add = nullptr;           // [rows][add_stride] or null; bf16, or fp32
  bool add_wide = false;               // fp32
  const std::int32_t* pick = nullptr;  // null, or the rows of hidden that are meant (`add` must be null)
  int add_stride = 0, width = 0, rows = 0;
  NormWeights after, sum, next;
  float eps = 0;
  void* out = nullptr;  // bf16, or with out_scales e4m3 or int8; [rows][out_stride]
  int out_stride = 0;
  float* out_scales = nullptr;
  bool int8 = false;
};
cudaError_t settle(Queue, const Settle&);

// Token embeddings with what families do to them, and the step's rotary angles.
struct EmbedGeneral {
  const void* table = nullptr;  // bf16 [vocab][stride]
  int stride = 0, width = 0, rows = 0;
  const std::int32_t* tokens = nullptr;
  const std::int32_t* positions = nullptr;  // negative: a row that only pads
  float scale = 1;
  float* hidden = nullptr;  // fp32 [rows][width]; or null, and
  void* narrow = nullptr;   // bf16 [rows][narrow_stride], to be projected
  int narrow_stride = 0;
  // Frequencies float[half]; `long_rows` says for each row whether the second list is its. Angles [rows][half].
  int half = 0;
  const float *frequencies = nullptr, *long_frequencies = nullptr, *local_frequencies = nullptr;
  const std::int32_t* long_rows = nullptr;
  float magnitude = 1;
  float *cos = nullptr, *sin = nullptr, *local_cos = nullptr, *local_sin = nullptr;
};
cudaError_t embed_general(Queue, const EmbedGeneral&);
// hidden += table[position + offset]
cudaError_t add_positions(Queue, const void* table, int stride, int offset, const std::int32_t* positions, int width,
                          int rows, float* hidden);

// rotate_append for heads of up to 256 elements of which the first 2 * half are rotated; cos null: none are.
cudaError_t rotate_append_general(Queue, const RotateAppend&, int half);

enum class Activate : std::uint8_t { gelu_tanh_gate, silu_gate, relu, gelu };
constexpr bool is_gate(Activate a) {
  return a == Activate::gelu_tanh_gate || a == Activate::silu_gate;
}
// Gates read alternating eights as Gate does, the others `width` elements as they lie.
cudaError_t activate(Queue, Activate, const Gate&);

// x = cap * tanh(x / cap), fp32 [rows][stride].
cudaError_t soft_cap(Queue, float* x, int stride, int width, int rows, float cap);

// What an int4 product lacks whose weights have zero points: y[r] -= sum over groups g of scale * zero * (sum of x over
// g). y is bf16, or fp32 when `wide`.
cudaError_t correct_zeros(Queue, const Matrix& w, const void* x, int x_stride, int rows, void* y, int y_stride,
                          bool wide);

// ---- experts ----

// What a step's rows chose: row r's j-th choice is slot r * used + j.
struct Routes {
  const float* logits = nullptr;  // fp32 [rows][stride]
  int stride = 0, experts = 0, used = 0, rows = 0;
  const std::int32_t* positions = nullptr;  // negative: a row that only pads, and goes nowhere
  std::int32_t* chosen = nullptr;           // [rows * used]
  float* weights = nullptr;                 // [rows * used]: softmax over the row's choices
  std::int32_t* slots = nullptr;            // [experts][capacity]: an expert's slots, ascending
  std::int32_t* counts = nullptr;           // [experts]
  int capacity = 0;
};
cudaError_t route(Queue, const Routes&);

// y[slot] = W_e x[slot / x_per_row] for every slot of every expert e. The matrix holds the experts one after the other,
// w.rows / experts rows each.
struct GroupedProduct {
  Matrix w;
  const void* x = nullptr;  // bf16 [..][x_stride]
  int x_stride = 0, x_per_row = 1;
  void* y = nullptr;  // bf16 [..][y_stride]
  int y_stride = 0;
  int experts = 0, capacity = 0;
  int slot_count = 0;  // of all experts together
  const std::int32_t* slots = nullptr;
  const std::int32_t* counts = nullptr;
};
// By the kernel for few rows an expert, or by that for many; each can do either's work.
cudaError_t grouped_product(Queue, const GroupedProduct&);
cudaError_t grouped_stream(Queue, const GroupedProduct&);
cudaError_t grouped_tiles(Queue, const GroupedProduct&);

// out[row] = sum over j of weights[row * used + j] * x[row * used + j]; what weighs nothing is not looked at. x is
// bf16, out too or `wide`: fp32.
cudaError_t combine(Queue, const void* x, int x_stride, const float* weights, int used, int width, int rows, void* out,
                    int out_stride, bool wide);

// ---- adapters ----

// One projection's pair in one adapter. a: bf16 [rank][cols padded to 8]; b: bf16 [rows][rank], the scale included.
struct AdapterPart {
  const void *a = nullptr, *b = nullptr;
  int rank = 0, cols = 0, rows = 0;
  int first = 0, spread = 1;  // row r is element (r / 8) * 8 * spread + r % 8 + first of y, as PackPlace has it
};
inline constexpr int kAdapterRankMax = 64;
inline constexpr int kAdapterPartsMax = 3;  // of one place: q, k and v

// y[row] += B (A x[row]) for the rows whose adapter has parts. `parts`: [adapters][kAdapterPartsMax], rank 0: none.
struct Adapt {
  const AdapterPart* parts = nullptr;
  const std::int32_t* adapters = nullptr;  // of each row; negative: none
  int rows = 0, cols = 0;
  const void* x = nullptr;
  int x_stride = 0;
  void* y = nullptr;
  int y_stride = 0;
  bool wide = false;        // y is fp32
  float* middle = nullptr;  // [rows][kAdapterPartsMax][kAdapterRankMax]
};
cudaError_t adapt(Queue, const Adapt&);

}  // namespace ganglion::local::cuda
