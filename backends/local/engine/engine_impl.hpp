#pragma once
// The inside of Engine: everything one model needs, and the loop that drives it. Private to this folder. The doors and
// the start are in engine.cpp, the loop in engine_step.cpp, text and events in engine_text.cpp.

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "backends/local/engine/active_request.hpp"
#include "backends/local/engine/engine.hpp"
#include "backends/local/engine/failures.hpp"
#include "backends/local/engine/page_pool.hpp"
#include "backends/local/engine/runner.hpp"
#include "backends/local/engine/step_cost.hpp"
#include "backends/local/engine/work_share.hpp"
#include "backends/local/grammar/compile.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count(); }

 private:
  std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
};

// The events of one step, so that whoever is told of many can be woken once.
class Telling {
 public:
  explicit Telling(const EngineHooks& hooks) : hooks_(hooks) {
    if (hooks_.telling) hooks_.telling(true);
  }
  ~Telling() {
    if (hooks_.telling) hooks_.telling(false);
  }
  Telling(const Telling&) = delete;
  Telling& operator=(const Telling&) = delete;

 private:
  const EngineHooks& hooks_;
};

struct Engine::Impl {
  Impl(const EngineOptions& options, EngineHooks hooks, Tokenizer tokenizer, ModelConfig config);
  ~Impl();

  core::Result<void> load();
  void start();
  core::Result<Handle> submit(GenerateRequest request, std::shared_ptr<GenerateSink> sink);
  void cancel(Handle handle);
  EngineStats stats() const;

  // Set before the thread starts, constant after.
  EngineOptions options_;
  EngineHooks hooks_;
  Tokenizer tokenizer_;
  ModelConfig config_;
  int context_max_ = 0;
  std::int64_t vocab_size_ = 0;
  std::string device_;  // where it runs, and why not on a GPU
  std::shared_ptr<const grammar::Vocabulary> vocabulary_;
  std::optional<grammar::GrammarStore> grammars_;

 private:
  struct StepCounts {
    int steps = 0, prompt_tokens = 0, sampled = 0, guessed = 0, right = 0;
    int drafted = 0, drafted_right = 0, draft_tokens = 0, draft_caught_up = 0;
    int tokens[kPriorityCount] = {0, 0};
    double seconds = 0, plan_seconds = 0, text_seconds = 0, device_seconds = 0;
    double draft_seconds = 0, draft_device_seconds = 0;  // the latter is not in device_seconds
  };
  struct Ending {
    std::unique_ptr<Sequence> sequence;        // already out of the scheduler
    FinishReason reason = FinishReason::none;  // error: there was no choice
  };
  // A token that was sampled and is not text yet. The request lives until it is told.
  struct Untold {
    ActiveRequest* request;
    Choice choice;
    int number;  // of the request's tokens
  };

  // The loop and its parts; engine thread only.
  void run();
  bool take_mail();  // newcomers and cancellations; false at the end
  // Takes a request out of the scheduler, to be told its end.
  void put_out(std::uint64_t id, FinishReason reason);
  void step();
  // The slices of a plan; they point into it, into its sequences and into samplings_.
  std::span<const Runner::Slice> slices_of(std::span<const Scheduler::Work> work, StepCounts& counts);
  core::Result<void> compute(std::span<const Runner::Slice> slices, StepCounts& counts);
  void guess(StepCounts& counts);  // what may follow, for those who run
  void draft(StepCounts& counts);  // the same by the draft model, for drafts_
  void fail_draft(const core::Error& error);
  void restart_draft(const Runner& target);
  void observe(const StepCounts& counts, int running);  // what the step has cost
  bool may_guess(const ActiveRequest& request) const;
  void keep_allowed(ActiveRequest& request);               // of its guesses, those that could be sampled
  void sample_after(ActiveRequest& request, int guessed);  // its samplings of a step
  const std::uint32_t* mask_of(ActiveRequest& request,
                               const grammar::Matcher* matcher);  // into masks_; null: all tokens
  void charge(std::span<const Scheduler::Work> work, double device_seconds);
  void advance(std::span<const Scheduler::Work> work, StepCounts& counts);
  int accept_all(ActiveRequest& request, int guessed, std::size_t first);
  // What a sampled token's id alone decides; none: the request goes on. `told`: the token has text.
  FinishReason accept(ActiveRequest& request, const Choice& choice, bool& told);
  void end_stopped();
  void publish(const StepCounts& counts);

  // Failures.
  void fail_all(const core::Error& error);  // needs no memory
  void fail_step(const core::Error& error);
  void restart();
  core::Result<void> renew(std::string& note);  // a new runner, and its draft
  void put_off_restart(std::string_view problem);
  void notice(std::string_view event, std::string_view problem) const;

  // Text and events.
  void tell();        // the sampled tokens, in order; before anybody's end is delivered
  void tell_first();  // of these, fast requests' first ones
  void tell(Untold& token);
  void deliver();  // the ends
  TokenLogprobs logprobs_of(const Choice& choice) const;
  void send(ActiveRequest& request, TextStream::Release&& release);
  void finish(ActiveRequest& request, FinishReason reason);
  void fail(ActiveRequest& request, const core::Error& error);

  core::Result<std::unique_ptr<Runner>> make_runner(std::string& note) const;
  core::Result<std::unique_ptr<Draft>> make_draft(const Runner& target) const;  // null: none is configured
  struct PageCounts {
    std::int64_t model = 0, draft = 0;
  };
  PageCounts count_pages(std::int64_t context) const;
  std::chrono::milliseconds retry_after(int queued) const;
  int regular_share(int total) const;
  bool is_long(std::size_t tokens) const;
  // Computed tokens are found by requests of the same space, adapter and kind of positions alone.
  std::string space_for(const std::string& space, int adapter, bool long_positions) const;
  core::Result<int> adapter_number(const std::string& id) const;
  std::vector<std::int32_t> end_ids() const;

  std::unique_ptr<Runner> runner_;  // null: out of service
  std::unique_ptr<Draft> draft_;    // null: none, or it has failed
  DraftPays draft_pays_;
  int draft_failures_ = 0;  // in a row
  std::int64_t draft_pages_ = 0;
  std::vector<Draft::Job> drafts_;
  std::optional<PagePool> pages_;
  std::optional<Scheduler> scheduler_;  // its sequences hold pages of the draft
  StepCost cost_;
  WorkShare share_;
  bool gave_up_ = false;     // the last step, half done
  int failures_ = 0;         // steps in a row
  bool pages_lost_ = false;  // what lies in them is not to be trusted, once nobody is here any more
  RestartPause restart_pause_;
  // Made beforehand: for when there is no memory.
  const core::Error broke_off_ = core::make_error(core::ErrorKind::internal, "the engine could not complete a step");
  const core::Error stopped_by_us_ = core::make_error(core::ErrorKind::shutting_down, "the engine is stopping");
  std::atomic<bool> fast_arrived_{false};
  std::vector<WorkShare::Part> parts_;
  std::vector<Runner::Sampling> samplings_;
  std::vector<Runner::Slice> slices_;
  std::vector<std::uint32_t> masks_;    // of a step, one after the other; the samplings point into it
  std::deque<TokenHistory> histories_;  // with guesses, where penalties look back on them; likewise
  std::vector<std::int32_t> guessing_;  // last tokens and guesses of a step; the slices point into it
  std::vector<Choice> choices_;
  std::vector<Untold> untold_;
  std::vector<std::uint64_t> stopped_;  // whose text has completed a stop string, and who may still be in the scheduler
  std::vector<Ending> endings_;         // decided, not yet told; without a sequence: told, or never decided
  std::vector<std::unique_ptr<Sequence>> joining_;  // mail that is being taken in
  std::vector<std::uint64_t> leaving_;

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<std::unique_ptr<Sequence>> arrived_;
  std::vector<std::uint64_t> cancelled_;
  EngineStats stats_;
  double request_seconds_ = 1.0;  // recent mean from queueing to the end
  std::uint64_t next_id_ = 1;
  bool stopping_ = false;

  std::thread thread_;
};

}  // namespace ganglion::local
