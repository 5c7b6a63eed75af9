// Guesses before a step, and how each place that is computed is sampled: exactly as it would be without guesses, with
// the random number of its own index, the penalties of the text up to it and the mask that its grammar then has. So a
// guess that is not what was sampled leaves no trace, and an answer is the same with and without.

#include <algorithm>

#include "backends/local/engine/engine_impl.hpp"

namespace ganglion::local {

bool Engine::Impl::may_guess(const ActiveRequest& r) const {
  return !r.stopped && r.computed + 1 == static_cast<int>(r.tokens.size()) &&
         r.generated > 0;  // a prompt's last token: nothing is known of the answer yet
}

namespace {

constexpr int kDraftFailuresMax = 3;  // in a row, until the engine goes on without its draft

}  // namespace

void Engine::Impl::guess(StepCounts& counts) {
  const bool looks_up = options_.speculation == Speculation::prompt_lookup;
  if ((!looks_up && draft_ == nullptr) || !runner_->verifies()) return;
  const bool few = scheduler_->running() <= options_.speculation_batch_max;
  drafts_.clear();
  for (const auto& sequence : scheduler_->sequences()) {
    auto& r = static_cast<ActiveRequest&>(*sequence);
    r.guesses.clear();
    r.drafted = false;
    if (!few || !may_guess(r)) continue;
    // The last token that may come is sampled, not guessed.
    const int left = std::min(r.tokens_max - r.generated, context_max_ - static_cast<int>(r.tokens.size())) - 1;
    if (left <= 0) continue;
    if (const int most = looks_up ? std::min(left, r.guess_length.next()) : 0; most > 0) {
      r.guesses = r.lookup.guess(r.tokens, most);
      keep_allowed(r);
    }
    if (r.guesses.empty() && draft_ != nullptr) drafts_.push_back({&r, left});
  }
  draft(counts);
}

// Beside fast requests nobody else is drafted for, as they get no more of a step than lengthens it by little.
void Engine::Impl::draft(StepCounts& counts) {
  if (scheduler_->running(Priority::fast) > 0) {
    std::erase_if(drafts_, [](const Draft::Job& job) { return job.request->priority != Priority::fast; });
  }
  if (drafts_.empty() || fast_arrived_) return;
  if (options_.draft.measured && !draft_pays_.next(scheduler_->running())) return;
  for (Draft::Job& job : drafts_) job.most = std::min(job.most, job.request->draft_length.next());
  std::erase_if(drafts_, [](const Draft::Job& job) { return job.most <= 0; });
  if (drafts_.empty()) return;
  const Stopwatch whole;
  const auto done = draft_->propose(drafts_, fast_arrived_, [&] {
    const Stopwatch text;
    const Telling telling(hooks_);
    tell();
    deliver();
    counts.text_seconds += text.seconds();
  });
  counts.draft_seconds = whole.seconds();
  if (!done) {
    fail_draft(done.error());
    return;
  }
  draft_failures_ = 0;
  for (const Draft::Job& job : drafts_) job.request->drafted = !job.request->guesses.empty();
  counts.draft_tokens = done->tokens;
  counts.draft_caught_up = done->caught_up;
  counts.draft_device_seconds = done->seconds;
}

// Answers do not need the draft.
void Engine::Impl::fail_draft(const core::Error& error) {
  const bool off = draft_->broken() || ++draft_failures_ >= kDraftFailuresMax;
  for (const auto& sequence : scheduler_->sequences()) sequence->pages_gone();
  draft_->forget();
  if (off) draft_.reset();
  notice(off ? "draft_off" : "draft_failed", error.message);
}

void Engine::Impl::keep_allowed(ActiveRequest& r) {
  std::optional<grammar::Matcher> matcher = r.matcher;
  for (std::size_t i = 0; i < r.guesses.size(); ++i) {
    const std::int32_t id = r.guesses[i];
    const bool ends = r.end_tokens.contains(id);
    if (matcher && (!matcher->advance(id) || (matcher->over() && !ends))) {
      r.guesses.resize(i);
    } else if (ends) {
      r.guesses.resize(i + 1);
    }
  }
}

void Engine::Impl::sample_after(ActiveRequest& r, int guessed) {
  const SamplingParams& p = r.request.sampling;
  const bool looks_back = p.repetition_penalty != 1.0f || p.frequency_penalty != 0 || p.presence_penalty != 0;
  std::optional<grammar::Matcher> matcher = r.matcher;
  const TokenHistory* history = &r.history;
  for (int i = 0; i <= guessed; ++i) {
    if (i > 0) {
      const std::int32_t id = r.guesses[static_cast<std::size_t>(i) - 1];
      if (matcher) matcher->advance(id);
      if (looks_back) {
        histories_.push_back(*history);
        ++histories_.back().generated[id];
        history = &histories_.back();
      }
    }
    const bool stuck = r.stuck;
    samplings_.push_back(
        {p, *history, r.seed, static_cast<std::uint64_t>(r.generated + i), mask_of(r, matcher ? &*matcher : nullptr)});
    if (i > 0) r.stuck = stuck;  // behind a guess that may be wrong
  }
}

}  // namespace ganglion::local
