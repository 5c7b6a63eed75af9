// The product of up to eight activation rows with a streamed weight matrix, for compute capability 9.0. One block a
// multiprocessor lives through the whole matrix. Four warps keep a ring in shared memory full with bulk copies, 16 rows
// by 1 KiB at a time, across the borders of row blocks and without waiting for the previous kernel, so that the memory
// is never idle for want of requests. Sixteen warps consume it, each always the same columns, so that the activations
// stay in registers for the kernel's whole life. Their sums meet in shared memory, where the first four warps finish a
// row block while the others go on. Integer weights meet activations in fp16, since integers become fp16 in half the
// instructions; normalised or scaled by a power of two, activations are within its range. The rest is as in product.cu.

#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/product_parts.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kWarps = 16;  // that consume
constexpr int kConsumers = kWarps * 32;
constexpr int kProducers = 4;  // warps; issuing bulk copies is slow work
constexpr int kThreads = kConsumers + kProducers * 32;
constexpr int kProducerRows = kRowBlock / kProducers;
constexpr int kFinishers = 4;
constexpr int kStageRowBytes = kWarps * kStepBytes;  // 1 KiB: one step of each warp
constexpr int kRowPitch = kStageRowBytes + 64;       // two rows' 64 bytes lie in different banks
constexpr int kScaleBytes = 1024;                    // int4 scales of one stage, at most
constexpr int kStageBytes = kRowBlock * kRowPitch + kScaleBytes;
constexpr int kSumPitch = 9;
constexpr int kSumFloats = 2 * kWarps * kRowBlock * kSumPitch;
constexpr int kStagesMax = 11;
constexpr int kStagesUsual = 7;  // measured: more in flight gains nothing and takes from the first-level cache

constexpr std::size_t shared_bytes(int stages) {
  return static_cast<std::size_t>(stages) * kStageBytes + kSumFloats * 4 + kStagesMax * 16 + kFusedRowsMax * 4;
}

// How many stages one row block of these columns takes, at most, for each format's two kernels.
template <Format F>
constexpr int kShort = F == Format::bf16   ? 8
                       : F == Format::int4 ? 2
                                           : 4;
template <Format F>
constexpr int kLong = F == Format::bf16   ? 22
                      : F == Format::int4 ? 6
                                          : 11;

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int count) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count));
#endif
}
__device__ __forceinline__ void barrier_expect(std::uint32_t barrier, int bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
#endif
}
__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
#endif
}
__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, int parity) {
#if __CUDA_ARCH__ >= 900
  std::uint32_t done = 0;
  while (done == 0) {
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(done)
                 : "r"(barrier), "r"(parity)
                 : "memory");
  }
#endif
}
__device__ __forceinline__ void copy_bulk(std::uint32_t to, const void* from, int bytes, std::uint32_t barrier,
                                          std::uint64_t policy) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
#endif
}
__device__ __forceinline__ std::uint64_t read_once_policy() {
  std::uint64_t policy = 0;
#if __CUDA_ARCH__ >= 900
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
#endif
  return policy;
}

// All warps that consume.
__device__ __forceinline__ void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

struct Ring {
  std::uint32_t base, full, empty;  // shared addresses
  int stages;
};

// Fills stage after stage of this block's row blocks; each producing warp its share of the rows.
__device__ __forceinline__ void produce(const Product& p, const Ring& ring, int panels, int row_stages, int row_bytes) {
  const int lane = threadIdx.x % 32, producer = threadIdx.x / 32 - kWarps;
  const std::uint64_t policy = read_once_policy();
  const bool int4 = p.w.format == Format::int4 && producer == kProducers - 1;
  // Bytes of int4 scales that belong to one row block and to one stage of it.
  const int panel_scales = int4 ? p.w.cols / p.w.group * kRowBlock * 2 : 0;
  const int stage_scales = int4 ? kStageRowBytes * 2 / p.w.group * kRowBlock * 2 : 0;
  const int row = producer * kProducerRows + lane;
  const char* from =
      static_cast<const char*>(p.w.data) + (static_cast<std::int64_t>(blockIdx.x) * kRowBlock + row) * row_bytes;
  const char* scales = static_cast<const char*>(p.w.scales) + static_cast<std::int64_t>(blockIdx.x) * panel_scales;
  const std::int64_t next_panel = static_cast<std::int64_t>(gridDim.x) * kRowBlock * row_bytes;
  const std::uint32_t to = ring.base + row * kRowPitch, scales_to = ring.base + kRowBlock * kRowPitch;
  int slot = 0, round = 0;
  for (int panel = blockIdx.x; panel < panels; panel += gridDim.x) {
    for (int s = 0; s < row_stages; ++s) {
      const std::uint32_t full = ring.full + 8 * slot;
      if (round > 0) barrier_wait(ring.empty + 8 * slot, (round - 1) & 1);
      const int bytes = min(kStageRowBytes, row_bytes - s * kStageRowBytes);
      const int scale_bytes = int4 ? min(stage_scales, panel_scales - s * stage_scales) : 0;
      if (lane == 0) barrier_expect(full, kProducerRows * bytes + scale_bytes);
      __syncwarp();
      if (lane < kProducerRows) copy_bulk(to + slot * kStageBytes, from + s * kStageRowBytes, bytes, full, policy);
      if (int4 && lane == kProducerRows) {
        copy_bulk(scales_to + slot * kStageBytes, scales + s * stage_scales, scale_bytes, full, policy);
      }
      if (++slot == ring.stages) slot = 0, ++round;
    }
    from += next_panel;
    scales += static_cast<std::int64_t>(gridDim.x) * panel_scales;
  }
}

template <Format F>
__device__ __forceinline__ Weights load_shared(const char* stage, int warp, int group) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  Weights out;
  const char* at = stage + g * kRowPitch + warp * kStepBytes + t * 16;
  out.low = *reinterpret_cast<const uint4*>(at);
  out.high = *reinterpret_cast<const uint4*>(at + 8 * kRowPitch);
  if constexpr (F == Format::int4) {
    const auto* scales = reinterpret_cast<const __half*>(stage + kRowBlock * kRowPitch) + g;
    const int column = warp * kStepColumns<F>;
    out.scale[0] = half_pair(scales + column / group * kRowBlock);
    out.scale[1] = half_pair(scales + (column + 64) / group * kRowBlock);
  }
  return out;
}

template <Format F, int RowStages>
__global__ void __launch_bounds__(kThreads, 1) stream_kernel(Product p, int stages) {
  extern __shared__ __align__(128) char shared[];
  float* sums = reinterpret_cast<float*>(shared + stages * kStageBytes);
  char* barriers = shared + stages * kStageBytes + kSumFloats * 4;
  float* inverse = reinterpret_cast<float*>(barriers + kStagesMax * 16);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const Ring ring{shared_address(shared), shared_address(barriers), shared_address(barriers) + kStagesMax * 8, stages};
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      barrier_init(ring.full + 8 * i, kProducers);
      barrier_init(ring.empty + 8 * i, kWarps);
    }
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
  }
  __syncthreads();
  let_next_start();
  const int panels = p.w.rows / kRowBlock, row_bytes = static_cast<int>(matrix_bytes(F, 1, p.w.cols));
  const int row_stages = (row_bytes + kStageRowBytes - 1) / kStageRowBytes, steps = row_bytes / kStepBytes;
  const int first = static_cast<int>(blockIdx.x), stride = static_cast<int>(gridDim.x);
  if (warp >= kWarps) {
    produce(p, ring, panels, row_stages, row_bytes);
    return;
  }

  wait_for_previous();
  if (p.squares != nullptr && warp < p.rows) {
    const float v = inverse_norm(p, warp);
    if (lane == 0) inverse[warp] = v;
  }
  consumers_sync();
  constexpr bool kHalf = F == Format::int8 || F == Format::int4;
  // What activations are multiplied with on the way to fp16, and sums afterwards.
  constexpr float kDown = 1.0f / 16, kUp = 16;
  const float factor = p.squares == nullptr ? kDown : inverse[min(g, p.rows - 1)];
  std::uint32_t x[RowStages][kStepWords<F>];
  const int lane_columns = F == Format::bf16 ? 8 : 16;
  const bf16* from = static_cast<const bf16*>(p.x) + static_cast<std::int64_t>(g) * p.x_stride + t * lane_columns;
#pragma unroll
  for (int s = 0; s < RowStages; ++s) {
    const int step = s * kWarps + warp;
    load_x<F>(from + step * kStepColumns<F>, g < p.rows && step < steps, x[s]);
    if constexpr (kHalf) {
#pragma unroll
      for (int i = 0; i < kStepWords<F>; ++i) x[s][i] = half_of_bf16(x[s][i], factor);
    }
  }

  int slot = 0, parity = 0, half = 0;
  const int n = threadIdx.x / kRowBlock, r = threadIdx.x % kRowBlock;
  for (int panel = first; panel < panels; panel += stride, half ^= 1) {
    float acc[4] = {0, 0, 0, 0};
#pragma unroll
    for (int s = 0; s < RowStages; ++s) {
      if (s < row_stages) {
        barrier_wait(ring.full + 8 * slot, parity);
        if (s * kWarps + warp < steps) {
          const Weights w = load_shared<F>(shared + slot * kStageBytes, warp, p.w.group);
          if constexpr (kHalf) {
            multiply_tile_half<F>(w, x[s], acc);
          } else {
            multiply_tile<F>(w, x[s], acc);
          }
        }
        __syncwarp();
        if (lane == 0) barrier_arrive(ring.empty + 8 * slot);
        if (++slot == stages) slot = 0, parity ^= 1;
      }
    }
    float* mine = sums + (half * kWarps + warp) * kRowBlock * kSumPitch;
    mine[g * kSumPitch + 2 * t] = acc[0], mine[g * kSumPitch + 2 * t + 1] = acc[1];
    mine[(g + 8) * kSumPitch + 2 * t] = acc[2], mine[(g + 8) * kSumPitch + 2 * t + 1] = acc[3];
    // The next row block's sums go to the other half; those after it come behind another barrier.
    consumers_sync();
    if (warp >= kFinishers) continue;
    float v = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) v += sums[((half * kWarps + w) * kRowBlock + r) * kSumPitch + n];
    const Operands operands = operands_of<F>(p, panel, r, n);
    v *= operands.scale;
    if constexpr (kHalf) {
      if (p.squares == nullptr) v *= kUp;
    } else {
      if (p.squares != nullptr) v *= n < p.rows ? inverse[n] : 0.0f;
    }
    finish(p, panel, r, n, v, operands);
  }
}

template <Format F>
bool fits(const Product& p) {
  return matrix_bytes(F, 1, p.w.cols) <= std::int64_t{kLong<F>} * kStageRowBytes;
}

template <Format F, int RowStages>
cudaError_t launch_stream(Queue queue, const Product& p, int multiprocessors, int stages) {
  const auto status = cudaFuncSetAttribute(stream_kernel<F, RowStages>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(shared_bytes(kStagesMax)));
  if (status != cudaSuccess) return status;
  // What does not fit in registers should find room in the first-level cache, which the ring takes from.
  if (RowStages == kLong<F>) stages = min(stages, 6);
  const int blocks = min(p.w.rows / kRowBlock, multiprocessors);
  return launch(queue, stream_kernel<F, RowStages>, static_cast<unsigned>(blocks), kThreads, shared_bytes(stages), p,
                stages);
}

template <Format F>
cudaError_t stream_of(Queue queue, const Product& p, int multiprocessors, int stages) {
  const bool is_short = matrix_bytes(F, 1, p.w.cols) <= std::int64_t{kShort<F>} * kStageRowBytes;
  return is_short ? launch_stream<F, kShort<F>>(queue, p, multiprocessors, stages)
                  : launch_stream<F, kLong<F>>(queue, p, multiprocessors, stages);
}

}  // namespace

bool stream_product_fits(const Product& p) {
  if (p.rows < 1 || p.rows > kFusedRowsMax) return false;
  switch (p.w.format) {
    case Format::bf16:
      return fits<Format::bf16>(p);
    case Format::int8:
      return fits<Format::int8>(p);
    case Format::fp8:
      return fits<Format::fp8>(p);
    case Format::int4:
      return fits<Format::int4>(p);
  }
  return false;
}

cudaError_t stream_product(Queue queue, const Product& p, int multiprocessors, int stages) {
  if (!stream_product_fits(p)) return cudaErrorInvalidValue;
  if (stages <= 0) stages = kStagesUsual;
  stages = min(stages, kStagesMax);
  switch (p.w.format) {
    case Format::bf16:
      return stream_of<Format::bf16>(queue, p, multiprocessors, stages);
    case Format::int8:
      return stream_of<Format::int8>(queue, p, multiprocessors, stages);
    case Format::fp8:
      return stream_of<Format::fp8>(queue, p, multiprocessors, stages);
    case Format::int4:
      return stream_of<Format::int4>(queue, p, multiprocessors, stages);
  }
  return cudaErrorInvalidValue;
}

}  // namespace ganglion::local::cuda
