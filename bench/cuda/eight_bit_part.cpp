// Products of few rows in fp8 (e4m3, a scale a row) at Llama-2-7B's shapes: our kernel, the library, and what the
// memory allows. Each is repeated over so many matrices that none is in the cache.

#include <algorithm>
#include <cstdio>
#include <functional>
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

constexpr int kWidth = 4'096, kInner = 11'008, kCallsEach = 12;
constexpr std::int64_t kWeights = std::int64_t{6} * 2 * kInner * kWidth;  // bytes

double us_each(cudaStream_t stream, const std::function<void(int)>& call) {
  return 1e3 * ms_each(stream, kCallsEach, 2, 8, [&] {
           for (int i = 0; i < kCallsEach; ++i) call(i);
         });
}

}  // namespace

void eight_bit_part(int multiprocessors, int capability, double read_gb) {
  if (!cuda::eight_bit_product_fits({.format = cuda::Format::fp8}, 1, capability)) {
    std::printf("fp8 products of few rows: for compute capability 9.0 only\n");
    return;
  }
  Arena arena(0);
  const auto stream = must(make_stream());
  const auto blas = must(Blas::make(arena));
  const auto room = [&](std::int64_t bytes) { return must(arena.take(static_cast<std::size_t>(bytes), "a product")); };
  const auto weights = room(kWeights), x = room(cuda::kEightBitRowsMax * kInner), w_scales = room(2 * kInner * 4),
             x_scales = room(512);
  const auto y = room(std::int64_t{cuda::kEightBitRowsMax} * 2 * kInner * 4),
             partial = room(cuda::eight_bit_partial_bytes(multiprocessors)),
             arrived = room(cuda::kEightBitTilesMax * 4);
  std::uint64_t seed = 1;
  for (const auto* buffer : {&weights, &x}) {
    must(cuda::fill_normal({}, buffer->data(), cuda::Source::bf16, static_cast<std::int64_t>(buffer->size() / 2), 1.0f,
                           ++seed),
         "fill");
  }
  must(cudaDeviceSynchronize(), "inputs");
  const std::pair<int, int> shapes[] = {{3 * kWidth, kWidth}, {kWidth, kWidth}, {2 * kInner, kWidth}, {kWidth, kInner}};
  for (const int rows : {9, 16, 24, 32, 48, 64}) {
    double layer[2] = {0, 0}, floor = 0;
    std::printf("fp8 product, %3d rows, us of ours / of the library:", rows);
    for (const auto& [n, k] : shapes) {
      const std::int64_t bytes = std::int64_t{n} * k, copies = kWeights / bytes;
      const auto at = [&](int i) { return weights.as<char>() + i % copies * bytes; };
      const double ours = us_each(stream.get(), [&](int i) {
        const cuda::EightBitProduct p{
            .w = {.format = cuda::Format::fp8, .data = at(i), .scales = w_scales.data(), .rows = n, .cols = k},
            .x = x.data(),
            .x_scales = x_scales.as<float>(),
            .rows = rows,
            .y = y.data(),
            .y_stride = n,
            .partial = partial.as<float>(),
            .arrived = arrived.as<std::uint32_t>()};
        must(cuda::eight_bit_product({stream.get(), true}, p, multiprocessors), "a product");
      });
      Blas::Call call{.input = Blas::Input::fp8,
                      .x = x.data(),
                      .x_scales = x_scales.as<float>(),
                      .w_scales = w_scales.as<float>(),
                      .y = y.data(),
                      .m = (rows + 15) / 16 * 16,
                      .n = n,
                      .k = k,
                      .y_stride = n};
      const double library = us_each(stream.get(), [&](int i) {
        call.w = at(i);
        must(blas->multiply(stream.get(), call));
      });
      layer[0] += ours, layer[1] += library, floor += static_cast<double>(bytes) / read_gb / 1e3;
      std::printf("  %d x %d %.1f / %.1f", n, k, ours, library);
    }
    std::printf("; a layer %.1f / %.1f, floor %.1f\n", layer[0], layer[1], floor);
  }
}
