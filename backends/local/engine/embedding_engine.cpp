// The embedding loop: waiting requests' sequences are packed into passes of at most step_tokens_max tokens, in order
// of arrival; a request ends when its last sequence has been computed.

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "backends/local/engine/engine.hpp"
#include "backends/local/kernels/cpu/dispatch.hpp"
#include "backends/local/models/bert.hpp"
#ifdef GANGLION_CUDA
#include "backends/local/engine/cuda_encoder.hpp"
#endif
#include "backends/local/tokenizer/tokenizer.hpp"
#include "core/thread.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {
constexpr int kPassedOverMax = 8;
#ifdef GANGLION_CUDA
constexpr int kGpuPassTokens = 32'768;  // enough to fill it
#endif
}  // namespace

struct EmbeddingEngine::Impl {
  struct Request {
    std::uint64_t id = 0;
    Priority priority = Priority::regular;
    std::vector<std::vector<std::int32_t>> inputs;
    std::shared_ptr<EmbedSink> sink;
    EmbedResult result;  // grows in order; complete when it has one vector per input
    std::size_t in_pass = 0, tokens_in_pass = 0;
    bool cancelled = false;
  };

  Impl(const EmbeddingOptions& options, Tokenizer tokenizer, ModelConfig config)
      : options_(options), tokenizer_(std::move(tokenizer)), config_(std::move(config)), pool_(options.threads) {}
  ~Impl();
  Result<void> load();
  Result<std::unique_ptr<Encoder>> make_encoder();
  Result<Handle> submit(std::vector<std::vector<std::int32_t>> inputs, std::shared_ptr<EmbedSink> sink,
                        Priority priority);
  Result<void> check(const std::vector<std::vector<std::int32_t>>& inputs) const;
  void cancel(Handle handle);
  void run();
  bool collect();
  void order();
  void pack();
  void compute();
  void deliver();
  void end(Request& request, Result<EmbedResult>&& result);

  EmbeddingOptions options_;
  Tokenizer tokenizer_;
  ModelConfig config_;
  ThreadPool pool_;
  std::unique_ptr<Encoder> encoder_;
  std::string device_;  // where it runs, and why not on a GPU

  std::deque<std::unique_ptr<Request>> active_;  // the loop's own; fast ones first
  int passed_over_ = 0;                          // passes in which a regular one waited and none took part
  std::vector<std::span<const std::int32_t>> pass_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::deque<std::unique_ptr<Request>> arrived_;
  std::vector<std::uint64_t> cancelled_;
  EngineStats stats_;
  double request_seconds_ = 0.1;
  std::uint64_t next_id_ = 1;
  bool stopping_ = false;
  std::thread thread_;
};

EmbeddingEngine::EmbeddingEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
EmbeddingEngine::~EmbeddingEngine() = default;

Result<std::unique_ptr<EmbeddingEngine>> EmbeddingEngine::load(const EmbeddingOptions& options) {
  auto config = load_model_config(options.dir);
  if (!config) return std::unexpected(config.error());
  auto tokenizer = Tokenizer::load(options.dir);
  if (!tokenizer) return std::unexpected(tokenizer.error());
  auto impl = std::make_unique<Impl>(options, std::move(*tokenizer), std::move(*config));
  if (auto loaded = impl->load(); !loaded) return std::unexpected(loaded.error());
  return std::unique_ptr<EmbeddingEngine>(new EmbeddingEngine(std::move(impl)));
}

Result<Handle> EmbeddingEngine::submit(std::vector<std::vector<std::int32_t>> inputs, std::shared_ptr<EmbedSink> sink,
                                       Priority priority) {
  return impl_->submit(std::move(inputs), std::move(sink), priority);
}
void EmbeddingEngine::cancel(Handle handle) {
  impl_->cancel(handle);
}
EngineStats EmbeddingEngine::stats() const {
  const std::lock_guard lock(impl_->mutex_);
  return impl_->stats_;
}
int EmbeddingEngine::dimensions() const {
  return impl_->encoder_->dimensions();
}
const std::string& EmbeddingEngine::device() const {
  return impl_->device_;
}
int EmbeddingEngine::context_max() const {
  return impl_->encoder_->context_max();
}
const Tokenizer& EmbeddingEngine::tokenizer() const {
  return impl_->tokenizer_;
}
const ModelConfig& EmbeddingEngine::config() const {
  return impl_->config_;
}

// By options_.device; device_ gets why not a GPU, if one was looked for.
Result<std::unique_ptr<Encoder>> EmbeddingEngine::Impl::make_encoder() {
  auto checkpoint = Checkpoint::open(options_.dir);
  if (!checkpoint) return std::unexpected(checkpoint.error());
#ifdef GANGLION_CUDA
  if (options_.device != "cpu") {
    const int rows = std::max(options_.step_tokens_max, kGpuPassTokens);
    auto encoder = make_cuda_encoder(*checkpoint, config_, options_.device, rows);
    if (encoder) {
      options_.step_tokens_max = rows;
      return encoder;
    }
    if (options_.device != "auto") return encoder;
    device_ = encoder.error().message;
  }
#else
  if (options_.device != "auto" && options_.device != "cpu") {
    return core::fail(ErrorKind::unsupported, "device " + options_.device + ": this program was built without CUDA",
                      "device");
  }
#endif
  return Bert::load(std::move(*checkpoint), config_, {&kernels_for(best_isa()), &pool_},
                    options_.quantize == Quantize::int8 || options_.quantize == Quantize::w8a8,
                    options_.step_tokens_max);
}

Result<void> EmbeddingEngine::Impl::load() {
  options_.queue_max = std::max(options_.queue_max, 1);
  options_.inputs_max = std::max(options_.inputs_max, 1);
  options_.step_tokens_max = std::clamp(options_.step_tokens_max, 1, 65536);
  auto encoder = make_encoder();
  if (!encoder) return std::unexpected(encoder.error());
  encoder_ = std::move(*encoder);
  device_ = device_.empty() ? encoder_->device() : encoder_->device() + ": " + device_;
  thread_ = core::start_thread("embeddings", [this] { run(); });
  return {};
}

EmbeddingEngine::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

Result<void> EmbeddingEngine::Impl::check(const std::vector<std::vector<std::int32_t>>& inputs) const {
  if (inputs.empty() || inputs.size() > static_cast<std::size_t>(options_.inputs_max)) {
    return core::fail(ErrorKind::invalid_value,
                      "input must hold 1 to " + std::to_string(options_.inputs_max) + " texts", "input");
  }
  for (const auto& tokens : inputs) {
    if (tokens.empty()) return core::fail(ErrorKind::invalid_value, "an input has no tokens", "input");
    if (tokens.size() > static_cast<std::size_t>(encoder_->context_max())) {
      return core::fail(ErrorKind::context_length,
                        "this model's context is " + std::to_string(encoder_->context_max()) +
                            " tokens; an input has " + std::to_string(tokens.size()),
                        "input");
    }
    for (std::int32_t id : tokens) {
      if (id < 0 || id >= config_.vocab_size) {
        return core::fail(ErrorKind::invalid_value,
                          "an input holds token " + std::to_string(id) + "; tokens are 0 to " +
                              std::to_string(config_.vocab_size - 1),
                          "input");
      }
    }
  }
  return {};
}

Result<Handle> EmbeddingEngine::Impl::submit(std::vector<std::vector<std::int32_t>> inputs,
                                             std::shared_ptr<EmbedSink> sink, Priority priority) {
  if (auto ok = check(inputs); !ok) {
    const std::lock_guard lock(mutex_);
    if (ok.error().kind == ErrorKind::context_length) ++stats_.rejected_context;
    return std::unexpected(ok.error());
  }
  auto request = std::make_unique<Request>();
  for (const auto& tokens : inputs) request->result.prompt_tokens += static_cast<int>(tokens.size());
  request->inputs = std::move(inputs);
  request->priority = priority;
  const auto kind = static_cast<std::size_t>(priority);
  request->sink = std::move(sink);
  Handle handle;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return core::fail(ErrorKind::shutting_down, "the engine is stopping");
    const int queued = stats_.queued_now[0] + stats_.queued_now[1];
    const int reserved = options_.queue_max * options_.fast_reserved_percent / 100;
    if (queued >= options_.queue_max ||
        (priority == Priority::regular && queued >= std::max(options_.queue_max - reserved, 1))) {
      ++stats_.rejected_queue_full;
      auto error = core::make_error(ErrorKind::queue_full, "the model's queue is full");
      const double seconds = std::clamp(request_seconds_ * queued, 1.0, 60.0);
      error.retry_after = std::chrono::milliseconds(static_cast<std::int64_t>(1000 * seconds));
      return std::unexpected(std::move(error));
    }
    ++stats_.queued_now[kind];
    ++stats_.accepted;
    handle.id = request->id = next_id_++;
    arrived_.push_back(std::move(request));
  }
  wake_.notify_one();
  return handle;
}

void EmbeddingEngine::Impl::cancel(Handle handle) {
  {
    const std::lock_guard lock(mutex_);
    if (handle.id == 0 || handle.id >= next_id_) return;
    cancelled_.push_back(handle.id);
  }
  wake_.notify_one();
}

void EmbeddingEngine::Impl::run() {
  while (collect()) {
    if (pass_.empty()) continue;
    try {
      compute();
    } catch (const std::exception&) {
      for (auto& request : active_)
        end(*request, core::fail(ErrorKind::internal, "the engine could not complete a pass"));
      active_.clear();
    }
    deliver();
  }
  for (auto& request : active_) end(*request, core::fail(ErrorKind::shutting_down, "the engine is stopping"));
  active_.clear();
}

// Fast ones to the front, each kind in order of arrival; but a regular one that was passed over long enough first.
void EmbeddingEngine::Impl::order() {
  std::sort(active_.begin(), active_.end(), [](const auto& a, const auto& b) {
    return a->priority != b->priority ? a->priority == Priority::fast : a->id < b->id;
  });
  if (passed_over_ < kPassedOverMax) return;
  const auto first =
      std::find_if(active_.begin(), active_.end(), [](const auto& r) { return r->priority == Priority::regular; });
  if (first != active_.end()) std::rotate(active_.begin(), first, first + 1);
}

// Takes mail and packs the next pass. False at the end.
bool EmbeddingEngine::Impl::collect() {
  std::vector<std::uint64_t> cancelled;
  bool stopping = false;
  {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return stopping_ || !arrived_.empty() || !cancelled_.empty() || !active_.empty(); });
    for (auto& request : arrived_) active_.push_back(std::move(request));
    arrived_.clear();
    cancelled.swap(cancelled_);
    stopping = stopping_;
  }
  for (const std::uint64_t id : cancelled) {
    const auto at = std::find_if(active_.begin(), active_.end(), [id](const auto& r) { return r->id == id; });
    if (at == active_.end()) continue;
    (*at)->cancelled = true;
    end(**at, core::fail(ErrorKind::cancelled));
    active_.erase(at);
  }
  order();
  pack();
  return !stopping;
}

void EmbeddingEngine::Impl::pack() {
  pass_.clear();
  std::size_t tokens = 0;
  bool regular_waits = false, regular_packed = false, full = false;
  for (auto& request : active_) {
    request->in_pass = request->tokens_in_pass = 0;
    for (std::size_t i = request->result.vectors.size(); i < request->inputs.size() && !full; ++i) {
      tokens += request->inputs[i].size();
      full = !pass_.empty() && tokens > static_cast<std::size_t>(options_.step_tokens_max);
      if (full) break;
      pass_.emplace_back(request->inputs[i]);
      ++request->in_pass;
      request->tokens_in_pass += request->inputs[i].size();
    }
    if (request->priority == Priority::fast) continue;
    regular_waits = true;
    regular_packed = regular_packed || request->in_pass > 0;
  }
  passed_over_ = regular_waits && !regular_packed ? passed_over_ + 1 : 0;
}

void EmbeddingEngine::Impl::compute() {
  const auto begin = std::chrono::steady_clock::now();
  auto vectors = encoder_->encode(pass_);
  std::size_t next = 0, tokens = 0;
  for (const auto& input : pass_) tokens += input.size();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  for (auto& request : active_) {
    const double share = static_cast<double>(request->tokens_in_pass) / static_cast<double>(tokens);
    request->result.engine_us += static_cast<std::int64_t>(share * seconds * 1e6 + 0.5);
    for (; request->in_pass > 0; --request->in_pass, ++next) {
      if (vectors) request->result.vectors.push_back(std::move((*vectors)[next]));
    }
  }
  if (!vectors) {
    for (auto& request : active_) end(*request, std::unexpected(vectors.error()));
    active_.clear();
  }
  const std::lock_guard lock(mutex_);
  ++stats_.steps;
  stats_.prompt_tokens += tokens;
  stats_.step_seconds += seconds;
  stats_.device_seconds += seconds;
  request_seconds_ += 0.1 * (seconds - request_seconds_);
}

void EmbeddingEngine::Impl::deliver() {
  for (std::size_t i = 0; i < active_.size();) {
    if (active_[i]->result.vectors.size() < active_[i]->inputs.size()) {
      ++i;
      continue;
    }
    const auto request = std::move(active_[i]);
    active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(i));
    bool finite = true;
    for (const auto& vector : request->result.vectors) {
      for (float v : vector) finite = finite && v - v == 0.0f;
    }
    if (finite) {
      end(*request, std::move(request->result));
    } else {
      end(*request, core::fail(ErrorKind::internal, "the model's output is not a number"));
    }
  }
}

void EmbeddingEngine::Impl::end(Request& request, Result<EmbedResult>&& result) {
  {
    const std::lock_guard lock(mutex_);
    --stats_.queued_now[static_cast<std::size_t>(request.priority)];
    ++stats_.finished;
    if (request.cancelled) {
      ++stats_.cancelled;
    } else if (!result) {
      ++stats_.failed;
    }
  }
  request.sink->on_result(std::move(result));
}

}  // namespace ganglion::local
