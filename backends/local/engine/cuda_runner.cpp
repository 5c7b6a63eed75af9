// The CUDA decoder as a runner: requests' sampling parameters in the device's terms, and its results in the engine's.

#include <algorithm>

#include "backends/local/device/devices.hpp"
#include "backends/local/device/status.hpp"
#include "backends/local/engine/cuda_encoder.hpp"
#include "backends/local/engine/runner.hpp"
#include "backends/local/models/cuda/cuda_bert.hpp"
#include "backends/local/models/cuda/cuda_ranks.hpp"

namespace ganglion::local {
namespace {

using core::ErrorKind;
using core::Result;

// Left free on the device beside the KV store: for libraries and other processes.
constexpr std::uint64_t kSpareBytes = std::uint64_t{1} << 30;

cuda::Format format_of(Quantize quantize) {
  switch (quantize) {
    case Quantize::int8:
    case Quantize::w8a8:
      return cuda::Format::int8;
    case Quantize::int4:
      return cuda::Format::int4;
    case Quantize::fp8:
      return cuda::Format::fp8;
    case Quantize::none:
      break;
  }
  return cuda::Format::bf16;
}

cuda::KvFormat kv_format_of(KvType type) {
  switch (type) {
    case KvType::bf16:
      return cuda::KvFormat::bf16;
    case KvType::i8:
      return cuda::KvFormat::int8;
    case KvType::f8:
      return cuda::KvFormat::fp8;
    default:
      return cuda::KvFormat::fp16;
  }
}

CudaDecoder::SampleSpec spec_of(const Runner::Sampling& s) {
  const SamplingParams& p = s.params;
  CudaDecoder::SampleSpec out;
  out.row = {.temperature = p.temperature,
             .top_p = p.top_p,
             .min_p = p.min_p,
             .top_k = p.top_k,
             .frequency = p.frequency_penalty,
             .presence = p.presence_penalty,
             .repetition = p.repetition_penalty,
             .logprobs = p.logprobs ? 1 : 0,
             .top_logprobs = std::min(p.top_logprobs, kTopLogprobsMax),
             .uniform = uniform_at(s.seed, s.index)};
  out.mask = s.mask;
  const bool repeats = p.repetition_penalty != 1.0f;
  const bool counts = p.frequency_penalty != 0 || p.presence_penalty != 0;
  if (p.logit_bias.empty() && !repeats && !counts) return out;
  // One entry a token, whatever touches it.
  std::unordered_map<std::int32_t, cuda::SampleAdjust> touched;
  const auto entry = [&](std::int32_t id) -> cuda::SampleAdjust& {
    return touched.try_emplace(id, cuda::SampleAdjust{id, 0, 0.0f, 0}).first->second;
  };
  for (const auto& [id, bias] : p.logit_bias) entry(id).bias = bias;
  if (repeats) {
    for (const std::int32_t id : s.history.prompt) entry(id).repeated = 1;
  }
  for (const auto& [id, times] : s.history.generated) {
    if (repeats) entry(id).repeated = 1;
    if (counts) entry(id).times = times;
  }
  out.adjust.reserve(touched.size());
  for (const auto& item : touched) out.adjust.push_back(item.second);
  return out;
}

class CudaRunner final : public Runner {
 public:
  CudaRunner(std::unique_ptr<CudaRanks> ranks, const EngineOptions& options, std::string device)
      : ranks_(std::move(ranks)),
        kv_bytes_(options.kv_bytes),
        gpu_bytes_(options.gpu_bytes),
        device_(std::move(device)) {}

  std::int64_t vocab_size() const override { return ranks_->first().vocab_size(); }
  std::int64_t context_max() const override { return ranks_->first().context_max(); }
  std::size_t weight_bytes() const override { return ranks_->first().weight_bytes(); }
  std::size_t device_bytes() const override { return ranks_->device_bytes(); }
  std::int64_t page_bytes() const override { return ranks_->first().page_bytes(); }
  std::uint64_t kv_bytes_max() const override {
    const std::uint64_t free = ranks_->free_bytes(), held = ranks_->device_bytes();
    std::uint64_t most = free > 2 * kSpareBytes ? free - kSpareBytes : free / 2;
    if (gpu_bytes_ > 0) most = std::min(most, gpu_bytes_ > held ? gpu_bytes_ - held : 0);
    return std::max(kv_bytes_ / ranks_->ranks(), most);
  }
  std::string device() const override { return device_; }
  bool verifies() const override { return true; }
  bool broken() const override { return broken_; }

  Result<void> reserve_pages(std::int64_t pages) override { return ranks_->reserve_pages(pages); }

  // A step is queued whole and takes milliseconds: nobody needs it to give up.
  Result<void> step(std::span<const Slice> slices, std::span<Choice> choices, const std::atomic<bool>*) override {
    if (auto queued = submit(slices); !queued) return queued;
    return collect(choices);
  }

  bool overlaps() const override { return true; }
  double device_seconds() const override { return ranks_->first().last_step_ms() / 1e3; }

  Result<void> submit(std::span<const Slice> slices) override {
    std::vector<CudaDecoder::SampleSpec> specs;
    std::size_t samples = 0;
    for (const Slice& s : slices) samples += static_cast<std::size_t>(s.samples);
    specs.reserve(samples);  // the slices point into it
    std::vector<CudaDecoder::Slice> work;
    for (const Slice& s : slices) {
      const std::size_t first = specs.size();
      for (int i = 0; s.sampling != nullptr && i < s.samples; ++i) specs.push_back(spec_of(s.sampling[i]));
      work.push_back({s.tokens, s.pages, s.position, s.sampling != nullptr,
                      s.sampling != nullptr ? specs.data() + first : nullptr, s.kept, s.adapter, s.long_positions});
      if (s.sampling != nullptr) work.back().samples = s.samples;
    }
    if (auto queued = ranks_->submit(work); !queued) return failed(queued.error());
    return {};
  }

  Result<void> collect(std::span<Choice> choices) override {
    const auto results = ranks_->collect();
    if (!results) return failed(results.error());
    for (std::size_t i = 0; i < results->size(); ++i) {
      const cuda::SampleResult& r = (*results)[i];
      Choice& choice = choices[i];
      choice.ok = r.ok == 1;
      choice.no_room = r.ok == CudaDecoder::kNoRoom;
      choice.id = r.id;
      choice.logprob = r.logprob;
      choice.top.clear();
      for (int k = 0; choice.ok && k < r.top_count; ++k) choice.top.emplace_back(r.top_id[k], r.top_logprob[k]);
    }
    return {};
  }

 private:
  // Nothing that ran in this context after an error of the device can be trusted.
  Result<void> failed(const core::Error& error) {
    broken_ = ranks_->lost() || (error.kind == ErrorKind::overloaded && is_sticky(cudaPeekAtLastError()));
    return std::unexpected(error);
  }

  std::unique_ptr<CudaRanks> ranks_;
  std::uint64_t kv_bytes_, gpu_bytes_;
  std::string device_;
  bool broken_ = false;
};

// Knows whether its device is lost, as CudaRunner does.
class CudaEncoder final : public Encoder {
 public:
  explicit CudaEncoder(std::unique_ptr<CudaBert> bert) : bert_(std::move(bert)) {}

  Result<std::vector<std::vector<float>>> encode(std::span<const std::span<const std::int32_t>> sequences) override {
    auto vectors = bert_->encode(sequences);
    if (!vectors) {
      broken_ = vectors.error().kind == ErrorKind::overloaded && is_sticky(cudaPeekAtLastError());
    }
    return vectors;
  }
  int dimensions() const override { return bert_->dimensions(); }
  int context_max() const override { return bert_->context_max(); }
  std::string device() const override { return bert_->device(); }
  bool broken() const override { return broken_; }

 private:
  std::unique_ptr<CudaBert> bert_;
  bool broken_ = false;
};

}  // namespace

Result<std::unique_ptr<Runner>> make_cuda_runner(const Checkpoint& checkpoint, const ModelConfig& config,
                                                 const EngineOptions& options, std::span<const int> devices) {
  const auto found = find_devices();
  if (!found) return std::unexpected(found.error());
  std::string name = "cuda:", model;
  for (const int device : devices) {
    name += (name.ends_with(':') ? "" : ",") + std::to_string(device);
    for (const DeviceInfo& info : *found) {
      if (info.index == device) model = info.name;
    }
  }
  std::vector<std::filesystem::path> adapters;
  for (const AdapterOptions& adapter : options.adapters) adapters.emplace_back(adapter.dir);
  auto ranks = CudaRanks::load(&checkpoint, config,
                               {.format = format_of(options.quantize),
                                .int8_activations = options.quantize == Quantize::w8a8,
                                .kv = kv_format_of(options.kv_type),
                                .rows_max = options.step_tokens_max,
                                .batch_max = options.batch_max,
                                .samples_max = options.samples_max(),
                                .context_max = options.context_max,
                                .adapters = std::move(adapters)},
                               devices);
  if (!ranks) return std::unexpected(ranks.error());
  return std::make_unique<CudaRunner>(std::move(*ranks), options, name + " (" + model + ")");
}

Result<std::unique_ptr<Encoder>> make_cuda_encoder(const Checkpoint& checkpoint, const ModelConfig& config,
                                                   const std::string& device, int rows_max) {
  int index = -1;
  if (device == "auto") {
    const auto found = find_devices();
    if (!found) return std::unexpected(found.error());
    index = std::ranges::max_element(*found, {}, &DeviceInfo::free_bytes)->index;
  } else {
    const auto devices = parse_devices(device);
    if (!devices) return std::unexpected(devices.error());
    if (devices->size() != 1) {
      return core::fail(ErrorKind::unsupported, "an embedding model runs on one GPU", "device");
    }
    index = devices->front();
  }
  auto bert = CudaBert::load(&checkpoint, config, {.device = index, .rows_max = rows_max});
  if (!bert) return std::unexpected(bert.error());
  return std::make_unique<CudaEncoder>(std::move(*bert));
}

}  // namespace ganglion::local
