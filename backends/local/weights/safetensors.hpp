#pragma once
// The safetensors header: u64 little-endian length, that many bytes of JSON, then the tensors' bytes without gaps.
// Pure: bytes in, checked views out; hostile input gives an error, never a read outside the bytes.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/local/weights/tensor_view.hpp"
#include "core/error.hpp"

namespace ganglion::local {

inline constexpr std::size_t kSafetensorsHeaderBytesMax = 100'000'000;  // the format's own limit

struct SafetensorsHeader {
  std::vector<TensorView> tensors;                  // by position in the file; data points into the input
  std::vector<std::unique_ptr<std::string>> names;  // what TensorView::name refers to
};

// `origin` names the file in errors.
core::Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> file, std::string_view origin);

}  // namespace ganglion::local
