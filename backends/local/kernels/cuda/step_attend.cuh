#pragma once
// Attention inside the kernel that runs a whole decode step: rotation, append and attention of a sequence's heads, a
// unit of them a block. By all consuming warps. Device code only.

#include "backends/local/kernels/cuda/append_parts.cuh"
#include "backends/local/kernels/cuda/attention_decode_parts.cuh"
#include "backends/local/kernels/cuda/step_parts.cuh"

namespace ganglion::local::cuda {
namespace step {

// Units of all blocks; and number `unit` of them. Its position is negative where the row only pads.
__device__ __forceinline__ int units_of(const DecodeStep& s) {
  return s.rows * s.kv.kv_heads * head_tiles(s.heads, s.kv.kv_heads) * s.splits;
}
__device__ __forceinline__ Unit unit_of(const DecodeStep& s, int window, int unit) {
  const int tiles = head_tiles(s.heads, s.kv.kv_heads), group = s.heads / s.kv.kv_heads;
  Unit u;
  u.split = unit % s.splits, u.slot = unit / s.splits * kColumns;
  const int y = unit / s.splits % (s.kv.kv_heads * tiles);
  u.row = unit / s.splits / (s.kv.kv_heads * tiles);
  u.kv_head = y / tiles, u.head = u.kv_head * group + kColumns * (y % tiles);
  u.heads = min(kColumns, group - kColumns * (y % tiles));
  u.position = s.positions[u.row], u.length = u.position + 1;
  const int first = window > 0 ? max(0, u.length - window) / kPageTokens : 0;
  u.end = (u.length + kPageTokens - 1) / kPageTokens;
  const int share = (u.end - first + s.splits - 1) / s.splits;
  u.from = min(first + u.split * share, u.end), u.to = min(u.from + share, u.end);
  return u;
}

// The same from where the kernel left the block's first unit, since divisions take their time.
__device__ __forceinline__ Unit unit_again(const Small& small, int window, int unit) {
  return unit == static_cast<int>(blockIdx.x) && window == small.window ? small.unit
                                                                        : unit_of(small.step, window, unit);
}

// Asks for the pages that this block is going to attend in a layer, so that they are in the second-level cache by then.
__device__ __forceinline__ void prefetch_pages(const Small& small, int window, int layer) {
  const DecodeStep& s = small.step;
  const std::int64_t tile_bytes = kv_tile_bytes(s.kv.head_width, s.kv.format);
  for (int unit = blockIdx.x; unit < units_of(s); unit += gridDim.x) {
    const Unit u = unit_again(small, window, unit);
    if (u.position < 0) continue;
    const std::int32_t* table = s.page_table + s.page_from[u.row];
    for (int i = threadIdx.x; i < 2 * (u.to - u.from); i += kConsumers) {
      const char* tile = static_cast<const char*>(s.kv.base) + table[u.from + i / 2] * s.kv.page_bytes +
                         ((2 * layer + i % 2) * s.kv.kv_heads + u.kv_head) * tile_bytes;
      prefetch_bulk(tile, static_cast<int>(tile_bytes));
    }
  }
}

template <int Width, KvFormat F>
__device__ __forceinline__ void attend_unit(const DecodeStep& s, const StepLayer& layer, const DecodeAttention& a,
                                            const Unit& u, Small& small) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const std::int32_t* table = s.page_table + s.page_from[u.row];
  const std::int32_t page = u.from + warp < u.to ? table[u.from + warp] : 0;
  const Part part{a, u.row, 1, u.kv_head, u.head, u.heads, u.slot};
  const RotateAppend append{.qkv = s.qkv,
                            .stride = s.matrices[kQkv].rows,
                            .rows = s.rows,
                            .heads = s.heads,
                            .layer = a.layer,
                            .kv = s.kv,
                            .cos = s.cos,
                            .sin = s.sin,
                            .q_norm = layer.q_norm,
                            .k_norm = layer.k_norm,
                            .eps = s.norm_eps,
                            .positions = s.positions,
                            .pages = s.row_pages};
  if (warp < u.heads) {
    append_head(append, u.row, u.head + warp, u.position, small.queries + warp * Width);
  } else if (warp < u.heads + 2 && u.to == u.end && u.from < u.to) {  // who reads the newest page writes it
    append_head(append, u.row, s.heads + u.kv_head + (warp - u.heads) * s.kv.kv_heads, u.position, nullptr);
  }
  consumers_sync();
  const int room = small.places.x_bytes / (u.heads * Width * 4);  // warps' results
  const Merged merged{reinterpret_cast<float*>(shared_base() + small.places.x), small.tops, small.totals, u.heads,
                      max(1, min(min(kWarps, room), u.to - u.from))};
  if (warp < merged.warps) {
    const std::uint16_t* query = small.queries + lane / 4 * Width + 8 * (lane % 4);
    attend_pages<Width, F, false, Pace::lean>(a, part, table, query, u.from, u.to, u.length, merged, page);
  }
  consumers_sync();
  join<Width>(a, part, merged, u.split, kConsumers, small.last_block, [] { consumers_sync(); });
}

template <int Width, KvFormat F>
__device__ __forceinline__ void attend_all(const DecodeStep& s, const StepLayer& layer, int index, Small& small) {
  const DecodeAttention a{.kv = s.kv,
                          .layer = index,
                          .heads = s.heads,
                          .rows = s.rows,
                          .window = static_cast<int>(layer.window),
                          .scale = s.score_scale,
                          .out = s.attended,
                          .out_stride = s.attended_stride,
                          .splits = s.splits,
                          .partial = s.partial,
                          .arrived = s.arrived};
  for (int unit = blockIdx.x; unit < units_of(s); unit += gridDim.x) {
    const Unit u = unit_again(small, a.window, unit);
    if (u.position >= 0) attend_unit<Width, F>(s, layer, a, u, small);
    consumers_sync();
  }
}

// This block's units of layer `index`, behind the device-wide barrier. Not inlined, as the products are not.
template <int Width>
__device__ __noinline__ void attend(const DecodeStep& s, const StepLayer& layer, int index, Small& small) {
  switch (s.kv.format) {
    case KvFormat::bf16:
      return attend_all<Width, KvFormat::bf16>(s, layer, index, small);
    case KvFormat::fp16:
      return attend_all<Width, KvFormat::fp16>(s, layer, index, small);
    case KvFormat::fp8:
      return attend_all<Width, KvFormat::fp8>(s, layer, index, small);
    case KvFormat::int8:
      return attend_all<Width, KvFormat::int8>(s, layer, index, small);
  }
}

}  // namespace step
}  // namespace ganglion::local::cuda
