#pragma once
// Guessing tokens ahead, so that one step can check several: what may follow, from the text's own earlier words
// (PromptLookup), and how many guesses are worth their work (GuessLength). A guess never changes an answer: the model
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

}  // namespace ganglion::local
