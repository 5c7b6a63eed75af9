#pragma once
// What computes an engine's steps: a model on one device, with its KV store and its sampler. The engine decides what a
// step holds and what becomes of the tokens; a runner knows neither requests nor text. One caller at a time.
//
// A runner on the caller's own processors computes a step within step(). One that computes elsewhere also takes a step
// in two parts, between which the caller turns the last step's tokens into text.

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/local/engine/options.hpp"
#include "backends/local/engine/sampler.hpp"
#include "backends/local/weights/checkpoint.hpp"
#include "backends/local/weights/model_config.hpp"
#include "core/error.hpp"

namespace ganglion::local {

class Runner {
 public:
  // How a slice's next token is chosen; borrowed for the call.
  struct Sampling {
    const SamplingParams& params;
    const TokenHistory& history;
    std::uint64_t seed, index;
    const std::uint32_t* mask = nullptr;  // one bit a token: those that may be chosen; null: all
  };
  // Consecutive tokens of one sequence, whose earlier keys and values are in its pages.
  struct Slice {
    std::span<const std::int32_t> tokens;
    const std::int32_t* pages = nullptr;
    int position = 0;
    const Sampling* sampling = nullptr;  // null: no token is wanted yet
    bool kept = false;  // one token whose keys and values lie there too, in a page of others: nothing is written
    int adapter = -1;   // number in EngineOptions::adapters; all of a sequence's slices have the same
    bool long_positions = false;  // see DecoderSlice; likewise
    int samples = 1;              // with sampling: behind each of so many last tokens, by sampling[0], sampling[1] ...
  };

  virtual ~Runner() = default;

  // Sizes, known once loaded.
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int64_t context_max() const = 0;
  virtual std::size_t weight_bytes() const = 0;
  virtual std::size_t device_bytes() const { return weight_bytes(); }  // that it holds of its device, pages included
  virtual std::int64_t page_bytes() const = 0;
  // Bytes that the KV store may take: what was configured, or on a GPU what is free, if that is more.
  virtual std::uint64_t kv_bytes_max() const = 0;
  virtual std::string device() const = 0;  // for the log: "cpu", "cuda:0 (NVIDIA H100 80GB HBM3)"

  // Makes the KV store; once. Error: no memory.
  virtual core::Result<void> reserve_pages(std::int64_t pages) = 0;

  // Whether slices may ask for more than one sample.
  virtual bool verifies() const { return false; }

  // Computes a step. Writes the choices of each slice that asks, in order; a choice that is not `ok` means that its
  // logits were not numbers. On failure nothing of the step counts.
  // Error cancelled: `give_up` came true and the runner, which need not look at it, broke off; the same call can be
  // made again.
  virtual core::Result<void> step(std::span<const Slice> slices, std::span<Choice> choices,
                                  const std::atomic<bool>* give_up) = 0;

  // Whether submit() returns before the step is computed. Where it does not, only step() is called.
  virtual bool overlaps() const { return false; }
  // Takes a step; nothing that the slices point to is needed after it. No other call of submit(), step() or
  // reserve_pages() before the step was collected.
  virtual core::Result<void> submit(std::span<const Slice> slices);
  // Waits for the submitted step; its choices and errors, as step().
  virtual core::Result<void> collect(std::span<Choice> choices);

  // Of the last step, on the device; negative: as long as the call took.
  virtual double device_seconds() const { return -1; }
  // After a failure: nothing more will come of this runner.
  virtual bool broken() const { return false; }
};

// The CPU's, always there.
core::Result<std::unique_ptr<Runner>> make_cpu_runner(Checkpoint checkpoint, const ModelConfig& config,
                                                      const EngineOptions& options);
// A GPU's, or several GPUs' together, in builds with CUDA.
core::Result<std::unique_ptr<Runner>> make_cuda_runner(const Checkpoint& checkpoint, const ModelConfig& config,
                                                       const EngineOptions& options, std::span<const int> devices);

// By options.device. "auto" means a GPU where there is one that can serve the model, else the CPU; `note` then says
// why not the GPU, if that is worth telling.
core::Result<std::unique_ptr<Runner>> make_runner(Checkpoint checkpoint, const ModelConfig& config,
                                                  const EngineOptions& options, std::string& note);

}  // namespace ganglion::local
