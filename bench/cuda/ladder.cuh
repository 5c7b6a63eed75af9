#pragma once
// The first rungs of the ladder that led to the products in backends/local/kernels/cuda: int8 weights with a scale a
// row, one bf16 activation row. Only measured; the product has the last rungs alone.

#include <cuda_runtime.h>

#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::bench {

enum class Rung { bytes, vectors };
cudaError_t ladder_product(cudaStream_t stream, Rung rung, const local::cuda::Product& p);

}  // namespace ganglion::bench
