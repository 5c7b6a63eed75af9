// Loading a model, and the two doors (submit and cancel, any thread). Mail goes in under one short lock; everything
// else belongs to the loop.

#include "backends/local/engine/engine.hpp"

#include <algorithm>
#include <exception>
#include <random>
#include <utility>

#include "backends/local/engine/engine_impl.hpp"
#include "backends/local/engine/request_check.hpp"
#include "core/thread.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

// ---- Engine ----

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::load(const EngineOptions& options, EngineHooks hooks) {
  auto config = load_model_config(options.dir);
  if (!config) return std::unexpected(config.error());
  auto tokenizer = Tokenizer::load(options.dir);
  if (!tokenizer) return std::unexpected(tokenizer.error());
  auto impl = std::make_unique<Impl>(options, std::move(hooks), std::move(*tokenizer), std::move(*config));
  if (auto loaded = impl->load(); !loaded) return std::unexpected(loaded.error());
  impl->start();
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Result<Handle> Engine::submit(GenerateRequest request, std::shared_ptr<GenerateSink> sink) {
  return impl_->submit(std::move(request), std::move(sink));
}
void Engine::cancel(Handle handle) {
  impl_->cancel(handle);
}
Result<std::shared_ptr<const grammar::Grammar>> Engine::grammar(const grammar::Source& source) const {
  return impl_->grammars_->get(source);
}
EngineStats Engine::stats() const {
  return impl_->stats();
}
int Engine::context_max() const {
  return impl_->context_max_;
}
const Tokenizer& Engine::tokenizer() const {
  return impl_->tokenizer_;
}
const ModelConfig& Engine::config() const {
  return impl_->config_;
}
const std::string& Engine::device() const {
  return impl_->device_;
}

// ---- loading ----

Engine::Impl::Impl(const EngineOptions& options, EngineHooks hooks, Tokenizer tokenizer, ModelConfig config)
    : options_(options), hooks_(std::move(hooks)), tokenizer_(std::move(tokenizer)), config_(std::move(config)) {}

Result<std::unique_ptr<Runner>> Engine::Impl::make_runner(std::string& note) const {
  if (hooks_.make_runner) return hooks_.make_runner(options_, config_, note);
  auto checkpoint = Checkpoint::open(options_.dir);
  if (!checkpoint) return std::unexpected(checkpoint.error());
  return local::make_runner(std::move(*checkpoint), config_, options_, note);
}

Result<void> Engine::Impl::load() {
  options_.batch_max = std::clamp(options_.batch_max, 1, 1024);
  options_.step_tokens_max = std::clamp(options_.step_tokens_max, options_.batch_max, 16384);
  options_.queue_max = std::max(options_.queue_max, 1);
  options_.speculation_tokens = std::clamp(options_.speculation_tokens, 1, 32);
  options_.speculation_batch_max = std::clamp(options_.speculation_batch_max, 1, options_.batch_max);
  options_.draft.tokens = std::clamp(options_.draft.tokens, 1, 32);
  auto runner = make_runner(device_);
  if (!runner) return std::unexpected(runner.error());
  runner_ = std::move(*runner);
  device_ = device_.empty() ? runner_->device() : runner_->device() + ": " + device_;
  options_.device = device_setting(runner_->device());  // "auto" chooses once: a restart has the pages of this device
  auto draft = make_draft(*runner_);
  if (!draft) return std::unexpected(draft.error());
  draft_ = std::move(*draft);
  if (runner_->device() != "cpu") options_.step_tokens_max = std::max(options_.step_tokens_max, kGpuStepTokens);

  std::int64_t context = runner_->context_max();
  if (options_.context_max > 0) context = std::min<std::int64_t>(context, options_.context_max);
  const std::int64_t page_bytes = runner_->page_bytes();
  const auto [pages, draft_pages] = count_pages(context);
  if (pages < 1) {
    return core::fail(ErrorKind::invalid_value,
                      "kv_bytes holds no page: one needs " +
                          std::to_string(page_bytes + (draft_ != nullptr ? draft_->page_bytes() : 0)) + " bytes");
  }
  if (auto reserved = runner_->reserve_pages(pages); !reserved) return std::unexpected(reserved.error());
  if (draft_ != nullptr) {
    draft_pages_ = stats_.draft_pages_total = draft_pages;
    if (auto reserved = draft_->reserve_pages(draft_pages); !reserved) return std::unexpected(reserved.error());
  }
  context_max_ = static_cast<int>(std::min(context, pages * kPageTokens));
  pages_.emplace(static_cast<std::int32_t>(pages));
  scheduler_.emplace(*pages_, Scheduler::Limits{.batch_max = options_.batch_max,
                                                .step_tokens_max = options_.step_tokens_max,
                                                .batch_regular = regular_share(options_.batch_max),
                                                .fast_slowdown = options_.fast_slowdown_percent / 100.0,
                                                .alone_length = runner_->overlaps() ? 1.5 : 0.0});
  vocab_size_ = runner_->vocab_size();
  vocabulary_ = std::make_shared<const grammar::Vocabulary>(tokenizer_, vocab_size_, end_ids());
  grammars_.emplace(vocabulary_);
  constexpr double kCpuOperationsByte = 15, kGpuOperationsByte = 170;  // of common ones, within a factor of two
  share_ =
      WorkShare(config_, {.weight_bytes = static_cast<double>(runner_->weight_bytes()),
                          .kv_token_bytes = static_cast<double>(page_bytes) / kPageTokens,
                          .operations_byte = runner_->device() == "cpu" ? kCpuOperationsByte : kGpuOperationsByte});
  choices_.resize(static_cast<std::size_t>(options_.samples_max()));
  stats_.kv_pages_total = pages;
  stats_.step_tokens_max = static_cast<std::uint64_t>(options_.step_tokens_max);
  stats_.weight_bytes = runner_->weight_bytes();
  return {};
}

// Both stores share the memory: as many pages of each, and of the draft's no more than those who guess can use.
Engine::Impl::PageCounts Engine::Impl::count_pages(std::int64_t context) const {
  // More pages than a full batch of longest requests would never be used.
  const auto useful = [](std::int64_t requests, std::int64_t tokens) {
    return requests * ((tokens + kPageTokens - 1) / kPageTokens + 1);
  };
  const std::int64_t most = useful(options_.batch_max, context), page = runner_->page_bytes();
  auto bytes = static_cast<std::int64_t>(std::min<std::uint64_t>(runner_->kv_bytes_max(), INT64_MAX));
  if (draft_ == nullptr) return {std::min(most, bytes / page), 0};
  // What was declared for the model is for both; what is free was measured beside the draft.
  if (options_.gpu_bytes > 0) bytes -= std::min(bytes, static_cast<std::int64_t>(draft_->device_bytes()));
  const std::int64_t both = bytes / (page + draft_->page_bytes());
  const std::int64_t guessing =
      std::min(both, useful(options_.speculation_batch_max, std::min(context, draft_->context_max())));
  if (guessing == 0) return {};
  return {std::min(most, (bytes - guessing * draft_->page_bytes()) / page), guessing};
}

Result<std::unique_ptr<Draft>> Engine::Impl::make_draft(const Runner& target) const {
  if (options_.draft.dir.empty()) return nullptr;
  return Draft::load(options_, hooks_, tokenizer_, target);
}

void Engine::Impl::restart_draft(const Runner& target) {
  Result<std::unique_ptr<Draft>> draft;
  Result<void> usable;
  try {
    draft = make_draft(target);
    if (!draft) usable = std::unexpected(draft.error());
    if (draft && *draft != nullptr) usable = (*draft)->reserve_pages(draft_pages_);
  } catch (const std::exception& e) {
    notice("draft_off", e.what());
    return;
  }
  if (usable) {
    draft_ = std::move(*draft);
  } else {
    notice("draft_off", usable.error().message);
  }
}

// Tokens that end a text. A model that names none ends where its tokenizer's own end token comes.
std::vector<std::int32_t> Engine::Impl::end_ids() const {
  std::vector<std::int32_t> out(config_.eos_ids.begin(), config_.eos_ids.end());
  if (out.empty() && tokenizer_.eos_id()) out.push_back(*tokenizer_.eos_id());
  return out;
}

void Engine::Impl::start() {
  thread_ = core::start_thread("engine", [this] { run(); });
}

Engine::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

// ---- the doors ----

// What of a capacity is for regular requests: at least one.
int Engine::Impl::regular_share(int total) const {
  return std::max(total - total * options_.fast_reserved_percent / 100, 1);
}

std::chrono::milliseconds Engine::Impl::retry_after(int queued) const {
  const double seconds = request_seconds_ * queued / options_.batch_max;
  return std::chrono::milliseconds(static_cast<std::int64_t>(1000 * std::clamp(seconds, 1.0, 60.0)));
}

bool Engine::Impl::is_long(std::size_t tokens) const {
  return config_.rope.type == RopeType::longrope &&
         static_cast<std::int64_t>(tokens) > config_.rope.original_max_position;
}

std::string Engine::Impl::space_for(const std::string& space, int adapter, bool long_positions) const {
  if (space.empty() || (adapter < 0 && !long_positions)) return space;
  return std::to_string(adapter) + (long_positions ? "\x1fl\x1f" : "\x1f\x1f") + space;
}

Result<int> Engine::Impl::adapter_number(const std::string& id) const {
  if (id.empty()) return -1;
  for (std::size_t i = 0; i < options_.adapters.size(); ++i) {
    if (options_.adapters[i].id == id) return static_cast<int>(i);
  }
  return core::fail(ErrorKind::model_not_found, "this model has no adapter '" + id + "'", "lora");
}

Result<Handle> Engine::Impl::submit(GenerateRequest request, std::shared_ptr<GenerateSink> sink) {
  const auto adapter = adapter_number(request.adapter);
  if (!adapter) return std::unexpected(adapter.error());
  if (auto ok = check_request(request, vocab_size_, context_max_); !ok) {
    if (ok.error().kind == ErrorKind::context_length) {
      const std::lock_guard lock(mutex_);
      ++stats_.rejected_context;
    }
    return std::unexpected(ok.error());
  }
  auto active = std::make_unique<ActiveRequest>(std::move(request), std::move(sink), tokenizer_);
  GenerateRequest& r = active->request;
  active->priority = r.priority;
  active->adapter = *adapter;
  active->long_positions = is_long(r.prompt.size());
  active->space = space_for(r.prefix_space, active->adapter, active->long_positions);
  active->tokens = std::move(r.prompt);
  active->prompt_tokens = static_cast<int>(active->tokens.size());
  active->tokens_max = r.max_tokens > 0 ? r.max_tokens : context_max_ - active->prompt_tokens;
  active->end_tokens.insert(r.stop_token_ids.begin(), r.stop_token_ids.end());
  if (r.grammar != nullptr && r.grammar->vocabulary().size() != vocab_size_) {
    return core::fail(ErrorKind::internal, "the grammar was made for another model");
  }
  if (r.grammar != nullptr || !r.ignore_eos) {
    active->end_tokens.insert(vocabulary_->end_ids().begin(), vocabulary_->end_ids().end());
  }
  if (r.sampling.repetition_penalty != 1.0f) {
    active->history.prompt.insert(active->tokens.begin(), active->tokens.end());
  }
  active->seed =
      r.sampling.seed ? *r.sampling.seed : std::random_device{}() | std::uint64_t{std::random_device{}()} << 32;
  active->guess_length = GuessLength(options_.speculation_tokens);
  active->draft_length = GuessLength(options_.draft.tokens);
  active->queued_at = std::chrono::steady_clock::now();

  Handle handle;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return core::fail(ErrorKind::shutting_down, "the engine is stopping");
    if (!stats_.in_service) {
      return core::fail(ErrorKind::no_backend, "the model's device has failed; it is out of service");
    }
    const int queued = stats_.queued_now[0] + stats_.queued_now[1];
    const bool fast = active->priority == Priority::fast;
    if (queued >= (fast ? options_.queue_max : regular_share(options_.queue_max))) {
      ++stats_.rejected_queue_full;
      auto error = core::make_error(ErrorKind::queue_full, "the model's queue is full");
      error.retry_after = retry_after(queued);
      return std::unexpected(std::move(error));
    }
    handle.id = active->id = next_id_++;
    arrived_.push_back(std::move(active));
    ++stats_.queued_now[static_cast<std::size_t>(fast ? Priority::fast : Priority::regular)];
    ++stats_.accepted;
    if (fast) fast_arrived_ = true;
  }
  wake_.notify_one();
  return handle;
}

void Engine::Impl::cancel(Handle handle) {
  {
    const std::lock_guard lock(mutex_);
    if (handle.id == 0 || handle.id >= next_id_) return;
    cancelled_.push_back(handle.id);
  }
  wake_.notify_one();
}

EngineStats Engine::Impl::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

}  // namespace ganglion::local
