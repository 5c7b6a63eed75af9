#pragma once
// Takes tensors out of a checkpoint in the form that models compute with. Every error names the tensor that is
// missing, has the wrong shape, or an element type that cannot be computed with.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/local/kernels/linear.hpp"
#include "backends/local/models/packed_weights.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "core/error.hpp"

namespace ganglion::local {

// Rows of an embedding table, looked up in the file's own type.
class EmbeddingTable {
 public:
  EmbeddingTable() = default;
  EmbeddingTable(const TensorView* tensor, WeightType type) : tensor_(tensor), type_(type) {}
  std::int64_t rows() const { return tensor_->shape[0]; }
  std::int64_t cols() const { return tensor_->shape[1]; }
  const TensorView& tensor() const { return *tensor_; }
  WeightType type() const { return type_; }
  void read(const Kernels& kernels, std::int64_t row, float* out) const;

 private:
  const TensorView* tensor_ = nullptr;
  WeightType type_ = WeightType::f32;
};

// All elements of a tensor of floating-point numbers, as float.
core::Result<std::vector<float>> widened(const TensorView& tensor);

class WeightLoader {
 public:
  // Names are tried with each prefix in turn (BERT checkpoints come with and without "bert.").
  WeightLoader(const Checkpoint& checkpoint, std::vector<std::string> prefixes, ThreadPool& pool, bool quantize_int8,
               const PackedConfig& packed = {})
      : checkpoint_(checkpoint),
        prefixes_(std::move(prefixes)),
        pool_(pool),
        quantize_int8_(quantize_int8),
        packed_(packed) {}

  struct Piece {
    std::string name;  // "<name>.weight", and "<name>.bias" where biases are asked for
    std::int64_t rows;
  };
  // Several projections of one input as one matrix. What the checkpoint has quantised is widened to fp16 first, but for
  // int8, which stays as it is where all of the matrix is int8 or becomes it.
  core::Result<Linear> linear(std::span<const Piece> pieces, std::int64_t cols, bool bias) const;
  core::Result<Linear> linear(const Piece& piece, std::int64_t cols, bool bias) const {
    return linear({&piece, 1}, cols, bias);
  }
  // A linear layer over an embedding table (tied output weights).
  core::Result<Linear> linear(const EmbeddingTable& table) const;
  core::Result<std::vector<float>> vector(std::string_view name, std::int64_t size) const;
  core::Result<EmbeddingTable> table(std::string_view name, std::int64_t rows, std::int64_t cols) const;
  bool has(std::string_view name) const;

 private:
  core::Result<const TensorView*> tensor(std::string_view name, std::span<const std::int64_t> shape) const;
  std::vector<std::uint16_t> widen_packed(const PackedTensor& tensor) const;
  core::Result<Linear> pack(std::span<const LinearPart> parts, std::int64_t cols, std::vector<float> bias,
                            std::string_view name) const;

  const Checkpoint& checkpoint_;
  std::vector<std::string> prefixes_;
  ThreadPool& pool_;
  bool quantize_int8_;
  PackedConfig packed_;
};

}  // namespace ganglion::local
