#pragma once
// BPE's merges as one flat hash table: (left id, right id) -> (rank, merged id). Lookups dominate tokenization of
// new words, so: open addressing, 16-byte entries, half full at most.

#include <cstdint>
#include <vector>

namespace ganglion::local::tok {

struct Merge {
  std::uint32_t rank;
  std::int32_t id;
};

class MergeTable {
 public:
  // `count` merges at most will be inserted.
  explicit MergeTable(std::size_t count = 0) {
    std::size_t slots = 16;
    while (slots < count * 2) slots *= 2;
    entries_.resize(slots);
    mask_ = slots - 1;
  }

  // A pair given twice keeps the later rank, as in the reference.
  void insert(std::int32_t left, std::int32_t right, Merge merge) {
    const std::uint64_t k = key(left, right);
    std::size_t i = slot(k);
    while (entries_[i].key != kEmpty && entries_[i].key != k) i = (i + 1) & mask_;
    entries_[i] = {k, merge};
  }

  const Merge* find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t k = key(left, right);
    for (std::size_t i = slot(k);; i = (i + 1) & mask_) {
      if (entries_[i].key == k) return &entries_[i].merge;
      if (entries_[i].key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};  // ids are never negative
  struct Entry {
    std::uint64_t key = kEmpty;
    Merge merge{};
  };
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  }
  std::size_t slot(std::uint64_t k) const {
    k *= 0x9E3779B97F4A7C15u;
    return (k ^ k >> 32) & mask_;
  }
  std::vector<Entry> entries_;
  std::size_t mask_ = 0;
};

}  // namespace ganglion::local::tok
