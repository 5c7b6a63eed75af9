// The step loop: mail, plan, computation, its consequences; and what becomes of it when the device fails.
//
// Where the runner overlaps, a step's tokens become text while the device computes the next one: submit, text and ends
// of the step before, collect. A stop string is then found one step late; what was sampled since is dropped.

#include <algorithm>
#include <exception>
#include <utility>

#include "backends/local/engine/engine_impl.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

namespace {

constexpr int kFailuresMax = 3;       // steps in a row, until a device that claims to be well is given up
constexpr int kRestartDoublings = 6;  // of the pause between attempts

}  // namespace

void Engine::Impl::run() {
  while (take_mail()) {
    if (runner_ == nullptr) {
      restart();
      continue;
    }
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
    const auto mail = [&] { return stopping_ || !arrived_.empty() || !cancelled_.empty() || !scheduler_->empty(); };
    if (runner_ == nullptr) {
      wake_.wait_until(lock, next_restart_, mail);
    } else {
      wake_.wait(lock, mail);
    }
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
  if (!endings_.empty()) {
    tell();
    end_stopped();
    deliver();
  }
  return !stopping;
}

std::span<const Runner::Slice> Engine::Impl::slices_of(std::span<const Scheduler::Work> work, StepCounts& counts) {
  samplings_.clear();
  samplings_.reserve(work.size());  // the slices point into it
  masks_.clear();
  masks_.reserve(work.size() * vocabulary_->words());  // and the samplings into this
  slices_.clear();
  for (const auto& [sequence, some] : work) {
    const auto from = static_cast<std::size_t>(sequence->computed), count = static_cast<std::size_t>(some);
    auto& r = static_cast<ActiveRequest&>(*sequence);
    const bool last = from + count == sequence->tokens.size();
    if (last) {
      samplings_.push_back(
          {r.request.sampling, r.history, r.seed, static_cast<std::uint64_t>(r.generated), mask_of(r)});
    }
    slices_.push_back({std::span(sequence->tokens).subspan(from, count), sequence->pages.data(), sequence->computed,
                       last ? &samplings_.back() : nullptr, Scheduler::Work{sequence, some}.kept(), r.adapter,
                       r.long_positions});
    counts.prompt_tokens += std::clamp(r.prompt_tokens - sequence->computed, 0, some);
    counts.sampled += last ? 1 : 0;
    counts.tokens[static_cast<std::size_t>(sequence->priority)] += some;
  }
  return slices_;
}

// Made before the step is queued: what may follow a token is known only with the token. The tokens of the last step are
// all known by now (they were collected), whatever of their text is still to be told.
const std::uint32_t* Engine::Impl::mask_of(ActiveRequest& request) {
  if (!request.matcher) return nullptr;
  const std::size_t words = vocabulary_->words(), from = masks_.size();
  masks_.resize(from + words);
  request.stuck = !request.matcher->fill(std::span(masks_).subspan(from, words));
  return masks_.data() + from;
}

void Engine::Impl::step() {
  const Stopwatch whole;
  StepCounts counts;
  const auto work = scheduler_->plan(cost_.free_tokens());
  publish({});  // who was admitted no longer counts as queued
  const auto slices = slices_of(work, counts);
  counts.plan_seconds = whole.seconds();
  const auto done = compute(slices, counts);
  if (!done && done.error().kind == ErrorKind::cancelled) {
    gave_up_ = true;
    return;
  }
  if (!done) {
    fail_step(done.error());
    return;
  }
  failures_ = 0;
  charge(work, counts.device_seconds);
  const Stopwatch text;
  advance(work);
  if (!runner_->overlaps()) tell();
  end_stopped();
  if (scheduler_->empty()) {  // there is no next step to do it beside
    tell();
    end_stopped();
  }
  counts.seconds = whole.seconds();
  counts.text_seconds += text.seconds();
  cost_.observe(counts.tokens[0] + counts.tokens[1], counts.seconds);
  counts.steps = 1;
  publish(counts);
  if (!runner_->overlaps() || scheduler_->empty()) deliver();
}

Result<void> Engine::Impl::compute(std::span<const Runner::Slice> slices, StepCounts& counts) {
  const Stopwatch device;
  const auto took = [&] {
    const double seconds = runner_->device_seconds();
    return seconds >= 0 ? seconds : device.seconds();
  };
  if (runner_->overlaps()) {
    if (auto queued = runner_->submit(slices); !queued) return queued;
    const Stopwatch text;
    tell();
    deliver();
    counts.text_seconds = text.seconds();
    auto done = runner_->collect(choices_);
    counts.device_seconds = took();
    return done;
  }
  // A step of regular requests alone gives way to a fast one that arrives, between two layers, and is done again: but
  // not twice in a row, or they would never come to an end.
  const bool may_give_up = scheduler_->running(Priority::fast) == 0 && !std::exchange(gave_up_, false);
  auto done = runner_->step(slices, choices_, may_give_up ? &fast_arrived_ : nullptr);
  counts.device_seconds = took();
  return done;
}

void Engine::Impl::charge(std::span<const Scheduler::Work> work, double device_seconds) {
  parts_.clear();
  for (const auto& [sequence, tokens] : work) parts_.push_back({sequence->computed, tokens});
  const auto shares = share_.of(parts_);
  for (std::size_t i = 0; i < work.size(); ++i) {
    static_cast<ActiveRequest&>(*work[i].sequence).engine_seconds += shares[i] * device_seconds;
  }
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
    ActiveRequest& request = *sampled[i];
    if (request.stopped) continue;
    bool told = false;
    const FinishReason reason = accept(request, choices_[i], told);
    if (told) {
      untold_.push_back({&request, std::move(choices_[i])});
    }
    if (reason != FinishReason::none) {
      endings_.push_back({scheduler_->remove(request.id), reason});
    } else if (is_long(request.tokens.size()) && !request.long_positions) {
      // From here on the model rotates by other angles: what lies in the pages is computed anew.
      request.long_positions = true;
      scheduler_->restart(request.id, space_for(request.request.prefix_space, request.adapter, true));
    }
  }
}

FinishReason Engine::Impl::accept(ActiveRequest& r, const Choice& choice, bool& told) {
  if (!choice.ok || (r.matcher && !r.matcher->advance(choice.id))) return FinishReason::error;
  ++r.generated;
  if (r.end_tokens.contains(choice.id)) return FinishReason::stop;
  told = true;
  r.tokens.push_back(choice.id);
  ++r.history.generated[choice.id];
  if (r.matcher && r.matcher->over()) return FinishReason::stop;
  return r.generated < r.tokens_max ? FinishReason::none : FinishReason::length;
}

// Those whose text has completed a stop string, where no step is under way.
void Engine::Impl::end_stopped() {
  for (const std::uint64_t id : stopped_) {
    auto sequence = scheduler_->remove(id);  // null: it is among the ends already
    if (sequence != nullptr) endings_.push_back({std::move(sequence), FinishReason::stop});
  }
  stopped_.clear();
}

void Engine::Impl::publish(const StepCounts& counts) {
  const std::lock_guard lock(mutex_);
  for (const Priority priority : {Priority::regular, Priority::fast}) {
    const auto i = static_cast<std::size_t>(priority);
    int queued = scheduler_->waiting(priority);
    for (const auto& request : arrived_) queued += request->priority == priority ? 1 : 0;
    stats_.queued_now[i] = queued;
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
  stats_.device_seconds += counts.device_seconds;
  stats_.generated_tokens += static_cast<std::uint64_t>(counts.sampled);
  stats_.prompt_tokens += static_cast<std::uint64_t>(counts.prompt_tokens);
}

// ---- failures ----

void Engine::Impl::fail_all(const core::Error& error) {
  untold_.clear();
  stopped_.clear();
  auto all = scheduler_->remove_all();
  for (auto& ending : endings_) {  // a step broke off before it told them
    if (ending.sequence != nullptr) all.push_back(std::move(ending.sequence));
  }
  endings_.clear();
  publish({});
  for (const auto& sequence : all) fail(static_cast<ActiveRequest&>(*sequence), error);
}

// The requests of a step that failed may succeed elsewhere; what lies in the pages is not to be trusted any more. A
// device that is of no more use takes the model out of service before they are told, or they would come right back.
void Engine::Impl::fail_step(const core::Error& error) {
  const bool lost = runner_->broken() || ++failures_ >= kFailuresMax;
  {
    const std::lock_guard lock(mutex_);
    ++stats_.device_failures;
    if (lost) stats_.in_service = false;
  }
  if (lost) {
    runner_.reset();
    restarts_failed_ = 0;
    next_restart_ = std::chrono::steady_clock::now();
  }
  notice(lost ? "engine_out_of_service" : "engine_step_failed", error.message);
  tell();
  end_stopped();
  deliver();  // those that were through
  fail_all(core::make_error(ErrorKind::no_backend, error.message));
  scheduler_->forget_pages();
}

// Makes a new runner for the one that was lost. Whoever came in between is sent on.
void Engine::Impl::restart() {
  if (!scheduler_->empty()) fail_all(core::make_error(ErrorKind::no_backend, "the model is out of service"));
  if (std::chrono::steady_clock::now() < next_restart_) return;
  std::string note;
  auto runner = make_runner(note);
  Result<void> usable;
  if (runner) {
    usable = (*runner)->reserve_pages(pages_->total());
  } else {
    usable = std::unexpected(runner.error());
  }
  if (!usable) {
    const int doublings = std::min(restarts_failed_++, kRestartDoublings);
    next_restart_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(options_.restart_ms << doublings);
    notice("engine_restart_failed", usable.error().message);
    return;
  }
  runner_ = std::move(*runner);
  failures_ = 0;
  cost_ = {};
  {
    const std::lock_guard lock(mutex_);
    stats_.in_service = true;
    ++stats_.restarts;
  }
  notice("engine_restarted", note);
}

void Engine::Impl::notice(std::string_view event, std::string_view problem) const {
  if (hooks_.notice) hooks_.notice(event, problem);
}

}  // namespace ganglion::local
