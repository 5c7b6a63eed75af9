// Every kernel of a step of Llama-2-7B in fp8 (weights, activations past 8 rows, bf16 pages), one by one: bytes that
// it must move and operations that it must do, its time, and which share of the larger floor that is. Each is repeated
// over several sets of inputs, which together are more than the cache holds.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backends/local/device/arena.hpp"
#include "backends/local/device/blas.hpp"
#include "backends/local/device/stream.hpp"
#include "backends/local/kernels/cuda/kernels.hpp"
#include "bench/cuda/engine_part.hpp"
#include "bench/cuda/measure.hpp"

namespace {

using namespace ganglion::local;
using namespace ganglion::local::bench;
namespace core = ganglion::core;
using cuda::Format;

constexpr int kWidth = 4'096, kInner = 11'008, kHeads = 32, kDim = 128, kVocab = 32'000, kContext = 512;
constexpr int kSets = 6;

class Roofline {
 public:
  Roofline(int rows, int multiprocessors, int capability, double read_gb, double bf16_tflop, double fp8_tflop)
      : rows_(rows),
        multiprocessors_(multiprocessors),
        capability_(capability),
        read_gb_(read_gb),
        bf16_(bf16_tflop),
        fp8_(fp8_tflop) {
    const auto r = static_cast<std::size_t>(std::max(rows, 64));
    hidden_ = room(r * kWidth * 4), normed_ = room(r * kWidth * 2), wide_ = room(r * 2 * kInner * 2);
    gated_ = room(r * kInner * 2), added_ = room(r * kWidth * 2), eight_ = room(r * kInner), scales_ = room(r * 4);
    query_ = room(r * kWidth * 2), attended_ = room(r * kWidth * 2), logits_ = room(r * kVocab * 4);
    cos_ = room(r * kDim * 2), sin_ = room(r * kDim * 2), results_ = room(r * sizeof(cuda::SampleResult));
    weights_ = room(std::size_t{kSets} * 2 * kInner * kWidth), weight_scales_ = room(2 * kInner * 4 + kVocab * 4);
    for (const auto* buffer : {&normed_, &wide_, &gated_, &added_, &query_, &attended_}) fill(*buffer, 1.0f);
    fill(weights_, 1.0f);
    must(cuda::fill_normal({}, hidden_.data(), cuda::Source::f32, static_cast<std::int64_t>(hidden_.size() / 4), 1.0f,
                           5),
         "fill");
    pages_per_ = rows == 1 || rows == 64 ? kContext / 16 : rows / 16;
    sequences_ = rows > 64 ? 1 : rows;
    const int pages = pages_per_ * sequences_;
    kv_ = {.layers = kSets, .kv_heads = kHeads, .head_dim = kDim, .head_width = kDim};
    kv_.page_bytes = cuda::kv_page_bytes(kSets, kHeads, kDim, cuda::KvFormat::bf16);
    store_ = room(static_cast<std::size_t>(pages * kv_.page_bytes));
    fill(store_, 1.0f);
    kv_.base = store_.data();
    std::vector<std::int32_t> positions, from, row_pages, table(static_cast<std::size_t>(pages));
    std::iota(table.begin(), table.end(), 0);
    std::vector<cuda::PrefillTile> tiles;
    std::vector<cuda::SampleRow> samples(r);
    for (int i = 0; i < rows; ++i) {
      positions.push_back(rows > 64 ? i : kContext - 1);
      from.push_back(rows > 64 ? 0 : i * pages_per_);
      row_pages.push_back(from.back() + positions.back() / 16);
      if (rows > 64 && i % 64 == 0) tiles.push_back({i, 64, i, 0});
      samples[static_cast<std::size_t>(i)].logits_row = i;
    }
    tile_count_ = static_cast<int>(tiles.size());
    positions_ = up(positions), from_ = up(from), row_pages_ = up(row_pages), table_ = up(table), tiles_ = up(tiles);
    samples_ = up(samples);
    ones_ = up(std::vector<float>(kInner, 1.0f));
    splits_ = cuda::decode_splits(sequences_, kHeads, kHeads, kContext, multiprocessors);
    const int blocks = cuda::decode_blocks(sequences_, kHeads, kHeads);
    partial_ = room(static_cast<std::size_t>(cuda::decode_partial_floats(blocks, kDim, splits_)) * 4);
    arrived_ = room(static_cast<std::size_t>(blocks) * 4);
    eight_partial_ = room(static_cast<std::size_t>(cuda::eight_bit_partial_bytes(multiprocessors)));
    eight_arrived_ = room(std::size_t{cuda::kEightBitTilesMax} * 4);
    must(cudaDeviceSynchronize(), "inputs");
  }

  void run() {
    const double r = rows_, w = kWidth;
    const bool few = rows_ <= 8, eight = rows_ > cuda::kFusedRowsMax;
    const double act = eight ? 1 : 2;
    row("embedding, angles", r * (w * 6 + kDim * 4), 0, 0, [&](int) {
      return cuda::embed({stream_.get()}, {.table = weights_.data(),
                                           .stride = kWidth,
                                           .width = kWidth,
                                           .rows = rows_,
                                           .tokens = row_pages_.as<std::int32_t>(),
                                           .positions = positions_.as<std::int32_t>(),
                                           .hidden = hidden_.as<float>(),
                                           .frequencies = ones_.as<float>(),
                                           .half = kDim / 2,
                                           .cos = cos_.as<float>(),
                                           .sin = sin_.as<float>()});
    });
    if (!few) {
      row("residual sum, norm", r * w * (8 + 2 + act), 0, 0, [&](int) {
        cuda::Normalise n{.hidden = hidden_.as<float>(),
                          .add = added_.data(),
                          .add_stride = kWidth,
                          .width = kWidth,
                          .rows = rows_,
                          .weight = ones_.as<float>(),
                          .eps = 1e-5f,
                          .out = normed_.data(),
                          .out_stride = kWidth};
        if (eight) n.out = eight_.data(), n.out_scales = scales_.as<float>();
        return cuda::normalise({stream_.get()}, n);
      });
    }
    product("query, key, value", 3 * kWidth, kWidth, cuda::Epilogue::store_bf16);
    row("rotary, append", r * w * (6 + 2 + 4), 0, 0, [&](int set) {
      return cuda::rotate_append({stream_.get()}, {.qkv = wide_.data(),
                                                   .stride = 3 * kWidth,
                                                   .rows = rows_,
                                                   .heads = kHeads,
                                                   .layer = set,
                                                   .kv = kv_,
                                                   .cos = cos_.as<float>(),
                                                   .sin = sin_.as<float>(),
                                                   .positions = positions_.as<std::int32_t>(),
                                                   .pages = row_pages_.as<std::int32_t>(),
                                                   .query = query_.data()});
    });
    attention();
    if (eight) {
      row("quantise", r * w * 3, 0, 0, [&](int) {
        return cuda::quantise_rows({stream_.get()}, attended_.data(), kWidth, kWidth, rows_, eight_.data(), kWidth,
                                   scales_.as<float>(), false);
      });
    }
    product("output", kWidth, kWidth, cuda::Epilogue::residual);
    product("gate, up", 2 * kInner, kWidth, cuda::Epilogue::silu_gate);
    if (!few) {
      row("gated activation", r * kInner * (4 + act), 0, 0, [&](int) {
        cuda::Gate g{.gate_up = wide_.data(),
                     .in_stride = 2 * kInner,
                     .width = kInner,
                     .rows = rows_,
                     .out = gated_.data(),
                     .out_stride = kInner};
        if (eight) g.out = eight_.data(), g.out_scales = scales_.as<float>();
        return cuda::gate({stream_.get()}, g);
      });
    }
    product("down", kWidth, kInner, cuda::Epilogue::residual);
    if (rows_ <= 64) {
      product("head", kVocab, kWidth, cuda::Epilogue::store_f32);
      row("sampling", r * kVocab * 4, 0, 0, [&](int) {
        return cuda::sample({stream_.get()}, {.logits = logits_.as<float>(),
                                              .stride = kVocab,
                                              .vocab = kVocab,
                                              .count = rows_,
                                              .rows = samples_.as<cuda::SampleRow>(),
                                              .results = results_.as<cuda::SampleResult>()});
      });
    }
  }

 private:
  bool own() const {
    return rows_ > cuda::kFusedRowsMax && cuda::eight_bit_product_fits({.format = Format::fp8}, rows_, capability_);
  }
  DeviceBuffer room(std::size_t bytes) { return must(arena_.take(bytes, "a kernel's inputs")); }
  template <class T>
  DeviceBuffer up(const std::vector<T>& values) {
    auto buffer = room(std::max<std::size_t>(values.size() * sizeof(T), 1));
    must(cudaMemcpy(buffer.data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "inputs");
    return buffer;
  }
  void fill(const DeviceBuffer& buffer, float deviation) {
    must(cuda::fill_normal({}, buffer.data(), cuda::Source::bf16, static_cast<std::int64_t>(buffer.size() / 2),
                           deviation, ++seed_),
         "fill");
  }

  void row(const char* name, double bytes, double flop, double tflop, const std::function<cudaError_t(int set)>& call) {
    const double t = 1e3 * ms_each(stream_.get(), kSets, 2, 6, [&] {
                       for (int set = 0; set < kSets; ++set) must(call(set), name);
                     });
    const double memory = bytes / read_gb_ / 1e3, matrix = flop > 0 ? flop / tflop / 1e6 : 0;
    const double floor = std::max(memory, matrix);
    std::printf("%4d rows  %-20s %9.2f MB %9.2f GFLOP %8.1f us, floor %7.1f us (%s) %3.0f %%\n", rows_, name,
                bytes / 1e6, flop / 1e9, t, floor, matrix > memory ? "operations" : "bytes", 100 * floor / t);
  }

  void product(const char* name, int n, int k, cuda::Epilogue epilogue) {
    const double bytes = static_cast<double>(n) * k +
                         static_cast<double>(rows_) * (k * (rows_ > cuda::kFusedRowsMax ? 1 : 2) + n * 2),
                 flop = 2.0 * rows_ * n * k;
    const auto weights = [&](int set) {
      return weights_.as<char>() + static_cast<std::int64_t>(set) * 2 * kInner * kWidth * (n > 2 * kInner ? 0 : 1);
    };
    void* const y = n == kVocab ? logits_.data() : wide_.data();
    if (own()) {
      row(name, bytes, flop, fp8_, [&](int set) {
        const cuda::EightBitProduct p{
            .w = {.format = Format::fp8, .data = weights(set), .scales = weight_scales_.data(), .rows = n, .cols = k},
            .x = eight_.data(),
            .x_scales = scales_.as<float>(),
            .rows = rows_,
            .y = y,
            .y_stride = n,
            .wide = n == kVocab,
            .partial = eight_partial_.as<float>(),
            .arrived = eight_arrived_.as<std::uint32_t>()};
        return cuda::eight_bit_product({stream_.get(), true}, p, multiprocessors_);
      });
      return;
    }
    if (rows_ > cuda::kFusedRowsMax) {
      row(name, bytes, flop, fp8_, [&](int set) {
        const Blas::Call call{.input = Blas::Input::fp8,
                              .x = eight_.data(),
                              .w = weights(set),
                              .x_scales = scales_.as<float>(),
                              .w_scales = weight_scales_.as<float>(),
                              .y = y,
                              .m = rows_,
                              .n = n,
                              .k = k,
                              .y_stride = n,
                              .wide = n == kVocab};
        must(blas_->multiply(stream_.get(), call));
        return cudaSuccess;
      });
      return;
    }
    row(name, bytes, flop, bf16_, [&](int set) {
      cuda::Product p{.x = k == kWidth ? normed_.data() : gated_.data(), .x_stride = k, .rows = rows_};
      p.w = {.format = Format::fp8, .data = weights(set), .scales = weight_scales_.data(), .rows = n, .cols = k};
      p.epilogue = epilogue;
      p.y = epilogue == cuda::Epilogue::store_f32  ? logits_.data()
            : epilogue == cuda::Epilogue::residual ? added_.data()
                                                   : wide_.data();
      p.y_cols = epilogue == cuda::Epilogue::silu_gate ? n / 2 : n;
      p.y_stride = p.y_cols;
      p.hidden = hidden_.as<float>(), p.next_norm = ones_.as<float>(), p.next_squares = cos_.as<float>();
      return cuda::stream_product({stream_.get(), true}, p, multiprocessors_, 0);
    });
  }

  void attention() {
    const double r = rows_, w = kWidth;
    const float scale = 0.088f;
    if (rows_ > 64) {
      row("attention, prompt", r * w * 8, 2 * r * r * w, bf16_, [&](int set) {
        return cuda::attend_prefill({stream_.get()}, {.query = query_.data(),
                                                      .kv = kv_,
                                                      .layer = set,
                                                      .heads = kHeads,
                                                      .scale = scale,
                                                      .tiles = tiles_.as<cuda::PrefillTile>(),
                                                      .tile_count = tile_count_,
                                                      .page_table = table_.as<std::int32_t>(),
                                                      .out = attended_.data(),
                                                      .out_stride = kWidth});
      });
      return;
    }
    row("attention, 512 keys", r * (kContext * w * 4 + w * 4), 4 * r * kContext * w, bf16_, [&](int set) {
      return cuda::attend_decode({stream_.get()}, {.query = query_.data(),
                                                   .kv = kv_,
                                                   .layer = set,
                                                   .heads = kHeads,
                                                   .rows = rows_,
                                                   .scale = scale,
                                                   .positions = positions_.as<std::int32_t>(),
                                                   .page_from = from_.as<std::int32_t>(),
                                                   .page_table = table_.as<std::int32_t>(),
                                                   .out = attended_.data(),
                                                   .out_stride = kWidth,
                                                   .splits = splits_,
                                                   .partial = partial_.as<float>(),
                                                   .arrived = arrived_.as<std::uint32_t>()});
    });
  }

  int rows_, multiprocessors_, capability_;
  double read_gb_, bf16_, fp8_;
  Arena arena_{0};
  Stream stream_ = must(make_stream());
  std::unique_ptr<Blas> blas_ = must(Blas::make(arena_));
  std::uint64_t seed_ = 1;
  cuda::KvLayout kv_;
  int pages_per_ = 0, sequences_ = 0, tile_count_ = 0, splits_ = 1;
  DeviceBuffer hidden_, normed_, wide_, gated_, added_, eight_, scales_, query_, attended_, logits_, cos_, sin_,
      results_;
  DeviceBuffer weights_, weight_scales_, store_, positions_, from_, row_pages_, table_, tiles_, samples_, ones_;
  DeviceBuffer partial_, arrived_, eight_partial_, eight_arrived_;
};

}  // namespace

void roofline_part(int multiprocessors, int capability, double read_gb, double bf16_tflop, double fp8_tflop) {
  for (const int rows : {1, 64, 2'048})
    Roofline(rows, multiprocessors, capability, read_gb, bf16_tflop, fp8_tflop).run();
}
