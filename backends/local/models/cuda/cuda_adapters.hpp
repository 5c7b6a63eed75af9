#pragma once
// Low-rank adapters on the device: their matrices, and for each layer and place a table of parts by adapter that the
// kernels look their rows' adapters up in.

#include <filesystem>
#include <vector>

#include "backends/local/device/arena.hpp"
#include "backends/local/kernels/cuda/general.hpp"
#include "backends/local/models/lora.hpp"

namespace ganglion::local {

class CudaAdapters {
 public:
  // Reads all of them; they are numbered in this order.
  core::Result<void> load(Arena& arena, const std::vector<std::filesystem::path>& dirs, const ModelConfig& config,
                          const DecoderNames& names);
  int count() const { return count_; }
  // [adapters][kAdapterPartsMax] on the device; null: no adapter has anything there.
  const cuda::AdapterPart* parts(std::int64_t layer, LoraPlace place) const {
    return tables_[static_cast<std::size_t>(layer) * kLoraPlaces + static_cast<std::size_t>(place)];
  }

 private:
  core::Result<const void*> upload(Arena& arena, const std::vector<float>& values, std::int64_t rows,
                                   std::int64_t cols);

  int count_ = 0;
  std::vector<const cuda::AdapterPart*> tables_;
  std::vector<DeviceBuffer> owned_;
};

}  // namespace ganglion::local
