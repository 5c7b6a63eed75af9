#pragma once
// A decode step of up to four sequences in one kernel: all layers and the head. One block a multiprocessor, all of them
// resident together. Producing warps walk through every matrix of the model in order and keep the block's ring in
// shared memory full; they never wait for activations, so that weights keep coming while blocks wait for each other.
// Consuming warps walk through the parts of each layer (query/key/value, attention, output, gate/up, down), with a
// barrier over all blocks before each; a finishing warp makes sums whole beside them, which spares consumers from
// meeting. Normalisation, rotation, append, residual and gate are inside. What a launch costs is paid once a step.

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
__device__ __forceinline__ void run_producer(const DecodeStep& s, const StepLayer* layers, const Small& small) {
  unsigned word = (threadIdx.x / 32 - kWarps) << 16;
  const auto bytes = [](const void* p) { return static_cast<const char*>(p); };
  for (int i = 0; i < s.layer_count; ++i) {
    for (int m = 0; m < kStepMatrices; ++m) {
      word = produce<F, kDepth<F>>(word, small, Share(s.matrices[m], is_residual(m)), bytes(layers[i].data[m]),
                                   bytes(layers[i].scales[m]));
    }
  }
  if (s.head.data == nullptr) return;
  produce<HeadF, kDepth<F>>(word, small, Share(s.head, false), bytes(s.head.data), bytes(s.head.scales));
}

template <Format F, Format HeadF, int Width>
__device__ __forceinline__ void run_consumer(const DecodeStep& s, const StepLayer* layers, Small& small) {
  unsigned word = 0;
  std::uint32_t epochs = 0;
  const auto meet = [&] {
    if (epochs > 0 && threadIdx.x == 0) grid_wait(s.barrier, epochs);
    ++epochs;
    consumers_sync();
  };
  for (int i = 0; i < s.layer_count; ++i) {
    prefetch_pages(small, static_cast<int>(layers[i].window), i);
    for (int m = 0; m < kStepMatrices; ++m) {
      meet();
      if (m == kOut) {
        attend<Width>(s, layers[i], i, small);
        consumers_sync();
        if (threadIdx.x == 0) grid_arrive(s.barrier);
        meet();
      }
      fetch_x<F>(&layers[i], m, i == 0, small);
      const Share share(s.matrices[m], is_residual(m));
      if constexpr (F == Format::int4) {
        if (s.rows == 1) {
          word = consume_row<F>(word, small, share);
          continue;
        }
      }
      word = consume<F, kDepth<F>>(word, small, share);
    }
  }
  if (s.head.data != nullptr) {
    meet();
    fetch_x<HeadF>(nullptr, kQkv, false, small);
    consume<HeadF, kDepth<F>>(word, small, Share(s.head, false));
  }
}

template <Format F, Format HeadF>
__device__ __forceinline__ void run_finisher(const DecodeStep& s, const StepLayer* layers, const Small& small) {
  unsigned word = 0;
  std::uint32_t epochs = 0;
  const auto done = [&](const Share& share) {
    // A block without a share of this part has not been let into it by its consumers.
    if (share.first >= share.panels && threadIdx.x % 32 == 0 && epochs > 0) grid_wait(s.barrier, epochs);
    __syncwarp();
    if (threadIdx.x % 32 == 0) grid_arrive(s.barrier);
    ++epochs;
  };
  for (int i = 0; i < s.layer_count; ++i) {
    for (int m = 0; m < kStepMatrices; ++m) {
      if (m == kOut) ++epochs;  // attention is the consumers' alone
      const Share share(s.matrices[m], is_residual(m));
      word = finish_all<F>(word, &layers[i], m, i == 0, small, share);
      done(share);
    }
  }
  if (s.head.data != nullptr) finish_all<HeadF>(word, nullptr, kQkv, false, small, Share(s.head, false));
}

template <Format F, Format HeadF, int Width>
__global__ void __launch_bounds__(kThreads, 1)
    step_kernel(const __grid_constant__ DecodeStep s, const __grid_constant__ Places places) {
#if __CUDA_ARCH__ >= 900
  Small& small = *reinterpret_cast<Small*>(shared_base() + places.small);
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
    small.unit = unit_of(mine, small.window, min(static_cast<int>(blockIdx.x), units_of(mine) - 1));
  }
  __syncthreads();
  if (warp < kWarps) {
    run_consumer<F, HeadF, Width>(small.step, layers, small);
  } else if (warp == kWarps + kProducers) {
    run_finisher<F, HeadF>(small.step, layers, small);
  } else if (threadIdx.x % 32 == 0) {
    run_producer<F, HeadF>(small.step, layers, small);
  }
  // Nobody waits any more once all blocks are here: the last one leaves the counters as it found them.
  __syncthreads();
  if (threadIdx.x == 0 && atomicAdd(s.barrier + 1, 1u) == gridDim.x - 1) s.barrier[0] = 0, s.barrier[1] = 0;
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
            table = up(s.layer_count * static_cast<int>(sizeof(StepLayer))), small = up(sizeof(Small));
  const int rest = p.x_bytes + sums + table + small;
  p.stages = min(kStagesMax, (kWholeShared - rest) / up(kStageBytes<F>));
  p.stage_bytes = kStageBytes<F>;
  p.asked = kAskedBytes / up(kStageBytes<F>);
  if (p.stages <= 2 * p.asked) p.asked = 0;  // measured: a small ring has to be asked for whole
  p.x = p.stages * up(kStageBytes<F>);
  p.sums = p.x + p.x_bytes, p.table = p.sums + sums, p.small = p.table + table, p.bytes = p.small + small;
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
