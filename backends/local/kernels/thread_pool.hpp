#pragma once
// The engine's compute threads. One caller at a time splits a loop statically over all threads, itself included.
// Workers spin for a few tens of microseconds after each job (kernels follow each other closely), then sleep.

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace ganglion::local {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // total, the caller included; <= 0: one per core
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // The grain for items of about `cost` multiply-adds or elements each: a part worth less than some microseconds costs
  // more to hand over than to do, above all where other programs keep the cores busy.
  static constexpr std::int64_t grain_for(std::int64_t cost) {
    constexpr std::int64_t kPart = 65536;
    return cost > 0 && cost < kPart ? (kPart + cost - 1) / cost : 1;
  }

  // Calls f(begin, end, thread) so that [0, count) is covered once, each thread at most once with a contiguous range;
  // returns when all are done. Ranges are at least `grain` long where possible, so small loops stay on the caller.
  // f must not throw. Not reentrant; one caller at a time.
  template <class F>
  void split(std::int64_t count, std::int64_t grain, F&& f) {
    std::int64_t parts = grain > 1 ? count / grain : count;
    if (parts > size_) parts = size_;
    if (parts <= 1) {
      if (count > 0) f(std::int64_t{0}, count, 0);
      return;
    }
    struct Call {
      std::remove_reference_t<F>* f;
      std::int64_t count, parts;
    } call{&f, count, parts};
    run(
        [](void* p, int thread) {
          const Call& c = *static_cast<Call*>(p);
          if (thread >= c.parts) return;
          const std::int64_t begin = c.count * thread / c.parts;
          const std::int64_t end = c.count * (thread + 1) / c.parts;
          (*c.f)(begin, end, thread);
        },
        &call);
  }

 private:
  using Job = void (*)(void*, int);
  struct alignas(64) Line {  // one cache line each: the caller writes one, the workers the other
    std::atomic<std::int32_t> value{0};
  };

  void run(Job job, void* argument);
  void work(int thread);

  int size_;
  Line generation_;
  Line pending_;
  alignas(64) Job job_ = nullptr;
  void* argument_ = nullptr;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace ganglion::local
