// The product of up to 64 activation rows with a streamed weight matrix, both in 8 bits, for compute capability 9.0.
// Weights are the instruction's 64 rows and activations its columns, so that few activation rows waste nothing. One
// thread of each block keeps a ring in shared memory full by tensor copies, the weights' without waiting for the
// previous kernel; two warpgroups multiply. The tensor cores keep few bits of an e4m3 sum, so each piece's is added up
// in fp32; the sums of integers are exact.

#include <cudaTypedefs.h>

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/ring.cuh"
#include "backends/local/kernels/cuda/wgmma.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kTileRows = 128;  // of the weights
constexpr int kPiece = kSwizzledRow;
constexpr int kGroups = 2;  // of four warps, that multiply
constexpr int kConsumers = kGroups * 128;
constexpr int kThreads = kConsumers + 32;
constexpr int kWeightBytes = kTileRows * kPiece;
constexpr int kStagesMax = 12;
constexpr int kAlignment = 1024;

// So much that no second block comes to a multiprocessor: with half the ring, and the next product's beside it, a step
// of 32 rows took 5 to 7 % longer.
constexpr int kRingBytes = 200 * 1024;
template <int N>
constexpr int kStageBytes = kWeightBytes + N * kPiece;
template <int N>
constexpr int kStages = kRingBytes / kStageBytes<N> < kStagesMax ? kRingBytes / kStageBytes<N> : kStagesMax;
template <int N>
constexpr int kSharedBytes = kAlignment + kStages<N> * kStageBytes<N> + 16 * kStagesMax;

template <bool Int8>
struct SumOf {
  using Type = float;
};
template <>
struct SumOf<true> {
  using Type = std::int32_t;
};

// All pieces of 128 rows by 128 bytes, one row block's after the other's, are dealt out in runs of equal length: one
// block a multiprocessor, and each reads as much as every other, whatever the shape.
struct Deal {
  int across;      // pieces of a row block
  int each, more;  // pieces of a block; the first `more` blocks have one more

  __device__ __forceinline__ int begin(int block) const { return block * each + min(block, more); }
  __device__ __forceinline__ int owner(int piece) const {
    const int longer = more * (each + 1);
    return piece < longer ? piece / (each + 1) : more + (piece - longer) / each;
  }
};

__device__ __forceinline__ void consumers_sync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

struct Ring {
  std::uint32_t base, full, empty;  // shared addresses
};

template <int N>
__device__ __forceinline__ void produce(const CUtensorMap* weights, const CUtensorMap* rows, const Ring& ring,
                                        const Deal& deal) {
  const std::uint64_t once = cache_policy<true>(), keep = cache_policy<false>();
  const int from = deal.begin(blockIdx.x), count = deal.begin(blockIdx.x + 1) - from;
  struct Place {
    int across, tile, column;
    __device__ __forceinline__ void step() {
      if (++column == across) column = 0, ++tile;
    }
  };
  Place at{deal.across, from / deal.across, from % deal.across};
  const auto weights_to = [&](int slot, const Place& place) {
    barrier_expect(ring.full + 8 * slot, kStageBytes<N>);
    copy_tile(ring.base + slot * kStageBytes<N>, weights, place.column * kPiece, place.tile * kTileRows,
              ring.full + 8 * slot, once);
  };
  const auto rows_to = [&](int slot, const Place& place) {
    copy_tile(ring.base + slot * kStageBytes<N> + kWeightBytes, rows, place.column * kPiece, 0, ring.full + 8 * slot,
              keep);
  };
  const int ahead = min(kStages<N>, count);
  Place later = at;
  for (int i = 0; i < ahead; ++i, later.step()) weights_to(i, later);
  wait_for_previous();
  for (int i = 0; i < ahead; ++i, at.step()) rows_to(i, at);
  int slot = 0, parity = 0;
  for (int i = ahead; i < count; ++i, at.step()) {
    barrier_wait(ring.empty + 8 * slot, parity);
    weights_to(slot, at);
    rows_to(slot, at);
    if (++slot == kStages<N>) slot = 0, parity ^= 1;
  }
}

// Of a lane's two weight rows; fetched while the sums are being made.
struct Scales {
  float scale[2] = {0, 0}, bias[2] = {0, 0};

  __device__ __forceinline__ void fetch(const Matrix& w, int tile) {
    const int block = tile * kTileRows + threadIdx.x / 32 * 16;
    if (block >= w.rows) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int row = block + threadIdx.x % 32 / 4 + 8 * h;
      scale[h] = static_cast<const float*>(w.scales)[row];
      if (w.bias != nullptr) bias[h] = __bfloat162float(static_cast<const bf16*>(w.bias)[row]);
    }
  }
};

// Sums of one row block become outputs. A lane has two neighbouring activation rows of one weight row; it gives one of
// them to the lane with the neighbouring weight row, so that each writes two neighbouring columns.
template <bool Int8, int N>
__device__ __forceinline__ void finish(const EightBitProduct& p, int tile, const Scales& s, const float* x_scales,
                                       const typename SumOf<Int8>::Type (&sums)[N / 2]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, odd = g % 2;
  const int block = tile * kTileRows + warp * 16;
  if (block >= p.w.rows) return;
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    const int n = 8 * j + 2 * t;
    const float x0 = x_scales[n], x1 = x_scales[n + 1];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float v0 = static_cast<float>(sums[4 * j + 2 * h]) * x0 * s.scale[h] + s.bias[h],
                  v1 = static_cast<float>(sums[4 * j + 2 * h + 1]) * x1 * s.scale[h] + s.bias[h];
      const float got = __shfl_xor_sync(0xffffffffu, odd ? v0 : v1, 4);
      const float low = odd ? got : v0, high = odd ? v1 : got;
      const int row = n + odd, column = block + g - odd + 8 * h;
      if (row >= p.rows) continue;
      const std::int64_t at = static_cast<std::int64_t>(row) * p.y_stride + column;
      if (p.wide) {
        *reinterpret_cast<float2*>(static_cast<float*>(p.y) + at) = {low, high};
      } else {
        *reinterpret_cast<std::uint32_t*>(static_cast<bf16*>(p.y) + at) = pack(low, high);
      }
    }
  }
}

// Where a run ends inside a row block, its sums go to a buffer (in the second-level cache), and whoever is the last to
// bring some there adds them up, always in the same order. Whether this block is; `sums` are then everybody's.
template <bool Int8, int N>
__device__ __forceinline__ bool join(const EightBitProduct& p, const Deal& deal, int tile,
                                     typename SumOf<Int8>::Type (&sums)[N / 2], int* flag) {
  using Sum = typename SumOf<Int8>::Type;
  // A block's run has at most two row blocks in part: that of its first piece, and that of its last.
  const auto place = [&](int block) {
    const int second = deal.begin(block) / deal.across != tile;
    return reinterpret_cast<Sum*>(p.partial) + static_cast<std::int64_t>(2 * block + second) * (kTileRows * N) +
           threadIdx.x;
  };
  Sum* const mine = place(blockIdx.x);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) __stcg(mine + i * kConsumers, sums[i]);
  const int first = deal.owner(tile * deal.across), last = deal.owner((tile + 1) * deal.across - 1);
  __threadfence();
  consumers_sync();
  if (threadIdx.x == 0) *flag = atomicAdd(p.arrived + tile, 1u) == static_cast<unsigned>(last - first);
  consumers_sync();
  const bool finishes = *flag != 0;
  consumers_sync();  // the flag is free again
  if (!finishes) return false;
  __threadfence();
#pragma unroll
  for (int i = 0; i < N / 2; ++i) sums[i] = 0;
  constexpr int kAtOnce = N < 64 ? 64 / N : 1;
  for (int block = first; block <= last; block += kAtOnce) {
    Sum theirs[kAtOnce][N / 2];
#pragma unroll
    for (int b = 0; b < kAtOnce; ++b) {
      const Sum* const from = place(min(block + b, last));
#pragma unroll
      for (int i = 0; i < N / 2; ++i) theirs[b][i] = __ldcg(from + i * kConsumers);
    }
#pragma unroll
    for (int b = 0; b < kAtOnce; ++b) {
      if (block + b > last) break;
#pragma unroll
      for (int i = 0; i < N / 2; ++i) sums[i] += theirs[b][i];
    }
  }
  if (threadIdx.x == 0) p.arrived[tile] = 0;
  return true;
}

template <bool Int8, int N>
__global__ void __launch_bounds__(kThreads, 1)
    eight_bit_kernel(const __grid_constant__ CUtensorMap weights, const __grid_constant__ CUtensorMap rows,
                     const EightBitProduct p, const Deal deal) {
  using Sum = typename SumOf<Int8>::Type;
#if __CUDA_ARCH__ >= 900 && !GANGLION_HAS_WGMMA
  __trap();  // built for 9.0 without its own instructions (90 for 90a): an error, and no wrong sums
#endif
  extern __shared__ char shared[];
  __shared__ int flag;
  __shared__ float x_scales[N];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const std::uint32_t base = (shared_address(shared) + kAlignment - 1) / kAlignment * kAlignment;
  const std::uint32_t barriers = base + kStages<N> * kStageBytes<N>;
  const Ring ring{base, barriers, barriers + 8 * kStagesMax};
  if (threadIdx.x == 0) {
    prefetch_map(&weights), prefetch_map(&rows);
    for (int i = 0; i < kStages<N>; ++i) {
      barrier_init(ring.full + 8 * i, 1);
      barrier_init(ring.empty + 8 * i, kConsumers / 32);
    }
    barriers_begin();
  }
  __syncthreads();
  let_next_start();
  if (warp == kConsumers / 32) {
    if (lane == 0) produce<N>(&weights, &rows, ring, deal);
    return;
  }

  wait_for_previous();
  if (threadIdx.x < N) x_scales[threadIdx.x] = static_cast<int>(threadIdx.x) < p.rows ? p.x_scales[threadIdx.x] : 0.0f;
  consumers_sync();
  const int group = warp / 4, to = deal.begin(blockIdx.x + 1);
  int piece = deal.begin(blockIdx.x), slot = 0, parity = 0;
  while (piece < to) {
    const int tile = piece / deal.across, from = piece, end = min(to, (tile + 1) * deal.across);
    Scales scales;
    scales.fetch(p.w, tile);
    Sum sums[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) sums[i] = 0;
    for (; piece < end; ++piece) {
      barrier_wait(ring.full + 8 * slot, parity);
      const std::uint32_t at = ring.base + slot * kStageBytes<N>;
      const std::uint64_t a = tile_descriptor(at + group * (kWeightBytes / kGroups)),
                          b = tile_descriptor(at + kWeightBytes);
      if constexpr (Int8) {
        wgmma_begin(sums);
#pragma unroll
        for (int k = 0; k < kPiece / 32; ++k) wgmma<N>(sums, a + 2 * k, b + 2 * k, 1);
        wgmma_finish(sums);
      } else {
        float part[N / 2] = {};
        wgmma_begin(part);
#pragma unroll
        for (int k = 0; k < kPiece / 32; ++k) wgmma<N>(part, a + 2 * k, b + 2 * k, k > 0);
        wgmma_finish(part);
#pragma unroll
        for (int i = 0; i < N / 2; ++i) sums[i] += part[i];
      }
      if (lane == 0) barrier_arrive(ring.empty + 8 * slot);
      if (++slot == kStages<N>) slot = 0, parity ^= 1;
    }
    const bool whole = from == tile * deal.across && end == (tile + 1) * deal.across;
    if (whole || join<Int8, N>(p, deal, tile, sums, &flag)) finish<Int8, N>(p, tile, scales, x_scales, sums);
  }
}

// Looked for once; null where the driver does not know it.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const auto found = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult result{};
    const auto status =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &result);
    const bool is_there = status == cudaSuccess && result == cudaDriverEntryPointSuccess;
    return is_there ? reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry) : nullptr;
  }();
  return found;
}

// `rows` rows of `cols` bytes, read in tiles of `tile_rows` by kPiece; rows past the last are zero.
bool describe(CUtensorMap& map, const void* data, int rows, int cols, int tile_rows, bool once) {
  const auto encode = encoder();
  if (encode == nullptr) return false;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t stride = static_cast<cuuint64_t>(cols);
  const cuuint32_t box[2] = {kPiece, static_cast<cuuint32_t>(tile_rows)}, steps[2] = {1, 1};
  return encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT8, 2, const_cast<void*>(data), sizes, &stride, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                once ? CU_TENSOR_MAP_L2_PROMOTION_L2_256B : CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <bool Int8, int N>
cudaError_t launch_rows(Queue queue, const EightBitProduct& p, int multiprocessors) {
  CUtensorMap weights, rows;
  if (!describe(weights, p.w.data, p.w.rows, p.w.cols, kTileRows, true) ||
      !describe(rows, p.x, p.rows, p.w.cols, N, false)) {
    return cudaErrorInvalidValue;
  }
  const auto status =
      cudaFuncSetAttribute(eight_bit_kernel<Int8, N>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes<N>);
  if (status != cudaSuccess) return status;
  const int across = p.w.cols / kPiece, pieces = (p.w.rows + kTileRows - 1) / kTileRows * across,
            blocks = min(pieces, multiprocessors);
  const Deal deal{across, pieces / blocks, pieces % blocks};
  return launch(queue, eight_bit_kernel<Int8, N>, static_cast<unsigned>(blocks), kThreads, kSharedBytes<N>, weights,
                rows, p, deal);
}

template <bool Int8>
cudaError_t launch_type(Queue queue, const EightBitProduct& p, int multiprocessors) {
  if (p.rows <= 16) return launch_rows<Int8, 16>(queue, p, multiprocessors);
  if (p.rows <= 32) return launch_rows<Int8, 32>(queue, p, multiprocessors);
  return launch_rows<Int8, kEightBitRowsMax>(queue, p, multiprocessors);
}

}  // namespace

bool eight_bit_product_fits(const Matrix& w, int rows, int capability) {
  return capability == 90 && (w.format == Format::fp8 || w.format == Format::int8) && rows >= 1 &&
         rows <= kEightBitRowsMax && w.rows <= kEightBitTilesMax * kTileRows && encoder() != nullptr;
}

cudaError_t eight_bit_product(Queue queue, const EightBitProduct& p, int multiprocessors) {
  const auto aligned = [](const void* at, std::uintptr_t to) { return reinterpret_cast<std::uintptr_t>(at) % to == 0; };
  if (!eight_bit_product_fits(p.w, p.rows, 90) || p.w.cols % kPiece != 0 || p.w.rows % kRowBlock != 0 ||
      p.y_stride % 2 != 0 || !aligned(p.y, p.wide ? 8 : 4) || !aligned(p.x, 16) || !aligned(p.w.data, 16)) {
    return cudaErrorInvalidValue;
  }
  return p.w.format == Format::int8 ? launch_type<true>(queue, p, multiprocessors)
                                    : launch_type<false>(queue, p, multiprocessors);
}

}  // namespace ganglion::local::cuda
