// Continuous batching: decodes first (one token each), then prompt chunks in order, then newcomers, up to the step's
// token budget.

#include "backends/local/engine/scheduler.hpp"

#include <algorithm>

#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {
namespace {

int pages_for(int tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}
int pending(const Sequence& s) {
  return static_cast<int>(s.tokens.size()) - s.computed;
}

}  // namespace

bool Scheduler::before(const Sequence& a, const Sequence& b) {
  if (a.priority != b.priority) return a.priority == Priority::fast;
  return a.id < b.id;
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  enqueue(std::move(sequence));
}

void Scheduler::enqueue(std::unique_ptr<Sequence> sequence) {
  auto& queue = waiting_[index(sequence->priority)];
  auto at = std::find_if(queue.rbegin(), queue.rend(), [&](const auto& other) { return other->id < sequence->id; });
  queue.insert(at.base(), std::move(sequence));
}

std::unique_ptr<Sequence> Scheduler::remove(std::uint64_t id) {
  work_.clear();
  const auto same = [id](const auto& s) { return s->id == id; };
  std::unique_ptr<Sequence> out;
  if (auto at = std::find_if(running_.begin(), running_.end(), same); at != running_.end()) {
    out = std::move(*at);
    running_.erase(at);
  } else {
    for (auto& queue : waiting_) {
      auto found = std::find_if(queue.begin(), queue.end(), same);
      if (found == queue.end()) continue;
      out = std::move(*found);
      queue.erase(found);
      break;
    }
  }
  if (out != nullptr) pages_.release_all(out->pages);
  return out;
}

std::vector<std::unique_ptr<Sequence>> Scheduler::remove_all() {
  work_.clear();
  std::vector<std::unique_ptr<Sequence>> out = std::move(running_);
  running_.clear();
  for (auto& queue : waiting_) {
    for (auto& sequence : queue) out.push_back(std::move(sequence));
    queue.clear();
  }
  for (auto& sequence : out) pages_.release_all(sequence->pages);
  return out;
}

// Takes pages until `tokens` tokens have a place. On failure what was taken stays with the sequence.
bool Scheduler::grow(Sequence& sequence, int tokens) {
  const auto wanted = static_cast<std::size_t>(pages_for(tokens));
  while (sequence.pages.size() < wanted) {
    const auto page = pages_.take();
    if (!page) return false;
    sequence.pages.push_back(*page);
  }
  return true;
}

void Scheduler::preempt_last() {
  std::unique_ptr<Sequence> victim = std::move(running_.back());
  running_.pop_back();
  pages_.release_all(victim->pages);
  victim->computed = 0;
  ++victim->preemptions;
  ++preempted_;
  enqueue(std::move(victim));
}

// Grows at the cost of those later in the order. False when the sequence itself had to give way.
bool Scheduler::make_room(Sequence& sequence, int tokens) {
  while (!grow(sequence, tokens)) {
    const bool self = running_.back().get() == &sequence;
    preempt_last();
    if (self) return false;
  }
  return true;
}

bool Scheduler::admit_one() {
  if (running() >= limits_.batch_max) return false;
  auto& queue =
      waiting_[index(Priority::fast)].empty() ? waiting_[index(Priority::regular)] : waiting_[index(Priority::fast)];
  if (queue.empty()) return false;
  Sequence& next = *queue.front();
  const int spare = running();  // so that an admission is not followed by a preemption at once
  if (pages_for(static_cast<int>(next.tokens.size())) + spare > pages_.free()) return false;
  grow(next, static_cast<int>(next.tokens.size()));
  auto at = std::find_if(running_.begin(), running_.end(), [&](const auto& other) { return before(next, *other); });
  running_.insert(at, std::move(queue.front()));
  queue.pop_front();
  return true;
}

std::span<const Scheduler::Work> Scheduler::plan() {
  work_.clear();
  // Growth first, in order: whoever gives way here must not be in the step.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (!make_room(*running_[i], static_cast<int>(running_[i]->tokens.size()))) break;
  }
  while (admit_one()) {
  }
  int budget = limits_.step_tokens_max;
  for (const auto& sequence : running_) {
    if (pending(*sequence) == 1) --budget;
  }
  for (const auto& sequence : running_) {
    const int want = pending(*sequence);
    const int take = want == 1 ? 1 : std::min(want, std::max(budget, 0));
    if (take == 0) continue;
    if (want > 1) budget -= take;
    work_.push_back({sequence.get(), take});
  }
  return work_;
}

}  // namespace ganglion::local
