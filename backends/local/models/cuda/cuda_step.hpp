#pragma once
// One step's inputs in one block of memory, laid out alike on host and device so that one copy brings them over; and
// what decides which kernels a step launches. Private to models/cuda.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "backends/local/models/cuda/cuda_decoder.hpp"

namespace ganglion::local {

// Rows of logits that a step of `batch` sequences can have, padded as decode steps and the library's products are.
inline int sample_rows(int batch) {
  return static_cast<int>(cuda::padded(std::max(batch, 8), batch <= 64 ? 64 : 128));
}

inline constexpr int kFewTilesMax = 128;  // of one step

struct MetaSizes {
  int rows, samples, tiles;
  std::int64_t table;
};

struct CudaDecoder::Meta {
  std::int32_t *tokens, *positions, *row_pages, *page_from;  // of each row
  std::int32_t *adapters, *long_rows;                        // likewise; adapter below 0: none
  std::int32_t* pick;                                        // rows whose logits are wanted
  cuda::SampleRow* samples;
  cuda::PrefillTile *tiles, *few;  // prompt chunks; few: kFewTilesMax
  std::int32_t* table;             // page tables of all sequences; last, so that only what is used need be copied

  Meta(char* base, const MetaSizes& sizes) { place(base, sizes); }
  static std::size_t bytes(const MetaSizes& sizes) {
    Meta meta(nullptr, sizes);
    return meta.end_;
  }
  std::size_t used_bytes(int table_used) const {
    return table_at_ + static_cast<std::size_t>(table_used) * sizeof(std::int32_t);
  }

 private:
  void place(char* base, const MetaSizes& sizes) {
    const auto take = [&]<class T>(T*& to, std::int64_t count) {
      to = base == nullptr ? nullptr : reinterpret_cast<T*>(base + end_);
      end_ += static_cast<std::size_t>(cuda::padded(count * static_cast<std::int64_t>(sizeof(T)), 16));
    };
    take(tokens, sizes.rows), take(positions, sizes.rows), take(row_pages, sizes.rows), take(page_from, sizes.rows);
    take(adapters, sizes.rows), take(long_rows, sizes.rows);
    take(pick, sizes.samples), take(samples, sizes.samples), take(tiles, sizes.tiles), take(few, kFewTilesMax);
    table_at_ = end_;
    take(table, sizes.table);
  }
  std::size_t end_ = 0, table_at_ = 0;
};

struct CudaDecoder::Shape {
  int rows = 0;     // with padding where a graph is replayed
  int decode = 0;   // the first so many rows are one-token sequences
  int tiles = 0;    // of prompt chunks
  int few = 0;      // of short ones, and in a mixed step of everybody
  int samples = 0;  // rows of logits
  int context = 0;  // of a row, at most
  bool fused = false, sampled = false, graph = false;
  bool mixed = false;    // small, with prompt chunks, all of them short
  bool adapted = false;  // some rows have adapters
};

}  // namespace ganglion::local
