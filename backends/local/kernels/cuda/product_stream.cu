// The product of up to eight activation rows with a streamed weight matrix, for compute capability 9.0. One block a
// multiprocessor lives through the whole matrix. Four warps keep a ring in shared memory full with bulk copies, 16 rows
// by 1 KiB at a time, across the borders of row blocks and without waiting for the previous kernel, so that the memory
// is never idle for want of requests. Sixteen warps consume it, each always the same columns. Their sums meet in shared
// memory, where the first four warps finish a row block while the others go on.
//
// Where the activations lie is what the two kernels differ in: in registers, which each warp fills once for the
// kernel's life since its columns are always the same; or, for long rows, which need more registers than there are, in
// shared memory. Integer weights meet activations in fp16, since integers become fp16 in half the instructions;
// normalised or scaled by a power of two, activations are within its range. The rest is as in product.cu.

#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/product_parts.cuh"
#include "backends/local/kernels/cuda/ring.cuh"

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

// All warps that consume.
__device__ __forceinline__ void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

struct Ring {
  std::uint32_t base, full, empty;  // shared addresses
  int stages;

  // One thread; before anybody uses it the block must synchronise.
  __device__ __forceinline__ void begin() const {
    for (int i = 0; i < stages; ++i) {
      barrier_init(full + 8 * i, kProducers);
      barrier_init(empty + 8 * i, kWarps * kArrivals);
    }
    barriers_begin();
  }
};

// Fills stage after stage of this block's row blocks; each producing warp its share of the rows, or of a piece that is
// whole in memory.
template <Format F, int StageBytes>
__device__ __forceinline__ void produce(const Product& p, const Ring& ring, int panels, int row_stages, int row_bytes) {
  const int lane = threadIdx.x % 32, producer = threadIdx.x / 32 - kWarps;
  const std::uint64_t policy = cache_policy<true>();
  const bool scaled = F == Format::int4 && producer == kProducers - 1;
  // Bytes of int4 scales that belong to one row block and to one stage of it.
  const int panel_scales = scaled ? p.w.cols / p.w.group * kRowBlock * 2 : 0;
  const int stage_scales = scaled ? kStageRowBytes * 2 / p.w.group * kRowBlock * 2 : 0;
  const int row = producer * kProducerRows + lane, copies = kTiled<F> ? 1 : kProducerRows;
  const char* from = static_cast<const char*>(p.w.data) + static_cast<std::int64_t>(blockIdx.x) * kRowBlock * row_bytes;
  if (!kTiled<F>) from += static_cast<std::int64_t>(row) * row_bytes;
  const char* scales = static_cast<const char*>(p.w.scales) + static_cast<std::int64_t>(blockIdx.x) * panel_scales;
  const std::int64_t next_panel = static_cast<std::int64_t>(gridDim.x) * kRowBlock * row_bytes;
  const std::uint32_t to = ring.base + (kTiled<F> ? 0 : row * kRowPitch), scales_to = ring.base + kRowBlock * kRowPitch;
  int slot = 0, round = 0;
  for (int panel = blockIdx.x; panel < panels; panel += gridDim.x) {
    for (int s = 0; s < row_stages; ++s) {
      const std::uint32_t full = ring.full + 8 * slot;
      if (round > 0) barrier_wait(ring.empty + 8 * slot, (round - 1) & 1);
      const int bytes = min(kStageRowBytes, row_bytes - s * kStageRowBytes);
      const int scale_bytes = scaled ? min(stage_scales, panel_scales - s * stage_scales) : 0;
      if (lane == 0) barrier_expect(full, kProducerRows * bytes + scale_bytes);
      __syncwarp();
      if (lane < copies) {
        const int size = kProducerRows / copies * bytes, at = kTiled<F> ? producer * size : 0;
        const int before = s * (kTiled<F> ? kRowBlock : 1) * kStageRowBytes;
        copy_bulk(to + slot * StageBytes + at, from + before + at, size, full, policy);
      }
      if (scaled && lane == kProducerRows) {
        copy_bulk(scales_to + slot * StageBytes, scales + s * stage_scales, scale_bytes, full, policy);
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
  constexpr int kPitch = kTiled<F> ? kStepBytes : kRowPitch;
  const char* at = stage + g * kPitch + warp * kNextStep<F> + t * 16;
  out.low = *reinterpret_cast<const uint4*>(at);
  out.high = *reinterpret_cast<const uint4*>(at + 8 * kPitch);
  if constexpr (F == Format::int4) {
    const auto* scales = reinterpret_cast<const __half*>(stage + kRowBlock * kRowPitch) + g;
    const int column = warp * kStepColumns<F>;
    out.scale[0] = half_pair(scales + column / group * kRowBlock);
    out.scale[1] = half_pair(scales + (column + 64) / group * kRowBlock);
  }
  return out;
}

template <Format F>
constexpr bool kHalf = F == Format::int8 || F == Format::int4;
// What activations are multiplied with on the way to fp16, and sums afterwards.
constexpr float kDown = 1.0f / 16, kUp = 16;

// A row block's sum `v` of weight row r and activation row n, made whole.
template <Format F>
__device__ __forceinline__ void finish_sum(const Product& p, int panel, int r, int n, float v, const float* inverse) {
  const Operands operands = operands_of<F>(p, panel, r, n);
  v *= operands.scale;
  if constexpr (kHalf<F>) {
    if (p.squares == nullptr) v *= kUp;
  } else {
    if (p.squares != nullptr) v *= n < p.rows ? inverse[n] : 0.0f;
  }
  finish(p, panel, r, n, v, operands);
}

template <Format F, int RowStages>
__global__ void __launch_bounds__(kThreads, 1) stream_kernel(Product p, int stages) {
  extern __shared__ __align__(128) char shared[];
  float* sums = reinterpret_cast<float*>(shared + stages * kStageBytes);
  char* barriers = shared + stages * kStageBytes + kSumFloats * 4;
  float* inverse = reinterpret_cast<float*>(barriers + kStagesMax * 16);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const Ring ring{shared_address(shared), shared_address(barriers), shared_address(barriers) + kStagesMax * 8, stages};
  if (threadIdx.x == 0) ring.begin();
  __syncthreads();
  let_next_start();
  const int panels = p.w.rows / kRowBlock, row_bytes = static_cast<int>(matrix_bytes(F, 1, p.w.cols));
  const int row_stages = (row_bytes + kStageRowBytes - 1) / kStageRowBytes, steps = row_bytes / kStepBytes;
  const int first = static_cast<int>(blockIdx.x), stride = static_cast<int>(gridDim.x);
  if (warp >= kWarps) {
    produce<F, kStageBytes>(p, ring, panels, row_stages, row_bytes);
    return;
  }

  wait_for_previous();
  if (p.squares != nullptr && warp < p.rows) {
    const float v = inverse_norm(p, warp);
    if (lane == 0) inverse[warp] = v;
  }
  consumers_sync();
  const float factor = p.squares == nullptr ? kDown : inverse[min(g, p.rows - 1)];
  std::uint32_t x[RowStages][kStepWords<F>];
  const int lane_columns = F == Format::bf16 ? 8 : 16;
  const bf16* from = static_cast<const bf16*>(p.x) + static_cast<std::int64_t>(g) * p.x_stride + t * lane_columns;
#pragma unroll
  for (int s = 0; s < RowStages; ++s) {
    const int step = s * kWarps + warp;
    load_x<F>(from + step * kStepColumns<F>, g < p.rows && step < steps, x[s]);
    if constexpr (kHalf<F>) {
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
          if constexpr (kHalf<F>) {
            multiply_tile_half<F>(w, x[s], acc);
          } else {
            multiply_tile<F>(w, x[s], acc);
          }
        }
        warp_arrive(ring.empty + 8 * slot);
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
    finish_sum<F>(p, panel, r, n, v, inverse);
  }
}

// ---- activations in shared memory ----

// A ring of four to six stages is as good as a longer one; more only where there is room anyway.
constexpr std::size_t kHalfShared = 113 * 1024;
constexpr std::size_t kWholeShared = 227 * 1024;
constexpr std::size_t kAloneShared = 115 * 1024;  // so much that no second block comes to the multiprocessor
constexpr int kLightStagesMin = 4, kLightStagesMax = 8;
constexpr int kLightRowsMax = 4;

// Between rows of activations, so that two of them meet in no bank.
template <Format F>
constexpr int kRowPad = F == Format::bf16 ? 64 : 16;
template <Format F>
constexpr int kLightStage = kRowBlock * kRowPitch + (F == Format::int4 ? kScaleBytes : 0);

// A row of sums has an odd number of columns.
constexpr int sum_pitch(int rows) {
  return rows | 1;
}
template <Format F>
constexpr std::size_t light_bytes(int rows, int cols, int stages) {
  return static_cast<std::size_t>(stages) * kLightStage<F> + kLightStagesMax * 16 + kFusedRowsMax * 4 +
         static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols * 2 + kRowPad<F>) +
         std::size_t{2} * kWarps * kRowBlock * 4 * static_cast<std::size_t>(sum_pitch(rows));
}
// 0: the activations do not fit beside a ring.
template <Format F>
int light_stages(int rows, int cols) {
  for (const std::size_t room : {kHalfShared, kWholeShared}) {
    for (int stages = kLightStagesMax; stages >= kLightStagesMin; --stages) {
      if (light_bytes<F>(rows, cols, stages) <= room) return stages;
    }
  }
  return 0;
}

// As multiply_tile and multiply_tile_half, with the activations at `x` in shared memory.
template <Format F>
__device__ __forceinline__ void multiply_shared(const Weights& w, const char* x, float (&acc)[4]) {
  const std::uint32_t low[4] = {w.low.x, w.low.y, w.low.z, w.low.w};
  const std::uint32_t high[4] = {w.high.x, w.high.y, w.high.z, w.high.w};
  const auto eight = [x](int bytes) { return *reinterpret_cast<const uint4*>(x + bytes); };
  if constexpr (F == Format::bf16) {
    const uint4 v = eight(0);
    mma(acc, low[0], high[0], low[1], high[1], v.x, v.y);
    mma(acc, low[2], high[2], low[3], high[3], v.z, v.w);
  } else if constexpr (F == Format::fp8) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 v = eight(16 * i);
      const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
      multiply_word<F>(acc, low[2 * i], high[2 * i], words);
      multiply_word<F>(acc, low[2 * i + 1], high[2 * i + 1], words + 2);
    }
  } else if constexpr (F == Format::int8) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 v = eight(16 * i);
      std::uint32_t a = low[2 * i] ^ 0x80808080u, b = high[2 * i] ^ 0x80808080u;
      mma_half(acc, half_of_int8<0>(a), half_of_int8<0>(b), half_of_int8<1>(a), half_of_int8<1>(b), v.x, v.y);
      a = low[2 * i + 1] ^ 0x80808080u, b = high[2 * i + 1] ^ 0x80808080u;
      mma_half(acc, half_of_int8<0>(a), half_of_int8<0>(b), half_of_int8<1>(a), half_of_int8<1>(b), v.z, v.w);
    }
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum[4] = {0, 0, 0, 0};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint4 v = eight(128 * half + 16 * i);
        const std::uint32_t a = low[2 * half + i], b = high[2 * half + i], c = a >> 8, d = b >> 8;
        mma_half(sum, half_of_int4<false>(a), half_of_int4<false>(b), half_of_int4<true>(a), half_of_int4<true>(b), v.x,
                 v.y);
        mma_half(sum, half_of_int4<false>(c), half_of_int4<false>(d), half_of_int4<true>(c), half_of_int4<true>(d), v.z,
                 v.w);
      }
      const float2 s = halves(w.scale[half]);
      acc[0] += s.x * sum[0], acc[1] += s.x * sum[1];
      acc[2] += s.y * sum[2], acc[3] += s.y * sum[3];
    }
  }
}

// Brings the activations to shared memory, in the type that the products want. All consuming warps.
template <Format F>
__device__ __forceinline__ void fetch_x(const Product& p, char* x, float* inverse) {
  const int eights = p.w.cols / 8, pitch = p.w.cols * 2 + kRowPad<F>, warp = threadIdx.x / 32;
  const auto at = [&](int i) {
    return *reinterpret_cast<const uint4*>(static_cast<const bf16*>(p.x) +
                                           static_cast<std::int64_t>(i / eights) * p.x_stride + i % eights * 8);
  };
  const int count = p.rows * eights;
  uint4 v = {0, 0, 0, 0};
  if (static_cast<int>(threadIdx.x) < count) v = at(threadIdx.x);  // on its way while the norms are summed up
  if (p.squares != nullptr && warp < p.rows) {
    const float norm = inverse_norm(p, warp);
    if (threadIdx.x % 32 == 0) inverse[warp] = norm;
  }
  consumers_sync();
  for (int i = threadIdx.x; i < count; i += kConsumers) {
    const int row = i / eights;
    if constexpr (kHalf<F>) {
      const float factor = p.squares == nullptr ? kDown : inverse[row];
      v = {half_of_bf16(v.x, factor), half_of_bf16(v.y, factor), half_of_bf16(v.z, factor), half_of_bf16(v.w, factor)};
    }
    *reinterpret_cast<uint4*>(x + row * pitch + i % eights * 16) = v;
    if (i + kConsumers < count) v = at(i + kConsumers);
  }
  consumers_sync();
}

template <Format F>
__global__ void __launch_bounds__(kThreads, 2) light_kernel(Product p, int stages) {
  extern __shared__ __align__(128) char shared[];
  char* barriers = shared + stages * kLightStage<F>;
  float* inverse = reinterpret_cast<float*>(barriers + kLightStagesMax * 16);
  float* sums = inverse + kFusedRowsMax;
  const int pitch = sum_pitch(p.rows), half_floats = kWarps * kRowBlock * pitch;
  char* x = reinterpret_cast<char*>(sums + 2 * half_floats);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const Ring ring{shared_address(shared), shared_address(barriers), shared_address(barriers) + kLightStagesMax * 8,
                  stages};
  if (threadIdx.x == 0) ring.begin();
  __syncthreads();
  let_next_start();
  const int panels = p.w.rows / kRowBlock, row_bytes = static_cast<int>(matrix_bytes(F, 1, p.w.cols));
  const int row_stages = (row_bytes + kStageRowBytes - 1) / kStageRowBytes, steps = row_bytes / kStepBytes;
  if (warp >= kWarps) {
    produce<F, kLightStage<F>>(p, ring, panels, row_stages, row_bytes);
    return;
  }
  wait_for_previous();
  fetch_x<F>(p, x, inverse);
  // Columns of the product past the rows come to nothing: whatever row they take.
  const char* mine = x + (g < p.rows ? g : 0) * (p.w.cols * 2 + kRowPad<F>)+t * (F == Format::bf16 ? 16 : 32) +
                     warp * kStepColumns<F> * 2;
  const int n = threadIdx.x / kRowBlock, r = threadIdx.x % kRowBlock;
  int slot = 0, parity = 0, half = 0;
  for (int panel = blockIdx.x; panel < panels; panel += gridDim.x, half ^= 1) {
    float acc[4] = {0, 0, 0, 0};
    for (int s = 0, step = warp; s < row_stages; ++s, step += kWarps) {
      barrier_wait(ring.full + 8 * slot, parity);
      Weights w;
      if (step < steps) w = load_shared<F>(shared + slot * kLightStage<F>, warp, p.w.group);
      warp_arrive(ring.empty + 8 * slot);
      if (++slot == stages) slot = 0, parity ^= 1;
      if (step < steps) multiply_shared<F>(w, mine + s * (kWarps * kStepColumns<F> * 2), acc);
    }
    float* out = sums + half * half_floats + (warp * kRowBlock + g) * pitch + 2 * t;
    if (2 * t < p.rows) out[0] = acc[0], out[8 * pitch] = acc[2];
    if (2 * t + 1 < p.rows) out[1] = acc[1], out[8 * pitch + 1] = acc[3];
    // The next row block's sums go to the other half; those after it come behind another barrier.
    consumers_sync();
    if (warp >= (p.rows + 1) / 2) continue;  // a warp finishes two rows
    float v = 0;
    if (n < p.rows) {
#pragma unroll
      for (int w = 0; w < kWarps; ++w) v += sums[half * half_floats + (w * kRowBlock + r) * pitch + n];
    }
    finish_sum<F>(p, panel, r, n, v, inverse);
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
cudaError_t launch_light(Queue queue, const Product& p, int multiprocessors, int stages) {
  const auto status = cudaFuncSetAttribute(light_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(kWholeShared));
  if (status != cudaSuccess) return status;
  const int blocks = min(p.w.rows / kRowBlock, multiprocessors);
  // Two products' blocks beside each other were slower than one after the other, by up to a half.
  const std::size_t bytes = max(light_bytes<F>(p.rows, p.w.cols, stages), kAloneShared);
  return launch(queue, light_kernel<F>, static_cast<unsigned>(blocks), kThreads, bytes, p, stages);
}

template <Format F>
cudaError_t stream_of(Queue queue, const Product& p, int multiprocessors, int stages) {
  if (stages <= 0) {
    const int light = p.rows <= kLightRowsMax ? light_stages<F>(p.rows, p.w.cols) : 0;
    const bool is_long = matrix_bytes(F, 1, p.w.cols) > std::int64_t{kShort<F>} * kStageRowBytes;
    // Measured: one row of int8 gains in short products too.
    if (light > 0 && (is_long || (F == Format::int8 && p.rows == 1))) {
      return launch_light<F>(queue, p, multiprocessors, light);
    }
    stages = kStagesUsual;
  }
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
