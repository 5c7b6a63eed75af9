#pragma once
// A request inside the engine: what the scheduler sees of it, and what turns its logits into events. Engine thread
// only, once queued.

#include <chrono>
#include <memory>
#include <optional>
#include <unordered_set>

#include "backends/local/engine/draft.hpp"
#include "backends/local/engine/sampler.hpp"
#include "backends/local/engine/scheduler.hpp"
#include "backends/local/engine/speculation.hpp"
#include "backends/local/engine/text_stream.hpp"
#include "backends/local/grammar/matcher.hpp"

namespace ganglion::local {

struct ActiveRequest final : Sequence {
  void pages_gone() override {
    if (draft.owner != nullptr) draft.owner->drop(*this);
  }
  ActiveRequest(GenerateRequest r, std::shared_ptr<GenerateSink> s, const Tokenizer& tokenizer)
      : request(std::move(r)), sink(std::move(s)), text(tokenizer, std::move(request.stop), request.shown_ids) {
    if (request.grammar != nullptr) matcher.emplace(request.grammar);
  }

  GenerateRequest request;  // prompt and stop are moved out
  std::shared_ptr<GenerateSink> sink;
  TextStream text;
  TokenHistory history;
  std::optional<grammar::Matcher> matcher;  // of a constrained text
  PromptLookup lookup;
  GuessLength guess_length, draft_length;
  DraftState draft;
  bool drafted = false;                         // the guesses are the draft model's
  bool stuck = false;                           // the vocabulary has no token that the grammar allows
  bool no_room = false;                         // Choice::no_room of its last one
  std::unordered_set<std::int32_t> end_tokens;  // stop ids, and the model's own unless ignored
  std::uint64_t seed = 0;
  int prompt_tokens = 0;
  int tokens_max = 0;  // completion
  int generated = 0;
  int adapter = -1;
  bool long_positions = false;  // longrope: more tokens than the model was first made for
  double engine_seconds = 0;
  bool stopped = false;  // a stop string was completed: what was sampled since does not count
  std::chrono::steady_clock::time_point queued_at;

  GenerateUsage usage() const {
    return {prompt_tokens, reused, generated, static_cast<std::int64_t>(engine_seconds * 1e6 + 0.5)};
  }
};

}  // namespace ganglion::local
