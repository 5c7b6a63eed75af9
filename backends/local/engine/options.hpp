#pragma once
// Plain settings of the local engine: no includes beyond std, so that config tables can fill them.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace ganglion::local {

enum class Quantize : std::uint8_t {
  none,  // weights stay in the file's type (bf16, fp16, fp32)
  int8,  // per-output-channel symmetric int8 made at load; on a CPU, activations int8 per token and group
  int4,  // GPU: symmetric int4 in groups of 64 input channels; the output layer int8
  fp8,   // GPU: e4m3 per output channel, in steps past eight tokens activations too
  w8a8,  // as int8, and on a GPU in such steps activations int8 per token too
};

enum class KvType : std::uint8_t {
  automatic,  // f32 for fp32 weights that are not quantised, else f16; on a GPU f16
  f32,        // CPU
  f16,
  bf16,  // GPU: for values past fp16's 65,504, which f16 would cut there
  i8,    // int8, a scale for each token and head
  f8,    // GPU: e4m3, without scales
};

// The setting that asks for a device by its name in the log: "cuda:0,1" for "cuda:0,1 (NVIDIA H100 80GB HBM3)".
inline std::string device_setting(const std::string& named) {
  return named.substr(0, named.find(' '));
}

// Tokens of one step on a GPU, at least: enough to fill it.
inline constexpr int kGpuStepTokens = 2048;

// Low-rank weights in PEFT's files that requests name by their id.
struct AdapterOptions {
  std::string id, dir;
};

// Where guesses at the next tokens come from, which one step then checks together. Answers are the same without.
enum class Speculation : std::uint8_t {
  none,
  prompt_lookup,  // from what followed the last few tokens earlier in the text
};

// A small model with the same vocabulary that guesses for a large one; beside Speculation or alone.
struct DraftOptions {
  std::string dir;  // "": none
  int tokens = 4;   // guesses for a request in one step, at most
  Quantize quantize = Quantize::none;
  bool measured = true;  // only at batch sizes where the tokens of a second say that it pays
};

struct EngineOptions {
  std::string dir;  // a Hugging Face style model folder
  // "cpu", "auto" (one GPU or several, where there are any with room), "cuda:<number>", or "cuda:<number>,<number>..."
  // (cut over them)
  std::string device = "cpu";
  int threads = 0;  // compute threads, the engine's own included; 0: one per core
  std::uint64_t kv_bytes =
      512ull << 20;             // memory for keys and values of all running requests; a GPU takes what is free
  std::uint64_t gpu_bytes = 0;  // what the model may take of each of its GPUs, all in all; 0: what is free
  int queue_max = 256;          // requests waiting for a place in the batch; past it: queue_full
  int batch_max = 16;           // requests in one step
  Quantize quantize = Quantize::none;
  KvType kv_type = KvType::automatic;
  int context_max = 0;             // cap on prompt + completion tokens; 0: what the model was made for
  int step_tokens_max = 256;       // tokens computed in one step; long prompts are cut into such chunks
  int fast_reserved_percent = 20;  // of batch and queue: regular requests may not take it
  // Regular requests in the batch may make a step of the fast ones at most so much longer.
  int fast_slowdown_percent = 20;
  int restart_ms = 1'000;  // a failed device that does not come back is tried again so much later, then after twice ...
  std::vector<AdapterOptions> adapters = {};
  Speculation speculation = Speculation::none;
  int speculation_tokens = 6;     // guesses for a request in one step, at most
  int speculation_batch_max = 8;  // with more requests running than this nobody guesses: the steps are full as it is
  DraftOptions draft = {};

  int guesses_max() const {  // of a request in one step
    return std::max(speculation == Speculation::none ? 0 : speculation_tokens, draft.dir.empty() ? 0 : draft.tokens);
  }
  // Tokens that one step can sample, at most.
  int samples_max() const { return batch_max + std::min(batch_max, speculation_batch_max) * guesses_max(); }
};

struct EmbeddingOptions {
  std::string dir;             // a BERT-family folder, sentence-transformers files beside it or not
  std::string device = "cpu";  // "cpu", "auto" or "cuda:<number>"
  int threads = 0;             // as above
  int queue_max = 256;         // requests waiting; past it: queue_full
  int inputs_max = 2048;       // sequences in one request
  int step_tokens_max = 2048;  // tokens computed at once; a longer single sequence still goes alone
  Quantize quantize = Quantize::none;
  int fast_reserved_percent = 20;  // of the queue
  int restart_ms = 1'000;          // as above
};

}  // namespace ganglion::local
