// The embedding loop: waiting requests' sequences are packed into passes of at most step_tokens_max tokens, in order
// of arrival; a request ends when its last sequence has been computed. A device that fails is dealt with as in
// engine_step.cpp.

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "backends/local/engine/engine.hpp"
#include "backends/local/engine/failures.hpp"
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

  Impl(const EmbeddingOptions& options, EmbeddingHooks hooks, Tokenizer tokenizer, ModelConfig config)
      : options_(options),
        hooks_(std::move(hooks)),
        tokenizer_(std::move(tokenizer)),
        config_(std::move(config)),
        pool_(options.threads) {}
  ~Impl();
  Result<void> load();
  Result<std::unique_ptr<Encoder>> make_encoder(std::string& note);
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
  void fail_all(const core::Error& error);  // needs no memory
  void fail_pass(const core::Error& error);
  void restart();
  void put_off_restart(std::string_view problem);
  void notice(std::string_view event, std::string_view problem) const;

  EmbeddingOptions options_;
  EmbeddingHooks hooks_;
  Tokenizer tokenizer_;
  ModelConfig config_;
  ThreadPool pool_;
  int dimensions_ = 0, context_max_ = 0;
  std::string device_;  // where it runs, and why not on a GPU

  // The loop's own.
  std::unique_ptr<Encoder> encoder_;             // null: out of service
  std::deque<std::unique_ptr<Request>> active_;  // fast ones first
  int passed_over_ = 0;                          // passes in which a regular one waited and none took part
  std::vector<std::span<const std::int32_t>> pass_;
  std::deque<std::unique_ptr<Request>> joining_;  // mail that is being taken in
  std::vector<std::uint64_t> leaving_;
  int failures_ = 0;  // passes in a row
  RestartPause restart_pause_;
  // Made beforehand: for when there is no memory.
  const core::Error broke_off_ = core::make_error(ErrorKind::internal, "the engine could not complete a pass");
  const core::Error stopped_by_us_ = core::make_error(ErrorKind::shutting_down, "the engine is stopping");

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

Result<std::unique_ptr<EmbeddingEngine>> EmbeddingEngine::load(const EmbeddingOptions& options, EmbeddingHooks hooks) {
  auto config = load_model_config(options.dir);
  if (!config) return std::unexpected(config.error());
  auto tokenizer = Tokenizer::load(options.dir);
  if (!tokenizer) return std::unexpected(tokenizer.error());
  auto impl = std::make_unique<Impl>(options, std::move(hooks), std::move(*tokenizer), std::move(*config));
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
  return impl_->dimensions_;
}
const std::string& EmbeddingEngine::device() const {
  return impl_->device_;
}
int EmbeddingEngine::context_max() const {
  return impl_->context_max_;
}
const Tokenizer& EmbeddingEngine::tokenizer() const {
  return impl_->tokenizer_;
}
const ModelConfig& EmbeddingEngine::config() const {
  return impl_->config_;
}

// By options_.device; `note` gets why not a GPU, if one was looked for.
Result<std::unique_ptr<Encoder>> EmbeddingEngine::Impl::make_encoder(std::string& note) {
  if (hooks_.make_encoder) return hooks_.make_encoder(options_, config_, note);
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
    note = encoder.error().message;
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
  std::string note;
  auto encoder = make_encoder(note);
  if (!encoder) return std::unexpected(encoder.error());
  encoder_ = std::move(*encoder);
  device_ = note.empty() ? encoder_->device() : encoder_->device() + ": " + note;
  options_.device = device_setting(encoder_->device());  // "auto" chooses once
  dimensions_ = encoder_->dimensions();
  context_max_ = encoder_->context_max();
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
    if (tokens.size() > static_cast<std::size_t>(context_max_)) {
      return core::fail(ErrorKind::context_length,
                        "this model's context is " + std::to_string(context_max_) + " tokens; an input has " +
                            std::to_string(tokens.size()),
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
    if (!stats_.in_service) {
      return core::fail(ErrorKind::no_backend, "the model's device has failed; it is out of service");
    }
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
    handle.id = request->id = next_id_++;
    arrived_.push_back(std::move(request));
    ++stats_.queued_now[kind];
    ++stats_.accepted;
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
  for (;;) {
    try {
      if (!collect()) break;
      if (encoder_ == nullptr) {
        restart();
      } else if (!pass_.empty()) {
        compute();
        deliver();
      }
    } catch (const std::exception&) {  // memory, in practice: these requests end, the engine goes on
      fail_all(broke_off_);            // and waits for the next ones: it does not come back here at once
    }
  }
  fail_all(stopped_by_us_);
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

// Takes mail and packs the next pass. False at the end. What throws here leaves nobody behind: who is not in active_
// yet is in joining_.
bool EmbeddingEngine::Impl::collect() {
  bool stopping = false;
  {
    std::unique_lock lock(mutex_);
    const auto mail = [&] { return stopping_ || !arrived_.empty() || !cancelled_.empty() || !active_.empty(); };
    if (encoder_ == nullptr) {
      wake_.wait_until(lock, restart_pause_.next(), mail);
    } else {
      wake_.wait(lock, mail);
    }
    joining_.swap(arrived_);
    leaving_.swap(cancelled_);
    stopping = stopping_;
  }
  for (; !joining_.empty(); joining_.pop_front()) active_.push_back(std::move(joining_.front()));
  for (const std::uint64_t id : leaving_) {
    const auto at = std::find_if(active_.begin(), active_.end(), [id](const auto& r) { return r->id == id; });
    if (at == active_.end()) continue;
    (*at)->cancelled = true;
    end(**at, core::fail(ErrorKind::cancelled));
    active_.erase(at);
  }
  leaving_.clear();
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
  {
    const std::lock_guard lock(mutex_);
    ++stats_.steps;
    stats_.prompt_tokens += tokens;
    stats_.step_seconds += seconds;
    stats_.device_seconds += seconds;
    request_seconds_ += 0.1 * (seconds - request_seconds_);
  }
  if (!vectors) {
    fail_pass(vectors.error());
    return;
  }
  failures_ = 0;
  for (auto& request : active_) {
    const double share = static_cast<double>(request->tokens_in_pass) / static_cast<double>(tokens);
    request->result.engine_us += static_cast<std::int64_t>(share * seconds * 1e6 + 0.5);
    for (; request->in_pass > 0; --request->in_pass, ++next) {
      request->result.vectors.push_back(std::move((*vectors)[next]));
    }
  }
}

// A request goes only when it was told.
void EmbeddingEngine::Impl::deliver() {
  for (auto at = active_.begin(); at != active_.end();) {
    Request& request = **at;
    if (request.result.vectors.size() < request.inputs.size()) {
      ++at;
      continue;
    }
    bool finite = true;
    for (const auto& vector : request.result.vectors) {
      for (float v : vector) finite = finite && v - v == 0.0f;
    }
    if (finite) {
      end(request, std::move(request.result));
    } else {
      end(request, core::fail(ErrorKind::internal, "the model's output is not a number"));
    }
    at = active_.erase(at);
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

// ---- failures ----

// Nothing here may throw, nor need memory: it is what is done where there is none.
void EmbeddingEngine::Impl::fail_all(const core::Error& error) {
  pass_.clear();
  leaving_.clear();
  for (auto* const requests : {&active_, &joining_}) {
    for (; !requests->empty(); requests->pop_front()) end(*requests->front(), std::unexpected(copy_to_tell(error)));
  }
}

// The requests of a pass that failed may succeed elsewhere. A device that is of no more use takes the model out of
// service before they are told, or they would come right back.
void EmbeddingEngine::Impl::fail_pass(const core::Error& error) {
  const bool lost = encoder_->broken() || ++failures_ >= kDeviceFailuresMax;
  {
    const std::lock_guard lock(mutex_);
    ++stats_.device_failures;
    if (lost) stats_.in_service = false;
  }
  if (lost) {
    encoder_.reset();
    restart_pause_.begin();
  }
  notice(lost ? "engine_out_of_service" : "engine_step_failed", error.message);
  fail_all(core::make_error(ErrorKind::no_backend, error.message));
}

// Makes a new encoder for the one that was lost. Whoever came in between is sent on.
void EmbeddingEngine::Impl::restart() {
  if (!active_.empty()) fail_all(core::make_error(ErrorKind::no_backend, "the model is out of service"));
  if (!restart_pause_.over()) return;
  std::string note;
  Result<std::unique_ptr<Encoder>> encoder;
  try {
    encoder = make_encoder(note);
  } catch (const std::exception& e) {  // no memory for the weights
    put_off_restart(e.what());
    return;
  }
  if (!encoder) {
    put_off_restart(encoder.error().message);
    return;
  }
  encoder_ = std::move(*encoder);
  failures_ = 0;
  {
    const std::lock_guard lock(mutex_);
    stats_.in_service = true;
    ++stats_.restarts;
  }
  notice("engine_restarted", note);
}

void EmbeddingEngine::Impl::put_off_restart(std::string_view problem) {
  restart_pause_.put_off(options_.restart_ms);
  notice("engine_restart_failed", problem);
}

void EmbeddingEngine::Impl::notice(std::string_view event, std::string_view problem) const {
  if (hooks_.notice) hooks_.notice(event, problem);
}

}  // namespace ganglion::local
