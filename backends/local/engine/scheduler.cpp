// Continuous batching: decodes first (one token each), then prompt chunks in order, then newcomers, up to the step's
// token budget.

#include "backends/local/engine/scheduler.hpp"

#include <algorithm>
#include <new>
#include <unordered_map>
#include <utility>

#include "backends/local/kernels/cpu/table.hpp"

namespace ganglion::local {
namespace {

int pages_for(int tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}
int pending(const Sequence& s) {
  return static_cast<int>(s.tokens.size()) - s.computed;
}
// None of its answer is there yet: whoever asked has seen nothing.
bool is_new(const Sequence& s) {
  return s.tokens.size() == s.asked;
}
// Where a sequence that shares with nobody keeps what it has computed while it waits again.
std::string space_of(const Sequence& s) {
  return s.space.empty() ? '#' + std::to_string(s.id) : ':' + s.space;
}

}  // namespace

bool Scheduler::before(const Sequence& a, const Sequence& b) {
  if (a.priority != b.priority) return a.priority == Priority::fast;
  return a.id < b.id;
}

// Room is made for all who may ever wait at once: one that must wait again is out of `running_` by then.
void Scheduler::add(std::unique_ptr<Sequence>&& sequence) {
  auto& queue = waiting_[index(sequence->priority)];
  const std::size_t all = queue.size() + running_.size() + 1;
  if (queue.capacity() < all) queue.reserve(std::max(all, 2 * queue.capacity()));
  sequence->asked = sequence->tokens.size();
  enqueue(std::move(sequence));
}

void Scheduler::enqueue(std::unique_ptr<Sequence>&& sequence) {
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
  if (out != nullptr) leave(*out);
  return out;
}

std::unique_ptr<Sequence> Scheduler::remove_one() {
  if (!running_.empty()) return remove(running_.front()->id);
  for (const auto& queue : waiting_) {
    if (!queue.empty()) return remove(queue.front()->id);
  }
  return nullptr;
}

void Scheduler::restart(std::uint64_t id, std::string space) {
  auto sequence = remove(id);  // leaves what it computed to others of the old space
  if (sequence == nullptr) return;
  sequence->pages.clear();
  sequence->computed = 0;
  sequence->space = std::move(space);
  enqueue(std::move(sequence));
}

// Takes pages until `tokens` tokens have a place. On failure what was taken stays with the sequence.
bool Scheduler::grow(Sequence& sequence, int tokens) {
  const auto wanted = static_cast<std::size_t>(pages_for(tokens));
  widen_table(sequence.pages, wanted);
  while (sequence.pages.size() < wanted) {
    const auto page = tree_.take();
    if (!page) return false;
    sequence.pages.push_back(*page);
  }
  return true;
}

// Puts the whole pages of what is computed into the tree.
void Scheduler::publish(Sequence& s) {
  if (s.computed / kPageTokens <= s.known) return;
  const auto computed = std::span(s.tokens).first(static_cast<std::size_t>(s.computed));
  s.known = tree_.publish(space_of(s), computed, s.pages, s.known);
}

// A sequence gives its pages up; what it computed is kept to be found, where there is memory to say so.
void Scheduler::part(Sequence& s, bool keep) {
  s.pages_gone();
  try {
    if (keep) publish(s);
  } catch (const std::bad_alloc&) {  // it is computed anew
  }
  tree_.release(s.pages);
  s.known = 0;
}

// A sequence goes for good: what it computed stays for others, or for nobody.
void Scheduler::leave(Sequence& s) {
  part(s, !s.space.empty());
  if (!s.space.empty() || s.preemptions == 0) return;
  try {
    tree_.forget(space_of(s), s.tokens);
  } catch (const std::bad_alloc&) {  // it goes when there is need of its room
  }
}

void Scheduler::preempt_last() {
  std::unique_ptr<Sequence> victim = std::move(running_.back());
  running_.pop_back();
  part(*victim, true);
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

int Scheduler::running(Priority priority) const {
  return static_cast<int>(
      std::count_if(running_.begin(), running_.end(), [=](const auto& s) { return s->priority == priority; }));
}

// Pages that could be had if the last `victims` of the running ones left.
int Scheduler::freed_by(int victims) const {
  std::unordered_map<std::int32_t, int> leaving;  // references that go, by page
  int freed = 0;
  for (auto at = running_.rbegin(); at != running_.rbegin() + victims; ++at) {
    for (const std::int32_t page : (*at)->pages) {
      const int stay = pages_.references(page) - ++leaving[page];
      freed += stay == (tree_.holds(page) ? 1 : 0) ? 1 : 0;
    }
  }
  return freed;
}

// Frees pages for a fast newcomer at the cost of regular ones, the last in order first; none, if that is not enough.
void Scheduler::make_way(int pages) {
  int most = tree_.available();  // at the most: pages may be shared
  int victims = 0;
  for (auto at = running_.rbegin();; ++at, ++victims) {
    const int needed = pages + running() - victims;
    if (most >= needed && tree_.available() + freed_by(victims) >= needed) break;
    if (at == running_.rend() || (*at)->priority == Priority::fast || (*at)->preemptions >= kGaveWayMax) return;
    most += static_cast<int>((*at)->pages.size());
  }
  for (; victims > 0; --victims) preempt_last();
}

bool Scheduler::admit(Priority priority) {
  auto& queue = waiting_[index(priority)];
  if (queue.empty() || running() >= limits_.batch_max) return false;
  if (priority == Priority::regular && limits_.batch_regular > 0 && running(priority) >= limits_.batch_regular)
    return false;
  Sequence& next = *queue.front();
  // What is known already is held before anything else, or it would be thrown out to make room.
  const auto all = static_cast<int>(next.tokens.size());
  tree_.match(space_of(next), next.tokens, next.pages);
  const int wanted = pages_for(all) - static_cast<int>(next.pages.size());
  if (priority == Priority::fast) make_way(wanted);
  // A page to spare for each running one, so that an admission is not followed by a preemption at once.
  if (wanted + running() > tree_.available()) {
    tree_.release(next.pages);
    return false;
  }
  next.guesses.clear();
  next.known = static_cast<int>(next.pages.size());
  // The last token is computed in any case: what follows it is wanted.
  next.computed = std::min(next.known * kPageTokens, all - 1);
  if (!std::exchange(next.admitted, true)) {
    next.reused = next.computed;
    reused_ += static_cast<std::uint64_t>(next.reused);
  }
  grow(next, all);
  auto at = std::find_if(running_.begin(), running_.end(), [&](const auto& other) { return before(next, *other); });
  running_.insert(at, std::move(queue.front()));
  queue.erase(queue.begin());
  return true;
}

bool Scheduler::admit_one() {
  const bool regular_waits = !waiting_[index(Priority::regular)].empty();
  if (!regular_waits) passed_over_ = 0;
  if (passed_over_ >= kPassedOverMax && admit(Priority::regular)) {
    passed_over_ = 0;
    return true;
  }
  if (waiting_[index(Priority::fast)].empty()) return admit(Priority::regular);
  if (!admit(Priority::fast)) return false;  // and nobody passes it
  if (regular_waits) ++passed_over_;
  return true;
}

// Gives back the pages that only guesses needed. Nobody else has seen them.
void Scheduler::trim(Sequence& s) {
  for (const auto most = static_cast<std::size_t>(pages_for(static_cast<int>(s.tokens.size())));
       s.pages.size() > most;) {
    pages_.release(s.pages.back());
    s.pages.pop_back();
  }
}

// How many of a sequence's guesses find a place, in its own pages or in free ones.
int Scheduler::room_for_guesses(Sequence& s, int left) {
  if (s.computed < s.known * kPageTokens) return 0;  // the last token is looked up, not computed
  const int tokens = static_cast<int>(s.tokens.size());
  const int wanted = std::min(left, static_cast<int>(s.guesses.size()));
  widen_table(s.pages, static_cast<std::size_t>(pages_for(tokens + std::max(wanted, 0))));
  while (static_cast<int>(s.pages.size()) < pages_for(tokens + wanted) && pages_.free() > 0) {
    s.pages.push_back(*pages_.take());
  }
  return std::clamp(static_cast<int>(s.pages.size()) * kPageTokens - tokens, 0, std::max(wanted, 0));
}

// Tokens for running_[begin, end), beginning with the turn-th; what was taken. Single ones go before chunks of prompts,
// but leave these `for_prompts`, if there are any.
int Scheduler::plan_some(std::size_t begin, std::size_t end, std::size_t turn, int budget, int for_prompts) {
  const std::size_t count = end - begin;
  int left = budget;
  std::vector<int> takes(count, 0);
  const auto take = [&](bool singles, int leave) {
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t at = (i + turn) % count;
      const int want = pending(*running_[begin + at]) - takes[at];
      if (want == 0 || (pending(*running_[begin + at]) == 1) != singles) continue;
      const int some = std::min(want, std::max(left - leave, 0));
      takes[at] += some, left -= some;
    }
  };
  take(true, for_prompts);
  take(false, 0);
  if (for_prompts > 0) take(true, 0);
  // Guesses have what is left when everybody has taken.
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = (i + turn) % count;
    Sequence& s = *running_[begin + at];
    const int more = takes[at] == 1 && pending(s) == 1 ? room_for_guesses(s, left) : 0;
    s.guesses.resize(static_cast<std::size_t>(more));
    takes[at] += more;
    left -= more;
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (takes[i] > 0) work_.push_back({running_[begin + i].get(), takes[i]});
  }
  return budget - left;
}

// The same for the regular ones, running_[begin, end()), who go on next time where this step ended. The budget may be
// less than one token each, for as long as anybody decodes: prompts have a quarter of it.
int Scheduler::plan_in_turn(std::size_t begin, int budget) {
  const std::size_t before = work_.size();
  const int used = plan_some(begin, running_.size(), turn_, budget, budget / 4);
  turn_ += work_.size() - before;
  return used;
}

// The fast ones' part of a step that runs to its end; what was taken. Leaves put_off_ above 0 where regular ones get
// nothing of it.
int Scheduler::plan_fast(int budget) {
  int taken = plan_some(0, static_cast<std::size_t>(running(Priority::fast)), 0, budget);
  if (limits_.alone_length <= 0) return taken;
  int own = 0;
  bool ends = true;
  for (const Work& w : work_) {
    if (!is_new(*w.sequence)) continue;
    own += w.tokens;
    ends = ends && w.tokens == pending(*w.sequence);
  }
  put_off_ = own > 0 && put_off_ < kPutOffMax ? put_off_ + 1 : 0;
  if (put_off_ == 1 && ends && own <= kOwnMax) {
    std::erase_if(work_, [](const Work& w) { return !is_new(*w.sequence); });
    taken = own;
  }
  return taken;
}

std::span<const Scheduler::Work> Scheduler::plan(double free_tokens) {
  work_.clear();
  for (const auto& s : running_) {
    if (!s->space.empty()) publish(*s);
  }
  for (const auto& s : running_) trim(*s);
  // Growth first, in order: whoever gives way here must not be in the step.
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (!make_room(*running_[i], static_cast<int>(running_[i]->tokens.size()))) break;
  }
  while (admit_one()) {
  }
  const auto fast = static_cast<std::size_t>(running(Priority::fast));
  // Fewer of many a step would cost too much of the rate where nothing is fixed.
  const int few = (running() + kFewShare - 1) / kFewShare;
  since_fast_ = fast > 0 ? 0 : std::min(since_fast_ + 1, kFastRecent);
  const bool alone = fast == 0 && limits_.alone_length > 0 && since_fast_ < kFastRecent;
  if (alone || fast == 0 || fast == running_.size() || limits_.fast_slowdown < 0) {
    allowance_ = 0, put_off_ = 0;
    if (alone) {
      plan_in_turn(0, std::clamp(static_cast<int>((limits_.alone_length - 1) * free_tokens), few,
                                 std::max(limits_.step_tokens_max, few)));
    } else {
      plan_some(0, running_.size(), 0, limits_.step_tokens_max);
    }
    return work_;
  }
  // Where a step runs to its end, what was put off is made up for in small parts: another fast one may come meanwhile.
  const int most = limits_.alone_length > 0 ? std::max(few, kBesideMax) : limits_.step_tokens_max;
  // Room for what was saved up is kept, or a long row of fast prompts would fill every step.
  const int saved = std::min({static_cast<int>(allowance_), most, limits_.step_tokens_max / 2});
  const int taken = plan_fast(limits_.step_tokens_max - saved);
  allowance_ += limits_.fast_slowdown * (free_tokens + taken);
  allowance_ = std::min(allowance_, static_cast<double>(limits_.step_tokens_max));
  const int may = std::min({static_cast<int>(allowance_), most, limits_.step_tokens_max - taken});
  if (put_off_ == 0) allowance_ -= plan_in_turn(fast, may);
  return work_;
}

}  // namespace ganglion::local
