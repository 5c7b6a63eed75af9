// The kernel that runs a whole decode step, for fp8 weights. One file a format, since each takes long to compile.

#include "backends/local/kernels/cuda/step_kernel.cuh"

namespace ganglion::local::cuda::step {

template <>
bool has_room<Format::fp8>(const DecodeStep& s) {
  return places_of<Format::fp8>(s).stages >= kStagesMin;
}
template <>
cudaError_t step_of<Format::fp8>(Queue queue, const DecodeStep& s, int multiprocessors) {
  return launch_step<Format::fp8>(queue, s, multiprocessors);
}

}  // namespace ganglion::local::cuda::step
