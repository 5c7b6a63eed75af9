#pragma once
// A projection as a quantised checkpoint has it: found by its tensors, read back as floats, or taken apart for a layout
// that keeps it without loss.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/local/weights/checkpoint.hpp"
#include "backends/local/weights/packed_config.hpp"
#include "core/error.hpp"

namespace ganglion::local {

class PackedTensor {
 public:
  // By the names that the scheme gives its tensors, with each prefix in turn. nullopt: the projection is not quantised
  // (or absent). Errors name the tensor that is missing or has another shape or type.
  static core::Result<std::optional<PackedTensor>> find(const Checkpoint& checkpoint,
                                                        std::span<const std::string> prefixes, const std::string& name,
                                                        std::int64_t rows, std::int64_t cols,
                                                        const PackedConfig& config);

  PackedScheme scheme() const { return config_.scheme; }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }

  // Rows [first, first + count) into [count][cols]. Any thread.
  void dequantise(std::int64_t first, std::int64_t count, float* out) const;

  // int4: the largest of 128 and 64 that divides the groups, which then lie in a row; 0: neither, or they are scattered
  // (desc_act).
  int int4_group() const;
  bool symmetric() const;  // every zero point is 8
  // int4 rows in groups of `group`: values less 8 [count][cols], scales and zero points less 8 [count][groups].
  void int4_rows(std::int64_t first, std::int64_t count, int group, std::int8_t* values, float* scales,
                 float* zeros) const;
  // fp8 and int8: whether every row has one scale; and rows' bytes [count][cols] and scales.
  bool bytes_by_row() const;
  void byte_rows(std::int64_t first, std::int64_t count, std::uint8_t* bytes, float* scales) const;
  const std::byte* bytes_and_scales(float* scales) const;  // of all rows, where the file has them

  void drop_pages(const Checkpoint& checkpoint) const;

 private:
  void int4_values(std::int64_t first, std::int64_t count, std::int8_t* values) const;  // less 8
  float scale_of(std::int64_t row, std::int64_t group) const;
  int zero_of(std::int64_t row, std::int64_t group) const;                       // less 8
  void row_scales(std::int64_t first, std::int64_t count, float* scales) const;  // of fp8 and int8
  std::int64_t groups() const;
  bool bytes() const { return config_.scheme == PackedScheme::fp8 || config_.scheme == PackedScheme::int8; }

  PackedConfig config_;
  std::int64_t rows_ = 0, cols_ = 0;
  const TensorView *values_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr;
  std::vector<std::int32_t> order_;  // gptq: group of each column, where they are scattered
};

}  // namespace ganglion::local
