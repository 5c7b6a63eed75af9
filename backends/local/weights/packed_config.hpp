#pragma once
// How the projections of a checkpoint were quantised before it was published: quantization_config of config.json. What
// of them really is quantised, the tensors say.

#include <cstdint>

namespace ganglion::local {

class ConfigFields;

enum class PackedScheme : std::uint8_t {
  none,
  gptq,
  awq,
  rows,  // compressed-tensors' int4: words along a row, no zero points
  fp8,
  int8,  // compressed-tensors', a scale a row or a tensor, no zero points
};

struct PackedConfig {
  PackedScheme scheme = PackedScheme::none;
  std::int64_t group = 0;  // int4: columns that share a scale; 0: all of a row
  int zero_add = 0;        // int4: what is missing from stored zero points
  // fp8: a scale for each block of so many rows and columns; 0: one a row or one a tensor, as the scale's shape says.
  std::int64_t block_rows = 0, block_cols = 0;
};

// Reads the object. Methods and options that are not implemented are mistakes, which name those that are.
PackedConfig read_packed_config(ConfigFields& f);

}  // namespace ganglion::local
