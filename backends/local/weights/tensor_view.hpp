#pragma once
// A tensor as it lies in a checkpoint file: name, type, shape and borrowed bytes. Owns nothing; the Checkpoint that
// made it keeps the mapping alive. Bytes are row-major, little-endian and possibly unaligned: read them with memcpy.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ganglion::local {

// Every element type that the safetensors format names. Recognised is not the same as computable: the model loader
// says which ones it can use.
enum class Dtype : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  f6_e2m3,
  f6_e3m2,
  f4,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  c64,  // two f32: real, imaginary
};

// Bits per element (F4 is 4, F6 is 6: a tensor of those must fill whole bytes).
int dtype_bits(Dtype dtype);
// The format's spelling: "BF16", "F8_E4M3", ...
std::string_view dtype_name(Dtype dtype);
std::optional<Dtype> dtype_from_name(std::string_view name);

struct TensorView {
  std::string_view name;
  Dtype dtype = Dtype::f32;
  std::vector<std::int64_t> shape;  // [] is a scalar
  std::span<const std::byte> data;  // exactly numel() elements, row-major
  // Never overflows: the reader has checked it.
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (std::int64_t d : shape) n *= d;
    return n;
  }
};

// "[4096, 11008]", for messages.
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace ganglion::local
