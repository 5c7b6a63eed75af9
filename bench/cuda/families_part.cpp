// Decode and prefill steps of families that take the separate kernels, in their real shapes with random weights, beside
// what reading the weights would take.

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

struct Case {
  const char* name;
  ModelConfig config;
  cuda::Format format;
};

ModelConfig shape(std::int64_t vocab, std::int64_t hidden, std::int64_t layers, std::int64_t heads,
                  std::int64_t kv_heads, std::int64_t head_dim, std::int64_t inner) {
  ModelConfig c;
  c.vocab_size = vocab, c.hidden_size = hidden, c.layers = layers, c.heads = heads, c.kv_heads = kv_heads;
  c.head_dim = head_dim, c.intermediate_size = inner, c.max_position = 4096;
  return c;
}

ModelConfig gemma2_9b() {
  ModelConfig c = shape(256000, 3584, 42, 16, 8, 256, 14336);
  c.family = ModelFamily::gemma2, c.norm = NormKind::rms_plus_one, c.residual = Residual::around;
  c.activation = Activation::gelu_tanh, c.tie_embeddings = true, c.embedding_scale = 59.87;
  c.attention_scale = 0.0625, c.attention_softcap = 50, c.logit_softcap = 30, c.sliding_window = 4096;
  for (int i = 0; i < 42; ++i) c.layer_sliding.push_back(i % 2 == 0);
  return c;
}

ModelConfig mixtral_8x7b() {
  ModelConfig c = shape(32000, 4096, 32, 32, 8, 128, 14336);
  c.family = ModelFamily::mixtral, c.experts = 8, c.experts_used = 2;
  return c;
}

double step_ms(CudaDecoder& d, int batch, int tokens, int context) {
  std::vector<std::vector<std::int32_t>> ids(static_cast<std::size_t>(batch)), pages(ids.size());
  int page = 0;
  for (auto& table : pages) {
    for (int t = 0; t < context + tokens + 16; t += 16) table.push_back(page++);
  }
  const CudaDecoder::SampleSpec greedy;
  std::vector<CudaDecoder::Slice> slices;
  return bench::step_ms(d, 20, [&](int i) -> std::span<const CudaDecoder::Slice> {
    slices.clear();
    for (std::size_t s = 0; s < ids.size(); ++s) {
      ids[s].clear();
      for (int t = 0; t < tokens; ++t) ids[s].push_back((i * 977 + static_cast<int>(s) * 131 + t * 31) % 32000);
      slices.push_back({ids[s], pages[s].data(), context, true, &greedy});
    }
    return slices;
  });
}

}  // namespace
}  // namespace ganglion::local

void families_part(double read_gb) {
  using namespace ganglion::local;
  using bench::must;
  const Case cases[] = {{"gemma2-9b bf16", gemma2_9b(), cuda::Format::bf16},
                        {"gemma2-9b fp8", gemma2_9b(), cuda::Format::fp8},
                        {"gemma2-9b int4", gemma2_9b(), cuda::Format::int4},
                        {"mixtral-8x7b int4", mixtral_8x7b(), cuda::Format::int4},
                        {"mixtral-8x7b fp8", mixtral_8x7b(), cuda::Format::fp8}};
  for (const Case& c : cases) {
    auto d =
        must(CudaDecoder::random(c.config, {.format = c.format, .rows_max = 2048, .batch_max = 64, .sleep = false}, 7));
    must(d->reserve_pages(64 * 12 + 200));
    const double floor = static_cast<double>(d->weight_bytes()) / read_gb / 1e6;
    for (const int batch : {1, 8, 32}) {
      const double ms = step_ms(*d, batch, 1, 128);
      std::printf("families %s decode batch %2d: %6.2f ms, %7.1f tok/s (weights of one token's path: floor %.2f ms)\n",
                  c.name, batch, ms, batch * 1e3 / ms, floor);
    }
    const double ms = step_ms(*d, 1, 2048, 0);
    std::printf("families %s prefill 2048 tokens: %6.1f ms\n", c.name, ms);
  }
}
