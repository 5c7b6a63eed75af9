// The CPU decoder as a runner: sampling is split over the same threads.

#include "backends/local/engine/runner.hpp"
#include "backends/local/kernels/cpu/dispatch.hpp"
#include "backends/local/models/decoder.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;
using core::Result;

class CpuRunner final : public Runner {
 public:
  explicit CpuRunner(const EngineOptions& options) : options_(options), pool_(options.threads) {}

  Result<void> load(Checkpoint checkpoint, const ModelConfig& config) {
    const bool int8 = options_.quantize == Quantize::int8 || options_.quantize == Quantize::w8a8;
    if (options_.quantize != Quantize::none && !int8) {
      return core::fail(ErrorKind::unsupported, "int4 and fp8 weights need a GPU", "quantize");
    }
    kernels_ = &kernels_for(best_isa());
    auto decoder = Decoder::load(std::move(checkpoint), config, {kernels_, &pool_}, int8, options_.step_tokens_max);
    if (!decoder) return std::unexpected(decoder.error());
    decoder_ = std::move(*decoder);
    for (const AdapterOptions& adapter : options_.adapters) {
      if (auto added = decoder_->load_adapter(adapter.dir); !added) return added;
    }
    logits_.resize(static_cast<std::size_t>(decoder_->vocab_size() * options_.samples_max()));
    return {};
  }

  std::int64_t vocab_size() const override { return decoder_->vocab_size(); }
  std::int64_t context_max() const override { return decoder_->context_max(); }
  std::size_t weight_bytes() const override { return decoder_->weight_bytes(); }
  std::int64_t page_bytes() const override { return shape().page_bytes(); }
  std::uint64_t kv_bytes_max() const override { return options_.kv_bytes; }
  std::string device() const override { return "cpu"; }
  bool verifies() const override { return true; }

  Result<void> reserve_pages(std::int64_t pages) override {
    kv_ = KvStore(shape(), pages);
    if (!kv_.valid()) return core::fail(ErrorKind::internal, "no memory for the KV store");
    return {};
  }

  Result<void> step(std::span<const Slice> slices, std::span<Choice> choices,
                    const std::atomic<bool>* give_up) override {
    std::vector<DecoderSlice> work;
    std::vector<const Sampling*> wanted;
    for (const Slice& s : slices) {
      work.push_back({s.tokens, s.pages, s.position, s.sampling != nullptr, s.kept, s.adapter, s.long_positions});
      work.back().wanted = s.samples;
      for (int i = 0; s.sampling != nullptr && i < s.samples; ++i) wanted.push_back(s.sampling + i);
    }
    if (auto done = decoder_->forward(kv_, work, logits_.data(), give_up); !done) return done;
    const auto vocab = static_cast<std::size_t>(decoder_->vocab_size());
    pool_.split(static_cast<std::int64_t>(wanted.size()), ThreadPool::grain_for(decoder_->vocab_size()),
                [&](std::int64_t from, std::int64_t to, int) {
                  for (auto i = static_cast<std::size_t>(from); i < static_cast<std::size_t>(to); ++i) {
                    const Sampling& s = *wanted[i];
                    choices[i] = choose_token(*kernels_, std::span(logits_).subspan(i * vocab, vocab), s.params,
                                              s.history, s.seed, s.index, s.mask);
                  }
                });
    return {};
  }

 private:
  KvShape shape() const {
    switch (options_.kv_type) {
      case KvType::i8:
        return decoder_->kv_shape(KvElement::i8);
      case KvType::f16:
        return decoder_->kv_shape(KvElement::f16);
      case KvType::f32:
        return decoder_->kv_shape(KvElement::f32);
      default:
        return decoder_->kv_shape(decoder_->full_precision() ? KvElement::f32 : KvElement::f16);
    }
  }

  EngineOptions options_;
  ThreadPool pool_;
  const Kernels* kernels_ = nullptr;
  std::unique_ptr<Decoder> decoder_;
  KvStore kv_;
  std::vector<float> logits_;
};

}  // namespace

Result<std::unique_ptr<Runner>> make_cpu_runner(Checkpoint checkpoint, const ModelConfig& config,
                                                const EngineOptions& options) {
  if (options.kv_type == KvType::f8 || options.kv_type == KvType::bf16) {
    const bool narrow = options.kv_type == KvType::f8;
    return core::fail(
        ErrorKind::unsupported,
        std::string("a KV store in ") + (narrow ? "fp8 needs a GPU; int8" : "bf16 needs a GPU; fp16") + " does not",
        "kv_type");
  }
  auto runner = std::make_unique<CpuRunner>(options);
  if (auto loaded = runner->load(std::move(checkpoint), config); !loaded) return std::unexpected(loaded.error());
  return runner;
}

}  // namespace ganglion::local
