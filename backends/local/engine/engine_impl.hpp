#pragma once
// The inside of Engine: everything one model needs, and the loop that drives it. Private to this folder.

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "backends/local/engine/active_request.hpp"
#include "backends/local/engine/engine.hpp"
#include "backends/local/engine/page_pool.hpp"
#include "backends/local/engine/runner.hpp"
#include "backends/local/engine/step_cost.hpp"
#include "backends/local/tokenizer/tokenizer.hpp"

namespace ganglion::local {

struct Engine::Impl {
  Impl(const EngineOptions& options, Tokenizer tokenizer, ModelConfig config)
      : options_(options), tokenizer_(std::move(tokenizer)), config_(std::move(config)) {}
  ~Impl();

  core::Result<void> load();
  void start();
  core::Result<Handle> submit(GenerateRequest request, std::shared_ptr<GenerateSink> sink);
  void cancel(Handle handle);
  EngineStats stats() const;

  // Set before the thread starts, constant after.
  EngineOptions options_;
  Tokenizer tokenizer_;
  ModelConfig config_;
  int context_max_ = 0;
  std::string device_;  // where it runs, and why not on a GPU

 private:
  // The loop and its parts; engine thread only.
  struct StepCounts {
    int steps = 0, prompt_tokens = 0, sampled = 0;
    int tokens[kPriorityCount] = {0, 0};
    double seconds = 0, plan_seconds = 0, text_seconds = 0;
  };
  void run();
  bool take_mail();  // newcomers and cancellations; false at the end
  // The slices of a plan; they point into it, into its sequences and into samplings_.
  std::span<const Runner::Slice> slices_of(std::span<const Scheduler::Work> work, StepCounts& counts);
  void step();
  struct Ending {
    std::unique_ptr<Sequence> sequence;  // already out of the scheduler
    FinishReason reason;                 // error: the logits were not numbers
  };
  void advance(std::span<const Scheduler::Work> work);
  void deliver();
  void publish(const StepCounts& counts);
  // A sampled token's consequences; none: the request goes on.
  FinishReason accept(ActiveRequest& request, const Choice& choice);
  TokenLogprobs logprobs_of(const Choice& choice) const;
  void send(ActiveRequest& request, TextStream::Release&& release);
  void finish(ActiveRequest& request, FinishReason reason);
  void fail(ActiveRequest& request, core::Error error);
  void fail_all(const core::Error& error);
  void fail_step(const core::Error& error);

  std::chrono::milliseconds retry_after(int queued) const;
  int regular_share(int total) const;

  std::unique_ptr<Runner> runner_;
  std::optional<PagePool> pages_;
  std::optional<Scheduler> scheduler_;
  StepCost cost_;
  bool gave_up_ = false;  // the last step, half done
  std::atomic<bool> fast_arrived_{false};
  std::vector<Runner::Sampling> samplings_;
  std::vector<Runner::Slice> slices_;
  std::vector<Choice> choices_;
  std::vector<Ending> endings_;  // decided, not yet told

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable wake_;
  std::vector<std::unique_ptr<ActiveRequest>> arrived_;
  std::vector<std::uint64_t> cancelled_;
  EngineStats stats_;
  double request_seconds_ = 1.0;  // recent mean from queueing to the end
  std::uint64_t next_id_ = 1;
  bool stopping_ = false;
  bool broken_ = false;  // the device failed for good: nothing more is taken

  std::thread thread_;
};

}  // namespace ganglion::local
