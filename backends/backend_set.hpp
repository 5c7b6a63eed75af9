#pragma once
// The backends that serve one model name, and the rule for trying them: pick by tier, retry and fall back only while
// no byte of an answer has been taken, never past the deadline. One per worker (backends hold the worker's pools);
// health is shared by all workers.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.hpp"
#include "backends/health.hpp"
#include "backends/latency.hpp"
#include "backends/model_rest.hpp"
#include "backends/remote/options.hpp"

namespace ganglion::backends {

// One try, for the ledger and the log: every upstream attempt is accounted for.
struct Attempt {
  std::string_view backend;                           // owned by the backend
  core::ErrorKind outcome = core::ErrorKind::kCount;  // kCount: answered with 2xx
  int status = 0;                                     // upstream status, 0 if none came
};

// Told of every try of one backend, by all workers at once.
class AttemptHooks {
 public:
  virtual ~AttemptHooks() = default;
  // `time`: from the dispatch to the answer's head or the failure. `retry`: not the request's first try.
  virtual void attempted(const Attempt& attempt, std::chrono::nanoseconds time, bool retry) = 0;
};

struct Target {
  Backend* backend = nullptr;                                       // owned by the worker's runtime
  std::shared_ptr<Health> health;                                   // of the backend, not of the model
  std::shared_ptr<Latency> latency;                                 // of the backend under this upstream model
  std::shared_ptr<ModelRest> rest = std::make_shared<ModelRest>();  // likewise
  std::string upstream_model;                                       // what the backend calls the model
  std::uint32_t weight = 1;
  AttemptHooks* hooks = nullptr;  // of the backend; outlives the set; null: nobody counts
  // For what is reserved before a dispatch; 0: not known.
  std::uint64_t output_tokens_max = 0;   // of the longest answer
  std::uint64_t context_tokens_max = 0;  // of prompt and answer; known of models served here
};

struct Started {
  std::unique_ptr<Answer> answer;
  const Target* target = nullptr;
};

// Makes the body for a target: the model name differs between backends, so each attempt gets its own bytes, which
// must stay valid until the attempt's Answer is gone. Called right before each dispatch (the ledger writes here); an
// error ends the start with it.
using BodyFor = std::function<core::Result<core::TextParts>(const Target&)>;

class BackendSet {
 public:
  BackendSet(std::string model, std::vector<Target> targets);

  const std::string& model() const { return model_; }
  const std::vector<Target>& targets() const { return targets_; }

  // Tries targets until one answers 2xx. What refuses the gateway (401, 402, 403) or does not know the model (404) is
  // not asked again, but a target that was not tried yet is. `call.model` and `call.body` are set here per attempt.
  // `attempts` gets one entry per try, also on failure. `rejection` holds the last upstream error answer.
  boost::asio::awaitable<core::Result<Started>> start(Call& call, const RetryOptions& retry, const BodyFor& body_for,
                                                      std::vector<Attempt>& attempts, Rejection& rejection);

 private:
  // fast: the lowest measured latency, times the fast requests already there; regular: the fewest requests in flight
  // by weight, so it takes what capacity is spare. Ties in turn.
  const Target* pick(api::Tier tier, core::SteadyTime now, std::span<const Target* const> tried);
  // Why pick() finds nothing at all, and when it will: a limit of the providers' where only that is in the way.
  core::Error nobody(core::SteadyTime now, Rejection& rejection) const;

  std::string model_;
  std::vector<Target> targets_;
  std::size_t turn_ = 0;
  std::uint64_t jitter_state_;
};

// Waits, or returns false at once when the request is cancelled or its deadline comes first.
boost::asio::awaitable<bool> pause(std::chrono::nanoseconds time, core::Deadline deadline, core::CancelSource& cancel);

}  // namespace ganglion::backends
