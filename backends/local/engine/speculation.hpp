#pragma once
// Guessing tokens ahead, so that one step can check several: what may follow, from the text's own earlier words
// (PromptLookup; a model's guesses are Draft's), how many guesses are worth their work for a request (GuessLength), and
// whether a model's guesses are worth theirs at all (DraftPays). A guess never changes an answer: the model
// samples at every place as it would have, and a guess counts where it is what was sampled.

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

namespace ganglion::local {

// The tokens that followed the last time the text's last few tokens occurred. Grows with the text; memory is a few
// dozen bytes a token.
class PromptLookup {
 public:
  static constexpr int kLongest = 4, kShortest = 2;  // tokens that must occur again

  // `tokens` is the whole text, which only ever gets longer. At most `most` guesses.
  std::vector<std::int32_t> guess(std::span<const std::int32_t> tokens, int most);

 private:
  void learn(std::span<const std::int32_t> tokens);
  std::unordered_map<std::uint64_t, std::int32_t> after_[kLongest + 1];  // by length: where what followed begins
  std::size_t learnt_ = 0;                                               // runs that end before this token are known
};

// How many guesses a sequence gets: more while they are right, none for a while when they are not.
class GuessLength {
 public:
  explicit GuessLength(int most = 0) : most_(most), length_(most < 2 ? most : 2) {}
  int next();  // for the coming step; 0: none
  void learn(int guessed, int right);

 private:
  static constexpr double kKeep = 0.8;      // of the older share, with each step that guessed
  static constexpr double kWorthIt = 0.25;  // share of right ones below which guessing pauses
  static constexpr int kPauseFirst = 8, kPauseMost = 256;
  int most_ = 0, length_ = 0;
  double share_ = 1.0;  // of guesses that were right
  int pause_ = 0, pause_next_ = kPauseFirst;
};

// Whether steps with a draft model's guesses bring more tokens in a second than steps without, for each order of
// magnitude (power of two) of running requests. Learnt from both kinds of steps; the slower kind is tried again ever
// more rarely.
class DraftPays {
 public:
  bool next(int running);  // whether the coming step drafts
  // A step of single tokens and what it took, all in all.
  void observe(int running, bool drafted, int tokens, double seconds);

 private:
  static constexpr int kFirst = 6;       // steps of either kind, at least asked for, before they are compared
  static constexpr double kKeep = 0.9;   // of the older mean, with each step
  static constexpr double kOutlier = 4;  // a machine that stood still tells nothing: no step counts for more means
  static constexpr int kTrialFirst = 64, kTrialMost = 2'048, kTrialSteps = 4;
  struct Mean {
    double seconds_token = 0;
    int steps = 0;
  };
  struct Size {
    Mean plain, drafted;
    int first = 2 * kFirst;  // steps until they are compared, drafted ones before plain ones
    int until_trial = kTrialFirst, period = kTrialFirst, trial = 0;
    bool trial_drafts = false;
  };
  static std::size_t size_of(int running);
  Size sizes_[12];
};

}  // namespace ganglion::local
