// The kernel that runs a whole decode step, for int4 weights. One file a format, since each takes long to compile.

#include "backends/local/kernels/cuda/step_kernel.cuh"

namespace ganglion::local::cuda::step {

template <>
bool has_room<Format::int4>(const DecodeStep& s) {
  return places_of<Format::int4>(s).stages >= kStagesMin;
}
template <>
cudaError_t step_of<Format::int4>(Queue queue, const DecodeStep& s, int multiprocessors) {
  return launch_step<Format::int4>(queue, s, multiprocessors);
}

}  // namespace ganglion::local::cuda::step
