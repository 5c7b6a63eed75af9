#pragma once
// The paged store of keys and values, and attention over it for a ragged batch. A page holds kPageTokens tokens of
// all layers and kv heads, so a page is the one unit that is given out, shared or taken back.

#include <cstdint>
#include <span>
#include <vector>

#include "backends/local/kernels/buffer.hpp"
#include "backends/local/kernels/cpu/table.hpp"
#include "backends/local/kernels/thread_pool.hpp"

namespace ganglion::local {

struct KvShape {
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;
  KvElement element = KvElement::f32;

  std::int64_t head_bytes() const;  // keys and values of one page, layer and head
  std::int64_t page_bytes() const { return head_bytes() * layers * kv_heads; }
};

class KvStore {
 public:
  KvStore() = default;
  KvStore(const KvShape& shape, std::int64_t pages);

  bool valid() const { return memory_.data() != nullptr; }
  std::int64_t pages() const { return pages_; }
  const KvShape& shape() const { return shape_; }

  // Stores one token's keys and values of one layer: kv_heads * head_dim floats each.
  void write(const Kernels& kernels, int layer, std::int32_t page, int slot, const float* keys, const float* values);

  const char* key_base(int layer, int head) const;
  const char* value_base(int layer, int head) const;

 private:
  // `tile`: of one page, layer and head.
  void write_int8(const Kernels& kernels, char* tile, int slot, const float* keys, const float* values) const;

  KvShape shape_;
  std::int64_t pages_ = 0;
  Buffer memory_;
};

// Consecutive rows of a batch that belong to one sequence.
struct AttendSlice {
  const std::int32_t* pages = nullptr;  // the sequence's page table
  int first_row = 0;                    // in the batch
  int rows = 0;
  int position = 0;    // of the first row in the sequence
  bool causal = true;  // else every row sees all position + rows keys
};

class AttentionPlan {
 public:
  // Cuts the batch into pieces of work for `heads` query heads over `kv_heads`; once per step, for all layers.
  void build(std::span<const AttendSlice> slices, int heads, int kv_heads);

  // q and out: [rows][heads * head_dim]; q is already rotated and scaled. window 0: everything is seen, else each row
  // sees at most `window` keys, its own included. softcap: see AttendArgs.
  void run(const Kernels& kernels, ThreadPool& pool, const KvStore& kv, int layer, int window, const float* q,
           float* out, float softcap = 0);

 private:
  struct Item {
    int slice, row, rows;      // query rows [row, row + rows) of the slice
    int kv_head, head, heads;  // query heads [head, head + heads)
  };
  std::vector<AttendSlice> slices_;
  std::vector<Item> items_;
  std::vector<Buffer> scratch_;  // per thread
  int heads_ = 0;
  std::int64_t keys_ = 0;  // query rows times keys seen, over the batch
};

}  // namespace ganglion::local
