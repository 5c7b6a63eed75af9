#pragma once
// One model served by the local engine.

#include <cstdint>
#include <string>
#include <vector>

namespace ganglion::backends {

// Low-rank weights over a local model, in PEFT's files.
struct LocalAdapterOptions {
  std::string id;         // what requests name in `lora`
  std::string directory;  // adapter_config.json and adapter_model.safetensors
  friend bool operator==(const LocalAdapterOptions&, const LocalAdapterOptions&) = default;
};

// A small model of the same vocabulary that guesses for a local model.
struct LocalDraftOptions {
  std::string directory;  // HF-format model folder; "": none
  std::uint32_t tokens = 4;
  std::string quantize = "none";  // as the model's
  friend bool operator==(const LocalDraftOptions&, const LocalDraftOptions&) = default;
};

struct LocalModelOptions {
  std::string name;                       // what clients ask for
  std::string directory;                  // HF-format model folder
  std::string device = "auto";            // "auto", "cpu", "cuda:<number>" or "cuda:<number>,<number>..."
  std::uint32_t replicas = 1;             // engines of this model, each on GPUs of its own where there are any
  std::uint64_t gpu_bytes = 0;            // what it may take of each of its GPUs; 0: what is free
  std::string quantize = "none";          // "none", "int8", "w8a8", and on a GPU "fp8", "int4"
  std::string kv_type = "auto";           // "auto", "fp16", "int8", and on a GPU "bf16" or "fp8"
  std::string prefix_sharing = "tenant";  // who may use what a prompt's beginning has left: "tenant", "all", "off"
  std::uint32_t threads = 0;              // 0: one per core
  std::uint64_t kv_bytes = 256ULL * 1024 * 1024;
  std::uint32_t queue_max = 256;
  std::uint32_t batch_max = 32;
  std::uint32_t context_max = 0;  // 0: the model's own
  std::uint32_t weight = 1;
  std::uint32_t fast_reserved_percent = 20;  // of the batch and the queue: not for regular requests; from `tiers`
  std::vector<LocalAdapterOptions> adapters;
  std::string speculation = "off";  // where guesses ahead come from: "off", "prompt_lookup"
  std::uint32_t speculation_tokens = 6;
  std::uint32_t speculation_batch_max = 8;
  LocalDraftOptions draft;  // beside `speculation` or alone
};

}  // namespace ganglion::backends
