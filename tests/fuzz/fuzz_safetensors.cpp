// Any bytes as a safetensors file: an error or views that lie inside the bytes and tile them.

#include <cstdint>
#include <cstdlib>

#include "backends/local/weights/safetensors.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ganglion::local;
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto header = parse_safetensors(bytes, "fuzz");
  if (!header) return 0;
  std::size_t covered = 0;
  for (const TensorView& view : header->tensors) {
    const bool inside = view.data.data() >= bytes.data() && view.data.size() <= size &&
                        view.data.data() + view.data.size() <= bytes.data() + size;
    const bool sized = static_cast<std::uint64_t>(view.numel()) * static_cast<std::uint64_t>(dtype_bits(view.dtype)) ==
                       view.data.size() * 8;
    if (!inside || !sized) std::abort();
    covered += view.data.size();
  }
  if (covered > size) std::abort();
  return 0;
}
