#pragma once
// Decides what each step computes: who runs, who waits, whose pages grow, who must give pages back. No model, no
// text, no threads: it is tested alone. Engine thread only.
//
// Order: fast before regular, then by arrival. A waiting sequence is admitted when the pages for all of its tokens
// are free, with one spare page for each running sequence. When a running one cannot grow, the last in order gives up
// its pages and waits again; what of them nobody needs meanwhile it finds again, the rest is recomputed. The first in
// order never gives way and fits alone by the caller's promise, so the work always goes on.
//
// Whole pages of computed tokens are kept in a PrefixTree, also when their sequence has ended: one that is admitted
// begins after the tokens that it finds there. Only sequences of one `space` find each other's.
//
// What makes fast fast: some places in the batch are not for regular sequences; a fast one that finds no pages takes
// those of regular ones; while a fast one runs, regular ones get only so many tokens of a step as lengthen it by
// `fast_slowdown`, and none of a step towards a fast one's first token, but kPutOffMax times in a row at most (of such
// a row's first step other fast ones get nothing either, if it is short and ends in that token); and for kFastRecent
// steps after it was gone the regular ones' own steps are kept short (`alone_length`, or one kFewShare-th of those that
// run), since the next fast one may come during any of them. What keeps regular ones from starving: that allowance is
// never nothing and adds up from step to step, taken in turn; after kPassedOverMax fast admissions a regular one is
// admitted first; and one that gave way to an admission kGaveWayMax times does not again.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/local/engine/events.hpp"
#include "backends/local/engine/prefix_tree.hpp"

namespace ganglion::local {

struct Sequence {
  virtual ~Sequence() = default;
  std::uint64_t id = 0;  // ascends with arrival
  Priority priority = Priority::regular;
  std::vector<std::int32_t> tokens;  // prompt, then what was generated
  int computed = 0;                  // tokens whose keys and values are in `pages`
  std::vector<std::int32_t> pages;
  int preemptions = 0;
  std::string space;  // whose computed tokens it may find and leave; "": its own alone
  int known = 0;      // of its pages, those that are in the tree: the first ones
  int reused = 0;     // tokens that others had computed when it was first admitted
  bool admitted = false;
  std::size_t asked = 0;  // tokens when it arrived: none of its answer while it has no more
  // What may follow `tokens`, set before a plan: the plan computes as many of them behind the last token as there is
  // room for, takes nobody's pages for them, and leaves here those that it did take. The next one gives their pages
  // back.
  std::vector<std::int32_t> guesses;
  // Its pages go: it has come to its end, or waits again. What was kept beside them is of no more use.
  virtual void pages_gone() {}
};

class Scheduler {
 public:
  struct Limits {
    int batch_max = 16;         // sequences in one step
    int step_tokens_max = 256;  // at least batch_max
    int batch_regular = 0;      // of batch_max, at most so many regular ones; 0: all
    double fast_slowdown = -1;  // of a step, as a share of its length without regular ones; < 0: any
    // For runners that cannot break off a step; 0: others. Of a step of regular ones alone, while fast ones come and
    // go, in lengths of a step's fixed part; the first step with a fast prompt is its own, and whatever fast_slowdown
    // allows, a step with fast ones has at most kBesideMax tokens of regular ones, or a kFewShare-th of those that run.
    double alone_length = 0;
  };
  static constexpr int kPassedOverMax = 8;
  static constexpr int kGaveWayMax = 3;
  static constexpr int kFastRecent = 1'000;
  static constexpr int kPutOffMax = 3;
  static constexpr int kFewShare = 8;
  static constexpr int kBesideMax = 64;
  static constexpr int kOwnMax = 256;  // tokens of a step that other fast ones wait for
  struct Work {
    Sequence* sequence;
    int tokens;  // compute tokens [computed, computed + tokens), the last guessed() of them being guesses
    int guessed() const { return std::max(sequence->computed + tokens - static_cast<int>(sequence->tokens.size()), 0); }
    // The one token of it lies in a page that is others' too: what follows it is wanted, its keys and values are there.
    bool kept() const { return sequence->computed < sequence->known * kPageTokens; }
  };

  Scheduler(PagePool& pages, Limits limits) : pages_(pages), tree_(pages), limits_(limits) {
    running_.reserve(static_cast<std::size_t>(std::max(limits_.batch_max, 1)));
  }

  // The caller promises that the sequence's pages at its longest are at most PagePool::total(). Where there is no
  // memory for it the sequence stays the caller's. Whatever is thrown later, none that is here is lost.
  void add(std::unique_ptr<Sequence>&& sequence);
  // Takes a sequence out, wherever it is, and frees its pages. Null when there is none of that id. Needs no memory.
  std::unique_ptr<Sequence> remove(std::uint64_t id);
  std::unique_ptr<Sequence> remove_one();  // likewise, whichever is first; null: nobody is here
  // A running sequence's tokens must be computed anew, in another space: it waits again, in its place by arrival.
  void restart(std::uint64_t id, std::string space);

  // The next step's work; pages are in place. `free_tokens`: how many tokens take as long as a step's fixed part
  // (StepCost). The caller computes it and then advances each sequence's `computed`, and appends a token where all were
  // computed. Sequences whose pages are in a step that is not computed yet must not be here twice: the next plan is
  // made when the last one is through. Valid until the next call of anything here. Empty only when nobody is here.
  std::span<const Work> plan(double free_tokens = 0);

  int running() const { return static_cast<int>(running_.size()); }
  std::span<const std::unique_ptr<Sequence>> sequences() const { return running_; }  // those that run, in order
  int running(Priority priority) const;
  int waiting(Priority priority) const { return static_cast<int>(waiting_[index(priority)].size()); }
  bool empty() const { return running_.empty() && waiting_[0].empty() && waiting_[1].empty(); }
  std::uint64_t preempted() const { return preempted_; }
  std::uint64_t reused() const { return reused_; }  // tokens found computed at first admissions
  const PrefixTree& tree() const { return tree_; }
  // The pages hold nothing any more (the device lost them). Nobody may be here.
  void forget_pages() { tree_.forget_all(); }

 private:
  static std::size_t index(Priority priority) { return static_cast<std::size_t>(priority); }
  static bool before(const Sequence& a, const Sequence& b);
  void enqueue(std::unique_ptr<Sequence>&& sequence);  // needs no memory: add() has seen to it
  bool grow(Sequence& sequence, int tokens);
  bool make_room(Sequence& sequence, int tokens);
  void preempt_last();
  void publish(Sequence& sequence);
  void part(Sequence& sequence, bool keep);
  void leave(Sequence& sequence);
  int freed_by(int victims) const;
  bool admit_one();
  bool admit(Priority priority);
  void make_way(int pages);
  void trim(Sequence& sequence);
  int room_for_guesses(Sequence& sequence, int left);
  int plan_some(std::size_t begin, std::size_t end, std::size_t turn, int budget, int for_prompts = 0);
  int plan_fast(int budget);
  int plan_in_turn(std::size_t begin, int budget);

  PagePool& pages_;
  PrefixTree tree_;
  Limits limits_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order
  std::vector<std::unique_ptr<Sequence>> waiting_[kPriorityCount];
  std::vector<Work> work_;
  std::uint64_t preempted_ = 0, reused_ = 0;
  int passed_over_ = 0;           // fast admissions since a regular one waits
  double allowance_ = 0;          // tokens that regular ones may take beside fast ones, saved up
  std::size_t turn_ = 0;          // which regular one is first to take of it
  int put_off_ = 0;               // steps in a row that were a fast prompt's own
  int since_fast_ = kFastRecent;  // plans without a fast one
};

}  // namespace ganglion::local
