#pragma once
// Where a token's keys and values go in the pages, shared by the kernels that append. Device code only.

#include <cuda_fp8.h>

#include "backends/local/kernels/cuda/common.cuh"
#include "backends/local/kernels/cuda/kernels.hpp"

namespace ganglion::local::cuda {

__device__ __forceinline__ char* kv_tile(const KvLayout& kv, std::int32_t page, int layer, bool values, int kv_head) {
  return static_cast<char*>(kv.base) + page * kv.page_bytes +
         ((2 * layer + (values ? 1 : 0)) * kv.kv_heads + kv_head) * kv_tile_bytes(kv.head_width, kv.format);
}

// int8: the scale of the token's head behind the tile's values. A whole warp calls it, with the largest magnitude of
// what each lane has; 1 / scale.
__device__ __forceinline__ float keep_scale(const KvLayout& kv, char* tile, int position, float top) {
  const float scale = fmaxf(warp_max(top) / kInt8Max, kScaleMin);
  if (threadIdx.x % 32 == 0) {
    reinterpret_cast<float*>(tile + kPageTokens * kv.head_width)[position % kPageTokens] = scale;
  }
  return __fdividef(1.0f, scale);
}

// Two neighbouring elements of 16 bits, of a query or of what pages hold.
__device__ __forceinline__ std::uint32_t pack_sixteen(bool half, float x, float y) {
  return half ? pack_half(cut_to_half(x), cut_to_half(y)) : pack(x, y);
}

// `inverse`: 1 / scale, where there are scales.
__device__ __forceinline__ void store2(const KvLayout& kv, char* tile, int at, float x, float y, float inverse) {
  if (kv.format == KvFormat::int8) {
    *reinterpret_cast<char2*>(tile + at) = {int8_of(x, inverse), int8_of(y, inverse)};
  } else if (kv.format == KvFormat::fp8) {
    const auto low = __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
    const auto high = __nv_cvt_float_to_fp8(y, __NV_SATFINITE, __NV_E4M3);
    *reinterpret_cast<unsigned short*>(tile + at) = static_cast<unsigned short>(low | high << 8);
  } else {
    *reinterpret_cast<std::uint32_t*>(tile + 2 * at) = pack_sixteen(kv.format == KvFormat::fp16, x, y);
  }
}

// A lane's share of a head before its rotation: elements `at` and at + 1 of all rows' queries, keys and values, and
// those half a head on.
struct ReadHalves {
  __device__ __forceinline__ void operator()(const RotateAppend& r, std::int64_t at, int half, float2& a,
                                             float2& b) const {
    const auto two = [&](std::int64_t i) {
      if (r.wide) return __ldcg(reinterpret_cast<const float2*>(static_cast<const float*>(r.qkv) + i));
      return unpack(__ldcg(reinterpret_cast<const unsigned*>(static_cast<const bf16*>(r.qkv) + i)));
    };
    a = two(at), b = two(at + half);
  }
};

// One warp and one head of a row: normalised where the model has it, rotated, and brought to its place: a query to
// `query`, [head_width] in the type of attends_in_half(), a key or a value to its page. `head`: of the queries, then
// keys, then values. `copy`: of the key or value, as the page has it; int8: its scale is at 2 * head_width.
template <bool Copies = false, class Read = ReadHalves>
__device__ __forceinline__ void append_head(const RotateAppend& r, int row, int head, int position,
                                            std::uint16_t* query, char* copy = nullptr, Read read = {}) {
  const int lane = threadIdx.x % 32;
  // Lane i holds elements 2i and 2i + 1 of both halves of the head: what is rotated together.
  const int dim = r.kv.head_dim, half = dim / 2, i = 2 * lane;
  const bool is_query = head < r.heads, is_value = head >= r.heads + r.kv.kv_heads, mine = i < half;
  float2 a = {0, 0}, b = {0, 0};
  if (mine) read(r, static_cast<std::int64_t>(row) * r.stride + head * dim + i, half, a, b);
  const float* norm = is_query ? r.q_norm : is_value ? nullptr : r.k_norm;
  if (norm != nullptr) {
    const float squares = warp_sum(a.x * a.x + a.y * a.y + b.x * b.x + b.y * b.y);
    const float inverse = rsqrtf(squares / static_cast<float>(dim) + r.eps);
    if (mine) {
      a.x *= inverse * norm[i], a.y *= inverse * norm[i + 1];
      b.x *= inverse * norm[half + i], b.y *= inverse * norm[half + i + 1];
    }
  }
  if (!is_value && mine) {
    const float2 c = {r.cos[row * half + i], r.cos[row * half + i + 1]};
    const float2 s = {r.sin[row * half + i], r.sin[row * half + i + 1]};
    const float2 x = a, y = b;
    a = {x.x * c.x - y.x * s.x, x.y * c.y - y.y * s.y};
    b = {y.x * c.x + x.x * s.x, y.y * c.y + x.y * s.y};
  }
  if (is_query) {
    if (mine) {
      const bool in_half = attends_in_half(r.kv.format);
      *reinterpret_cast<std::uint32_t*>(query + i) = pack_sixteen(in_half, a.x, a.y);
      *reinterpret_cast<std::uint32_t*>(query + half + i) = pack_sixteen(in_half, b.x, b.y);
    }
#pragma unroll 1
    for (int k = dim + lane; k < r.kv.head_width; k += 32) query[k] = 0;
    return;
  }
  const std::int32_t page = r.pages[row];  // there before the step's first kernel, too
  if (page < 0) return;
  const int kv_head = is_value ? head - r.heads - r.kv.kv_heads : head - r.heads;
  char* tile = kv_tile(r.kv, page, r.layer, is_value, kv_head);
  const int slot = position % kPageTokens * r.kv.head_width;
  const float top = fmaxf(fmaxf(magnitude_of(a.x), magnitude_of(a.y)), fmaxf(magnitude_of(b.x), magnitude_of(b.y)));
  const float inverse = r.kv.format == KvFormat::int8 ? keep_scale(r.kv, tile, position, top) : 1.0f;
  if (Copies && r.kv.format == KvFormat::int8 && lane == 0) {  // what it has just written
    *reinterpret_cast<float*>(copy + 2 * r.kv.head_width) =
        reinterpret_cast<const float*>(tile + kPageTokens * r.kv.head_width)[position % kPageTokens];
  }
  if (mine) {
    store2(r.kv, tile, slot + i, a.x, a.y, inverse);
    store2(r.kv, tile, slot + half + i, b.x, b.y, inverse);
  }
  if (Copies && mine) {
    store2(r.kv, copy, i, a.x, a.y, inverse);
    store2(r.kv, copy, half + i, b.x, b.y, inverse);
  }
#pragma unroll 1
  for (int k = dim + 2 * lane; k < r.kv.head_width; k += 64) {
    store2(r.kv, tile, slot + k, 0.0f, 0.0f, inverse);
    if (Copies) store2(r.kv, copy, k, 0.0f, 0.0f, inverse);
  }
}

}  // namespace ganglion::local::cuda
