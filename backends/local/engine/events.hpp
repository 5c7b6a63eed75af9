#pragma once
// What goes into the engine and what comes out of it, in token ids and text. No threads, no HTTP, no JSON.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local {

namespace grammar {
class Grammar;
}

inline constexpr int kTopLogprobsMax = 20;
inline constexpr int kStopStringsMax = 16;
inline constexpr int kStopStringBytesMax = 1024;

// How the next token is chosen. Applied in this order: logit_bias, repetition, frequency and presence penalty, the
// grammar's mask, temperature, top_k, top_p, min_p. Log-probabilities are those of the model itself, before any of
// these.
struct SamplingParams {
  float temperature = 1.0f;           // 0: greedy, ties to the lowest id
  float top_p = 1.0f;                 // (0, 1]
  int top_k = 0;                      // 0: off
  float min_p = 0.0f;                 // [0, 1): drop tokens less likely than min_p times the likeliest
  std::optional<std::uint64_t> seed;  // equal seed, prompt and parameters: equal tokens, whatever else is running
  float frequency_penalty = 0.0f;     // over generated tokens, as OpenAI defines it
  float presence_penalty = 0.0f;      // over generated tokens
  float repetition_penalty = 1.0f;    // over prompt and generated tokens, > 0
  std::unordered_map<std::int32_t, float> logit_bias;
  bool logprobs = false;  // report the chosen token's log-probability
  int top_logprobs = 0;   // and the likeliest tokens', 0..kTopLogprobsMax; needs logprobs
};

enum class Priority : std::uint8_t { regular, fast };  // waiting fast requests are admitted first
inline constexpr int kPriorityCount = 2;

struct GenerateRequest {
  std::vector<std::int32_t> prompt;  // at least one token
  SamplingParams sampling;
  int max_tokens = 0;             // <= 0: as many as the context holds
  std::vector<std::string> stop;  // never shown, nor anything after
  std::vector<std::int32_t> stop_token_ids;
  bool ignore_eos = false;  // the model's end tokens are then ordinary tokens
  Priority priority = Priority::regular;
  // Requests of one space find what others of it have computed of the same beginning; "": this one shares with nobody.
  std::string prefix_space;
  std::string adapter;  // id of one of EngineOptions::adapters; "": the bare model
  // What the text must be, from the engine's own grammars; null: anything. The text ends as soon as nothing can follow,
  // and the model's end tokens end it where it is complete, whatever ignore_eos says.
  std::shared_ptr<const grammar::Grammar> grammar;
  std::vector<std::int32_t> shown_ids;  // special tokens whose names are shown as text
};

enum class FinishReason : std::uint8_t { none, stop, length, cancelled, error };

struct TokenLogprob {
  std::int32_t id = 0;
  float logprob = 0.0f;  // natural logarithm
  std::string bytes;     // the token's own bytes; one token alone need not be valid UTF-8
};

struct TokenLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // likeliest first
};

struct GenerateUsage {
  int prompt_tokens = 0;
  int cached_prompt_tokens = 0;  // of prompt_tokens, those that earlier requests had computed
  int completion_tokens = 0;     // every sampled token: the end token and tokens cut away by a stop string count
  std::int64_t engine_us = 0;    // its share of the time that steps took on the device
};

// A request's events in order: any number of `token`, then exactly one of `done` or `error`.
struct GenerateEvent {
  enum class Kind : std::uint8_t { token, done, error };
  Kind kind = Kind::token;
  // token: text that follows what was sent before; valid UTF-8; never a stop string nor a beginning of one that
  // then completes. May be empty when a token has no text of its own and logprobs were asked for.
  std::string text;
  std::vector<std::int32_t> tokens;          // token: the ids whose text ends in this event
  std::vector<TokenLogprobs> logprobs;       // token: one per id in `tokens`, when asked for
  FinishReason finish = FinishReason::none;  // done, error
  GenerateUsage usage;                       // done, error: final counts
  core::Error error;                         // error
};

// Receives one request's events, on the engine's thread: hand them over and return, never block.
class GenerateSink {
 public:
  virtual ~GenerateSink() = default;
  virtual void on_event(GenerateEvent&& event) noexcept = 0;
  // After each step: the request's GenerateUsage::engine_us by now. There may be no event for long, or ever.
  virtual void on_charge(std::int64_t engine_us) noexcept { static_cast<void>(engine_us); }
};

struct EmbedResult {
  std::vector<std::vector<float>> vectors;  // one per input sequence, in order; pooled and normalised as configured
  int prompt_tokens = 0;
  std::int64_t engine_us = 0;  // its share of the time that passes took
};

// Receives the one outcome of an embedding request, on the engine's thread: hand over and return, never block.
class EmbedSink {
 public:
  virtual ~EmbedSink() = default;
  virtual void on_result(core::Result<EmbedResult>&& result) noexcept = 0;
};

// A request that was accepted. Ids are never used twice in one process.
struct Handle {
  std::uint64_t id = 0;
  friend bool operator==(const Handle&, const Handle&) = default;
};

// A snapshot of an engine's counters. Counts without "now" only grow.
struct EngineStats {
  int queued_now[kPriorityCount] = {0, 0};  // by Priority
  int running_now[kPriorityCount] = {0, 0};
  std::int64_t kv_pages_used_now = 0;    // by running requests
  std::int64_t kv_pages_cached_now = 0;  // kept for requests to come, and given up when there is need
  std::int64_t kv_pages_total = 0;
  std::uint64_t kv_pages_evicted = 0;  // of those kept, given up
  std::uint64_t weight_bytes = 0;      // packed; what one step reads
  std::uint64_t steps = 0;
  double step_seconds = 0;                             // time spent inside steps; of it:
  double device_seconds = 0;                           //   the device computed
  double plan_seconds = 0;                             //   deciding what to compute
  double text_seconds = 0;                             //   text and events
  std::uint64_t step_tokens_max = 0;                   // tokens that one step may have
  std::uint64_t step_tokens[kPriorityCount] = {0, 0};  // that steps had
  std::uint64_t prompt_tokens = 0;                     // computed, work redone after a preemption included
  std::uint64_t prefix_tokens = 0;                     // of prompts, found computed
  std::uint64_t generated_tokens = 0;
  std::uint64_t guessed_tokens = 0;        // by speculation; of them:
  std::uint64_t guessed_right_tokens = 0;  //   those that were sampled, too
  std::uint64_t drafted_tokens = 0;        // of guessed_tokens, those of a draft model; of them:
  std::uint64_t drafted_right_tokens = 0;  //   those that were sampled, too
  std::uint64_t draft_tokens = 0;          // that a draft model computed, prompts included
  double draft_seconds = 0;                // of step_seconds: the draft model
  std::int64_t draft_pages_used_now = 0;   // of the draft model's own store, by running requests
  std::int64_t draft_pages_total = 0;
  std::uint64_t accepted = 0;
  std::uint64_t finished = 0;  // done or error, cancelled included
  std::uint64_t cancelled = 0;
  std::uint64_t rejected_queue_full = 0;
  std::uint64_t rejected_context = 0;
  std::uint64_t preempted = 0;
  std::uint64_t failed = 0;           // ended by an error event
  std::uint64_t device_failures = 0;  // steps that the device failed
  std::uint64_t restarts = 0;         // after which it was back
  bool in_service = true;             // false: the device failed, and requests are refused until it is back
};

}  // namespace ganglion::local
