// Packing at load, and the loops around the panel kernels: activations are packed in tiles of kTile rows, panels are
// split over the threads, and each panel is multiplied with every tile while it is in the cache.

#include "backends/local/kernels/linear.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace ganglion::local {
namespace {

std::size_t width(WeightType type) {
  switch (type) {
    case WeightType::f32:
      return 4;
    case WeightType::bf16:
    case WeightType::f16:
      return 2;
    case WeightType::i8:
      return 1;
  }
  return 4;
}

// The address of one row across the parts; null past the end. `scale`: of a row in i8.
const std::byte* find_row(std::span<const LinearPart> parts, std::int64_t cols, std::int64_t row, WeightType* type,
                          float* scale = nullptr) {
  for (const LinearPart& part : parts) {
    if (row < part.rows) {
      *type = part.type;
      if (scale != nullptr && part.scales != nullptr) *scale = part.scales[row];
      return part.data + static_cast<std::size_t>(row) * static_cast<std::size_t>(cols) * width(part.type);
    }
    row -= part.rows;
  }
  return nullptr;
}

void widen_row(const std::byte* data, WeightType type, std::int64_t cols, float* out) {
  if (type == WeightType::f32) {
    std::memcpy(out, data, static_cast<std::size_t>(cols) * 4);
    return;
  }
  std::uint16_t chunk[256];
  for (std::int64_t k = 0; k < cols; k += 256) {
    const int n = static_cast<int>(std::min<std::int64_t>(256, cols - k));
    std::memcpy(chunk, data + k * 2, static_cast<std::size_t>(n) * 2);
    const Kernels& kernels = scalar_kernels();
    (type == WeightType::bf16 ? kernels.widen_bf16 : kernels.widen_f16)(chunk, out + k, n);
  }
}

template <class T>
void interleave(const T* row, std::int64_t cols, int lane, T* panel) {
  for (std::int64_t k = 0; k < cols; ++k) panel[k * kPanel + lane] = row[k];
}

}  // namespace

void* LinearScratch::reserve(std::size_t bytes) {
  if (buffer_.size() < bytes) buffer_ = Buffer(bytes);
  return buffer_.data();
}

Linear Linear::pack(std::span<const LinearPart> parts, std::int64_t cols, bool quantize_int8, std::vector<float> bias,
                    ThreadPool& pool) {
  Linear out;
  out.cols_ = cols;
  out.bias_ = std::move(bias);
  out.type_ = parts.front().type;
  for (const LinearPart& part : parts) {
    out.rows_ += part.rows;
    if (part.type != out.type_) out.type_ = WeightType::f32;
  }
  if (quantize_int8) out.type_ = WeightType::i8;
  const bool int8 = out.type_ == WeightType::i8;
  const std::int64_t stored = int8 ? (cols + 3) / 4 * 4 : cols;
  out.panel_bytes_ = static_cast<std::size_t>(stored) * kPanel * width(out.type_);
  out.weights_ = Buffer(out.panel_bytes_ * static_cast<std::size_t>(out.panels()));
  if (out.weights_.data() == nullptr) return {};
  if (int8) out.scales_.assign(static_cast<std::size_t>(out.panels() * kPanel), 0.0f);
  pool.split(out.panels(), 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      int8 ? out.pack_panel_int8(parts, panel) : out.pack_panel(parts, panel);
    }
  });
  return out;
}

void Linear::pack_panel(std::span<const LinearPart> parts, std::int64_t panel) {
  std::byte* base = weights_.as<std::byte>() + static_cast<std::size_t>(panel) * panel_bytes_;
  const auto count = static_cast<std::size_t>(cols_);
  std::vector<float> wide(type_ == WeightType::f32 ? count : 0);
  std::vector<std::uint16_t> narrow(type_ == WeightType::f32 ? 0 : count);
  for (int lane = 0; lane < kPanel; ++lane) {
    WeightType type = type_;
    const std::byte* row = find_row(parts, cols_, panel * kPanel + lane, &type);
    if (row == nullptr) break;  // the buffer is zeroed
    if (type_ == WeightType::f32) {
      widen_row(row, type, cols_, wide.data());
      interleave(wide.data(), cols_, lane, reinterpret_cast<float*>(base));
    } else {
      std::memcpy(narrow.data(), row, count * 2);
      interleave(narrow.data(), cols_, lane, reinterpret_cast<std::uint16_t*>(base));
    }
  }
}

void Linear::pack_panel_int8(std::span<const LinearPart> parts, std::int64_t panel) {
  auto* base =
      reinterpret_cast<std::uint8_t*>(weights_.as<std::byte>()) + static_cast<std::size_t>(panel) * panel_bytes_;
  std::memset(base, 0x80, panel_bytes_);  // zero, with the offset of 128
  std::vector<float> row_values(static_cast<std::size_t>(cols_));
  for (int lane = 0; lane < kPanel; ++lane) {
    WeightType type = type_;
    float& scale = scales_[static_cast<std::size_t>(panel * kPanel + lane)];
    const std::byte* row = find_row(parts, cols_, panel * kPanel + lane, &type, &scale);
    if (row == nullptr) break;
    const auto place = [&](std::int64_t k) { return base + (k / 4) * kPanel * 4 + lane * 4 + k % 4; };
    if (type == WeightType::i8) {
      for (std::int64_t k = 0; k < cols_; ++k) *place(k) = static_cast<std::uint8_t>(row[k]) ^ 0x80;
      continue;
    }
    widen_row(row, type, cols_, row_values.data());
    float top = 0;
    bool finite = true;
    for (float v : row_values) {
      top = std::max(top, std::fabs(v));
      finite = finite && std::isfinite(v);
    }
    scale = finite ? top / 127.0f : std::nanf("");  // a broken weight must show, not vanish
    if (!finite || top == 0) continue;
    const float inverse = 127.0f / top;
    for (std::int64_t k = 0; k < cols_; ++k) {
      const float q = std::clamp(std::nearbyint(row_values[static_cast<std::size_t>(k)] * inverse), -127.0f, 127.0f);
      *place(k) = static_cast<std::uint8_t>(static_cast<int>(q) + 128);
    }
  }
}

bool Linear::forward(const Kernels& kernels, ThreadPool& pool, LinearScratch& scratch, const float* x, std::int64_t ldx,
                     int count, float* y, std::int64_t ldy) const {
  if (count <= 0) return true;
  if (type_ == WeightType::i8) return forward_int8(kernels, pool, scratch, x, ldx, count, y, ldy);
  return forward_float(kernels, pool, scratch, x, ldx, count, y, ldy);
}

bool Linear::forward_float(const Kernels& kernels, ThreadPool& pool, LinearScratch& scratch, const float* x,
                           std::int64_t ldx, int count, float* y, std::int64_t ldy) const {
  const int tiles = (count + kTile - 1) / kTile;
  const float* packed = x;
  if (count > 1) {  // one row is packed as it lies
    auto* out =
        static_cast<float*>(scratch.reserve(static_cast<std::size_t>(count) * static_cast<std::size_t>(cols_) * 4));
    if (out == nullptr) return false;
    pool.split(tiles, ThreadPool::grain_for(cols_ * kTile), [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t tile = begin; tile < end; ++tile) {
        const int first = static_cast<int>(tile) * kTile, mt = std::min(kTile, count - first);
        float* to = out + static_cast<std::int64_t>(first) * cols_;
        for (int m = 0; m < mt; ++m) {
          const float* row = x + (first + m) * ldx;
          for (std::int64_t k = 0; k < cols_; ++k) to[k * mt + m] = row[k];
        }
      }
    });
    packed = out;
  }
  auto kernel = type_ == WeightType::f32    ? kernels.panel_f32
                : type_ == WeightType::bf16 ? kernels.panel_bf16
                                            : kernels.panel_f16;
  pool.split(panels(), ThreadPool::grain_for(cols_ * kPanel * count), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t row = panel * kPanel;
      PanelArgs args;
      args.w = weights_.as<std::byte>() + static_cast<std::size_t>(panel) * panel_bytes_;
      args.bias = bias_.empty() ? nullptr : bias_.data() + row;
      args.ldy = ldy;
      args.k = static_cast<int>(cols_);
      args.rows = static_cast<int>(std::min<std::int64_t>(kPanel, rows_ - row));
      for (int first = 0; first < count; first += kTile) {
        args.mt = args.ldx = std::min(kTile, count - first);
        args.x = packed + static_cast<std::int64_t>(first) * cols_;
        args.y = y + first * ldy + row;
        kernel(args);
      }
    }
  });
  return true;
}

bool Linear::forward_int8(const Kernels& kernels, ThreadPool& pool, LinearScratch& scratch, const float* x,
                          std::int64_t ldx, int count, float* y, std::int64_t ldy) const {
  const std::int64_t k4 = (cols_ + 3) / 4, groups = (cols_ + kQuantGroup - 1) / kQuantGroup;
  const int tiles = (count + kTile - 1) / kTile;
  const std::int64_t per_row = k4 + 2 * groups;  // 4-byte words
  auto* words = static_cast<std::int32_t*>(scratch.reserve(static_cast<std::size_t>(count * per_row) * 4));
  if (words == nullptr) return false;
  pool.split(tiles, ThreadPool::grain_for(cols_ * kTile), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t tile = begin; tile < end; ++tile) {
      const int first = static_cast<int>(tile) * kTile, mt = std::min(kTile, count - first);
      std::int32_t* q = words + first * per_row;
      auto* scale = reinterpret_cast<float*>(q + k4 * mt);
      std::int32_t* fix = q + (k4 + groups) * mt;
      for (int m = 0; m < mt; ++m) {
        const float* row = x + (first + m) * ldx;
        for (std::int64_t group = 0; group < groups; ++group) {
          const std::int64_t k = group * kQuantGroup;
          const int n = static_cast<int>(std::min<std::int64_t>(kQuantGroup, cols_ - k));
          alignas(64) std::int8_t bytes[kQuantGroup] = {};
          std::int32_t sum = 0;
          scale[group * mt + m] = kernels.quantize_group(row + k, n, bytes, &sum);
          fix[group * mt + m] = -128 * sum;
          for (int j = 0; j < (n + 3) / 4; ++j) std::memcpy(&q[(k / 4 + j) * mt + m], bytes + j * 4, 4);
        }
      }
    }
  });
  pool.split(panels(), ThreadPool::grain_for(cols_ * kPanel * count), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t row = panel * kPanel;
      PanelArgsI8 args;
      args.w = weights_.as<std::byte>() + static_cast<std::size_t>(panel) * panel_bytes_;
      args.w_scale = scales_.data() + row;
      args.bias = bias_.empty() ? nullptr : bias_.data() + row;
      args.ldy = ldy;
      args.k4 = static_cast<int>(k4);
      args.rows = static_cast<int>(std::min<std::int64_t>(kPanel, rows_ - row));
      for (int first = 0; first < count; first += kTile) {
        args.mt = args.ldx = std::min(kTile, count - first);
        args.x = words + first * per_row;
        args.x_scale = reinterpret_cast<const float*>(args.x + k4 * args.mt);
        args.x_fix = args.x + (k4 + groups) * args.mt;
        args.y = y + first * ldy + row;
        kernels.panel_i8(args);
      }
    }
  });
  return true;
}

}  // namespace ganglion::local
