#pragma once
// A small model that guesses tokens for a large one: its runner, its own pages, and the rounds in which it goes ahead
// of the texts, all requests that ask in one step of it at a time.
//
// Each guess is what the request's own sampler chooses from the draft's logits: with the request's parameters,
// penalties and mask, and with the random number that the model's choice at that place will be made with. So where the
// two models think alike they choose alike, and the model's choices are those that it would have made alone (ADR 17).
//
// Its pages are never taken from anybody: a request that finds none is not drafted for. Engine thread only.

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backends/local/engine/events.hpp"
#include "backends/local/engine/hooks.hpp"
#include "backends/local/engine/options.hpp"
#include "backends/local/engine/prefix_tree.hpp"
#include "backends/local/engine/runner.hpp"
#include "backends/local/engine/work_share.hpp"
#include "backends/local/grammar/matcher.hpp"

namespace ganglion::local {

class Draft;
class Tokenizer;
struct ActiveRequest;

// What a draft model has of a request's text.
struct DraftState {
  Draft* owner = nullptr;  // null: nothing
  std::vector<std::int32_t> pages;
  int computed = 0;                      // tokens of the text whose keys and values are in `pages`; and behind them
  std::vector<std::int32_t> tail;        //   those of guesses
  int known = 0;                         // of the pages, those in the tree: the first ones
  bool long_positions = false;           // longrope, by the draft's own length
  bool off = false;                      // the draft cannot go on with this text: too long, or a token it does not have
  std::optional<SamplingParams> params;  // the request's, but for what the draft has no use for
};

// Of the options of a model, those of its draft on `device`.
EngineOptions draft_options(const EngineOptions& options, const std::string& device);

// Whether two tokenizers give every id to the same token; else invalid_value, saying which differs.
core::Result<void> same_vocabulary(const Tokenizer& model, const Tokenizer& draft);

class Draft {
 public:
  // Reads the draft of `options` onto the device of `target`, the model's own runner. Errors name what is wrong with
  // it, and are meant for the operator.
  static core::Result<std::unique_ptr<Draft>> load(const EngineOptions& options, const EngineHooks& hooks,
                                                   const Tokenizer& tokenizer, const Runner& target);
  core::Result<void> reserve_pages(std::int64_t pages);  // once

  struct Job {
    ActiveRequest* request;  // whose next token is to be sampled
    int most;                // guesses, at least 1
  };
  struct Done {
    int tokens = 0;      // computed
    int caught_up = 0;   // of them, those that the texts had already, beyond one for each request
    double seconds = 0;  // on the device
  };
  // Sets the guesses of each request, none where it must first catch up with the text. `meanwhile` is called once,
  // while the device computes, where the runner overlaps. Breaks off where `give_up` comes true, with what it has
  // by then. On an error no request has guesses, and forget() is what is left to do.
  core::Result<Done> propose(std::span<const Job> jobs, const std::atomic<bool>& give_up,
                             const std::function<void()>& meanwhile);

  // Gives its pages back; what they hold of the text stays to be found, where there is memory for that.
  void drop(ActiveRequest& request);
  void forget();  // the pages hold nothing any more; nobody may have any

  std::int64_t context_max() const { return runner_->context_max(); }
  std::int64_t page_bytes() const { return runner_->page_bytes(); }
  std::size_t device_bytes() const { return runner_->device_bytes(); }
  bool broken() const { return runner_->broken(); }
  std::int64_t pages_total() const { return pages_->total(); }
  std::int64_t pages_used() const { return pages_->used() - tree_->idle(); }

 private:
  struct Ahead;  // a request's guesses in the making
  Draft(ModelConfig config, int step_tokens_max, std::int64_t target_vocab);
  bool begin(ActiveRequest& request, int most);
  bool is_long(std::size_t tokens) const;
  std::string space_of(const ActiveRequest& request) const;
  bool grow(DraftState& state, int tokens);
  void agree(ActiveRequest& request);
  void publish(ActiveRequest& request);
  void plan_round(std::span<Ahead> all, int round);
  core::Result<void> compute(const std::atomic<bool>& give_up, const std::function<void()>& meanwhile, Done& done);
  void take(Ahead& ahead, const Choice& choice);
  const std::uint32_t* mask_of(Ahead& ahead);
  const SamplingParams& params_of(ActiveRequest& request) const;

  ModelConfig config_;
  int step_tokens_max_;
  std::int64_t vocab_, target_vocab_;
  std::unique_ptr<Runner> runner_;
  std::optional<PagePool> pages_;
  std::optional<PrefixTree> tree_;
  WorkShare share_;

  // A round: one step of the draft.
  struct Part {
    Ahead* ahead;
    int tokens;
    bool sampled;
  };
  std::vector<Part> round_;
  std::vector<Runner::Sampling> samplings_;
  std::vector<Runner::Slice> slices_;
  std::vector<std::uint32_t> masks_;
  std::vector<std::int32_t> fed_;
  std::vector<Choice> choices_;
  std::vector<WorkShare::Part> work_;
};

}  // namespace ganglion::local
