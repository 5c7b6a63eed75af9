#pragma once
// Attention inside the kernel that runs a whole decode step: rotation, append and attention of a sequence's heads, a
// unit of them a block. By all consuming warps. Device code only.

#include "backends/local/kernels/cuda/append_parts.cuh"
#include "backends/local/kernels/cuda/attention_decode_parts.cuh"
#include "backends/local/kernels/cuda/step_hand.cuh"

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
__device__ __forceinline__ Unit unit_again(int window, int unit) {
  const Small& small = shared();
  return unit == static_cast<int>(blockIdx.x) && window == small.window ? small.unit
                                                                        : unit_of(small.step, window, unit);
}

// Asks for the pages that this block is going to attend in a layer, so that they are in the second-level cache by then.
__device__ __forceinline__ void prefetch_pages(int window, int layer) {
  const DecodeStep& s = shared().step;
  const std::int64_t tile_bytes = kv_tile_bytes(s.kv.head_width, s.kv.format);
  for (int unit = blockIdx.x; unit < units_of(s); unit += gridDim.x) {
    const Unit u = unit_again(window, unit);
    if (u.position < 0) continue;
    const std::int32_t* table = s.page_table + s.page_from[u.row];
    for (int i = threadIdx.x; i < 2 * (u.to - u.from); i += kConsumers) {
      const char* tile = static_cast<const char*>(s.kv.base) + table[u.from + i / 2] * s.kv.page_bytes +
                         ((2 * layer + i % 2) * s.kv.kv_heads + u.kv_head) * tile_bytes;
      prefetch_bulk(tile, static_cast<int>(tile_bytes));
    }
  }
}

// A lane's share of the unit's page that its warp attends first, of the tokens before `end`; zeros if there is none.
template <int Width, KvFormat F>
__device__ __forceinline__ void ask_first_page(PageShare<Width, F>& share, const DecodeStep& s, const Unit& u,
                                               int window, int layer, int end) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, page = u.from + warp;
  const int token = page * kPageTokens + g, low = window > 0 ? max(0, u.length - window) : 0;
  const auto there = [&](int i) { return page < u.to && i >= low && i < end; };
  const std::int32_t number = page < u.to ? s.page_table[s.page_from[u.row] + page] : 0;
  const std::int64_t values_after = s.kv.kv_heads * kv_tile_bytes(Width, F);
  share.load(kv_tile(s.kv, number, layer, false, u.kv_head), values_after, g, t, there(token), there(token + 8));
}

// And the newest token's, from where append_head() left a copy.
template <int Width, KvFormat F>
__device__ __forceinline__ void take_newest(PageShare<Width, F>& share, const Unit& u) {
  const Small& small = shared();
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int after = u.from + warp < u.to ? u.position - (u.from + warp) * kPageTokens - g : -1;
  const bool first = after == 0, second = after == 8;  // of the lane's two tokens
  if (!first && !second) return;
#pragma unroll
  for (int c = 0; c < PageShare<Width, F>::kChunks; ++c) {
    Eight<F> key, value;
    key.load(small.newest[0] + (32 * c + 8 * t) * kv_value_bytes(F), true);
    value.load(small.newest[1] + (32 * c + 8 * t) * kv_value_bytes(F), true);
    if (first) share.k0[c] = key, share.v0[c] = value;
    if (second) share.k1[c] = key, share.v1[c] = value;
  }
  if constexpr (PageShare<Width, F>::kScaled) {
    const auto scale = [&](int i) { return *reinterpret_cast<const float*>(small.newest[i] + 2 * Width); };
    if (first) share.k_scale[0] = scale(0), share.v_scale[0] = scale(1);
    if (second) share.k_scale[1] = scale(0), share.v_scale[1] = scale(1);
  }
}

// ReadHalves, of what the product before leaves as soon as it is there.
struct AwaitHalves {
  __device__ __forceinline__ void operator()(const RotateAppend& r, std::int64_t at, int half, float2& a,
                                             float2& b) const {
    const auto* from = static_cast<const bf16*>(r.qkv) + at;
    std::uint32_t x = 0, y = 0;
#pragma unroll 1
    for (int polls = 0;; ++polls) {
      if (polls == kPollsMax) __trap();
      x = load_shown(reinterpret_cast<const std::uint32_t*>(from));
      y = load_shown(reinterpret_cast<const std::uint32_t*>(from + half));
      if (!any_unset(x) && !any_unset(y)) break;
    }
    a = unpack(x), b = unpack(y);
  }
};

template <int Width, KvFormat F>
__device__ __forceinline__ void attend_unit(const DecodeAttention& a, const Unit& u) {
  Small& small = shared();
  const DecodeStep& s = small.step;
  const StepLayer& layer = layer_of(a.layer);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const std::int32_t* table = s.page_table + s.page_from[u.row];
  const Part part{a, u.row, 1, u.kv_head, u.head, u.heads, u.slot};
  // The last warps bring the queries and the newest key and value to their places. The others have what earlier steps
  // left of their pages by then, which waits for nobody.
  const int head = warp - (kWarps - u.heads - 2), added = head - u.heads;  // added: a key, a value
  const bool writes = s.row_pages[u.row] >= 0;  // else the newest token's key and value are there already
  PageShare<Width, F> share;
  if (head >= 0) {
    const RotateAppend append{.qkv = handed(kQkv),
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
    if (added < 0) {
      append_head<false>(append, u.row, u.head + head, u.position, small.queries + head * Width, nullptr,
                         AwaitHalves{});
    } else if (u.to == u.end && u.from < u.to) {  // who reads the newest page writes it
      append_head<true>(append, u.row, s.heads + u.kv_head + added * s.kv.kv_heads, u.position, nullptr,
                        small.newest[added], AwaitHalves{});
    }
    consumers_sync();
    ask_first_page(share, s, u, a.window, a.layer, u.length);
  } else {
    ask_first_page(share, s, u, a.window, a.layer, writes ? u.position : u.length);
    consumers_sync();
    if (writes) take_newest(share, u);
  }
  const int room = small.places.x_bytes / (u.heads * Width * 4);  // warps' results
  const Merged merged{reinterpret_cast<float*>(shared_base() + small.places.x), small.tops, small.totals, u.heads,
                      max(1, min(min(kWarps, room), u.to - u.from))};
  if (warp < merged.warps) {
    const std::uint16_t* query = small.queries + lane / 4 * Width + 8 * (lane % 4);
    attend_pages<Width, F, false, Pace::lean>(a, part, table, query, u.from, u.to, u.length, merged, share);
  }
  consumers_sync();
  join<Width>(a, part, merged, u.split, kConsumers, small.last_block, [] { consumers_sync(); });
}

template <int Width, KvFormat F>
__device__ __forceinline__ void attend_all(int layer) {
  const DecodeStep& s = shared().step;
  const DecodeAttention a{.kv = s.kv,
                          .layer = layer,
                          .heads = s.heads,
                          .rows = s.rows,
                          .window = static_cast<int>(layer_of(layer).window),
                          .scale = s.score_scale,
                          .out = handed(kAttention),
                          .out_stride = s.matrices[kOut].cols,
                          .splits = s.splits,
                          .partial = s.partial,
                          .arrived = s.arrived};
  for (int unit = blockIdx.x; unit < units_of(s); unit += gridDim.x) {
    const Unit u = unit_again(a.window, unit);
    if (u.position >= 0) attend_unit<Width, F>(a, u);
    consumers_sync();
  }
}

// This block's units of a layer. Not inlined, as the products are not.
template <int Width>
__device__ __noinline__ void attend(int layer) {
  switch (shared().step.kv.format) {
    case KvFormat::bf16:
      return attend_all<Width, KvFormat::bf16>(layer);
    case KvFormat::fp16:
      return attend_all<Width, KvFormat::fp16>(layer);
    case KvFormat::fp8:
      return attend_all<Width, KvFormat::fp8>(layer);
    case KvFormat::int8:
      return attend_all<Width, KvFormat::int8>(layer);
  }
}

}  // namespace step
}  // namespace ganglion::local::cuda
