// The encoder at BGE-base's shapes, and a decoder over two GPUs: whole passes and steps against their floors.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

#include "backends/local/device/devices.hpp"
#include "backends/local/models/cuda/cuda_bert.hpp"
#include "backends/local/models/cuda/cuda_ranks.hpp"
#include "bench/cuda/engine_part.hpp"
#include "bench/cuda/measure.hpp"

namespace {

using namespace ganglion::local;
using namespace ganglion::local::bench;
namespace core = ganglion::core;

double seconds_of(const std::function<void()>& work) {
  const auto begin = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

void bert_part(double bf16_tflop, double read_gb) {
  ModelConfig c;
  c.family = ModelFamily::bert;
  c.vocab_size = 30'522, c.hidden_size = 768, c.layers = 12, c.heads = c.kv_heads = 12, c.head_dim = 64;
  c.intermediate_size = 3'072, c.max_position = 512, c.type_vocab_size = 2, c.norm_eps = 1e-12;
  c.activation = Activation::gelu, c.pooling = Pooling::cls, c.normalize = true;
  const double weights = 12.0 * (4 * 768.0 * 768 + 2 * 768.0 * 3'072);
  for (const bool fused : {true, false}) {
    auto bert = must(CudaBert::load(nullptr, c, {.rows_max = 65'536, .fused_gelu = fused}));
    for (const auto& [sequences, length] : {std::pair{1, 16}, {1, 128}, {1, 512}, {16, 512}, {64, 512}, {128, 512}}) {
      std::vector<std::vector<std::int32_t>> texts;
      std::vector<std::span<const std::int32_t>> inputs;
      for (int i = 0; i < sequences; ++i) {
        auto& text = texts.emplace_back();
        for (int t = 0; t < length; ++t) text.push_back((i * 977 + t * 31) % 30'000 + 100);
      }
      for (const auto& text : texts) inputs.emplace_back(text);
      std::vector<double> device, host;
      for (int i = 0; i < (sequences == 1 ? 40 : 12); ++i) {
        const double s = seconds_of([&] { must(bert->encode(inputs)); });
        if (i > 3) host.push_back(1e3 * s), device.push_back(bert->last_pass_ms());
      }
      const double rows = static_cast<double>(sequences) * length;
      const double flop = 2 * rows * weights + 4.0 * rows * length * 768 * 12;
      const double floor = std::max(flop / bf16_tflop / 1e9, weights * 2 / read_gb / 1e6), ms = median(device);
      std::printf(
          "bge-base %-10s %3d x %3d: %7.3f ms device, %7.3f ms host, %6.0f texts/s, %4.0f TFLOP/s, %3.0f %% of the "
          "floor (%.3f ms)\n",
          fused ? "fused gelu" : "own gelu", sequences, length, ms, median(host), sequences / median(host) * 1e3,
          flop / ms / 1e9, 100 * floor / ms, floor);
    }
  }
}

namespace {

// Milliseconds of a step of `batch` slices of `tokens` tokens each, `context` tokens in.
double step_ms(CudaRanks& ranks, int batch, int tokens, int context, int steps) {
  std::vector<std::vector<std::int32_t>> pages(static_cast<std::size_t>(batch));
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens), 7);
  int page = 0;
  for (auto& table : pages) {
    for (int t = 0; t < context + tokens + 16; t += 16) table.push_back(page++);
  }
  const CudaDecoder::SampleSpec greedy;
  std::vector<double> ms;
  for (int i = 0; i < steps; ++i) {
    std::vector<CudaDecoder::Slice> slices;
    for (auto& table : pages) slices.push_back({ids, table.data(), context, true, &greedy});
    const double s = seconds_of([&] {
      must(ranks.submit(slices));
      must(ranks.collect());
    });
    if (i > 2) ms.push_back(1e3 * s);
  }
  return median(ms);
}

}  // namespace

void ranks_part(int layers) {
  const auto found = must(find_devices());
  if (found.size() < 2) {
    std::printf("ranks: there is one GPU only\n");
    return;
  }
  const ModelConfig c = llama_2_7b(layers);
  for (const cuda::Format format : {cuda::Format::bf16, cuda::Format::fp8}) {
    double alone[5] = {};
    for (const std::size_t count : {1U, 2U}) {
      std::vector<int> devices;
      for (std::size_t i = 0; i < count; ++i) devices.push_back(found[i].index);
      auto ranks = must(CudaRanks::load(
          nullptr, c, {.format = format, .rows_max = 2'048, .batch_max = 256, .sleep = false}, devices));
      must(ranks->reserve_pages(256 * 20));
      int at = 0;
      for (const auto& [batch, tokens] : {std::pair{1, 1}, {8, 1}, {64, 1}, {256, 1}, {1, 2'048}}) {
        const double ms = step_ms(*ranks, batch, tokens, tokens == 1 ? 128 : 0, tokens == 1 ? 40 : 9);
        if (count == 1) alone[at] = ms;
        std::printf("%s over %zu GPUs, %3d x %4d tokens: %7.3f ms, %8.1f tok/s, %.2fx of one\n",
                    format == cuda::Format::bf16 ? "bf16" : "fp8 ", count, batch, tokens, ms, batch * tokens / ms * 1e3,
                    alone[at] / ms);
        ++at;
      }
    }
  }
}
