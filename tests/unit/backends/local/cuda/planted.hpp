#pragma once
// Mistakes on purpose, one for each of compute-sanitizer's tools that scripts/gpu-check runs: that a tool reports the
// one that is its own shows that its silence about everything else means something.

#include <cuda_runtime_api.h>

#include <cstddef>

namespace ganglion::local::cuda {

// Threads of a block read in shared memory what their neighbours write, with nothing between. `out`: 256 words.
cudaError_t race_on_purpose(int* out, cudaStream_t stream);
// Writes the word behind `count` words.
cudaError_t write_behind(int* words, std::size_t count, cudaStream_t stream);
// Acts on `words[0]`, whatever is there.
cudaError_t act_on(const int* words, int* out, cudaStream_t stream);

}  // namespace ganglion::local::cuda
