// What a step lasts by how many sequences decode in it, and by a prompt chunk beside them: what the scheduler's choices
// cost. Llama-2-7B's shapes, 200 tokens of context, e4m3 pages where the weights are fp8.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "backends/local/models/cuda/cuda_decoder.hpp"
#include "bench/cuda/engine_part.hpp"
#include "bench/cuda/measure.hpp"

namespace ganglion::local {
namespace {

using bench::must;

constexpr int kContext = 200, kPagesEach = 14;  // 58 GB of bf16 pages for all

// Milliseconds of a step of `decoding` sequences and a prompt of `prompt` tokens.
double step_ms(CudaDecoder& d, int decoding, int prompt) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(std::max(prompt, 1))), pages;
  for (int i = 0; i < (decoding + 1) * kPagesEach; ++i) pages.push_back(i);
  const auto page_from = [&](int s) { return pages.data() + static_cast<std::ptrdiff_t>(s) * kPagesEach; };
  const CudaDecoder::SampleSpec greedy;
  std::vector<CudaDecoder::Slice> slices;
  for (int s = 0; s < decoding; ++s) slices.push_back({std::span(ids).first(1), page_from(s), kContext, true, &greedy});
  if (prompt > 0) slices.push_back({ids, page_from(decoding), 0, true, &greedy});
  return bench::step_ms(d, 12, [&](int i) -> std::span<const CudaDecoder::Slice> {
    for (std::size_t t = 0; t < ids.size(); ++t) ids[t] = static_cast<std::int32_t>((i * 977 + 31 * t) % 32'000);
    return slices;
  });
}

}  // namespace
}  // namespace ganglion::local

void steps_part(int layers) {
  using namespace ganglion::local;
  using bench::must;
  const ModelConfig c = bench::llama_2_7b(layers);
  struct Case {
    const char* name;
    cuda::Format format;
    cuda::KvFormat kv;
    bool int8_activations;
  };
  for (const Case& of : {Case{"fp8 ", cuda::Format::fp8, cuda::KvFormat::fp8, false},
                         Case{"bf16", cuda::Format::bf16, cuda::KvFormat::fp16, false},
                         Case{"w8a8", cuda::Format::int8, cuda::KvFormat::fp16, true}}) {
    for (const bool own : {false, true}) {
      auto d = must(CudaDecoder::random(c,
                                        {.format = of.format,
                                         .int8_activations = of.int8_activations,
                                         .kv = of.kv,
                                         .batch_max = 520,
                                         .eight_bit_rows_max = own ? cuda::kEightBitRowsMax : 0,
                                         .sleep = false},
                                        7));
      must(d->reserve_pages(513 * kPagesEach));
      for (const auto& t : d->tuned()) {
        std::printf("tuned %s %3d x %5d x %5d: %5.1f us, the first of %d ways %5.1f\n", of.name, t.m, t.n, t.k,
                    1e3 * t.best_ms, t.ways, 1e3 * t.first_ms);
      }
      std::printf("steps %s %s, ms by sequences:", of.name, own ? "own" : "library");
      for (const int rows : {1, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 384, 512}) {
        std::printf("  %d %.2f", rows, step_ms(*d, rows, 0));
      }
      std::printf("\nsteps %s %s, ms by sequences beside a prompt of 128:", of.name, own ? "own" : "library");
      for (const int rows : {0, 1, 2, 8, 32, 64, 128}) std::printf("  %d %.2f", rows, step_ms(*d, rows, 128));
      std::printf("\n");
    }
  }
}
