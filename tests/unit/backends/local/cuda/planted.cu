// One launch each, on one block; see the header.

#include "tests/unit/backends/local/cuda/planted.hpp"

namespace ganglion::local::cuda {
namespace {

__global__ void race_kernel(int* out) {
  __shared__ int words[256];
  words[threadIdx.x] = static_cast<int>(threadIdx.x);
  out[threadIdx.x] = words[(threadIdx.x + 128) % 256];
}
__global__ void write_behind_kernel(int* words, std::size_t count) {
  words[count] = 1;
}
__global__ void act_kernel(const int* words, int* out) {
  if (words[0] > 0) *out = 1;
}

}  // namespace

cudaError_t race_on_purpose(int* out, cudaStream_t stream) {
  race_kernel<<<1, 256, 0, stream>>>(out);
  return cudaGetLastError();
}
cudaError_t write_behind(int* words, std::size_t count, cudaStream_t stream) {
  write_behind_kernel<<<1, 1, 0, stream>>>(words, count);
  return cudaGetLastError();
}
cudaError_t act_on(const int* words, int* out, cudaStream_t stream) {
  act_kernel<<<1, 1, 0, stream>>>(words, out);
  return cudaGetLastError();
}

}  // namespace ganglion::local::cuda
