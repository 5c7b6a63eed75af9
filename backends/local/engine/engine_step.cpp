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

constexpr int kCaughtUpMax = 16;  // tokens; a draft that had more to catch up with tells nothing of its use

}  // namespace

void Engine::Impl::run() {
  for (;;) {
    try {
      if (!take_mail()) break;
      if (runner_ == nullptr) {
        restart();
      } else if (!scheduler_->empty()) {
        step();
      }
    } catch (const std::exception&) {  // memory, in practice: these requests end, the engine goes on
      fail_all(broke_off_);            // and waits for the next ones: it does not come back here at once
    }
  }
  fail_all(stopped_by_us_);
}

// What throws here leaves nobody behind: whom fail_all() does not find in the scheduler it finds in joining_.
bool Engine::Impl::take_mail() {
  bool stopping = false;
  {
    std::unique_lock lock(mutex_);
    const auto mail = [&] { return stopping_ || !arrived_.empty() || !cancelled_.empty() || !scheduler_->empty(); };
    if (runner_ == nullptr) {
      wake_.wait_until(lock, restart_pause_.next(), mail);
    } else {
      wake_.wait(lock, mail);
    }
    joining_.swap(arrived_);
    leaving_.swap(cancelled_);
    stopping = stopping_;
    fast_arrived_ = false;
  }
  const bool joined = !joining_.empty(), left = !leaving_.empty();
  for (auto& request : joining_) scheduler_->add(std::move(request));
  joining_.clear();
  for (const std::uint64_t id : leaving_) put_out(id, FinishReason::cancelled);
  leaving_.clear();
  if (joined || left) publish({});
  // Others' ends wait for the next step to be queued, as all text does; without a next step they would wait for mail.
  if (!endings_.empty() && (left || scheduler_->empty())) {
    tell();
    end_stopped();
    deliver();
  }
  return !stopping;
}

// Room for the ending comes first: a request that is out of the scheduler must not be lost.
void Engine::Impl::put_out(std::uint64_t id, FinishReason reason) {
  endings_.emplace_back();
  endings_.back() = {scheduler_->remove(id), reason};
  if (endings_.back().sequence == nullptr) endings_.pop_back();  // it is among the ends already, or finished
}

std::span<const Runner::Slice> Engine::Impl::slices_of(std::span<const Scheduler::Work> work, StepCounts& counts) {
  const auto most = static_cast<std::size_t>(options_.samples_max());
  samplings_.clear();
  samplings_.reserve(most);  // the slices point into it
  masks_.clear();
  masks_.reserve(most * vocabulary_->words());  // and the samplings into this
  histories_.clear();
  guessing_.clear();
  guessing_.reserve(2 * most);
  slices_.clear();
  for (const Scheduler::Work& w : work) {
    const auto from = static_cast<std::size_t>(w.sequence->computed), count = static_cast<std::size_t>(w.tokens);
    auto& r = static_cast<ActiveRequest&>(*w.sequence);
    const bool last = from + count >= r.tokens.size();
    const int guessed = w.guessed();
    std::span<const std::int32_t> tokens;
    if (guessed == 0) {
      tokens = std::span(r.tokens).subspan(from, count);
    } else {  // one token, and what may follow it
      const std::size_t at = guessing_.size();
      guessing_.push_back(r.tokens.back());
      guessing_.insert(guessing_.end(), r.guesses.begin(), r.guesses.end());
      tokens = std::span(guessing_).subspan(at, count);
    }
    const std::size_t first = samplings_.size();
    if (last) sample_after(r, guessed);
    slices_.push_back({tokens, r.pages.data(), r.computed, last ? samplings_.data() + first : nullptr, w.kept(),
                       r.adapter, r.long_positions, guessed + 1});
    counts.prompt_tokens += std::clamp(r.prompt_tokens - r.computed, 0, w.tokens);
    counts.tokens[static_cast<std::size_t>(r.priority)] += w.tokens;
  }
  return slices_;
}

// Made before the step is queued: what may follow a token is known only with the token. The tokens of the last step are
// all known by now (they were collected), whatever of their text is still to be told.
const std::uint32_t* Engine::Impl::mask_of(ActiveRequest& request, const grammar::Matcher* matcher) {
  if (matcher == nullptr) return nullptr;
  const std::size_t words = vocabulary_->words(), from = masks_.size();
  masks_.resize(from + words);
  request.stuck = !matcher->fill(std::span(masks_).subspan(from, words));
  return masks_.data() + from;
}

void Engine::Impl::step() {
  const Stopwatch whole;
  StepCounts counts;
  guess(counts);
  const auto work = scheduler_->plan(cost_.free_tokens());
  publish({});  // who was admitted no longer counts as queued
  const auto slices = slices_of(work, counts);
  counts.plan_seconds = whole.seconds() - counts.draft_seconds;
  const int running = scheduler_->running();
  const auto done = compute(slices, counts);
  if (!done && done.error().kind == ErrorKind::cancelled) {
    gave_up_ = true;
    publish({.draft_tokens = counts.draft_tokens,
             .draft_seconds = counts.draft_seconds,
             .draft_device_seconds = counts.draft_device_seconds});  // that much was done
    return;
  }
  if (!done) {
    fail_step(done.error());
    return;
  }
  failures_ = 0;
  charge(work, counts.device_seconds);
  const Stopwatch text;
  const Telling telling(hooks_);
  advance(work, counts);
  runner_->overlaps() ? tell_first() : tell();
  end_stopped();
  if (scheduler_->empty()) {  // there is no next step to do it beside
    tell();
    end_stopped();
  }
  counts.seconds = whole.seconds();
  counts.text_seconds += text.seconds();
  observe(counts, running);
  counts.steps = 1;
  publish(counts);
  if (!runner_->overlaps() || scheduler_->empty()) deliver();
}

void Engine::Impl::observe(const StepCounts& counts, int running) {
  cost_.observe(counts.tokens[0] + counts.tokens[1], counts.seconds - counts.draft_seconds);
  if (draft_ == nullptr || counts.prompt_tokens > 0 || counts.draft_caught_up > kCaughtUpMax) return;
  draft_pays_.observe(running, counts.draft_tokens > 0, counts.sampled, counts.seconds);
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
    std::exception_ptr broke;  // what was submitted is collected whatever becomes of the text
    try {
      const Telling telling(hooks_);
      tell();
      deliver();
    } catch (const std::exception&) {
      broke = std::current_exception();
    }
    counts.text_seconds += text.seconds();
    auto done = runner_->collect(choices_);
    counts.device_seconds = took();
    if (broke) {
      pages_lost_ = pages_lost_ || !done;
      std::rethrow_exception(broke);
    }
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
    auto& request = static_cast<ActiveRequest&>(*work[i].sequence);
    request.engine_seconds += shares[i] * device_seconds;
    request.sink->on_charge(request.usage().engine_us);
  }
}

void Engine::Impl::advance(std::span<const Scheduler::Work> work, StepCounts& counts) {
  struct Sampled {
    ActiveRequest* request;
    int guessed;
    std::size_t first;  // of its choices
  };
  std::vector<Sampled> sampled;
  std::size_t choices = 0;
  for (const Scheduler::Work& w : work) {
    const int guessed = w.guessed();
    w.sequence->computed += w.tokens - guessed;
    if (w.sequence->computed < static_cast<int>(w.sequence->tokens.size())) continue;
    sampled.push_back({static_cast<ActiveRequest*>(w.sequence), guessed, choices});
    choices += static_cast<std::size_t>(guessed) + 1;
  }
  for (const auto& [request, guessed, first] : sampled) {
    if (request->stopped) continue;
    const bool drafted = request->drafted;
    const int taken = accept_all(*request, guessed, first), right = std::max(taken - 1, 0);
    counts.sampled += taken;
    counts.guessed += guessed;
    counts.right += right;
    if (drafted) counts.drafted += guessed, counts.drafted_right += right;
  }
}

// The sampled tokens, as long as each is the guess that the next one was computed behind; how many. The request may be
// at its end, and out of the scheduler.
int Engine::Impl::accept_all(ActiveRequest& request, int guessed, std::size_t first) {
  const std::vector<std::int32_t> guesses = std::move(request.guesses);
  request.guesses.clear();
  for (int i = 0;; ++i) {
    Choice& choice = choices_[first + static_cast<std::size_t>(i)];
    const std::int32_t id = choice.id;
    bool told = false;
    const FinishReason reason = accept(request, choice, told);
    if (told) untold_.push_back({&request, std::move(choice), request.generated});
    if (reason != FinishReason::none) {
      put_out(request.id, reason);
      return i + 1;
    }
    const bool turns = is_long(request.tokens.size()) && !request.long_positions;
    if (turns) {
      // From here on the model rotates by other angles: what lies in the pages is computed anew.
      request.long_positions = true;
      scheduler_->restart(request.id, space_for(request.request.prefix_space, request.adapter, true));
    }
    if (turns || i == guessed || guesses[static_cast<std::size_t>(i)] != id) {
      if (guessed > 0) (request.drafted ? request.draft_length : request.guess_length).learn(guessed, i);
      return i + 1;
    }
    ++request.computed;  // the guess: it was right
  }
}

FinishReason Engine::Impl::accept(ActiveRequest& r, const Choice& choice, bool& told) {
  r.no_room = choice.no_room;
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
  for (const std::uint64_t id : stopped_) put_out(id, FinishReason::stop);
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
  stats_.device_seconds += counts.device_seconds + counts.draft_device_seconds;
  stats_.draft_seconds += counts.draft_seconds;
  stats_.draft_tokens += static_cast<std::uint64_t>(counts.draft_tokens);
  stats_.drafted_tokens += static_cast<std::uint64_t>(counts.drafted);
  stats_.drafted_right_tokens += static_cast<std::uint64_t>(counts.drafted_right);
  stats_.draft_pages_used_now = draft_ != nullptr ? draft_->pages_used() : 0;
  stats_.draft_pages_total = draft_ != nullptr ? draft_->pages_total() : 0;
  stats_.generated_tokens += static_cast<std::uint64_t>(counts.sampled);
  stats_.guessed_tokens += static_cast<std::uint64_t>(counts.guessed);
  stats_.guessed_right_tokens += static_cast<std::uint64_t>(counts.right);
  stats_.prompt_tokens += static_cast<std::uint64_t>(counts.prompt_tokens);
}

// ---- failures ----

// One after the other, each when its pages are free and the counters say so. Nothing here may throw, nor need memory:
// it is what is done where there is none.
void Engine::Impl::fail_all(const core::Error& error) {
  untold_.clear();
  stopped_.clear();
  leaving_.clear();
  while (const auto sequence = scheduler_->remove_one()) {
    publish({});
    fail(static_cast<ActiveRequest&>(*sequence), error);
  }
  publish({});
  for (const Ending& ending : endings_) {  // a step broke off before it told them
    if (ending.sequence != nullptr) fail(static_cast<ActiveRequest&>(*ending.sequence), error);
  }
  endings_.clear();
  for (const auto& sequence : joining_) {  // what took them in broke off
    if (sequence != nullptr) fail(static_cast<ActiveRequest&>(*sequence), error);
  }
  joining_.clear();
  if (!std::exchange(pages_lost_, false)) return;
  scheduler_->forget_pages();
  if (draft_ != nullptr) draft_->forget();
  if (runner_ == nullptr) draft_.reset();
}

// The requests of a step that failed may succeed elsewhere; what lies in the pages is not to be trusted any more. A
// device that is of no more use takes the model out of service before they are told, or they would come right back.
void Engine::Impl::fail_step(const core::Error& error) {
  const bool lost = runner_->broken() || ++failures_ >= kDeviceFailuresMax;
  pages_lost_ = true;
  {
    const std::lock_guard lock(mutex_);
    ++stats_.device_failures;
    if (lost) stats_.in_service = false;
  }
  if (lost) {
    runner_.reset();
    restart_pause_.begin();
  }
  notice(lost ? "engine_out_of_service" : "engine_step_failed", error.message);
  tell();
  end_stopped();
  deliver();  // those that were through
  fail_all(core::make_error(ErrorKind::no_backend, error.message));
}

// Makes a new runner for the one that was lost. Whoever came in between is sent on.
void Engine::Impl::restart() {
  if (!scheduler_->empty()) fail_all(core::make_error(ErrorKind::no_backend, "the model is out of service"));
  if (!restart_pause_.over()) return;
  std::string note;
  Result<void> usable;
  try {
    usable = renew(note);
  } catch (const std::exception& e) {  // no memory for the weights, no thread
    put_off_restart(e.what());
    return;
  }
  if (!usable) {
    put_off_restart(usable.error().message);
    return;
  }
  failures_ = 0;
  cost_ = {};
  {
    const std::lock_guard lock(mutex_);
    stats_.in_service = true;
    ++stats_.restarts;
  }
  notice("engine_restarted", note);
}

Result<void> Engine::Impl::renew(std::string& note) {
  auto runner = make_runner(note);
  if (!runner) return std::unexpected(runner.error());
  if (auto reserved = (*runner)->reserve_pages(pages_->total()); !reserved) return reserved;
  restart_draft(**runner);  // which is no reason to stay out of service
  runner_ = std::move(*runner);
  return {};
}

void Engine::Impl::put_off_restart(std::string_view problem) {
  restart_pause_.put_off(options_.restart_ms);
  notice("engine_restart_failed", problem);
}

void Engine::Impl::notice(std::string_view event, std::string_view problem) const {
  if (hooks_.notice) hooks_.notice(event, problem);
}

}  // namespace ganglion::local
