#pragma once
// The local engine as a Backend: OpenAI-dialect JSON in, OpenAI-dialect JSON or server-sent events out, from one
// model loaded in this process. LocalModel is shared by all workers; each worker has its own LocalBackend.

#include <boost/asio/any_io_executor.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "backends/backend.hpp"
#include "backends/local/engine/events.hpp"
#include "backends/local/engine/hooks.hpp"
#include "backends/local/options.hpp"
#include "backends/local/token_counter.hpp"
#include "core/error.hpp"

namespace ganglion::backends {

enum class LocalKind : std::uint8_t { generate, embed };

// Tokens of an answer where the request names no maximum: the rest of the context, at most this many; of a legacy
// completion OpenAI's own default.
inline constexpr int kDefaultCompletionTokensMax = 4096;
inline constexpr int kDefaultLegacyCompletionTokens = 16;
inline constexpr int kSequencesMax = 64;          // prompts times n of one request
inline constexpr int kEmbeddingInputsMax = 2048;  // OpenAI's own cap on one embeddings request

// One loaded model: engine, tokenizer, chat template. Thread-safe, immutable but for the engine's own state.
class LocalModel {
 public:
  struct Parts;
  explicit LocalModel(std::unique_ptr<Parts> parts);
  ~LocalModel();
  LocalModel(const LocalModel&) = delete;
  LocalModel& operator=(const LocalModel&) = delete;

  const std::string& name() const;
  LocalKind kind() const;
  int context_max() const;     // prompt + completion tokens; embed: tokens of one input
  std::string device() const;  // where it runs, for the log; and why not on a GPU, if one was looked for
  bool has_chat_template() const;
  local::EngineStats stats() const;  // a snapshot, any thread; for metrics
  // Counts with this model's tokenizer; shares ownership of the model.
  static TokenCounter counter(std::shared_ptr<const LocalModel> model);

  const Parts& parts() const { return *parts_; }

 private:
  std::unique_ptr<Parts> parts_;
};

// Reads the model folder: a BERT-family model embeds, any other generates. Blocks for as long as the weights take.
// Errors are for the operator and name the file or option at fault. `make_runner`: what computes a text model's steps,
// in tests; empty: by options.device.
core::Result<std::shared_ptr<LocalModel>> load_local_model(const LocalModelOptions& options,
                                                           local::RunnerFactory make_runner = {});

// Serves chat_completions and completions from a generating model, embeddings from an embedding one; any other
// endpoint is `unsupported`. What start() refuses: invalid requests, context_length (with the numbers), queue_full,
// unsupported (a schema's keywords; chat without a template). Prompts over the context are refused
// before they are queued.
//
// start() returns with the first token of a stream and with the whole of any other answer, so what fails before that
// is an Error with a status of its own. An answer holds at most its own completion (max_tokens tokens for each of at
// most kSequencesMax choices) until the client takes it: the engine never waits for a slow client, and next() hands
// out at most core::kStreamBufferBytesMax at once. Of choices asked for with a seed, each has its own: seed + index.
class LocalBackend final : public Backend {
 public:
  // `executor` is the worker's own; every call must come from its thread.
  LocalBackend(std::shared_ptr<const LocalModel> model, boost::asio::any_io_executor executor);
  std::string_view name() const override;
  boost::asio::awaitable<core::Result<std::unique_ptr<Answer>>> start(const Call& call, Rejection* rejection) override;

 private:
  std::shared_ptr<const LocalModel> model_;
  boost::asio::any_io_executor executor_;
};

}  // namespace ganglion::backends
