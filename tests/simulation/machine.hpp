#pragma once
// A simulated machine for the whole product: threads that run one at a time, a clock that moves only when all of them
// wait, and a queue of events. The product is not changed for it: the simulation's program defines the functions of
// the C library by which programs lock, wait, ask the time, read and write (libc_*.cpp), and those come here. Which
// thread goes on, what fails and how long everything takes follows from one seed.
//
// Threads are real ones (so thread-local state is right) that pass a baton. Single-threaded in effect; not thread-safe.

#include <pthread.h>

#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

namespace ganglion::sim {

using Nanos = std::int64_t;
inline constexpr Nanos kMicro = 1'000;
inline constexpr Nanos kMilli = 1'000'000;
inline constexpr Nanos kSecond = 1'000'000'000;
inline constexpr Nanos kNever = INT64_MAX;

// splitmix64: small, and good enough to choose faults by.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : next() % n; }
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low + 1)));
  }
  bool percent(unsigned p) { return below(100) < p; }
  template <class List>
  const auto& of(const List& list) {
    return list[below(std::size(list))];
  }

 private:
  std::uint64_t state_;
};

struct Thread {
  int id = 0;
  int life = 0;  // of the process that it belongs to; 0: the simulation's own
  pthread_t handle{};
  int tid = 0;
  int go = 0;  // the futex it waits on while another runs
  bool die = false;
  bool done = false;
  bool runnable = true;
  bool timed_out = false;
  const void* waits_for = nullptr;
  Nanos deadline = kNever;
  int held = 0;  // mutexes
  void* (*start)(void*) = nullptr;
  void* argument = nullptr;
};

class Machine {
 public:
  explicit Machine(std::uint64_t seed);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  Random random;         // the world's
  Random schedule;       // who runs next
  Random secrets;        // what the product draws
  Nanos now = 0;         // since the machine was switched on
  Nanos wall_jump = 0;   // the wall clock alone
  unsigned preempt = 5;  // percent of the points where a thread may lose the processor

  void at(Nanos delay, std::function<void()> event);

  // Runs `main` as a process's first thread until it returns, or until crash(); then every thread of it is gone. True:
  // it returned. `limit`: of simulated time; past it the life counts as hung (hung() is true).
  bool run_life(std::function<void()> main, Nanos limit);
  void crash_at(Nanos time) { crash_at_ = time; }
  bool hung() const { return hung_; }
  int life() const { return life_; }

  // For the C library's functions, on a simulated thread.
  void pass_time(Nanos by) {
    now += by;
    if (now >= crash_at_ && current_ != &controller_) die_here();  // with locks held, too
  }
  void point();                                 // others may go on first
  bool block(const void* key, Nanos deadline);  // false: the deadline came
  void wake(const void* key, bool all = true);  // all who wait for it, or one
  int start_thread(pthread_t* handle, const pthread_attr_t* attributes, void* (*start)(void*), void* argument);
  bool join(pthread_t handle);     // until it is done
  bool dead_owner(int tid) const;  // of a life that has ended
  Thread* current() const { return current_; }

  void trace(std::string_view line);
  const std::vector<std::string>& lines() const { return lines_; }
  std::uint64_t digest() const { return digest_; }  // of all that was traced and scheduled

  static void* thread_main(void* raw);

 private:
  struct Event {
    Nanos time;
    std::uint64_t order;
    std::function<void()> run;
    bool operator>(const Event& other) const { return time != other.time ? time > other.time : order > other.order; }
  };
  void reschedule();
  void die_here();
  Thread* choose();
  void hand_over(Thread* next);
  void wait_go(Thread* self);
  void await_leaving();
  void finish(Thread* self);
  void due();
  void note(std::uint64_t value) { digest_ = (digest_ ^ value) * 0x100000001b3ULL; }

  std::vector<Thread*> threads_;
  std::vector<int> dead_;  // tids
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::uint64_t order_ = 0;
  Thread* current_ = nullptr;
  Thread controller_;
  int leaving_ = 0;  // the tid of a thread that has given the baton away for the last time
  int life_ = 0;
  int next_id_ = 1;
  Nanos limit_ = kNever;
  Nanos crash_at_ = kNever;
  bool life_over_ = false;
  bool crash_ = false;
  bool hung_ = false;
  std::uint64_t digest_ = 0xcbf29ce484222325ULL;
  std::vector<std::string> lines_;
};

// nullptr: none runs, or the caller is no thread of it; then the C library's own functions are used.
Machine* machine();
extern Machine* g_machine;

// Locks of readers and writers whose holders have died with their life are free (libc_threads.cpp).
void free_locks();

// The next definition of a C function: the C library's own.
void* next_symbol(const char* name, const char* version = nullptr);

}  // namespace ganglion::sim
