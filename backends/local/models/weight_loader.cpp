// Checkpoint tensors to packed matrices, vectors and tables.

#include "backends/local/models/weight_loader.hpp"

#include <algorithm>
#include <cstring>

namespace ganglion::local {
namespace {

using core::ErrorKind;
using core::Result;

Result<WeightType> weight_type(const TensorView& tensor) {
  switch (tensor.dtype) {
    case Dtype::f32:
      return WeightType::f32;
    case Dtype::bf16:
      return WeightType::bf16;
    case Dtype::f16:
      return WeightType::f16;
    default:
      return core::fail(ErrorKind::unsupported, "tensor " + std::string(tensor.name) + " has element type " +
                                                    std::string(dtype_name(tensor.dtype)) +
                                                    "; weights can be F32, F16 or BF16");
  }
}

void widen(const std::byte* data, WeightType type, std::int64_t n, float* out, const Kernels& kernels) {
  if (type == WeightType::f32) {
    std::memcpy(out, data, static_cast<std::size_t>(n) * 4);
    return;
  }
  std::uint16_t chunk[512];  // a file's tensor need not be aligned
  for (std::int64_t at = 0; at < n; at += 512) {
    const int count = static_cast<int>(n - at < 512 ? n - at : 512);
    std::memcpy(chunk, data + at * 2, static_cast<std::size_t>(count) * 2);
    (type == WeightType::bf16 ? kernels.widen_bf16 : kernels.widen_f16)(chunk, out + at, count);
  }
}

}  // namespace

Result<std::vector<float>> widened(const TensorView& tensor) {
  auto type = weight_type(tensor);
  if (!type) return std::unexpected(type.error());
  std::vector<float> out(static_cast<std::size_t>(tensor.numel()));
  widen(tensor.data.data(), *type, tensor.numel(), out.data(), scalar_kernels());
  return out;
}

void EmbeddingTable::read(const Kernels& kernels, std::int64_t row, float* out) const {
  const std::int64_t width = type_ == WeightType::f32 ? 4 : 2;
  widen(tensor_->data.data() + row * cols() * width, type_, cols(), out, kernels);
}

bool WeightLoader::has(std::string_view name) const {
  for (const std::string& prefix : prefixes_) {
    if (checkpoint_.find(prefix + std::string(name)) != nullptr) return true;
  }
  return false;
}

Result<const TensorView*> WeightLoader::tensor(std::string_view name, std::span<const std::int64_t> shape) const {
  for (const std::string& prefix : prefixes_) {
    const std::string full = prefix + std::string(name);
    if (checkpoint_.find(full) != nullptr) return checkpoint_.require(full, shape);
  }
  return checkpoint_.require(prefixes_.front() + std::string(name), shape);  // the error that names it
}

Result<Linear> WeightLoader::pack(std::span<const LinearPart> parts, std::int64_t cols, std::vector<float> bias,
                                  std::string_view name) const {
  Linear out = Linear::pack(parts, cols, quantize_int8_, std::move(bias), pool_);
  if (out.rows() == 0) return core::fail(ErrorKind::internal, "no memory for the weights of " + std::string(name));
  return out;
}

std::vector<std::uint16_t> WeightLoader::widen_packed(const PackedTensor& tensor) const {
  const std::int64_t cols = tensor.cols();
  std::vector<std::uint16_t> out(static_cast<std::size_t>(tensor.rows() * cols));
  constexpr std::int64_t kRows = 64;  // at once: a line of a word matrix is whole then
  pool_.split((tensor.rows() + kRows - 1) / kRows, 1, [&](std::int64_t begin, std::int64_t end, int) {
    std::vector<float> wide(static_cast<std::size_t>(kRows * cols));
    for (std::int64_t block = begin; block < end; ++block) {
      const std::int64_t first = block * kRows, count = std::min(kRows, tensor.rows() - first);
      tensor.dequantise(first, count, wide.data());
      scalar_kernels().narrow_f16(wide.data(), out.data() + first * cols, static_cast<int>(count * cols));
    }
  });
  tensor.drop_pages(checkpoint_);
  return out;
}

Result<Linear> WeightLoader::linear(std::span<const Piece> pieces, std::int64_t cols, bool bias) const {
  std::vector<std::optional<PackedTensor>> packed;
  bool keeps_int8 = packed_.scheme == PackedScheme::int8;
  for (const Piece& piece : pieces) {
    auto found = PackedTensor::find(checkpoint_, prefixes_, piece.name, piece.rows, cols, packed_);
    if (!found) return std::unexpected(found.error());
    keeps_int8 = keeps_int8 && (quantize_int8_ || found->has_value());
    packed.push_back(std::move(*found));
  }
  std::vector<LinearPart> parts;
  std::vector<const TensorView*> tensors;
  std::vector<std::vector<std::uint16_t>> widened;
  std::vector<std::vector<float>> scales;
  std::vector<float> biases;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    if (packed[i] && keeps_int8) {
      scales.emplace_back(static_cast<std::size_t>(piece.rows));
      parts.push_back(
          {packed[i]->bytes_and_scales(scales.back().data()), piece.rows, WeightType::i8, scales.back().data()});
    } else if (packed[i]) {
      widened.push_back(widen_packed(*packed[i]));
      parts.push_back({reinterpret_cast<const std::byte*>(widened.back().data()), piece.rows, WeightType::f16});
    } else {
      const std::int64_t shape[] = {piece.rows, cols};
      auto weight = tensor(piece.name + ".weight", shape);
      if (!weight) return std::unexpected(weight.error());
      auto type = weight_type(**weight);
      if (!type) return std::unexpected(type.error());
      parts.push_back({(*weight)->data.data(), piece.rows, *type});
      tensors.push_back(*weight);
    }
    if (!bias) continue;
    auto values = vector(piece.name + ".bias", piece.rows);
    if (!values) return std::unexpected(values.error());
    biases.insert(biases.end(), values->begin(), values->end());
  }
  auto out = pack(parts, cols, std::move(biases), pieces.front().name);
  for (const TensorView* t : tensors) checkpoint_.drop_pages(*t);  // the packed copy is the one in use
  for (std::size_t i = 0; i < packed.size() && keeps_int8; ++i) {
    if (packed[i]) packed[i]->drop_pages(checkpoint_);
  }
  return out;
}

Result<Linear> WeightLoader::linear(const EmbeddingTable& table) const {
  const LinearPart part{table.tensor().data.data(), table.rows(), table.type()};
  auto out = pack({&part, 1}, table.cols(), {}, table.tensor().name);
  checkpoint_.drop_pages(table.tensor());  // rows come back when they are looked up
  return out;
}

Result<std::vector<float>> WeightLoader::vector(std::string_view name, std::int64_t size) const {
  const std::int64_t shape[] = {size};
  auto found = tensor(name, shape);
  if (!found) return std::unexpected(found.error());
  return widened(**found);
}

Result<EmbeddingTable> WeightLoader::table(std::string_view name, std::int64_t rows, std::int64_t cols) const {
  const std::int64_t shape[] = {rows, cols};
  auto found = tensor(name, shape);
  if (!found) return std::unexpected(found.error());
  auto type = weight_type(**found);
  if (!type) return std::unexpected(type.error());
  return EmbeddingTable(*found, *type);
}

}  // namespace ganglion::local
