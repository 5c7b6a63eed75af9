// GPTQ keeps eight consecutive columns of a row in a word, [columns / 8][rows], compressed-tensors too, but
// [rows][columns / 8]; AWQ eight rows of a column, in its own order, [columns][rows / 8]. Zero points are packed like
// AWQ's, GPTQ's in plain order. fp8 and int8 are row-major bytes.

#include "backends/local/models/packed_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backends/local/kernels/cpu/dispatch.hpp"
#include "backends/local/models/weight_loader.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;
using core::Result;

constexpr int kAwqPlace[8] = {0, 4, 1, 5, 2, 6, 3, 7};  // in which nibble row r % 8 lies

std::uint32_t word_at(const TensorView& t, std::int64_t index) {
  std::uint32_t w;
  std::memcpy(&w, t.data.data() + index * 4, 4);
  return w;
}

float float_at(const TensorView& t, std::int64_t index) {
  float out = 0;
  const std::byte* at = t.data.data();
  if (t.dtype == Dtype::f32) {
    std::memcpy(&out, at + index * 4, 4);
    return out;
  }
  std::uint16_t bits;
  std::memcpy(&bits, at + index * 2, 2);
  (t.dtype == Dtype::bf16 ? scalar_kernels().widen_bf16 : scalar_kernels().widen_f16)(&bits, &out, 1);
  return out;
}

float fp8_value(std::uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return std::nanf("");
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                   : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (bits & 0x80) != 0 ? -size : size;
}

Result<const TensorView*> typed(const Checkpoint& checkpoint, const std::string& name,
                                std::span<const std::int64_t> shape, std::span<const Dtype> types) {
  auto found = checkpoint.require(name, shape);
  if (!found) return found;
  if (std::ranges::find(types, (*found)->dtype) != types.end()) return found;
  return core::fail(ErrorKind::unsupported, "tensor " + name + " has element type " +
                                                std::string(dtype_name((*found)->dtype)) +
                                                ", which this kind of quantisation does not");
}

const char* values_suffix(PackedScheme scheme) {
  switch (scheme) {
    case PackedScheme::fp8:
    case PackedScheme::int8:
      return ".weight";
    case PackedScheme::rows:
      return ".weight_packed";
    default:
      return ".qweight";
  }
}

std::int64_t up(std::int64_t n, std::int64_t by) {
  return (n + by - 1) / by;
}

}  // namespace

Result<std::optional<PackedTensor>> PackedTensor::find(const Checkpoint& checkpoint,
                                                       std::span<const std::string> prefixes, const std::string& name,
                                                       std::int64_t rows, std::int64_t cols,
                                                       const PackedConfig& config) {
  PackedTensor out;
  out.config_ = config;
  out.rows_ = rows, out.cols_ = cols;
  if (config.scheme == PackedScheme::none) return std::nullopt;
  const bool int8 = config.scheme == PackedScheme::int8, bytes = config.scheme == PackedScheme::fp8 || int8;
  const std::string* prefix = nullptr;
  for (const std::string& p : prefixes) {
    if (checkpoint.find(p + name + values_suffix(config.scheme)) != nullptr) {
      prefix = &p;
      break;
    }
  }
  if (prefix == nullptr) return std::nullopt;
  const std::string full = *prefix + name;
  const auto take = [&](const std::string& suffix, std::vector<std::int64_t> shape, std::span<const Dtype> types,
                        const TensorView*& to) -> Result<void> {
    auto found = typed(checkpoint, full + suffix, shape, types);
    if (!found) return std::unexpected(found.error());
    to = *found;
    return {};
  };
  static constexpr Dtype kFp8[] = {Dtype::f8_e4m3}, kInt8[] = {Dtype::i8}, kWords[] = {Dtype::i32};
  static constexpr Dtype kFloats[] = {Dtype::f32, Dtype::f16, Dtype::bf16};
  if (bytes) {
    if (checkpoint.find(full + ".weight")->dtype != (int8 ? Dtype::i8 : Dtype::f8_e4m3)) return std::nullopt;
    auto ok = take(".weight", {rows, cols}, int8 ? std::span<const Dtype>(kInt8) : kFp8, out.values_);
    // Symmetric ones may come with zero points that are all zero.
    const TensorView* zeros = checkpoint.find(full + ".weight_zero_point");
    if (ok && zeros != nullptr && std::ranges::any_of(zeros->data, [](std::byte b) { return b != std::byte{0}; })) {
      return core::fail(ErrorKind::unsupported, "tensor " + full + ".weight_zero_point is not zero");
    }
    if (ok && config.block_rows > 0) {
      const bool inverse = checkpoint.find(full + ".weight_scale_inv") != nullptr;  // transformers' name; not inverted
      ok = take(inverse ? ".weight_scale_inv" : ".weight_scale",
                {up(rows, config.block_rows), up(cols, config.block_cols)}, kFloats, out.scales_);
    } else if (ok) {
      const TensorView* scale = checkpoint.find(full + ".weight_scale");
      const std::int64_t count = scale == nullptr ? 0 : scale->numel();
      const bool fits = scale != nullptr && (count == 1 || (count == rows && scale->shape[0] == rows));
      ok = take(".weight_scale", fits ? scale->shape : std::vector<std::int64_t>{rows, 1}, kFloats, out.scales_);
    }
    if (!ok) return std::unexpected(ok.error());
    return out;
  }
  const bool gptq = config.scheme == PackedScheme::gptq;
  if (rows % 8 != 0 || cols % 8 != 0) {
    return core::fail(ErrorKind::invalid_value, full + ": int4 needs rows and columns in multiples of 8");
  }
  const std::int64_t groups = out.groups();
  if (config.scheme == PackedScheme::rows) {
    for (const char* suffix : {".weight_zero_point", ".weight_g_idx"}) {
      if (checkpoint.find(full + suffix) == nullptr) continue;
      return core::fail(ErrorKind::unsupported, "tensor " + full + suffix + " is of a kind that is not implemented");
    }
    auto taken = take(".weight_packed", {rows, cols / 8}, kWords, out.values_);
    if (taken) taken = take(".weight_scale", {rows, groups}, kFloats, out.scales_);
    if (!taken) return std::unexpected(taken.error());
    return out;
  }
  auto ok =
      take(".qweight", gptq ? std::vector<std::int64_t>{cols / 8, rows} : std::vector<std::int64_t>{cols, rows / 8},
           kWords, out.values_);
  if (ok) ok = take(".scales", {groups, rows}, kFloats, out.scales_);
  if (ok) ok = take(".qzeros", {groups, rows / 8}, kWords, out.zeros_);
  const TensorView* order = nullptr;
  if (ok && gptq && checkpoint.find(full + ".g_idx") != nullptr) ok = take(".g_idx", {cols}, kWords, order);
  if (!ok) return std::unexpected(ok.error());
  bool scattered = false;
  std::vector<std::int32_t> places(order == nullptr ? 0 : static_cast<std::size_t>(cols));
  for (std::int64_t c = 0; c < static_cast<std::int64_t>(places.size()); ++c) {
    const auto group = static_cast<std::int32_t>(word_at(*order, c));
    if (group < 0 || group >= groups) {
      return core::fail(ErrorKind::invalid_value, "tensor " + full + ".g_idx names group " + std::to_string(group) +
                                                      " of " + std::to_string(groups));
    }
    places[static_cast<std::size_t>(c)] = group;
    scattered = scattered || group != (config.group > 0 ? c / config.group : 0);
  }
  if (scattered) out.order_ = std::move(places);
  return out;
}

std::int64_t PackedTensor::groups() const {
  return config_.group > 0 ? up(cols_, config_.group) : 1;
}

float PackedTensor::scale_of(std::int64_t row, std::int64_t group) const {
  return float_at(*scales_, config_.scheme == PackedScheme::rows ? row * groups() + group : group * rows_ + row);
}

int PackedTensor::zero_of(std::int64_t row, std::int64_t group) const {
  if (zeros_ == nullptr) return 0;
  const int place = config_.scheme == PackedScheme::awq ? kAwqPlace[row % 8] : static_cast<int>(row % 8);
  const auto stored = static_cast<int>(word_at(*zeros_, group * (rows_ / 8) + row / 8) >> (4 * place) & 15);
  // Stored less one in a nibble: 15 stands for what was 0 before.
  return (config_.zero_add == 0 ? stored : (stored + config_.zero_add) & 15) - 8;
}

int PackedTensor::int4_group() const {
  if (bytes() || !order_.empty()) return 0;
  for (const int group : {128, 64}) {
    if (config_.group % group == 0) return group;  // 0: one scale a row, which can be repeated
  }
  return 0;
}

bool PackedTensor::symmetric() const {
  if (zeros_ == nullptr) return true;
  const std::uint32_t eight = config_.zero_add == 0 ? 0x88888888u : 0x77777777u;
  for (std::int64_t i = 0; i < zeros_->numel(); ++i) {
    if (word_at(*zeros_, i) != eight) return false;
  }
  return true;
}

void PackedTensor::int4_values(std::int64_t first, std::int64_t count, std::int8_t* values) const {
  // A word is read once, and what it holds is written where it stays in the cache: 64 rows at a time.
  constexpr std::int64_t kRows = 64;
  const auto nibble = [](std::uint32_t word, int place) {
    return static_cast<std::int8_t>(static_cast<int>(word >> (4 * place) & 15) - 8);
  };
  for (std::int64_t block = 0; block < count; block += kRows) {
    const std::int64_t end = std::min(count, block + kRows);
    if (config_.scheme != PackedScheme::awq) {
      const bool by_row = config_.scheme == PackedScheme::rows;
      for (std::int64_t c = 0; c < cols_; c += 8) {
        for (std::int64_t r = block; r < end; ++r) {
          const std::uint32_t word =
              word_at(*values_, by_row ? ((first + r) * cols_ + c) / 8 : c / 8 * rows_ + first + r);
          for (int i = 0; i < 8; ++i) values[r * cols_ + c + i] = nibble(word, i);
        }
      }
      continue;
    }
    for (std::int64_t c = 0; c < cols_; ++c) {
      for (std::int64_t r = block; r < end;) {
        const std::int64_t row = first + r;
        const std::uint32_t word = word_at(*values_, c * (rows_ / 8) + row / 8);
        for (std::int64_t i = row % 8; i < 8 && r < end; ++i, ++r) values[r * cols_ + c] = nibble(word, kAwqPlace[i]);
      }
    }
  }
}

void PackedTensor::int4_rows(std::int64_t first, std::int64_t count, int group, std::int8_t* values, float* scales,
                             float* zeros) const {
  int4_values(first, count, values);
  const std::int64_t ours = up(cols_, group);
  for (std::int64_t r = 0; r < count; ++r) {
    for (std::int64_t g = 0; g < ours; ++g) {
      const std::int64_t theirs = config_.group > 0 ? g * group / config_.group : 0;
      scales[r * ours + g] = scale_of(first + r, theirs);
      zeros[r * ours + g] = static_cast<float>(zero_of(first + r, theirs));
    }
  }
}

bool PackedTensor::bytes_by_row() const {
  return config_.scheme == PackedScheme::int8 || (config_.scheme == PackedScheme::fp8 && config_.block_rows == 0);
}

void PackedTensor::row_scales(std::int64_t first, std::int64_t count, float* scales) const {
  const bool one = scales_->numel() == 1;
  for (std::int64_t r = 0; r < count; ++r) scales[r] = float_at(*scales_, one ? 0 : first + r);
}

void PackedTensor::byte_rows(std::int64_t first, std::int64_t count, std::uint8_t* bytes, float* scales) const {
  std::memcpy(bytes, values_->data.data() + first * cols_, static_cast<std::size_t>(count * cols_));
  row_scales(first, count, scales);
}

const std::byte* PackedTensor::bytes_and_scales(float* scales) const {
  row_scales(0, rows_, scales);
  return values_->data.data();
}

void PackedTensor::dequantise(std::int64_t first, std::int64_t count, float* out) const {
  if (bytes()) {
    float table[256];
    for (int i = 0; i < 256; ++i) {
      const auto b = static_cast<std::uint8_t>(i);
      table[i] = config_.scheme == PackedScheme::int8 ? static_cast<float>(static_cast<std::int8_t>(b)) : fp8_value(b);
    }
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(values_->data.data());
    const bool one = scales_->numel() == 1;
    const std::int64_t block = config_.block_rows > 0 ? config_.block_cols : cols_, blocks = up(cols_, block);
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t b = 0; b < blocks; ++b) {
        const std::int64_t at = config_.block_rows > 0 ? (first + r) / config_.block_rows * blocks + b : first + r;
        const float scale = float_at(*scales_, one ? 0 : at);
        for (std::int64_t c = b * block; c < std::min(cols_, (b + 1) * block); ++c) {
          out[r * cols_ + c] = table[bytes[(first + r) * cols_ + c]] * scale;
        }
      }
    }
    return;
  }
  const std::int64_t all = groups();
  std::vector<std::int8_t> values(static_cast<std::size_t>(count * cols_));
  std::vector<float> scales(static_cast<std::size_t>(all)), zeros(static_cast<std::size_t>(all));
  int4_values(first, count, values.data());
  for (std::int64_t r = 0; r < count; ++r) {
    for (std::int64_t g = 0; g < all; ++g) {
      scales[static_cast<std::size_t>(g)] = scale_of(first + r, g);
      zeros[static_cast<std::size_t>(g)] = static_cast<float>(zero_of(first + r, g));
    }
    for (std::int64_t c = 0; c < cols_; ++c) {
      const auto g = static_cast<std::size_t>(!order_.empty()     ? order_[static_cast<std::size_t>(c)]
                                              : config_.group > 0 ? c / config_.group
                                                                  : 0);
      out[r * cols_ + c] = (static_cast<float>(values[static_cast<std::size_t>(r * cols_ + c)]) - zeros[g]) * scales[g];
    }
  }
}

void PackedTensor::drop_pages(const Checkpoint& checkpoint) const {
  for (const TensorView* t : {values_, scales_, zeros_}) {
    if (t != nullptr) checkpoint.drop_pages(*t);
  }
}

}  // namespace ganglion::local
