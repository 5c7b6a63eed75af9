// The experts' products where each has many rows: tiles of 64 rows by 128 outputs through shared memory, two stages of
// 64 columns deep, so that weights and activations are each read few times. Quantised weights become bf16 on their way
// into shared memory; int4's scales are applied there, the others' to the sums. A block takes every so-many-th tile of
// its expert's rows: how many there are is known on the device alone.

#include <type_traits>

#include "backends/local/kernels/cuda/general.hpp"
#include "backends/local/kernels/cuda/launch.cuh"
#include "backends/local/kernels/cuda/product_parts.cuh"
#include "backends/local/kernels/cuda/row_parts.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kThreads = 256, kRows = 64, kOutputs = 128, kColumns = 64;
constexpr int kChunks = kColumns / 8;  // of 16 bytes, in a tile's row
constexpr int kStageChunks = (kOutputs + kRows) * kChunks;
constexpr int kOutPitch = kOutputs + 8;
constexpr std::size_t kSharedBytes = std::size_t{2} * kStageChunks * 16;
static_assert(kRows * kOutPitch * 2 <= 2 * kStageChunks * 16);

// Chunks of a row are mixed so that eight rows' chunks of one column lie in different banks.
__device__ __forceinline__ int chunk_place(int row, int chunk) {
  return row * kChunks + (chunk ^ (row & 7));
}

__device__ __forceinline__ void load_matrix(std::uint32_t (&out)[4], const uint4* at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(shared_address(at)));
}

// A thread's share of one stage's weights, on its way: pieces of a row as they lie in memory.
template <Format F>
struct Piece {
  static constexpr int kRowPieces = F == Format::bf16 ? kChunks : F == Format::int4 ? kColumns / 8 : kColumns / 16;
  static constexpr int kCount = kOutputs * kRowPieces / kThreads;
};

template <Format F>
struct WeightTile {
  std::conditional_t<F == Format::int4, std::uint32_t, uint4> pieces[Piece<F>::kCount];
  float scales[F == Format::int4 ? Piece<F>::kCount : 1];

  // Rows from `row` on of a matrix, those past `last` being the last one again; columns from `column` on.
  __device__ __forceinline__ void load(const Matrix& w, std::int64_t row, std::int64_t last, int column) {
    const std::int64_t row_bytes = matrix_bytes(F, 1, w.cols);
#pragma unroll
    for (int i = 0; i < Piece<F>::kCount; ++i) {
      const int index = i * kThreads + static_cast<int>(threadIdx.x), r = index / Piece<F>::kRowPieces,
                piece = index % Piece<F>::kRowPieces;
      const std::int64_t at = min(row + r, last);
      if constexpr (F == Format::int4) {
        const int c = column + 8 * piece;
        pieces[i] = static_cast<const std::uint32_t*>(w.data)[int4_word_place(at, c, w.cols)];
        scales[i] =
            __half2float(static_cast<const __half*>(w.scales)[int4_scale_place(at, c / w.group, w.cols / w.group)]);
      } else {
        const char* from = static_cast<const char*>(w.data) + at * row_bytes;
        pieces[i] = *reinterpret_cast<const uint4*>(from + (F == Format::bf16 ? 2 : 1) * column + 16 * piece);
      }
    }
  }

  __device__ __forceinline__ void store(uint4* to) const {
#pragma unroll
    for (int i = 0; i < Piece<F>::kCount; ++i) {
      const int index = i * kThreads + static_cast<int>(threadIdx.x), r = index / Piece<F>::kRowPieces,
                piece = index % Piece<F>::kRowPieces;
      if constexpr (F == Format::bf16) {
        to[chunk_place(r, piece)] = pieces[i];
      } else if constexpr (F == Format::int4) {
        const std::uint32_t q[4] = {bf16_of_int4<0>(pieces[i]), bf16_of_int4<1>(pieces[i]), bf16_of_int4<2>(pieces[i]),
                                    bf16_of_int4<3>(pieces[i])};
        std::uint32_t v[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const float2 f = unpack(q[k]);
          v[k] = pack(f.x * scales[i], f.y * scales[i]);
        }
        to[chunk_place(r, piece)] = {v[0], v[1], v[2], v[3]};
      } else {
        const std::uint32_t words[4] = {pieces[i].x, pieces[i].y, pieces[i].z, pieces[i].w};
        std::uint32_t v[8];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          v[2 * k] = F == Format::int8 ? bf16_of_int8<0>(words[k]) : bf16_of_fp8<0>(words[k]);
          v[2 * k + 1] = F == Format::int8 ? bf16_of_int8<1>(words[k]) : bf16_of_fp8<1>(words[k]);
        }
        to[chunk_place(r, 2 * piece)] = {v[0], v[1], v[2], v[3]};
        to[chunk_place(r, 2 * piece + 1)] = {v[4], v[5], v[6], v[7]};
      }
    }
  }
};

// Activations of one stage; rows past the expert's last are zero.
__device__ __forceinline__ void load_rows(const GroupedProduct& p, const std::int32_t* slots, int rows, int column,
                                          uint4* to) {
#pragma unroll
  for (int i = 0; i < kRows * kChunks / kThreads; ++i) {
    const int index = i * kThreads + static_cast<int>(threadIdx.x), r = index / kChunks, chunk = index % kChunks;
    const auto* from = static_cast<const bf16*>(p.x) + static_cast<std::int64_t>(slots[r] / p.x_per_row) * p.x_stride +
                       column + 8 * chunk;
    copy_async(shared_address(to + chunk_place(r, chunk)), from, r < rows ? 16 : 0);
  }
  copy_commit();
}

// A warp's share: 32 outputs by 32 rows.
struct Sums {
  float v[2][4][4];
};

__device__ __forceinline__ void multiply_stage(const uint4* w, const uint4* x, int outputs, int rows, Sums& sums) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kColumns / 16; ++k) {
    std::uint32_t a[2][4], b[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      load_matrix(a[m], w + chunk_place(outputs + 16 * m + lane % 16, 2 * k + lane / 16));
    }
#pragma unroll
    for (int n = 0; n < 2; ++n) {
      load_matrix(b[n], x + chunk_place(rows + 16 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        mma(sums.v[m][n], a[m][0], a[m][1], a[m][2], a[m][3], b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
      }
    }
  }
}

template <Format F>
__global__ void __launch_bounds__(kThreads) tile_kernel(GroupedProduct p) {
  extern __shared__ __align__(128) uint4 shared[];
  __shared__ std::int32_t slots[kRows];
  let_next_start();
  wait_for_previous();
  const int expert = blockIdx.y, count = p.counts[expert], each = p.w.rows / p.experts;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int output = static_cast<int>(blockIdx.x) * kOutputs, my_outputs = warp % 4 * 32, my_rows = warp / 4 * 32;
  const std::int64_t first_row = static_cast<std::int64_t>(expert) * each + output,
                     last_row = static_cast<std::int64_t>(expert + 1) * each - 1;
  for (int first = static_cast<int>(blockIdx.z) * kRows; first < count; first += static_cast<int>(gridDim.z) * kRows) {
    const int rows = min(kRows, count - first);
    if (threadIdx.x < kRows) {
      slots[threadIdx.x] = p.slots[static_cast<std::int64_t>(expert) * p.capacity +
                                   min(first + static_cast<int>(threadIdx.x), count - 1)];
    }
    __syncthreads();
    Sums sums = {};
    WeightTile<F> weights;
    weights.load(p.w, first_row, last_row, 0);
    load_rows(p, slots, rows, 0, shared + kOutputs * kChunks);
    weights.store(shared);
    copy_wait<0>();
    __syncthreads();
    int stage = 0;
    for (int column = 0; column < p.w.cols; column += kColumns, stage ^= 1) {
      uint4* here = shared + stage * kStageChunks;
      uint4* there = shared + (stage ^ 1) * kStageChunks;
      const bool more = column + kColumns < p.w.cols;
      if (more) {
        weights.load(p.w, first_row, last_row, column + kColumns);
        load_rows(p, slots, rows, column + kColumns, there + kOutputs * kChunks);
      }
      multiply_stage(here, here + kOutputs * kChunks, my_outputs, my_rows, sums);
      if (more) {
        weights.store(there);
        copy_wait<0>();
      }
      __syncthreads();
    }
    // By way of shared memory, so that rows are written in whole.
    auto* out = reinterpret_cast<bf16*>(shared);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int o = my_outputs + 16 * m + g + i / 2 * 8;
        float scale = 1;
        if constexpr (F == Format::int8 || F == Format::fp8) {
          scale = static_cast<const float*>(p.w.scales)[min(first_row + o, last_row)];
        }
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          out[(my_rows + 8 * n + 2 * t + i % 2) * kOutPitch + o] = __float2bfloat16(sums.v[m][n][i] * scale);
        }
      }
    }
    __syncthreads();
    // `each` is a multiple of 16, so an eight is inside or outside as a whole.
    for (int i = threadIdx.x; i < rows * (kOutputs / 8); i += kThreads) {
      const int r = i / (kOutputs / 8), eight = i % (kOutputs / 8) * 8;
      if (output + eight >= each) continue;
      *reinterpret_cast<uint4*>(static_cast<bf16*>(p.y) + static_cast<std::int64_t>(slots[r]) * p.y_stride + output +
                                eight) = *reinterpret_cast<const uint4*>(out + r * kOutPitch + eight);
    }
    __syncthreads();
  }
}

template <Format F>
cudaError_t tiles_of(Queue queue, const GroupedProduct& p, int row_blocks) {
  if (const auto status = cudaFuncSetAttribute(tile_kernel<F>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               static_cast<int>(kSharedBytes));
      status != cudaSuccess) {
    return status;
  }
  const int each = p.w.rows / p.experts;
  const dim3 grid(static_cast<unsigned>((each + kOutputs - 1) / kOutputs), static_cast<unsigned>(p.experts),
                  static_cast<unsigned>(row_blocks));
  return launch(queue, tile_kernel<F>, grid, kThreads, kSharedBytes, p);
}

}  // namespace

cudaError_t grouped_tiles(Queue queue, const GroupedProduct& p) {
  if (p.experts < 1 || p.w.rows % (p.experts * kRowBlock) != 0 || p.y_stride % 8 != 0) return cudaErrorInvalidValue;
  // Blocks for what an expert has on average; those with more go round again.
  const int row_blocks = max(1, (p.slot_count / p.experts + kRows - 1) / kRows);
  switch (p.w.format) {
    case Format::bf16:
      return tiles_of<Format::bf16>(queue, p, row_blocks);
    case Format::int8:
      return tiles_of<Format::int8>(queue, p, row_blocks);
    case Format::fp8:
      return tiles_of<Format::fp8>(queue, p, row_blocks);
    case Format::int4:
      return tiles_of<Format::int4>(queue, p, row_blocks);
  }
  return cudaErrorInvalidValue;
}

}  // namespace ganglion::local::cuda
