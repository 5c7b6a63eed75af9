// Steps of a model with Llama-2-7B's shapes and random weights: decoding, prompts, and continuous batching through the
// scheduler.

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "backends/local/engine/page_pool.hpp"
#include "backends/local/engine/scheduler.hpp"
#include "backends/local/models/cuda/cuda_decoder.hpp"
#include "bench/cuda/engine_part.hpp"
#include "bench/cuda/measure.hpp"

namespace ganglion::local {
namespace {

using namespace bench;
using cuda::Format;
using cuda::KvFormat;

struct Sequence7b {
  std::vector<std::int32_t> tokens, pages;
  int length = 0;
};

// Milliseconds of a decode step of `batch` sequences at `context` tokens, by the device's clock and by the host's.
std::pair<double, double> decode_ms(CudaDecoder& d, int batch, int context, int steps) {
  std::vector<Sequence7b> sequences(static_cast<std::size_t>(batch));
  int page = 0;
  for (auto& s : sequences) {
    for (int t = 0; t < context + steps + 16; t += 16) s.pages.push_back(page++);
    s.tokens = {1}, s.length = context;
  }
  const CudaDecoder::SampleSpec greedy;
  std::vector<double> ms, wall;
  for (int i = 0; i < steps; ++i) {
    std::vector<CudaDecoder::Slice> slices;
    for (auto& s : sequences) slices.push_back({s.tokens, s.pages.data(), s.length, true, &greedy});
    const auto from = std::chrono::steady_clock::now();
    must(d.submit(slices));
    const auto results = must(d.collect());
    for (std::size_t k = 0; k < sequences.size(); ++k) sequences[k].tokens[0] = results[k].id, ++sequences[k].length;
    wall.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - from).count());
    ms.push_back(d.last_step_ms());
  }
  return {median(ms), median(wall)};
}

void decode(double read_gb, Format format, int layers, int ring) {
  auto d = must(CudaDecoder::random(
      llama_2_7b(layers), {.format = format, .rows_max = 2048, .batch_max = 64, .sleep = false, .ring_stages = ring},
      7));
  must(d->reserve_pages(64 * 20 + 300));
  for (const auto& [batch, context] : {std::pair{1, 128}, {1, 2048}, {4, 128}, {8, 128}, {16, 128}, {64, 128}}) {
    const auto [ms, wall] = decode_ms(*d, batch, context, batch == 1 ? 120 : 40);
    const double bytes = static_cast<double>(d->weight_bytes()) +
                         static_cast<double>(batch) * context / 16 * static_cast<double>(d->page_bytes());
    std::printf(
        "decode %s batch %2d context %4d: %6.3f ms device, %6.3f ms host = %7.1f tok/s, %3.0f %% of the read rate "
        "(floor %.3f ms)\n",
        name_of(format), batch, context, ms, wall, batch * 1e3 / wall, 100 * bytes / ms / 1e6 / read_gb,
        bytes / read_gb / 1e6);
  }
}

// One and four sequences, with the usual streaming products and with activations in registers always.
void rings(double read_gb, Format format, int layers) {
  auto d = must(
      CudaDecoder::random(llama_2_7b(layers), {.format = format, .rows_max = 512, .batch_max = 8, .sleep = false}, 7));
  must(d->reserve_pages(100));
  for (const int ring : {0, 7, 10, 0}) {
    d->set_ring(ring);
    const auto [one, wall] = decode_ms(*d, 1, 128, 60);
    const auto [four, wall4] = decode_ms(*d, 4, 128, 30);
    std::printf("ring %s %3d: batch 1 %6.3f ms, %6.1f tok/s, %3.0f %% of the read rate; batch 4 %6.3f ms\n",
                name_of(format), ring, one, 1e3 / wall,
                100 * static_cast<double>(d->weight_bytes()) / one / 1e6 / read_gb, four);
  }
}

// A step as one kernel and as many, in turns.
void whole_steps(double read_gb, Format format, int layers) {
  auto d = must(CudaDecoder::random(
      llama_2_7b(layers),
      {.format = format, .rows_max = 512, .batch_max = 8, .whole_limits = cuda::kNoStepLimits, .sleep = false}, 7));
  must(d->reserve_pages(600));
  for (const bool whole : {true, false, true}) {
    d->set_whole(whole);
    std::printf("%s %s:", whole ? "one kernel  " : "many kernels", name_of(format));
    for (const auto& [batch, context] : {std::pair{1, 128}, {1, 1980}, {1, 4000}, {2, 128}, {4, 128}}) {
      const auto [ms, wall] = decode_ms(*d, batch, context, 60);
      const double bytes = static_cast<double>(d->weight_bytes()) +
                           static_cast<double>(batch) * context / 16 * static_cast<double>(d->page_bytes());
      std::printf("  batch %d context %4d %6.3f ms %6.1f tok/s %3.0f %%", batch, context, ms, batch * 1e3 / wall,
                  100 * bytes / ms / 1e6 / read_gb);
    }
    std::printf("\n");
  }
}

void prefill(Rates most, Format format, int layers, bool w8a8 = false) {
  auto d = must(CudaDecoder::random(
      llama_2_7b(layers),
      {.format = format, .int8_activations = w8a8, .rows_max = 2048, .batch_max = 8, .sleep = false}, 7));
  must(d->reserve_pages(300));
  std::vector<std::int32_t> pages, tokens;
  for (int i = 0; i < 300; ++i) pages.push_back(i);
  for (int i = 0; i < 2048; ++i) tokens.push_back(i * 31 % 32000);
  const CudaDecoder::SampleSpec greedy;
  for (int length : {128, 512, 2048}) {
    std::vector<double> ms;
    for (int i = 0; i < 9; ++i) {
      const CudaDecoder::Slice slice{std::span(tokens).first(static_cast<std::size_t>(length)), pages.data(), 0, true,
                                     &greedy};
      must(d->submit({&slice, 1}));
      must(d->collect());
      if (i > 1) ms.push_back(d->last_step_ms());
    }
    const double flop =
        2.0 * length * layers * (4096.0 * 4096 * 4 + 3.0 * 4096 * 11008) + 2.0 * length * length * 4096.0 * layers;
    const double t = median(ms);
    std::printf("prefill %s %4d tokens: %7.2f ms, %5.0f TFLOP/s, %3.0f %% of bf16, %3.0f %% of fp8\n",
                w8a8 ? "w8a8" : name_of(format), length, t, flop / t / 1e9, 100 * flop / t / 1e9 / most.bf16_tflop,
                100 * flop / t / 1e9 / most.fp8_tflop);
  }
}

struct BatchCase {
  Format format;
  KvFormat kv;
  int batch, requests, prompt, output, step_tokens;
};

double cpu_seconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  return static_cast<double>(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

// All requests wait at the start; the scheduler admits them as pages and places allow.
void continuous(CudaDecoder& d, const BatchCase& c, std::int64_t pages) {
  PagePool pool(static_cast<std::int32_t>(pages));
  Scheduler scheduler(pool, {c.batch, c.step_tokens});
  for (int i = 0; i < c.requests; ++i) {
    auto s = std::make_unique<Sequence>();
    s->id = static_cast<std::uint64_t>(i) + 1;
    for (int k = 0; k < c.prompt; ++k) s->tokens.push_back((i * 977 + k * 31) % 32000);
    scheduler.add(std::move(s));
  }
  const CudaDecoder::SampleSpec greedy;
  const auto begin = std::chrono::steady_clock::now();
  const double cpu = cpu_seconds();
  std::int64_t produced = 0, steps = 0;
  double device = 0, host = 0;
  std::vector<double> first;
  while (!scheduler.empty()) {
    const auto plan_begin = std::chrono::steady_clock::now();
    const auto work = scheduler.plan();
    std::vector<CudaDecoder::Slice> slices;
    for (const auto& [s, tokens] : work) {
      const auto from = static_cast<std::size_t>(s->computed), count = static_cast<std::size_t>(tokens);
      slices.push_back({std::span(s->tokens).subspan(from, count), s->pages.data(), s->computed,
                        from + count == s->tokens.size(), &greedy});
    }
    must(d.submit(slices));
    host += std::chrono::duration<double>(std::chrono::steady_clock::now() - plan_begin).count();
    const auto results = must(d.collect());
    device += d.last_step_ms();
    std::size_t at = 0;
    std::vector<std::uint64_t> ended;
    const double now = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    for (const auto& [s, tokens] : work) {
      s->computed += tokens;
      if (s->computed != static_cast<int>(s->tokens.size())) continue;
      if (static_cast<int>(s->tokens.size()) == c.prompt) first.push_back(now);
      s->tokens.push_back(results[at++].id);
      ++produced;
      if (static_cast<int>(s->tokens.size()) == c.prompt + c.output) ended.push_back(s->id);
    }
    for (auto id : ended) scheduler.remove(id);
    ++steps;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::sort(first.begin(), first.end());
  std::printf(
      "batching %s%s %d/%d, %d requests, batch %d, step %d: %.0f output tok/s; %.2f s, %lld steps, device busy %.0f "
      "%%, host %.0f us a step, CPU %.1f us a token, preempted %llu, first token p50 %.2f s\n",
      name_of(c.format), kv_name(c.kv), c.prompt, c.output, c.requests, c.batch, c.step_tokens,
      static_cast<double>(produced) / seconds, seconds, static_cast<long long>(steps), 100 * device / 1e3 / seconds,
      host / static_cast<double>(steps) * 1e6, (cpu_seconds() - cpu) / static_cast<double>(produced) * 1e6,
      static_cast<unsigned long long>(scheduler.preempted()), first[first.size() / 2]);
}

void batching(const std::vector<BatchCase>& cases, int layers) {
  const BatchCase& f = cases.front();
  int rows = 0, batch = 0;
  for (const auto& c : cases) rows = std::max(rows, c.step_tokens), batch = std::max(batch, c.batch);
  auto d = must(CudaDecoder::random(llama_2_7b(layers),
                                    {.format = f.format, .kv = f.kv, .rows_max = rows, .batch_max = batch}, 7));
  const std::int64_t fit = static_cast<std::int64_t>(d->free_bytes() - (std::uint64_t{1} << 30)) / d->page_bytes();
  std::int64_t want = 0;
  for (const auto& c : cases)
    want = std::max<std::int64_t>(want, std::int64_t{c.batch} * ((c.prompt + c.output) / 16 + 2));
  const std::int64_t pages = std::min(fit, want);
  must(d->reserve_pages(pages));
  std::printf("(%lld pages of %lld wanted)\n", static_cast<long long>(pages), static_cast<long long>(want));
  for (const auto& c : cases) continuous(*d, c, pages);
}

}  // namespace
}  // namespace ganglion::local

using namespace ganglion::local;

void decode_part(double read_gb, int layers, int ring, const Formats& formats) {
  for (const Format f : formats) decode(read_gb, f, layers, ring);
}
void rings_part(double read_gb, int layers, const Formats& formats) {
  for (const Format f : formats) rings(read_gb, f, layers);
}
void whole_part(double read_gb, int layers, const Formats& formats) {
  for (const Format f : formats) whole_steps(read_gb, f, layers);
}
void prefill_part(Rates most, int layers) {
  for (const Format f : {Format::bf16, Format::fp8, Format::int8}) prefill(most, f, layers);
  prefill(most, Format::int8, layers, true);
}
void batch_part(int layers, int batch, int requests) {
  batching({{Format::fp8, KvFormat::fp8, batch, requests, 128, 128, 2048}}, layers);
  batching({{Format::fp8, KvFormat::int8, batch, requests, 128, 128, 2048}}, layers);
  batching({{Format::bf16, KvFormat::fp16, std::min(batch, 256), requests / 2, 128, 128, 2048}}, layers);
}
