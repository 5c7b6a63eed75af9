#pragma once
// A weight matrix packed for streaming, and its product with a batch of activation rows. Several checkpoint tensors
// over the same input (q, k and v; gate and up) are packed as one. Immutable once packed.

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backends/local/kernels/buffer.hpp"
#include "backends/local/kernels/cpu/table.hpp"
#include "backends/local/kernels/thread_pool.hpp"

namespace ganglion::local {

// Row-major rows of a matrix as they lie in a file: any alignment. i8: with a scale a row.
struct LinearPart {
  const std::byte* data = nullptr;
  std::int64_t rows = 0;
  WeightType type = WeightType::f32;
  const float* scales = nullptr;
};

// Packed activations, reused from call to call by one caller at a time.
class LinearScratch {
 public:
  // Grows to at least `bytes`; null when memory is exhausted.
  void* reserve(std::size_t bytes);

 private:
  Buffer buffer_;
};

class Linear {
 public:
  Linear() = default;

  // `bias` is empty or has one entry per row. With quantize_int8 every row gets its own scale max|w| / 127; otherwise
  // the parts' type is kept (parts of different types become f32). Parts in i8 stay what they are; beside others they
  // need quantize_int8. An empty Linear (rows() == 0) means that memory
  // could not be had.
  static Linear pack(std::span<const LinearPart> parts, std::int64_t cols, bool quantize_int8, std::vector<float> bias,
                     ThreadPool& pool);

  // y[m][0..rows) = W x[m] + bias for m in [0, count). x has `cols` floats per row at stride ldx. False when scratch
  // memory could not be had.
  bool forward(const Kernels& kernels, ThreadPool& pool, LinearScratch& scratch, const float* x, std::int64_t ldx,
               int count, float* y, std::int64_t ldy) const;

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  WeightType type() const { return type_; }
  std::size_t bytes() const { return weights_.size(); }

 private:
  void pack_panel(std::span<const LinearPart> parts, std::int64_t panel);
  void pack_panel_int8(std::span<const LinearPart> parts, std::int64_t panel);
  bool forward_float(const Kernels&, ThreadPool&, LinearScratch&, const float* x, std::int64_t ldx, int count, float* y,
                     std::int64_t ldy) const;
  bool forward_int8(const Kernels&, ThreadPool&, LinearScratch&, const float* x, std::int64_t ldx, int count, float* y,
                    std::int64_t ldy) const;
  std::int64_t panels() const { return (rows_ + kPanel - 1) / kPanel; }

  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  WeightType type_ = WeightType::f32;
  std::size_t panel_bytes_ = 0;
  Buffer weights_;
  std::vector<float> scales_;  // int8: one per row, padded to whole panels
  std::vector<float> bias_;
};

}  // namespace ganglion::local
