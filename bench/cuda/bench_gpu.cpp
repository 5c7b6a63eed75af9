// The GPU engine against the card's own ceilings, all measured in the same run: memory read rate and matrix rates
// first, then each kernel of a step with its bytes and operations counted, then whole steps of a model with
// Llama-2-7B's shapes and random weights, and continuous batching through the scheduler.
//
//   bench_gpu [ceilings] [kernels | ladder | products | attention | library] [decode] [prefill] [batch] [prefix]
//             [families] [roofline] [bert] [ranks] [rings] [whole] [eight] [steps] [overlap] [--layers N] [--batch N]
//             [--requests N] [--ring N] [--format bf16|int8|fp8|int4]
//
// --format: of decode, rings and whole, which take all four otherwise.
// --ring N: the streaming products with activations in registers always, and a ring of N stages. `ranks` needs two GPUs
// and runs only where it is named.
//
// Times are medians of device events; lengths are fixed and nothing stops early. Text from random weights means
// nothing and is not looked at.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "backends/local/device/arena.hpp"
#include "backends/local/device/blas.hpp"
#include "backends/local/device/devices.hpp"
#include "backends/local/device/stream.hpp"
#include "bench/cuda/engine_part.hpp"
#include "bench/cuda/ladder.cuh"
#include "bench/cuda/measure.hpp"

namespace {

using namespace ganglion::local;
using namespace ganglion::local::bench;
namespace cuda = ganglion::local::cuda;

struct Bench {
  Arena arena{0};
  Stream stream = must(make_stream());
  double read_gb = 0, bf16_tflop = 0, fp8_tflop = 0;
  int multiprocessors = 0;

  // Milliseconds of one call of `work`, which queues `times` of what is measured.
  double time(int times, const std::function<void()>& work, int repeats = 7) {
    return ms_each(stream.get(), times, 1, repeats, work);
  }
};

double gemm_rate(Bench& b, Blas& blas, Blas::Input input) {
  constexpr int kSize = 8192;
  const auto x = must(b.arena.take(std::size_t{kSize} * kSize * 2, "x")),
             w = must(b.arena.take(std::size_t{kSize} * kSize * 2, "w")),
             y = must(b.arena.take(std::size_t{kSize} * kSize * 4, "y")),
             x8 = must(b.arena.take(std::size_t{kSize} * kSize, "x8")),
             w8 = must(b.arena.take(std::size_t{kSize} * kSize, "w8")),
             scales = must(b.arena.take(kSize * 8, "scales"));
  const cuda::Queue q{b.stream.get()};
  must(cuda::fill_normal(q, x.data(), cuda::Source::bf16, std::int64_t{kSize} * kSize, 1.0f, 1), "fill");
  must(cuda::fill_normal(q, w.data(), cuda::Source::bf16, std::int64_t{kSize} * kSize, 1.0f, 2), "fill");
  Blas::Call call{.x = x.data(), .w = w.data(), .y = y.data(), .m = kSize, .n = kSize, .k = kSize, .y_stride = kSize};
  if (input != Blas::Input::bf16) {
    auto* s = scales.as<float>();
    const bool int8 = input == Blas::Input::int8;
    must(cuda::quantise_rows(q, x.data(), kSize, kSize, kSize, x8.data(), kSize, s, int8), "quantise");
    must(cuda::quantise_rows(q, w.data(), kSize, kSize, kSize, w8.data(), kSize, s + kSize, int8), "quantise");
    call.input = input;
    call.x = x8.data(), call.w = w8.data(), call.x_scales = s, call.w_scales = s + kSize;
  }
  const double ms = b.time(10, [&] {
    for (int i = 0; i < 10; ++i) must(blas.multiply(b.stream.get(), call));
  });
  return 2.0 * kSize * kSize * kSize / ms / 1e9;
}

void ceilings(Bench& b) {
  constexpr std::int64_t kBytes = std::int64_t{8} << 30;
  {
    const auto from = must(b.arena.take(kBytes, "read")), sum = must(b.arena.take(256, "sum"));
    const cuda::Queue q{b.stream.get()};
    must(cuda::fill_normal(q, from.data(), cuda::Source::bf16, kBytes / 2, 1.0f, 1), "fill");
    const double ms = b.time(1, [&] { must(cuda::read_all(q, from.data(), kBytes, sum.as<std::uint32_t>()), "read"); });
    b.read_gb = kBytes / ms / 1e6;
    const double copy = b.time(1, [&] {
      must(cudaMemcpyAsync(from.data(), from.as<char>() + kBytes / 2, kBytes / 2, cudaMemcpyDeviceToDevice,
                           b.stream.get()),
           "copy");
    });
    std::printf("ceiling memory read        %8.0f GB/s   (copy, read + write: %.0f GB/s)\n", b.read_gb,
                kBytes / copy / 1e6);
  }
  const auto blas = must(Blas::make(b.arena));
  b.bf16_tflop = gemm_rate(b, *blas, Blas::Input::bf16);
  std::printf("ceiling bf16 product 8192^3 %7.0f TFLOP/s\n", b.bf16_tflop);
  b.fp8_tflop = gemm_rate(b, *blas, Blas::Input::fp8);
  std::printf("ceiling fp8 product 8192^3  %7.0f TFLOP/s\n", b.fp8_tflop);
  std::printf("ceiling int8 product 8192^3 %7.0f TOP/s\n", gemm_rate(b, *blas, Blas::Input::int8));
}

// ---- kernels ----

// One shape, rung by rung: gate and up of Llama-2-7B in int8, one activation row.
void ladder(Bench& b) {
  constexpr int kRows = 22016, kCols = 4096, kCopies = 12;
  constexpr std::int64_t kBytes = std::int64_t{kRows} * kCols;
  const auto data = must(b.arena.take(std::size_t{kBytes} * kCopies, "weights")),
             scales = must(b.arena.take(std::size_t{kRows} * 4, "scales")),
             x = must(b.arena.take(std::size_t{kCols} * 2, "x")), y = must(b.arena.take(std::size_t{kRows} * 4, "y"));
  must(cuda::fill_normal({b.stream.get()}, data.data(), cuda::Source::bf16, kBytes * kCopies / 2, 1.0f, 1), "fill");
  must(cuda::fill_normal({b.stream.get()}, x.data(), cuda::Source::bf16, kCols, 1.0f, 2), "fill");
  const auto rung = [&](const char* name, const std::function<cudaError_t(const cuda::Product&)>& call) {
    const double ms = b.time(kCopies, [&] {
      for (int i = 0; i < kCopies; ++i) {
        cuda::Product p{.x = x.data(), .x_stride = kCols, .rows = 1, .y = y.data(), .y_stride = kRows, .y_cols = kRows};
        p.w = {.format = cuda::Format::int8,
               .data = data.as<char>() + i * kBytes,
               .scales = scales.data(),
               .rows = kRows,
               .cols = kCols};
        must(call(p), name);
      }
    });
    const double gb = kBytes / ms / 1e6;
    std::printf("ladder int8 22016 x 4096, %-42s %7.1f us %5.0f GB/s %3.0f %%\n", name, ms * 1e3, gb,
                100 * gb / b.read_gb);
  };
  using ganglion::bench::ladder_product;
  using ganglion::bench::Rung;
  rung("1: a byte a lane", [&](const auto& p) { return ladder_product(b.stream.get(), Rung::bytes, p); });
  rung("2: 16 bytes a lane, ordinary cores",
       [&](const auto& p) { return ladder_product(b.stream.get(), Rung::vectors, p); });
  rung("3: tensor cores", [&](const auto& p) { return cuda::product({b.stream.get(), false}, p); });
  rung("4: and started before the previous ends",
       [&](const auto& p) { return cuda::product({b.stream.get(), true}, p); });
  rung("5: ring of bulk copies",
       [&](const auto& p) { return cuda::stream_product({b.stream.get(), true}, p, b.multiprocessors, 0); });
}

void product_rates(Bench& b, cuda::Format format) {
  struct Shape {
    const char* name;
    int rows, cols;
  };
  constexpr Shape kShapes[] = {{"qkv", 12288, 4096},
                               {"out", 4096, 4096},
                               {"gate_up", 22016, 4096},
                               {"down", 4096, 11008},
                               {"head", 32000, 4096}};
  for (const Shape& s : kShapes) {
    const std::int64_t bytes = cuda::matrix_bytes(format, s.rows, s.cols),
                       scales = cuda::scale_bytes(format, s.rows, s.cols, 64);
    // Enough copies to be several times the cache.
    const int copies = static_cast<int>(std::max<std::int64_t>(4, (std::int64_t{1} << 30) / bytes));
    const auto data = must(b.arena.take(static_cast<std::size_t>(bytes * copies), "weights")),
               scale =
                   must(b.arena.take(static_cast<std::size_t>(std::max<std::int64_t>(scales, 1) * copies), "scales")),
               x = must(b.arena.take(std::size_t{64} * 11008 * 2, "x")),
               y = must(b.arena.take(std::size_t{64} * 32000 * 4, "y"));
    const cuda::Queue q{b.stream.get(), true};
    must(cuda::fill_normal({b.stream.get()}, data.data(), cuda::Source::bf16, bytes * copies / 2, 1.0f, 1), "fill");
    must(cuda::fill_normal({b.stream.get()}, x.data(), cuda::Source::bf16, 64 * 11008, 1.0f, 3), "fill");
    std::printf("%-5s %-8s", name_of(format), s.name);
    for (int stages : {0, 10}) {
      for (int rows : {1, 8}) {
        const double ms = b.time(
            copies,
            [&] {
              for (int i = 0; i < copies; ++i) {
                cuda::Product p{.x = x.data(),
                                .x_stride = s.cols,
                                .rows = rows,
                                .y = y.data(),
                                .y_stride = s.rows,
                                .y_cols = s.rows};
                p.w = {.format = format,
                       .data = data.as<char>() + i * bytes,
                       .scales = scale.as<char>() + i * scales,
                       .rows = s.rows,
                       .cols = s.cols,
                       .group = 64};
                must(cuda::stream_product(q, p, b.multiprocessors, stages), "product");
              }
            },
            5);
        const double gb = static_cast<double>(bytes + scales) / ms / 1e6;
        std::printf("  ring %2d x%d: %5.0f GB/s %3.0f %%", stages, rows, gb, 100 * gb / b.read_gb);
      }
    }
    std::printf("\n%-5s %-8s", name_of(format), s.name);
    for (int rows : {1, 8, 16, 64}) {
      const double ms = b.time(
          copies,
          [&] {
            for (int i = 0; i < copies; ++i) {
              cuda::Product p{
                  .x = x.data(), .x_stride = s.cols, .rows = rows, .y = y.data(), .y_stride = s.rows, .y_cols = s.rows};
              p.w = {.format = format,
                     .data = data.as<char>() + i * bytes,
                     .scales = scale.as<char>() + i * scales,
                     .rows = s.rows,
                     .cols = s.cols,
                     .group = 64};
              must(cuda::product(q, p), "product");
            }
          },
          5);
      const double gb = static_cast<double>(bytes + scales) / ms / 1e6;
      std::printf("  %2d: %5.0f GB/s %3.0f %%", rows, gb, 100 * gb / b.read_gb);
    }
    std::printf("\n");
  }
}

// Attention alone over a store of random pages.
void attention_rates(Bench& b, cuda::KvFormat format) {
  constexpr int kHeads = 32, kWidth = 128, kPages = 16384;
  cuda::KvLayout kv{.layers = 1, .kv_heads = kHeads, .head_dim = kWidth, .head_width = kWidth, .format = format};
  kv.page_bytes = cuda::kv_page_bytes(1, kHeads, kWidth, format);
  const char* names[] = {"bf16", "fp16", "fp8 ", "int8"};
  const char* name = names[static_cast<int>(format)];
  const auto store = must(b.arena.take(static_cast<std::size_t>(kPages * kv.page_bytes), "pages"));
  kv.base = store.data();
  const auto type = cuda::attends_in_half(format) ? cuda::Source::f16 : cuda::Source::bf16;
  must(cuda::fill_normal({b.stream.get()}, store.data(), type, kPages * kv.page_bytes / 2, 1.0f, 9), "fill");
  const auto query = must(b.arena.take(std::size_t{2048} * kHeads * kWidth * 2, "query")),
             out = must(b.arena.take(std::size_t{2048} * kHeads * kWidth * 2, "out"));
  must(cuda::fill_normal({b.stream.get()}, query.data(), type, std::int64_t{2048} * kHeads * kWidth, 1.0f, 10), "fill");
  const auto ints = [&](const std::vector<std::int32_t>& v) {
    auto buffer = must(b.arena.take(v.size() * 4, "table"));
    must(cudaMemcpy(buffer.data(), v.data(), v.size() * 4, cudaMemcpyHostToDevice), "table");
    return buffer;
  };
  cudaDeviceProp properties{};
  must(cudaGetDeviceProperties(&properties, 0), "properties");
  std::vector<std::int32_t> pages;
  for (int i = 0; i < kPages; ++i) pages.push_back(static_cast<int>(i * 7919ll % kPages));
  const auto table = ints(pages);
  struct Case {
    int batch, context;
  };
  for (const Case c : {Case{1, 256}, Case{1, 4096}, Case{32, 1024}, Case{256, 256}, Case{512, 192}, Case{64, 4096}}) {
    std::vector<std::int32_t> positions(static_cast<std::size_t>(c.batch), c.context - 1), from;
    for (int i = 0; i < c.batch; ++i) from.push_back(i * (c.context / 16));
    const auto positions_at = ints(positions), from_at = ints(from);
    const int splits = cuda::decode_splits(c.batch, kHeads, kHeads, c.context, properties.multiProcessorCount);
    const auto partial = must(b.arena.take(
                   static_cast<std::size_t>(cuda::decode_partial_floats(c.batch * kHeads, kWidth, splits)) * 4,
                   "partial")),
               arrived = must(b.arena.take(static_cast<std::size_t>(c.batch * kHeads) * 4, "counters"));
    const double ms = b.time(20, [&] {
      for (int i = 0; i < 20; ++i) {
        must(cuda::attend_decode({b.stream.get(), true}, {.query = query.data(),
                                                          .kv = kv,
                                                          .layer = 0,
                                                          .heads = kHeads,
                                                          .rows = c.batch,
                                                          .scale = 0.088f,
                                                          .positions = positions_at.as<std::int32_t>(),
                                                          .page_from = from_at.as<std::int32_t>(),
                                                          .page_table = table.as<std::int32_t>(),
                                                          .out = out.data(),
                                                          .out_stride = kHeads * kWidth,
                                                          .splits = splits,
                                                          .partial = partial.as<float>(),
                                                          .arrived = arrived.as<std::uint32_t>()}),
             "attention");
      }
    });
    const double gb = static_cast<double>(c.batch) * c.context / 16 * static_cast<double>(kv.page_bytes) / ms / 1e6;
    std::printf("decode attention %s batch %3d context %4d splits %2d: %7.1f us %5.0f GB/s %3.0f %%\n", name, c.batch,
                c.context, splits, ms * 1e3, gb, 100 * gb / b.read_gb);
  }
  must(cudaDeviceSynchronize(), "tables");
  for (int length : {512, 2048}) {
    std::vector<std::int32_t> tiles;
    for (int t = 0; t < length; t += 64) tiles.insert(tiles.end(), {t, 64, t, 0});
    const auto tiles_at = ints(tiles);
    const double ms = b.time(20, [&] {
      for (int i = 0; i < 20; ++i) {
        must(cuda::attend_prefill({b.stream.get(), true}, {.query = query.data(),
                                                           .kv = kv,
                                                           .layer = 0,
                                                           .heads = kHeads,
                                                           .scale = 0.088f,
                                                           .tiles = tiles_at.as<cuda::PrefillTile>(),
                                                           .tile_count = length / 64,
                                                           .page_table = table.as<std::int32_t>(),
                                                           .out = out.data(),
                                                           .out_stride = kHeads * kWidth}),
             "attention");
      }
    });
    const double tflop = 2.0 * length * length * kHeads * kWidth / ms / 1e9;
    std::printf("prefill attention %s %4d tokens: %7.1f us %5.0f TFLOP/s %3.0f %%\n", name, length, ms * 1e3, tflop,
                100 * tflop / b.bf16_tflop);
  }
}

void linear_rates(Bench& b) {
  const auto blas = must(Blas::make(b.arena));
  const auto x = must(b.arena.take(std::size_t{2048} * 11008 * 2, "x")),
             w = must(b.arena.take(std::size_t{32000} * 11008 * 2, "w")),
             y = must(b.arena.take(std::size_t{2048} * 32000 * 4, "y")),
             narrow = must(b.arena.take(std::size_t{2048} * 32000 * 2, "y in bf16")),
             s = must(b.arena.take(std::size_t{34048} * 4, "s"));
  must(cuda::fill_normal({b.stream.get()}, x.data(), cuda::Source::bf16, std::int64_t{2048} * 11008, 1.0f, 1), "fill");
  must(cuda::fill_normal({b.stream.get()}, w.data(), cuda::Source::bf16, std::int64_t{32000} * 11008, 1.0f, 2), "fill");
  // int8: the sums alone, and with the kernel that makes of them what they stand for.
  struct Rung {
    const char* name;
    Blas::Input input;
    bool rescaled;
  };
  for (const Rung& rung : {Rung{"bf16", Blas::Input::bf16, false}, Rung{"fp8 ", Blas::Input::fp8, false},
                           Rung{"int8 sums", Blas::Input::int8, false}, Rung{"int8", Blas::Input::int8, true}}) {
    for (const auto& [n, k] : {std::pair{12288, 4096}, {4096, 4096}, {22016, 4096}, {4096, 11008}}) {
      std::printf("library %s %5d x %5d", rung.name, n, k);
      for (int m : {16, 32, 64, 128, 256, 512, 2048}) {
        Blas::Call call{.input = rung.input, .x = x.data(), .y = y.data(), .m = m, .n = n, .k = k, .y_stride = n};
        if (rung.input == Blas::Input::fp8) call.x_scales = s.as<float>(), call.w_scales = s.as<float>() + 2048;
        const cuda::Rescale rescale{.sums = y.as<std::int32_t>(),
                                    .rows = m,
                                    .cols = n,
                                    .x_scales = s.as<float>(),
                                    .w_scales = s.as<float>() + 2048,
                                    .y = narrow.data(),
                                    .y_stride = n};
        const double ms = b.time(
            8,
            [&] {
              for (int i = 0; i < 8; ++i) {
                call.w = w.as<char>() + (i % 2) * std::int64_t{22016} * 4096 * 2;
                must(blas->multiply(b.stream.get(), call));
                if (rung.rescaled) must(cuda::rescale({b.stream.get(), true}, rescale), "rescale");
              }
            },
            5);
        std::printf("  %d: %.0f us %.0f T", m, ms * 1e3, 2.0 * m * n * k / ms / 1e9);
      }
      std::printf("\n");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::set<std::string> kParts{"ceilings", "kernels", "ladder",   "products", "attention", "library", "decode",
                                     "prefill",  "batch",   "prefix",   "roofline", "bert",      "ranks",   "rings",
                                     "whole",    "eight",   "families", "steps",    "overlap"};
  std::set<std::string> parts;
  int layers = 32, batch = 512, requests = 1536, ring = 0;
  Formats formats{cuda::Format::int8, cuda::Format::int4, cuda::Format::bf16, cuda::Format::fp8};
  for (int i = 1; i < argc; ++i) {
    const std::string key = argv[i];
    if (key.starts_with("--") && i + 1 == argc) die(key + " wants a value");
    if (key == "--layers") {
      layers = std::atoi(argv[++i]);
    } else if (key == "--batch") {
      batch = std::atoi(argv[++i]);
    } else if (key == "--ring") {
      ring = std::atoi(argv[++i]);
    } else if (key == "--requests") {
      requests = std::atoi(argv[++i]);
    } else if (key == "--format") {
      const std::string name = argv[++i];
      std::erase_if(formats, [&](cuda::Format f) { return name != name_of(f); });
      if (formats.empty()) die("--format " + name + ": bf16, int8, fp8 or int4");
    } else if (kParts.contains(key)) {
      parts.insert(key);
    } else {
      die(key + ": no part of the benchmark, nor an option");
    }
  }
  const auto devices = must(find_devices());
  std::printf("%s, %d multiprocessors, %.0f GiB\n", devices.front().name.c_str(), devices.front().multiprocessors,
              static_cast<double>(devices.front().memory_bytes) / (1ull << 30));
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const auto wants = [&](const char* part) { return parts.empty() || parts.contains(part); };
  double read = 0, bf16 = 0, fp8 = 0;
  {
    Bench b;
    ceilings(b);
    read = b.read_gb, bf16 = b.bf16_tflop, fp8 = b.fp8_tflop;
  }
  const auto wants_kernels = [&](const char* part) { return wants("kernels") || parts.contains(part); };
  {
    Bench b;
    b.read_gb = read, b.bf16_tflop = bf16, b.multiprocessors = devices.front().multiprocessors;
    if (wants_kernels("ladder")) ladder(b);
    for (auto f : {cuda::Format::int8, cuda::Format::int4, cuda::Format::bf16, cuda::Format::fp8}) {
      if (wants_kernels("products")) product_rates(b, f);
    }
    if (wants_kernels("attention")) {
      using enum cuda::KvFormat;
      for (const auto f : {bf16, fp16, fp8, int8}) attention_rates(b, f);
    }
    if (wants_kernels("library")) linear_rates(b);
  }
  const Rates most{bf16, fp8};
  if (wants("decode")) decode_part(read, layers, ring, formats);
  if (parts.contains("rings")) rings_part(read, layers, formats);
  if (parts.contains("whole")) whole_part(read, layers, formats);
  if (wants("prefill")) prefill_part(most, layers);
  if (wants("batch")) batch_part(layers, batch, requests);
  if (wants("families")) families_part(read);
  if (wants("prefix")) prefix_part(layers);
  const int capability = 10 * devices.front().major + devices.front().minor;
  if (parts.contains("eight")) eight_bit_part(devices.front().multiprocessors, capability, read);
  if (parts.contains("steps")) steps_part(layers);
  if (wants("roofline")) roofline_part(devices.front().multiprocessors, capability, read, bf16, fp8);
  if (wants("bert")) bert_part(bf16, read);
  if (parts.contains("ranks")) ranks_part(layers);
  if (wants("overlap")) overlap_part(GANGLION_SOURCE_DIR "/models/demo-chat");
  return 0;
}
