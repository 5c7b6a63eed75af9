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

void Engine::Impl::guess() {
  if (options_.speculation == Speculation::none || !runner_->verifies()) return;
  const bool few = scheduler_->running() <= options_.speculation_batch_max;
  for (const auto& sequence : scheduler_->sequences()) {
    auto& r = static_cast<ActiveRequest&>(*sequence);
    r.guesses.clear();
    if (!few || !may_guess(r)) continue;
    // The last token that may come is sampled, not guessed.
    const int left = std::min(r.tokens_max - r.generated, context_max_ - static_cast<int>(r.tokens.size())) - 1;
    const int most = std::min(left, r.guess_length.next());
    if (most <= 0) continue;
    r.guesses = r.lookup.guess(r.tokens, most);
    keep_allowed(r);
  }
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
