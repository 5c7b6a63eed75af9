#pragma once
// The text generation engine: one model, one step-loop thread, continuous batching over a paged KV store.
// Requests join and leave between steps. It knows tokens and text; chat templates and OpenAI's shapes live above.

#include <memory>
#include <string>

#include "backends/local/engine/events.hpp"
#include "backends/local/engine/hooks.hpp"
#include "backends/local/engine/options.hpp"
#include "core/error.hpp"

namespace ganglion::local {

class Tokenizer;
struct ModelConfig;
namespace grammar {
struct Source;
}

class Engine {
 public:
  // Reads and packs the weights (seconds for large models; blocks) and starts the threads. Errors name the file,
  // the tensor or the key at fault, and are meant for the operator.
  static core::Result<std::unique_ptr<Engine>> load(const EngineOptions& options, EngineHooks hooks = {});

  // Ends every request with an `error` event of kind shutting_down, then joins the threads.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues a request. Any thread. On success the sink gets the request's events until done or error and is then
  // released; on failure it is never called. Errors: queue_full (with retry_after), context_length,
  // invalid_value (param names the field), shutting_down, no_backend (out of service until the device is back).
  // The events may begin before submit returns.
  core::Result<Handle> submit(GenerateRequest request, std::shared_ptr<GenerateSink> sink);

  // Ends a request within one step with `done` and FinishReason::cancelled. Any thread; unknown or finished
  // handles are ignored.
  void cancel(Handle handle);

  // A grammar over this model's vocabulary, compiled where it is not known from before. Any thread; may take tens of
  // milliseconds. Errors are the client's: unsupported and invalid_value, saying where in the schema.
  core::Result<std::shared_ptr<const grammar::Grammar>> grammar(const grammar::Source& source) const;

  EngineStats stats() const;           // any thread
  int context_max() const;             // prompt + completion tokens that one request can have
  const Tokenizer& tokenizer() const;  // the model's own; safe to use from any thread
  const ModelConfig& config() const;
  const std::string& device() const;  // where it runs, for the log; and why not on a GPU, if one was looked for

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The embedding engine for BERT-family models: own thread, own bounded queue; short requests share one forward pass.
class EmbeddingEngine {
 public:
  static core::Result<std::unique_ptr<EmbeddingEngine>> load(const EmbeddingOptions& options,
                                                             EmbeddingHooks hooks = {});
  ~EmbeddingEngine();  // waiting requests end with shutting_down
  EmbeddingEngine(const EmbeddingEngine&) = delete;
  EmbeddingEngine& operator=(const EmbeddingEngine&) = delete;

  // `inputs` are whole token sequences with the special tokens in place ([CLS] ... [SEP]). Any thread. Errors as
  // Engine::submit; a sequence longer than context_max() is context_length.
  // Fast requests go into the next pass before regular ones; after some passes without them, regular ones go first
  // once.
  core::Result<Handle> submit(std::vector<std::vector<std::int32_t>> inputs, std::shared_ptr<EmbedSink> sink,
                              Priority priority = Priority::regular);

  // A waiting request ends with ErrorKind::cancelled; one being computed ends so after its current pass.
  void cancel(Handle handle);

  EngineStats stats() const;
  const std::string& device() const;  // where it runs, for the log; and why not on a GPU, if one was looked for
  int dimensions() const;
  int context_max() const;
  const Tokenizer& tokenizer() const;
  const ModelConfig& config() const;

 private:
  struct Impl;
  explicit EmbeddingEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ganglion::local
