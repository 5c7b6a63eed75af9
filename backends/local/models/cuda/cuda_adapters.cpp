// From pairs of float matrices to bf16 on the device. Small beside the weights, so plain copies do.

#include "backends/local/models/cuda/cuda_adapters.hpp"

#include <cstring>

#include "backends/local/device/status.hpp"
#include "backends/local/kernels/reference.hpp"

namespace ganglion::local {

using core::Result;

namespace {

// Where a projection's rows lie in the place's matrix on the device: gate and up alternate in eights.
void place_rows(const LoraPair& pair, const ModelConfig& config, cuda::AdapterPart& part) {
  part.first = static_cast<int>(pair.first_row);
  if (pair.place != LoraPlace::gate_up || !config.gated) return;
  part.spread = 2;
  part.first = pair.first_row == 0 ? 0 : 8;
}

}  // namespace

Result<const void*> CudaAdapters::upload(Arena& arena, const std::vector<float>& values, std::int64_t rows,
                                         std::int64_t cols) {
  const auto stride = static_cast<std::size_t>(cuda::padded(cols, 8));
  std::vector<std::uint16_t> narrow(static_cast<std::size_t>(rows) * stride, 0);
  for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
    for (std::size_t c = 0; c < static_cast<std::size_t>(cols); ++c) {
      narrow[r * stride + c] = reference::bf16_bits(values[r * static_cast<std::size_t>(cols) + c]);
    }
  }
  auto buffer = arena.take(narrow.size() * 2, "an adapter");
  if (!buffer) return std::unexpected(buffer.error());
  owned_.push_back(std::move(*buffer));
  void* to = owned_.back().data();
  if (auto ok = check(cudaMemcpy(to, narrow.data(), narrow.size() * 2, cudaMemcpyHostToDevice), "an adapter"); !ok) {
    return std::unexpected(ok.error());
  }
  return to;
}

Result<void> CudaAdapters::load(Arena& arena, const std::vector<std::filesystem::path>& dirs, const ModelConfig& config,
                                const DecoderNames& names) {
  count_ = static_cast<int>(dirs.size());
  const std::size_t each = dirs.size() * cuda::kAdapterPartsMax,
                    places = static_cast<std::size_t>(config.layers) * kLoraPlaces;
  std::vector<cuda::AdapterPart> all(places * each);
  std::vector<bool> used(places, false);
  for (std::size_t a = 0; a < dirs.size(); ++a) {
    auto pairs = read_lora(dirs[a], config, names);
    if (!pairs) return std::unexpected(pairs.error());
    for (const LoraPair& pair : *pairs) {
      const std::size_t place =
          static_cast<std::size_t>(pair.layer) * kLoraPlaces + static_cast<std::size_t>(pair.place);
      cuda::AdapterPart* part = all.data() + place * each + a * cuda::kAdapterPartsMax;
      while (part->rank > 0) ++part;  // at most q, k and v
      place_rows(pair, config, *part);
      part->rank = static_cast<int>(pair.rank);
      part->cols = static_cast<int>(pair.cols), part->rows = static_cast<int>(pair.rows);
      auto down = upload(arena, pair.a, pair.rank, pair.cols);
      if (!down) return std::unexpected(down.error());
      // B is read row by row without padding.
      auto up = upload(arena, pair.b, 1, pair.rows * pair.rank);
      if (!up) return std::unexpected(up.error());
      part->a = *down, part->b = *up;
      used[place] = true;
    }
  }
  tables_.assign(places, nullptr);
  if (all.empty()) return {};
  auto buffer = arena.take(all.size() * sizeof(cuda::AdapterPart), "adapters");
  if (!buffer) return std::unexpected(buffer.error());
  owned_.push_back(std::move(*buffer));
  auto* base = owned_.back().as<cuda::AdapterPart>();
  for (std::size_t p = 0; p < places; ++p) tables_[p] = used[p] ? base + p * each : nullptr;
  return check(cudaMemcpy(base, all.data(), all.size() * sizeof(cuda::AdapterPart), cudaMemcpyHostToDevice),
               "adapters");
}

}  // namespace ganglion::local
