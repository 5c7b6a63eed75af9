// Attention of one new token per sequence, or of a few, over its pages. Keys and values go from memory straight into
// tensor-core fragments: a page's 16 tokens are the 16 rows of a fragment; its eight columns are the query heads that
// share a key/value head (so grouped heads cost no more than one), of as many new tokens as there is room for. Values
// are transposed in registers. A sequence's pages are split over blocks and warps; the last block of a sequence to
// arrive puts the parts together, always in the same order.

#include "backends/local/kernels/cuda/attention_decode_parts.cuh"
#include "backends/local/kernels/cuda/launch.cuh"

namespace ganglion::local::cuda {
namespace {

constexpr int kWarps = 4;

template <int Width, KvFormat F, bool Few>
__global__ void __launch_bounds__(kWarps * 32) decode_kernel(DecodeAttention a) {
  __shared__ float sums[kWarps * kColumns * Width], tops[kWarps * kColumns], totals[kWarps * kColumns];
  __shared__ bool last_block;
  const Merged merged{sums, tops, totals, kColumns, kWarps};
  let_next_start();
  // Positions, tiles and page tables were there before the step's first kernel.
  const int group = a.heads / a.kv.kv_heads, tiles = (group + kColumns - 1) / kColumns;
  const int kv_head = blockIdx.y / tiles, tile = blockIdx.y % tiles, head = kv_head * group + kColumns * tile;
  Part part{a, static_cast<int>(blockIdx.z), 1, kv_head, head, min(kColumns, group - kColumns * tile), 0};
  part.slot = static_cast<int>(blockIdx.z * gridDim.y + blockIdx.y) * kColumns;
  int position;
  if constexpr (Few) {
    const PrefillTile some = a.tiles[blockIdx.z];
    part.row = some.row, part.rows = some.rows;
    position = some.rows > 0 ? some.position : -1;
  } else {
    position = a.positions[part.row];
  }
  wait_for_previous();
  if (position < 0) return;  // the whole sequence's blocks go together
  const int length = position + 1, first = a.window > 0 ? max(0, length - a.window) / kPageTokens : 0;
  const int end = (length + part.rows - 1 + kPageTokens - 1) / kPageTokens;
  const int share = (end - first + a.splits - 1) / a.splits, from = first + static_cast<int>(blockIdx.x) * share;
  const int lane = threadIdx.x % 32, column = lane / 4, behind = Few ? column / part.heads : 0;
  const auto* query =
      static_cast<const std::uint16_t*>(a.query) +  // bf16 or fp16
      (static_cast<std::int64_t>(part.row + behind) * a.heads + head + column - behind * part.heads) * Width +
      8 * (lane % 4);
  const std::int32_t* table = a.page_table + (Few ? a.tiles[blockIdx.z].page_from : a.page_from[blockIdx.z]);
  attend_pages<Width, F, Few, (Width <= 128 ? Pace::ahead : Pace::page)>(a, part, table, query, from,
                                                                         min(from + share, end), length, merged);
  __syncthreads();
  join<Width>(a, part, merged, blockIdx.x, kWarps * 32, last_block, [] { __syncthreads(); });
}

template <int Width, KvFormat F>
cudaError_t decode_width(Queue queue, const DecodeAttention& a) {
  const dim3 grid(static_cast<unsigned>(a.splits),
                  static_cast<unsigned>(a.kv.kv_heads * head_tiles(a.heads, a.kv.kv_heads)),
                  static_cast<unsigned>(a.tiles != nullptr ? a.tile_count : a.rows));
  return a.tiles != nullptr ? launch(queue, decode_kernel<Width, F, true>, grid, kWarps * 32, 0, a)
                            : launch(queue, decode_kernel<Width, F, false>, grid, kWarps * 32, 0, a);
}

template <KvFormat F>
cudaError_t decode_of(Queue queue, const DecodeAttention& a) {
  switch (a.kv.head_width) {
    case 32:
      return decode_width<32, F>(queue, a);
    case 64:
      return decode_width<64, F>(queue, a);
    case 96:
      return decode_width<96, F>(queue, a);
    case 128:
      return decode_width<128, F>(queue, a);
    case 256:
      return decode_width<256, F>(queue, a);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

int decode_splits(int rows, int heads, int kv_heads, int context, int multiprocessors) {
  // A warp should have a page at least, and the card a few blocks a multiprocessor at most.
  const int blocks = rows * kv_heads * head_tiles(heads, kv_heads), pages = (context + kPageTokens - 1) / kPageTokens;
  int splits = 1;
  while (splits < 32 && splits * 2 * kWarps <= pages && blocks * splits * 2 <= multiprocessors * 4) splits *= 2;
  return splits;
}

cudaError_t attend_decode(Queue queue, const DecodeAttention& a) {
  switch (a.kv.format) {
    case KvFormat::bf16:
      return decode_of<KvFormat::bf16>(queue, a);
    case KvFormat::fp16:
      return decode_of<KvFormat::fp16>(queue, a);
    case KvFormat::fp8:
      return decode_of<KvFormat::fp8>(queue, a);
    case KvFormat::int8:
      return decode_of<KvFormat::int8>(queue, a);
  }
  return cudaErrorInvalidValue;
}

}  // namespace ganglion::local::cuda
