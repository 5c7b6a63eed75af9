#pragma once
// A decode step of up to four sequences in one kernel: all layers and the head. One block a multiprocessor, all of them
// resident together. Producing warps walk through every matrix of the model in order and keep the block's ring in
// shared memory full; they never wait for activations, so that weights keep coming while blocks wait for each other.
// Consuming warps walk through the parts of each layer (query/key/value, attention, output, gate/up, down), each of
// which waits for the values of the one before (step_hand.cuh); a finishing warp makes sums whole beside them, which
// spares consumers from meeting. Normalisation, rotation, append, residual and gate are inside. What a launch costs is
// paid once a step.

#include <cstddef>

#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/step_attend.cuh"
#include "backends/local/kernels/cuda/step_fetch.cuh"
#include "backends/local/kernels/cuda/step_product.cuh"

namespace ganglion::local::cuda {
namespace step {

// ---- the kernel ----

// The first thread of a producing warp.
template <Format F, Format HeadF>
__device__ __forceinline__ void run_producer() {
  unsigned word = (threadIdx.x / 32 - kWarps) << 16;
  for (int i = 0; i < shared().step.layer_count; ++i) {
    for (int m = 0; m < kStepMatrices; ++m) word = produce<F, kDepth<F>>(word, i, m);
  }
  if (shared().step.head.data != nullptr) produce<HeadF, kDepth<F>>(word, 0, kHead);
}

template <Format F>
__device__ __forceinline__ unsigned multiply(unsigned word, int m) {
  if constexpr (F == Format::int4) {
    if (shared().step.rows == 1) return consume_row<F>(word, m);
  }
  return consume<F, kDepth<F>>(word, m);
}

template <Format F, Format HeadF, int Width>
__device__ __forceinline__ void run_consumer() {
  unsigned word = 0;
  Gate gate;
  for (int i = 0; i < shared().step.layer_count; ++i) {
    prefetch_pages(static_cast<int>(layer_of(i).window), i);
    for (int m = 0; m < kStepMatrices; ++m) {
      if (m == kOut) {
        gate.before_attention();
        attend<Width>(i);
        const int attending = min(static_cast<int>(gridDim.x), units_of(shared().step));
        if (threadIdx.x == 0 && static_cast<int>(blockIdx.x) < attending) count_one(shared().step.counter);
        gate.pass(attending);
      }
      const Share share(m);
      if (share.any()) {
        gate.wait();
        fetch_x<F>(i, m);
        if (threadIdx.x == 0) barrier_arrive(shared_address(&shared().fetched));
        word = multiply<F>(word, m);
      }
      gate.pass(share.takers());
    }
  }
  if (shared().step.head.data == nullptr || !Share(kHead).any()) return;
  gate.wait();
  fetch_x<HeadF>(0, kHead);
  consume<HeadF, kDepth<F>>(word, kHead);
}

template <Format F, Format HeadF>
__device__ __forceinline__ void run_finisher() {
  unsigned word = 0;
  for (int i = 0; i < shared().step.layer_count; ++i) {
    for (int m = 0; m < kStepMatrices; ++m) {
      if (!Share(m).any()) continue;
      word = finish_all<F>(word, i, m);
      if (threadIdx.x % 32 == 0) count_one(shared().step.counter);
    }
  }
  if (shared().step.head.data != nullptr) finish_all<HeadF>(word, 0, kHead);
}

template <Format F, Format HeadF, int Width>
__global__ void __launch_bounds__(kThreads, 1)
    step_kernel(const __grid_constant__ DecodeStep s, const __grid_constant__ Places places) {
#if __CUDA_ARCH__ >= 900
  Small& small = shared();
  auto* layers = reinterpret_cast<StepLayer*>(shared_base() + places.table);
  const int warp = threadIdx.x / 32;
  if (threadIdx.x == 0) {
    small.places = places, small.step = s;
    for (int i = 0; i < places.stages; ++i) {
      barrier_init(shared_address(small.full + i), 1);
      barrier_init(shared_address(small.empty + i), kWarps * kArrivals);
    }
    for (int i = 0; i < kSumBuffers; ++i) {
      barrier_init(shared_address(small.sums_full + i), kWarps * kArrivals);
      barrier_init(shared_address(small.sums_empty + i), kArrivals);
    }
    barrier_init(shared_address(&small.fetched), 1);
    barriers_begin();
  }
  for (int i = threadIdx.x; i < static_cast<int>(s.layer_count * sizeof(StepLayer) / 8); i += kThreads) {
    reinterpret_cast<std::uint64_t*>(layers)[i] = reinterpret_cast<const std::uint64_t*>(s.layers)[i];
  }
  const int half = s.kv.head_dim / 2;
  for (int i = threadIdx.x; i < s.rows * half; i += kThreads) small.cos[i] = s.cos[i], small.sin[i] = s.sin[i];
  if (threadIdx.x < s.rows) {
    small.positions[threadIdx.x] = s.positions[threadIdx.x];
    small.row_pages[threadIdx.x] = s.row_pages[threadIdx.x];
    small.page_from[threadIdx.x] = s.page_from[threadIdx.x];
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    DecodeStep& mine = small.step;
    mine.cos = small.cos, mine.sin = small.sin, mine.positions = small.positions, mine.row_pages = small.row_pages;
    mine.page_from = small.page_from;
    small.window = static_cast<int>(layers[0].window);
    small.all_take_part = true;
    for (const Matrix& one : mine.matrices) {
      small.all_take_part = small.all_take_part && one.rows / kRowBlock >= static_cast<int>(gridDim.x);
    }
    small.unit = unit_of(mine, small.window, min(static_cast<int>(blockIdx.x), units_of(mine) - 1));
  }
  __syncthreads();
  if (warp < kWarps) {
    run_consumer<F, HeadF, Width>();
  } else if (warp == kWarps + kProducers) {
    run_finisher<F, HeadF>();
  } else if (threadIdx.x % 32 == 0) {
    run_producer<F, HeadF>();
  }
  // Nobody waits any more once all blocks are here: the last one leaves everything as it was found.
  __syncwarp();
  __syncthreads();
  bool last = false;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(s.counter + 1, 1u) == gridDim.x - 1;
    __threadfence();
  }
  if (!__syncthreads_or(last)) return;
  unset(kGateUp, warp, kThreads / 32), unset(kDown, warp, kThreads / 32);  // the last layer's
  if (threadIdx.x == 0) s.counter[0] = 0, s.counter[1] = 0;
#endif
}

// ---- what fits, and launching ----

template <Format F>
inline Places places_of(const DecodeStep& s) {
  const auto up = [](int n) { return (n + 127) / 128 * 128; };
  Places p;
  int cols = s.head.data != nullptr ? s.head.cols : 0;
  for (const Matrix& m : s.matrices) cols = max(cols, m.cols);
  const int columns = min(kColumns, s.heads / s.kv.kv_heads), attended = columns * s.kv.head_width * 4;
  p.x_bytes = up(max(x_bytes(s.rows, cols), attended));
  const int sums = up(kSumBuffers * kWarps * kRowBlock * sum_pitch(s.rows) * 4),
            table = up(s.layer_count * static_cast<int>(sizeof(StepLayer)));
  const int rest = kRing + p.x_bytes + sums + table;
  p.stages = min(kStagesMax, (kWholeShared - rest) / up(kStageBytes<F>));
  p.stage_bytes = kStageBytes<F>;
  p.asked = kAskedBytes / up(kStageBytes<F>);
  if (p.stages <= 2 * p.asked) p.asked = 0;  // measured: a small ring has to be asked for whole
  for (int hand = 0; hand < kHands; ++hand) p.handed[hand + 1] = p.handed[hand] + hand_bytes(s, hand, s.rows);
  p.x = kRing + p.stages * up(kStageBytes<F>);
  p.sums = p.x + p.x_bytes, p.table = p.sums + sums, p.bytes = p.table + table;
  return p;
}

template <Format F, int Width>
cudaError_t launch_width(Queue queue, const DecodeStep& s, int multiprocessors) {
  constexpr Format kHead = step_head_format(F);
  const Places places = places_of<F>(s);
  const auto kernel = step_kernel<F, kHead, Width>;
  const auto status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kWholeShared);
  if (status != cudaSuccess) return status;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(multiprocessors));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<std::size_t>(places.bytes);
  config.stream = queue.stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, s, places);
}

template <Format F>
cudaError_t launch_step(Queue queue, const DecodeStep& s, int multiprocessors) {
  switch (s.kv.head_width) {
    case 32:
      return launch_width<F, 32>(queue, s, multiprocessors);
    case 64:
      return launch_width<F, 64>(queue, s, multiprocessors);
    case 128:
      return launch_width<F, 128>(queue, s, multiprocessors);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace step
}  // namespace ganglion::local::cuda
