#pragma once
// Launching with or without programmatic overlap. Host code, for the .cu files.

#include <cuda_runtime.h>

#include <utility>

#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::local::cuda {

template <class... Params, class... Args>
cudaError_t launch(Queue queue, void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t shared, Args&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  config.stream = queue.stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = queue.overlap ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...);
}

}  // namespace ganglion::local::cuda
