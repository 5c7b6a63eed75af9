// See replicas.hpp.

#include "backends/local/engine/replicas.hpp"

#include <algorithm>

#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

// A hash for every whole page of the prompt's beginning, each over all that comes before it, too. What it costs to be
// wrong is a prompt computed anew.
std::vector<std::uint64_t> ReplicaChooser::beginnings(const std::string& space,
                                                      std::span<const std::int32_t> prompt) const {
  std::vector<std::uint64_t> out;
  if (space.empty()) return out;
  std::uint64_t hash = std::hash<std::string>{}(space);
  const std::size_t pages = std::min<std::size_t>(prompt.size() / kPageTokens, kPagesMax);
  for (std::size_t i = 0; i < pages * kPageTokens; ++i) {
    hash = (hash ^ static_cast<std::uint32_t>(prompt[i])) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 29;
    if ((i + 1) % kPageTokens == 0) out.push_back(hash);
  }
  return out;
}

void ReplicaChooser::remember(std::span<const std::uint64_t> beginnings, std::size_t replica) {
  for (const std::uint64_t beginning : beginnings) {
    if (const auto found = at_.find(beginning); found != at_.end()) {
      found->second->replica = replica;
      known_.splice(known_.begin(), known_, found->second);
      continue;
    }
    known_.push_front({beginning, replica});
    at_[beginning] = known_.begin();
    if (known_.size() <= kRememberedMax) continue;
    at_.erase(known_.back().beginning);
    known_.pop_back();
  }
}

std::size_t ReplicaChooser::choose(const std::string& space, std::span<const std::int32_t> prompt,
                                   std::span<const State> states) {
  const auto pages = beginnings(space, prompt);
  const std::lock_guard lock(mutex_);
  // The least loaded one in service; equals take turns.
  std::size_t least = turn_++ % states.size();
  const auto better = [&](const State& a, const State& b) {
    return a.in_service != b.in_service ? a.in_service : a.load < b.load;
  };
  for (std::size_t i = 1; i < states.size(); ++i) {
    const std::size_t other = (turn_ - 1 + i) % states.size();
    if (better(states[other], states[least])) least = other;
  }
  std::size_t chosen = least;
  for (auto page = pages.rbegin(); page != pages.rend(); ++page) {
    const auto found = at_.find(*page);
    if (found == at_.end()) continue;
    const std::size_t known = found->second->replica;
    if (known < states.size() && states[known].in_service && states[known].load <= states[least].load + kPatience) {
      chosen = known;
    }
    break;
  }
  remember(pages, chosen);
  return chosen;
}

Result<std::unique_ptr<Replicas>> Replicas::load(const EngineOptions& options, int count, const EngineHooks& hooks) {
  std::unique_ptr<Replicas> out(new Replicas);
  for (int i = 0; i < std::max(count, 1); ++i) {
    auto engine = Engine::load(options, hooks);
    if (!engine) return std::unexpected(engine.error());
    out->engines_.push_back(std::move(*engine));
  }
  return out;
}

Result<Handle> Replicas::submit(GenerateRequest request, std::shared_ptr<GenerateSink> sink) {
  if (engines_.size() == 1) return engines_.front()->submit(std::move(request), std::move(sink));
  std::vector<ReplicaChooser::State> states;
  for (const auto& engine : engines_) {
    const EngineStats s = engine->stats();
    states.push_back({s.queued_now[0] + s.queued_now[1] + s.running_now[0] + s.running_now[1], s.in_service});
  }
  const std::size_t chosen = chooser_.choose(request.prefix_space, request.prompt, states);
  Result<Handle> refused = core::fail(ErrorKind::no_backend);
  for (std::size_t i = 0; i < engines_.size(); ++i) {
    const std::size_t index = (chosen + i) % engines_.size();
    auto handle = engines_[index]->submit(request, sink);
    if (handle) return outer(*handle, index);
    const bool elsewhere = handle.error().kind == ErrorKind::queue_full || handle.error().kind == ErrorKind::no_backend;
    if (!elsewhere) return handle;
    if (i == 0) refused = std::move(handle);  // what the one that should have it says
  }
  return refused;
}

void Replicas::cancel(Handle handle) {
  const std::uint64_t count = engines_.size();
  engines_[handle.id % count]->cancel({handle.id / count});
}

EngineStats Replicas::stats() const {
  EngineStats sum = engines_.front()->stats();
  for (std::size_t i = 1; i < engines_.size(); ++i) {
    const EngineStats s = engines_[i]->stats();
    for (const int tier : {0, 1}) {
      sum.queued_now[tier] += s.queued_now[tier];
      sum.running_now[tier] += s.running_now[tier];
      sum.step_tokens[tier] += s.step_tokens[tier];
    }
    sum.kv_pages_used_now += s.kv_pages_used_now, sum.kv_pages_cached_now += s.kv_pages_cached_now;
    sum.kv_pages_total += s.kv_pages_total, sum.kv_pages_evicted += s.kv_pages_evicted;
    sum.steps += s.steps, sum.step_seconds += s.step_seconds, sum.device_seconds += s.device_seconds;
    sum.plan_seconds += s.plan_seconds, sum.text_seconds += s.text_seconds;
    sum.prompt_tokens += s.prompt_tokens, sum.prefix_tokens += s.prefix_tokens;
    sum.generated_tokens += s.generated_tokens;
    sum.guessed_tokens += s.guessed_tokens, sum.guessed_right_tokens += s.guessed_right_tokens;
    sum.drafted_tokens += s.drafted_tokens, sum.drafted_right_tokens += s.drafted_right_tokens;
    sum.draft_tokens += s.draft_tokens, sum.draft_seconds += s.draft_seconds;
    sum.draft_pages_used_now += s.draft_pages_used_now, sum.draft_pages_total += s.draft_pages_total;
    sum.accepted += s.accepted, sum.finished += s.finished, sum.cancelled += s.cancelled;
    sum.rejected_queue_full += s.rejected_queue_full, sum.rejected_context += s.rejected_context;
    sum.preempted += s.preempted, sum.failed += s.failed;
    sum.device_failures += s.device_failures, sum.restarts += s.restarts;
    sum.in_service = sum.in_service || s.in_service;
  }
  return sum;
}

int Replicas::context_max() const {
  const auto smallest = std::ranges::min_element(engines_, {}, [](const auto& e) { return e->context_max(); });
  return (*smallest)->context_max();
}

std::string Replicas::device() const {
  std::string out;
  for (const auto& engine : engines_) out += (out.empty() ? "" : "; ") + engine->device();
  return out;
}

}  // namespace ganglion::local
