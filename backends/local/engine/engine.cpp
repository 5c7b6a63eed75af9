// Loading a model, the two doors (submit and cancel, any thread), and the step loop (its own thread).
// Mail goes in under one short lock; everything else belongs to the loop.

#include "backends/local/engine/engine.hpp"

#include <algorithm>
#include <exception>
#include <random>
#include <utility>

#include "backends/local/engine/engine_impl.hpp"
#include "backends/local/engine/request_check.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count(); }

 private:
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

}  // namespace

// ---- Engine ----

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<std::unique_ptr<Engine>> Engine::load(const EngineOptions& options) {
  auto config = load_model_config(options.dir);
  if (!config) return std::unexpected(config.error());
  auto tokenizer = Tokenizer::load(options.dir);
  if (!tokenizer) return std::unexpected(tokenizer.error());
  auto impl = std::make_unique<Impl>(options, std::move(*tokenizer), std::move(*config));
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

Result<void> Engine::Impl::load() {
  options_.batch_max = std::clamp(options_.batch_max, 1, 1024);
  options_.step_tokens_max = std::clamp(options_.step_tokens_max, options_.batch_max, 16384);
  options_.queue_max = std::max(options_.queue_max, 1);
  auto checkpoint = Checkpoint::open(options_.dir);
  if (!checkpoint) return std::unexpected(checkpoint.error());
  auto runner = make_runner(std::move(*checkpoint), config_, options_, device_);
  if (!runner) return std::unexpected(runner.error());
  runner_ = std::move(*runner);
  device_ = device_.empty() ? runner_->device() : runner_->device() + ": " + device_;
  if (runner_->device() != "cpu") options_.step_tokens_max = std::max(options_.step_tokens_max, kGpuStepTokens);

  std::int64_t context = runner_->context_max();
  if (options_.context_max > 0) context = std::min<std::int64_t>(context, options_.context_max);
  // More pages than a full batch of longest requests would never be used.
  const std::int64_t useful = options_.batch_max * ((context + kPageTokens - 1) / kPageTokens + 1);
  const auto page_bytes = static_cast<std::uint64_t>(runner_->page_bytes());
  const std::int64_t pages = std::min(useful, static_cast<std::int64_t>(runner_->kv_bytes_max() / page_bytes));
  if (pages < 1) {
    return core::fail(ErrorKind::invalid_value,
                      "kv_bytes holds no page: one needs " + std::to_string(page_bytes) + " bytes");
  }
  if (auto reserved = runner_->reserve_pages(pages); !reserved) return std::unexpected(reserved.error());
  context_max_ = static_cast<int>(std::min(context, pages * kPageTokens));
  pages_.emplace(static_cast<std::int32_t>(pages));
  scheduler_.emplace(*pages_, Scheduler::Limits{.batch_max = options_.batch_max,
                                                .step_tokens_max = options_.step_tokens_max,
                                                .batch_regular = regular_share(options_.batch_max),
                                                .fast_slowdown = options_.fast_slowdown_percent / 100.0});
  choices_.resize(static_cast<std::size_t>(options_.batch_max));
  stats_.kv_pages_total = pages;
  stats_.step_tokens_max = static_cast<std::uint64_t>(options_.step_tokens_max);
  stats_.weight_bytes = runner_->weight_bytes();
  return {};
}

void Engine::Impl::start() {
  thread_ = std::thread([this] { run(); });
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

Result<Handle> Engine::Impl::submit(GenerateRequest request, std::shared_ptr<GenerateSink> sink) {
  if (auto ok = check_request(request, runner_->vocab_size(), context_max_); !ok) {
    if (ok.error().kind == ErrorKind::context_length) {
      const std::lock_guard lock(mutex_);
      ++stats_.rejected_context;
    }
    return std::unexpected(ok.error());
  }
  auto active = std::make_unique<ActiveRequest>(std::move(request), std::move(sink), tokenizer_);
  GenerateRequest& r = active->request;
  active->priority = r.priority;
  active->space = std::move(r.prefix_space);
  active->tokens = std::move(r.prompt);
  active->prompt_tokens = static_cast<int>(active->tokens.size());
  active->tokens_max = r.max_tokens > 0 ? r.max_tokens : context_max_ - active->prompt_tokens;
  active->end_tokens.insert(r.stop_token_ids.begin(), r.stop_token_ids.end());
  if (!r.ignore_eos) active->end_tokens.insert(config_.eos_ids.begin(), config_.eos_ids.end());
  if (r.sampling.repetition_penalty != 1.0f) {
    active->history.prompt.insert(active->tokens.begin(), active->tokens.end());
  }
  active->seed =
      r.sampling.seed ? *r.sampling.seed : std::random_device{}() | std::uint64_t{std::random_device{}()} << 32;
  active->queued_at = std::chrono::steady_clock::now();

  Handle handle;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return core::fail(ErrorKind::shutting_down, "the engine is stopping");
    if (broken_) return core::fail(ErrorKind::overloaded, "the GPU failed; this model is out of service");
    const int queued = stats_.queued_now[0] + stats_.queued_now[1];
    const bool fast = active->priority == Priority::fast;
    if (queued >= (fast ? options_.queue_max : regular_share(options_.queue_max))) {
      ++stats_.rejected_queue_full;
      auto error = core::make_error(ErrorKind::queue_full, "the model's queue is full");
      error.retry_after = retry_after(queued);
      return std::unexpected(std::move(error));
    }
    ++stats_.queued_now[static_cast<std::size_t>(active->priority)];
    ++stats_.accepted;
    handle.id = active->id = next_id_++;
    arrived_.push_back(std::move(active));
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

// ---- the loop ----

void Engine::Impl::run() {
  while (take_mail()) {
    if (scheduler_->empty()) continue;
    try {
      step();
    } catch (const std::exception&) {  // memory, in practice: these requests end, the engine goes on
      fail_all(core::make_error(ErrorKind::internal, "the engine could not complete a step"));
    }
  }
  fail_all(core::make_error(ErrorKind::shutting_down, "the engine is stopping"));
}

bool Engine::Impl::take_mail() {
  std::vector<std::unique_ptr<ActiveRequest>> arrived;
  std::vector<std::uint64_t> cancelled;
  bool stopping = false;
  {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [&] { return stopping_ || !arrived_.empty() || !cancelled_.empty() || !scheduler_->empty(); });
    arrived.swap(arrived_);
    cancelled.swap(cancelled_);
    stopping = stopping_;
    fast_arrived_ = false;
  }
  for (auto& request : arrived) scheduler_->add(std::move(request));
  for (const std::uint64_t id : cancelled) {
    auto sequence = scheduler_->remove(id);  // null: finished before the word came
    if (sequence != nullptr) endings_.push_back({std::move(sequence), FinishReason::cancelled});
  }
  if (!arrived.empty() || !cancelled.empty()) publish({});
  deliver();
  return !stopping;
}

std::span<const Runner::Slice> Engine::Impl::slices_of(std::span<const Scheduler::Work> work, StepCounts& counts) {
  samplings_.clear();
  samplings_.reserve(work.size());  // the slices point into it
  slices_.clear();
  for (const auto& [sequence, some] : work) {
    const auto from = static_cast<std::size_t>(sequence->computed), count = static_cast<std::size_t>(some);
    const auto& r = static_cast<const ActiveRequest&>(*sequence);
    const bool last = from + count == sequence->tokens.size();
    if (last) {
      samplings_.push_back({r.request.sampling, r.history, r.seed, static_cast<std::uint64_t>(r.generated)});
    }
    slices_.push_back({std::span(sequence->tokens).subspan(from, count), sequence->pages.data(), sequence->computed,
                       last ? &samplings_.back() : nullptr});
    counts.prompt_tokens += std::clamp(r.prompt_tokens - sequence->computed, 0, some);
    counts.sampled += last ? 1 : 0;
    counts.tokens[static_cast<std::size_t>(sequence->priority)] += some;
  }
  return slices_;
}

void Engine::Impl::step() {
  const Stopwatch whole;
  StepCounts counts;
  const auto work = scheduler_->plan(cost_.free_tokens());
  publish({});  // who was admitted no longer counts as queued
  const auto slices = slices_of(work, counts);
  counts.plan_seconds = whole.seconds();
  // A step of regular requests alone gives way to a fast one that arrives, between two layers, and is done again: but
  // not twice in a row, or they would never come to an end.
  const bool may_give_up = scheduler_->running(Priority::fast) == 0 && !std::exchange(gave_up_, false);
  const auto done = runner_->step(slices, choices_, may_give_up ? &fast_arrived_ : nullptr);
  if (!done && done.error().kind == ErrorKind::cancelled) {
    gave_up_ = true;
    return;
  }
  if (!done) {
    fail_step(done.error());
    return;
  }
  const Stopwatch text;
  advance(work);
  counts.seconds = whole.seconds();
  counts.text_seconds = text.seconds();
  cost_.observe(counts.tokens[0] + counts.tokens[1], counts.seconds);
  counts.steps = 1;
  publish(counts);
  deliver();
}

void Engine::Impl::advance(std::span<const Scheduler::Work> work) {
  std::vector<ActiveRequest*> sampled;
  for (const auto& [sequence, tokens] : work) {
    sequence->computed += tokens;
    if (sequence->computed == static_cast<int>(sequence->tokens.size())) {
      sampled.push_back(static_cast<ActiveRequest*>(sequence));
    }
  }
  for (std::size_t i = 0; i < sampled.size(); ++i) {
    const FinishReason reason = accept(*sampled[i], choices_[i]);
    if (reason != FinishReason::none) endings_.push_back({scheduler_->remove(sampled[i]->id), reason});
  }
}

FinishReason Engine::Impl::accept(ActiveRequest& r, const Choice& choice) {
  if (!choice.ok) return FinishReason::error;
  ++r.generated;
  if (r.end_tokens.contains(choice.id)) return FinishReason::stop;
  r.tokens.push_back(choice.id);
  ++r.history.generated[choice.id];
  std::optional<TokenLogprobs> logprobs;
  if (r.request.sampling.logprobs) logprobs = logprobs_of(choice);
  auto release = r.text.push(choice.id, std::move(logprobs));
  const bool stopped = release.stopped;
  send(r, std::move(release));
  if (stopped) return FinishReason::stop;
  return r.generated < r.tokens_max ? FinishReason::none : FinishReason::length;
}

// The last events go out when the pages are free and the counters say so: who sees the end may rely on it.
void Engine::Impl::deliver() {
  for (auto& [sequence, reason] : endings_) {
    auto& request = static_cast<ActiveRequest&>(*sequence);
    if (reason == FinishReason::error) {
      fail(request, core::make_error(ErrorKind::internal, "the model's output is not a number"));
    } else {
      finish(request, reason);
    }
    sequence.reset();
  }
  endings_.clear();
}

TokenLogprobs Engine::Impl::logprobs_of(const Choice& choice) const {
  TokenLogprobs out;
  out.chosen = {choice.id, choice.logprob, tokenizer_.token_bytes(choice.id)};
  for (const auto& [id, logprob] : choice.top) out.top.push_back({id, logprob, tokenizer_.token_bytes(id)});
  return out;
}

// ---- events ----

void Engine::Impl::send(ActiveRequest& r, TextStream::Release&& release) {
  if (release.text.empty() && release.tokens.empty()) return;
  GenerateEvent event;
  event.text = std::move(release.text);
  event.tokens = std::move(release.tokens);
  event.logprobs = std::move(release.logprobs);
  event.usage = r.usage();
  r.sink->on_event(std::move(event));
}

void Engine::Impl::finish(ActiveRequest& r, FinishReason reason) {
  if (reason == FinishReason::length || reason == FinishReason::stop) {
    auto rest = r.text.finish();
    if (rest.stopped) reason = FinishReason::stop;
    send(r, std::move(rest));
  }
  GenerateEvent event;
  event.kind = GenerateEvent::Kind::done;
  event.finish = reason;
  event.usage = r.usage();
  {
    const std::lock_guard lock(mutex_);
    ++stats_.finished;
    if (reason == FinishReason::cancelled) ++stats_.cancelled;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - r.queued_at;
    request_seconds_ += 0.1 * (took.count() - request_seconds_);
  }
  r.sink->on_event(std::move(event));
}

void Engine::Impl::fail(ActiveRequest& r, core::Error error) {
  GenerateEvent event;
  event.kind = GenerateEvent::Kind::error;
  event.finish = FinishReason::error;
  event.usage = r.usage();
  event.error = std::move(error);
  {
    const std::lock_guard lock(mutex_);
    ++stats_.finished;
    ++stats_.failed;
  }
  r.sink->on_event(std::move(event));
}

void Engine::Impl::fail_all(const core::Error& error) {
  auto all = scheduler_->remove_all();
  for (auto& ending : endings_) {  // a step broke off before it told them
    if (ending.sequence != nullptr) all.push_back(std::move(ending.sequence));
  }
  endings_.clear();
  publish({});
  for (const auto& sequence : all) fail(static_cast<ActiveRequest&>(*sequence), error);
}

// The requests of a step that failed may succeed elsewhere. A device that is of no more use takes the model out of
// service; the process goes on.
void Engine::Impl::fail_step(const core::Error& error) {
  if (runner_->broken()) {
    const std::lock_guard lock(mutex_);
    broken_ = true;
  }
  fail_all(error);
}

void Engine::Impl::publish(const StepCounts& counts) {
  const std::lock_guard lock(mutex_);
  for (const Priority priority : {Priority::regular, Priority::fast}) {
    int queued = scheduler_->waiting(priority);
    for (const auto& request : arrived_) queued += request->priority == priority ? 1 : 0;
    stats_.queued_now[static_cast<std::size_t>(priority)] = queued;
  }
  for (const Priority priority : {Priority::regular, Priority::fast}) {
    const auto i = static_cast<std::size_t>(priority);
    stats_.running_now[i] = scheduler_->running(priority);
    stats_.step_tokens[i] += static_cast<std::uint64_t>(counts.tokens[i]);
  }
  const PrefixTree& tree = scheduler_->tree();
  stats_.kv_pages_used_now = pages_->used() - tree.idle();
  stats_.kv_pages_cached_now = tree.idle();
  stats_.kv_pages_evicted = tree.evicted();
  stats_.prefix_tokens = scheduler_->reused();
  stats_.preempted = scheduler_->preempted();
  stats_.steps += static_cast<std::uint64_t>(counts.steps);
  stats_.step_seconds += counts.seconds;
  stats_.plan_seconds += counts.plan_seconds;
  stats_.text_seconds += counts.text_seconds;
  stats_.generated_tokens += static_cast<std::uint64_t>(counts.sampled);
  stats_.prompt_tokens += static_cast<std::uint64_t>(counts.prompt_tokens);
}

}  // namespace ganglion::local
