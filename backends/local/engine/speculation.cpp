// See speculation.hpp.

#include "backends/local/engine/speculation.hpp"

#include <algorithm>
#include <bit>

namespace ganglion::local {

namespace {

// Of `count` tokens; two runs with one hash give a guess that is wrong, no more.
std::uint64_t hash_of(std::span<const std::int32_t> run) {
  std::uint64_t h = 0x9e3779b97f4a7c15ULL;
  for (const std::int32_t token : run) {
    h = (h ^ static_cast<std::uint32_t>(token)) * 0xbf58476d1ce4e5b9ULL;
    h ^= h >> 29;
  }
  return h;
}

}  // namespace

// A run is learnt once something follows it, so the text's end never finds itself.
void PromptLookup::learn(std::span<const std::int32_t> tokens) {
  for (std::size_t at = std::max<std::size_t>(learnt_, 1); at < tokens.size(); ++at) {
    for (std::size_t n = kShortest; n <= kLongest && n <= at; ++n) {
      after_[n][hash_of(tokens.subspan(at - n, n))] = static_cast<std::int32_t>(at);
    }
  }
  learnt_ = tokens.size();
}

std::vector<std::int32_t> PromptLookup::guess(std::span<const std::int32_t> tokens, int most) {
  learn(tokens);
  for (std::size_t n = std::min<std::size_t>(kLongest, tokens.size()); n >= kShortest; --n) {
    const auto found = after_[n].find(hash_of(tokens.last(n)));
    if (found == after_[n].end()) continue;
    const auto from = static_cast<std::size_t>(found->second);
    const std::size_t count = std::min(tokens.size() - from, static_cast<std::size_t>(std::max(most, 0)));
    const auto run = tokens.subspan(from, count);
    return {run.begin(), run.end()};
  }
  return {};
}

int GuessLength::next() {
  if (pause_ > 0) {
    --pause_;
    return 0;
  }
  return length_;
}

void GuessLength::learn(int guessed, int right) {
  if (guessed == 0) return;
  share_ = kKeep * share_ + (1 - kKeep) * right / guessed;
  if (right == guessed) {
    length_ = std::min(length_ * 2, most_);
    pause_next_ = kPauseFirst;
  } else {
    length_ = std::clamp(right + 1, 1, most_);
  }
  if (share_ >= kWorthIt) return;
  pause_ = pause_next_;
  pause_next_ = std::min(pause_next_ * 2, kPauseMost);
  share_ = 0.5;  // a new chance, then
  length_ = 1;
}

std::size_t DraftPays::size_of(int running) {
  return std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(static_cast<unsigned>(std::max(running, 1)))),
                               std::size(decltype(DraftPays::sizes_){}) - 1);
}

bool DraftPays::next(int running) {
  Size& s = sizes_[size_of(running)];
  if (s.trial > 0) {
    --s.trial;
    return s.trial_drafts;
  }
  if (s.first > 0) return --s.first >= kFirst;
  const bool better = s.drafted.seconds_token <= s.plain.seconds_token;
  if (--s.until_trial > 0) return better;
  s.trial = kTrialSteps - 1;
  Mean& old = better ? s.plain : s.drafted;
  old.steps = 1;  // what it was long ago counts as one of the trial's steps
  s.period = std::min(s.period * 2, kTrialMost);
  s.until_trial = s.period;
  s.trial_drafts = !better;
  return s.trial_drafts;
}

void DraftPays::observe(int running, bool drafted, int tokens, double seconds) {
  if (tokens <= 0) return;
  Size& s = sizes_[size_of(running)];
  Mean& mean = drafted ? s.drafted : s.plain;
  const bool before = s.drafted.seconds_token <= s.plain.seconds_token;
  double each = seconds / tokens;
  if (mean.steps > 0) each = std::min(each, kOutlier * mean.seconds_token);
  // The first steps count alike, later ones fade.
  const double keep = std::min(kKeep, static_cast<double>(mean.steps) / (mean.steps + 1));
  mean.seconds_token = keep * mean.seconds_token + (1 - keep) * each;
  mean.steps = std::min(mean.steps + 1, 1 << 20);
  const bool after = s.drafted.seconds_token <= s.plain.seconds_token;
  if (before != after) s.period = s.until_trial = kTrialFirst;  // things have changed: look again soon
}

}  // namespace ganglion::local
