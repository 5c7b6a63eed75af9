// See machine.hpp.

#include "tests/simulation/machine.hpp"

#include <dlfcn.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdio>
#include <cstdlib>

namespace ganglion::sim {

Machine* g_machine = nullptr;

namespace {

thread_local Thread* t_self = nullptr;

void futex_wait(int* word) {
  while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == 0)
    ::syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
}

void futex_wake(int* word) {
  __atomic_store_n(word, 1, __ATOMIC_RELEASE);
  ::syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace

Machine* machine() {
  return t_self != nullptr ? g_machine : nullptr;
}

void* next_symbol(const char* name, const char* version) {
  void* const found = version != nullptr ? ::dlvsym(RTLD_NEXT, name, version) : ::dlsym(RTLD_NEXT, name);
  if (found == nullptr) {
    std::fprintf(stderr, "simulation: the C library has no %s\n", name);
    std::abort();
  }
  return found;
}

std::uint64_t Random::next() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

Machine::Machine(std::uint64_t seed) : random(seed), schedule(seed ^ 0x5ced01eULL), secrets(seed ^ 0x5ec2e75ULL) {
  controller_.tid = static_cast<int>(::syscall(SYS_gettid));
  t_self = current_ = &controller_;
  g_machine = this;
}

Machine::~Machine() {
  g_machine = nullptr;
  t_self = nullptr;
}

void Machine::at(Nanos delay, std::function<void()> event) {
  events_.push({.time = now + std::max<Nanos>(delay, 0), .order = order_++, .run = std::move(event)});
}

void Machine::due() {
  while (!events_.empty() && events_.top().time <= now && !crash_) {
    const auto run = std::move(const_cast<Event&>(events_.top()).run);
    events_.pop();
    run();
  }
}

// The thread to go on: the controller where the life is over.
Thread* Machine::choose() {
  for (;;) {
    due();
    if (now >= crash_at_) crash_ = true;
    if (now > limit_ && !life_over_) hung_ = crash_ = true;
    if (crash_ || life_over_) return &controller_;
    std::size_t ready = 0;
    for (Thread* thread : threads_) {
      if (!thread->runnable && thread->deadline <= now) {
        thread->runnable = thread->timed_out = true;
        thread->waits_for = nullptr;
      }
      ready += thread->runnable ? 1 : 0;
    }
    if (ready > 0) {
      std::uint64_t pick = ready == 1 ? 0 : schedule.below(ready);
      for (Thread* thread : threads_)
        if (thread->runnable && pick-- == 0) return thread;
    }
    Nanos next = events_.empty() ? kNever : events_.top().time;
    for (const Thread* thread : threads_) next = std::min(next, thread->deadline);
    next = std::min(next, crash_at_);
    if (next == kNever) {  // nothing will ever happen again
      hung_ = crash_ = true;
      continue;
    }
    now = std::max(now, next);
  }
}

void Machine::hand_over(Thread* next) {
  current_ = next;
  futex_wake(&next->go);
}

void Machine::wait_go(Thread* self) {
  futex_wait(&self->go);
  self->go = 0;
  if (self->die) ::syscall(SYS_exit, 0);
  await_leaving();
}

// What the C library frees for a thread that is done must not happen beside the next one: what is where in memory would
// be chance.
void Machine::await_leaving() {
  if (leaving_ == 0) return;
  while (::syscall(SYS_tgkill, ::syscall(SYS_getpid), leaving_, 0) == 0) ::syscall(SYS_sched_yield);
  leaving_ = 0;
}

void Machine::reschedule() {
  Thread* const self = current_;
  Thread* const next = choose();
  note(static_cast<std::uint64_t>(next->id) ^ static_cast<std::uint64_t>(now) << 8);
  if (next == self) return;
  hand_over(next);
  wait_go(self);
}

void Machine::die_here() {
  crash_ = true;
  reschedule();
}

void Machine::point() {
  if (current_ == &controller_ || current_->held > 0) return;
  if (crash_ || (!events_.empty() && events_.top().time <= now) || schedule.percent(preempt)) reschedule();
}

bool Machine::block(const void* key, Nanos deadline) {
  Thread* const self = current_;
  self->runnable = self->timed_out = false;
  self->waits_for = key;
  self->deadline = deadline;
  reschedule();
  self->deadline = kNever;
  return !self->timed_out;
}

void Machine::wake(const void* key, bool all) {
  std::vector<Thread*> waiting;
  for (Thread* thread : threads_)
    if (!thread->runnable && thread->waits_for == key) waiting.push_back(thread);
  if (waiting.empty()) return;
  if (!all) waiting = {waiting[schedule.below(waiting.size())]};
  for (Thread* thread : waiting) {
    thread->runnable = true;
    thread->waits_for = nullptr;
    thread->deadline = kNever;
  }
}

void* Machine::thread_main(void* raw) {
  auto* const self = static_cast<Thread*>(raw);
  self->tid = static_cast<int>(::syscall(SYS_gettid));
  futex_wait(&self->go);
  self->go = 0;
  if (self->die) ::syscall(SYS_exit, 0);
  g_machine->await_leaving();
  t_self = self;
  void* const result = self->start(self->argument);
  g_machine->finish(self);
  return result;
}

// The last that a thread does with the baton. Whoever gets it waits until the C library is done with this one, too.
void Machine::finish(Thread* self) {
  self->done = true;
  std::erase(threads_, self);
  wake(self);
  t_self = nullptr;
  leaving_ = self->tid;
  hand_over(choose());
}

int Machine::start_thread(pthread_t* handle, const pthread_attr_t* attributes, void* (*start)(void*), void* argument) {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = reinterpret_cast<Create>(next_symbol("pthread_create"));
  auto* const thread = new Thread{.id = next_id_++, .life = life_, .start = start, .argument = argument};
  if (const int error = create(&thread->handle, attributes, &Machine::thread_main, thread); error != 0) return error;
  *handle = thread->handle;
  threads_.push_back(thread);
  return 0;
}

bool Machine::join(pthread_t handle) {
  const auto found = std::ranges::find_if(threads_, [&](Thread* t) { return pthread_equal(t->handle, handle) != 0; });
  if (found == threads_.end()) return true;
  Thread* const thread = *found;
  while (!thread->done) block(thread, kNever);
  return true;
}

bool Machine::dead_owner(int tid) const {
  return std::ranges::find(dead_, tid) != dead_.end();
}

bool Machine::run_life(std::function<void()> main, Nanos limit) {
  ++life_;
  life_over_ = crash_ = hung_ = false;
  limit_ = now + limit;
  pthread_t handle{};
  auto body = [&] {
    main();
    life_over_ = true;
  };
  using Body = decltype(body);
  const auto trampoline = +[](void* raw) -> void* {
    (*static_cast<Body*>(raw))();
    return nullptr;
  };
  start_thread(&handle, nullptr, trampoline, &body);
  reschedule();
  const bool returned = life_over_ && !crash_;
  using Join = int (*)(pthread_t, void**);
  static const auto join_now = reinterpret_cast<Join>(next_symbol("pthread_join"));
  for (Thread* thread : threads_) {
    dead_.push_back(thread->tid);
    thread->die = true;
    futex_wake(&thread->go);
    join_now(thread->handle, nullptr);  // its stack serves others
    delete thread;
  }
  threads_.clear();
  if (!returned) free_locks();
  events_ = {};
  limit_ = crash_at_ = kNever;
  return returned;
}

void Machine::trace(std::string_view line) {
  for (const char c : line) note(static_cast<std::uint8_t>(c));
  char time[32];
  std::snprintf(time, sizeof time, "%12.6f ", static_cast<double>(now) * 1e-9);
  lines_.push_back(time + std::string{line});
}

}  // namespace ganglion::sim
