// See engine_part.hpp.

#include "bench/cuda/engine_part.hpp"
#include "bench/cuda/measure.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "backends/local/engine/engine.hpp"
#include "backends/local/engine/runner.hpp"
#include "backends/local/models/cuda/cuda_decoder.hpp"

namespace {

using namespace ganglion::local;
using namespace ganglion::local::bench;
namespace core = ganglion::core;

// A runner that claims not to overlap: the same work, text after each step.
class Serial final : public Runner {
 public:
  explicit Serial(std::unique_ptr<Runner> inner) : inner_(std::move(inner)) {}
  std::int64_t vocab_size() const override { return inner_->vocab_size(); }
  std::int64_t context_max() const override { return inner_->context_max(); }
  std::size_t weight_bytes() const override { return inner_->weight_bytes(); }
  std::int64_t page_bytes() const override { return inner_->page_bytes(); }
  std::uint64_t kv_bytes_max() const override { return inner_->kv_bytes_max(); }
  std::string device() const override { return inner_->device(); }
  core::Result<void> reserve_pages(std::int64_t pages) override { return inner_->reserve_pages(pages); }
  core::Result<void> step(std::span<const Slice> slices, std::span<Choice> choices,
                          const std::atomic<bool>* give_up) override {
    return inner_->step(slices, choices, give_up);
  }
  double device_seconds() const override { return inner_->device_seconds(); }

 private:
  std::unique_ptr<Runner> inner_;
};

struct Count {
  std::mutex mutex;
  std::condition_variable changed;
  int left = 0;
  long tokens = 0;
};

struct CountingSink final : GenerateSink {
  explicit CountingSink(Count& to) : count(to) {}
  void on_event(GenerateEvent&& event) noexcept override {
    if (event.kind == GenerateEvent::Kind::token) return;
    const std::lock_guard lock(count.mutex);
    count.tokens += event.usage.completion_tokens;
    if (--count.left == 0) count.changed.notify_all();
  }
  Count& count;
};

double tokens_per_second(Engine& engine, int requests, int tokens) {
  Count count;
  count.left = requests;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < requests; ++i) {
    GenerateRequest request;
    for (int k = 0; k < 32; ++k) request.prompt.push_back(10 + (i * 37 + k * 11) % 400);
    request.max_tokens = tokens;
    request.ignore_eos = true;
    request.sampling.temperature = 0;
    request.stop = {"a stop string that never comes"};
    must(engine.submit(std::move(request), std::make_shared<CountingSink>(count)));
  }
  std::unique_lock lock(count.mutex);
  count.changed.wait(lock, [&] { return count.left == 0; });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return static_cast<double>(count.tokens) / seconds;
}

}  // namespace

void prefix_part(int layers) {
  ModelConfig c;
  c.vocab_size = 32'000;
  c.hidden_size = 4'096;
  c.layers = layers;
  c.heads = c.kv_heads = 32;
  c.head_dim = 128;
  c.intermediate_size = 11'008;
  c.max_position = 4'096;
  auto d =
      must(CudaDecoder::random(c, {.format = cuda::Format::fp8, .rows_max = 2'048, .batch_max = 8, .sleep = false}, 7));
  must(d->reserve_pages(300));
  std::vector<std::int32_t> pages, tokens;
  for (int i = 0; i < 300; ++i) pages.push_back(i);
  for (int i = 0; i < 2'048; ++i) tokens.push_back(i * 31 % 32'000);
  const CudaDecoder::SampleSpec greedy;
  double whole = 0;
  // 2,047: the whole prompt lay in whole pages; its last token is computed, and its keys are there.
  for (const int found : {0, 1'024, 1'920, 2'016, 2'032, 2'040, 2'047}) {
    std::vector<double> ms;
    for (int i = 0; i < 9; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      const CudaDecoder::Slice slice{std::span(tokens).subspan(static_cast<std::size_t>(found)),
                                     pages.data(),
                                     found,
                                     true,
                                     &greedy,
                                     found == 2'047};
      must(d->submit({&slice, 1}));
      must(d->collect());
      ms.push_back(1e3 * std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    std::sort(ms.begin() + 2, ms.end());
    const double median = ms[2 + (ms.size() - 2) / 2];
    if (found == 0) whole = median;
    std::printf("prompt of 2048 tokens fp8, %4d found computed: first token after %6.2f ms, %.3f of computing all\n",
                found, median, median / whole);
  }
}

void overlap_part(const char* model_dir) {
  for (const bool beside : {false, true, false, true}) {
    EngineOptions options{.dir = model_dir, .device = "cuda:0", .queue_max = 4'096, .batch_max = 256};
    EngineHooks hooks;
    hooks.make_runner = [beside](const EngineOptions& o, const ModelConfig& config,
                                 std::string&) -> core::Result<std::unique_ptr<Runner>> {
      auto checkpoint = Checkpoint::open(o.dir);
      if (!checkpoint) return std::unexpected(checkpoint.error());
      EngineOptions wide = o;
      wide.step_tokens_max = std::max(o.step_tokens_max, kGpuStepTokens);
      auto runner = make_cuda_runner(*checkpoint, config, wide, std::array{0});
      if (!runner || beside) return runner;
      return std::make_unique<Serial>(std::move(*runner));
    };
    auto engine = must(Engine::load(options, hooks));
    tokens_per_second(*engine, 256, 32);  // graphs
    const EngineStats before = engine->stats();
    const double rate = tokens_per_second(*engine, 1'024, 200);
    const EngineStats s = engine->stats();
    const double steps = static_cast<double>(s.steps - before.steps);
    std::printf(
        "demo-chat, batch 256, text %s: %.0f tok/s; a step %.0f us, device %.0f us (%.0f %% busy), plan %.0f us, text "
        "%.0f "
        "us\n",
        beside ? "beside the next step" : "after each step    ", rate,
        1e6 * (s.step_seconds - before.step_seconds) / steps, 1e6 * (s.device_seconds - before.device_seconds) / steps,
        100 * (s.device_seconds - before.device_seconds) / (s.step_seconds - before.step_seconds),
        1e6 * (s.plan_seconds - before.plan_seconds) / steps, 1e6 * (s.text_seconds - before.text_seconds) / steps);
  }
}
