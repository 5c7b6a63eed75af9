// Work is given out item by item from a shared counter: causal rows and sequences differ in length, so a static split
// would leave threads idle.

#include "backends/local/kernels/attention.hpp"

#include <algorithm>
#include <atomic>

namespace ganglion::local {

namespace {

std::int64_t width(KvElement element) {
  return element == KvElement::f32 ? 4 : element == KvElement::f16 ? 2 : 1;
}

}  // namespace

std::int64_t KvShape::head_bytes() const {
  const std::int64_t scales = element == KvElement::i8 ? 2 * static_cast<std::int64_t>(sizeof(float)) : 0;
  return kPageTokens * ((head_dim + pad_head_dim(head_dim)) * width(element) + scales);
}

KvStore::KvStore(const KvShape& shape, std::int64_t pages)
    : shape_(shape), pages_(pages), memory_(static_cast<std::size_t>(shape.page_bytes() * pages)) {}

const char* KvStore::key_base(int layer, int head) const {
  return memory_.as<const char>() + shape_.head_bytes() * (layer * shape_.kv_heads + head);
}

const char* KvStore::value_base(int layer, int head) const {
  return key_base(layer, head) + kPageTokens * shape_.head_dim * width(shape_.element);
}

void KvStore::write(const Kernels& kernels, int layer, std::int32_t page, int slot, const float* keys,
                    const float* values) {
  const int n = shape_.head_dim, padded = pad_head_dim(n);
  const std::int64_t offset = page * shape_.page_bytes();
  for (int head = 0; head < shape_.kv_heads; ++head, keys += n, values += n) {
    char* k = const_cast<char*>(key_base(layer, head)) + offset;
    char* v = const_cast<char*>(value_base(layer, head)) + offset;
    if (shape_.element == KvElement::i8) {
      write_int8(kernels, k, slot, keys, values);
      continue;
    }
    if (shape_.element == KvElement::f32) {
      auto* to = reinterpret_cast<float*>(k) + slot;
      for (int d = 0; d < n; ++d) to[d * kPageTokens] = keys[d];
      std::copy_n(values, n, reinterpret_cast<float*>(v) + slot * padded);
      continue;
    }
    auto* to = reinterpret_cast<std::uint16_t*>(k) + slot;
    std::uint16_t chunk[64];
    for (int d = 0; d < n; d += 64) {
      const int m = std::min(64, n - d);
      kernels.narrow_f16(keys + d, chunk, m);
      for (int i = 0; i < m; ++i) to[(d + i) * kPageTokens] = chunk[i];
    }
    kernels.narrow_f16(values, reinterpret_cast<std::uint16_t*>(v) + slot * padded, n);
  }
}

void KvStore::write_int8(const Kernels& kernels, char* tile, int slot, const float* keys, const float* values) const {
  const int n = shape_.head_dim, padded = pad_head_dim(n);
  auto* k = reinterpret_cast<std::int8_t*>(tile);
  auto* v = k + kPageTokens * n + slot * padded;
  auto* scales = reinterpret_cast<float*>(tile + kPageTokens * (n + padded));
  std::int32_t sum;
  // Keys lie across: by way of the place that the values have next.
  scales[slot] = kernels.quantize_group(keys, n, v, &sum);
  for (int d = 0; d < n; ++d) k[d * kPageTokens + slot] = v[d];
  scales[kPageTokens + slot] = kernels.quantize_group(values, n, v, &sum);
}

void AttentionPlan::build(std::span<const AttendSlice> slices, int heads, int kv_heads) {
  slices_.assign(slices.begin(), slices.end());
  items_.clear();
  heads_ = heads;
  keys_ = 0;
  for (const AttendSlice& s : slices_) keys_ += static_cast<std::int64_t>(s.rows) * (s.position + s.rows);
  const int group = heads / kv_heads;
  const int heads_each = std::min(group, kAttendRows), rows_each = std::max(1, kAttendRows / group);
  for (int s = 0; s < static_cast<int>(slices_.size()); ++s) {
    // Longest first, so that the last items to be taken are short ones.
    for (int row = (slices_[s].rows - 1) / rows_each * rows_each; row >= 0; row -= rows_each) {
      for (int kv_head = 0; kv_head < kv_heads; ++kv_head) {
        for (int head = 0; head < group; head += heads_each) {
          items_.push_back({s, row, std::min(rows_each, slices_[s].rows - row), kv_head, kv_head * group + head,
                            std::min(heads_each, group - head)});
        }
      }
    }
  }
}

void AttentionPlan::run(const Kernels& kernels, ThreadPool& pool, const KvStore& kv, int layer, int window,
                        const float* q, float* out, float softcap) {
  const int n = kv.shape().head_dim;
  while (static_cast<int>(scratch_.size()) < pool.size()) {
    scratch_.emplace_back(static_cast<std::size_t>(attend_scratch_floats(n)) * sizeof(float));
  }
  std::atomic<int> next{0};
  const int count = static_cast<int>(items_.size());
  auto work = [&](std::int64_t, std::int64_t, int thread) {
    AttendArgs args;
    args.page_bytes = kv.shape().page_bytes();
    args.scratch = scratch_[static_cast<std::size_t>(thread)].as<float>();
    args.head_dim = n;
    args.head_dim_padded = pad_head_dim(n);
    args.element = kv.shape().element;
    args.softcap = softcap;
    for (int i = next.fetch_add(1, std::memory_order_relaxed); i < count;
         i = next.fetch_add(1, std::memory_order_relaxed)) {
      const Item& item = items_[static_cast<std::size_t>(i)];
      const AttendSlice& slice = slices_[static_cast<std::size_t>(item.slice)];
      args.pages = slice.pages;
      args.k_base = kv.key_base(layer, item.kv_head);
      args.v_base = kv.value_base(layer, item.kv_head);
      args.rows = 0;
      for (int row = item.row; row < item.row + item.rows; ++row) {
        const int seen = slice.causal ? slice.position + row + 1 : slice.position + slice.rows;
        for (int head = item.head; head < item.head + item.heads; ++head, ++args.rows) {
          const std::int64_t at = (static_cast<std::int64_t>(slice.first_row + row) * heads_ + head) * n;
          args.q[args.rows] = q + at;
          args.out[args.rows] = out + at;
          args.hi[args.rows] = seen;
          args.lo[args.rows] = window > 0 ? std::max(0, seen - window) : 0;
        }
      }
      kernels.attend(args);
    }
  };
  const std::int64_t cost = keys_ * heads_ * n * 2;  // an upper bound: windows and causality take some away
  const int threads = std::min(count, pool.size());
  pool.split(threads, ThreadPool::grain_for(cost / std::max(threads, 1)), work);
}

}  // namespace ganglion::local
