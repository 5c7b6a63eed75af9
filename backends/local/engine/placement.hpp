#pragma once
// Which GPUs serve a model: one that it fits on, else the fewest that it can be cut over. Arithmetic on sizes alone; it
// is the same where there is no GPU.

#include <cstdint>
#include <span>
#include <vector>

#include "backends/local/engine/options.hpp"
#include "backends/local/weights/model_config.hpp"
#include "core/error.hpp"

namespace ganglion::local {

struct GpuRoom {
  int index = 0;
  std::uint64_t free_bytes = 0;
};

// What a model takes, estimated from its shapes.
struct GpuNeed {
  std::uint64_t cut = 0;       // weights of the layers, and the least store of keys and values: shared by the GPUs
  std::uint64_t first = 0;     // the head: on the first GPU alone
  std::uint64_t each = 0;      // on every GPU: embedding table, activations of a step, libraries
  std::uint64_t declared = 0;  // local[].gpu_memory: as much on every GPU, whatever was estimated; 0: not said
  std::vector<int> ways;       // into how many equal parts it can be cut, ascending, from 1

  std::uint64_t on_each(int gpus) const;
};
GpuNeed need_of(const ModelConfig& config, const EngineOptions& options);
// The same with a draft model beside it on the first GPU. What was declared includes it.
GpuNeed with_draft(GpuNeed model, const GpuNeed& draft);

// The fewest GPUs that have room; of those, the ones with most of it, and of equals the lower index. The first one
// comes first. Error unsupported: nowhere, with the numbers.
core::Result<std::vector<int>> place(std::span<const GpuRoom> gpus, const GpuNeed& need);

}  // namespace ganglion::local
