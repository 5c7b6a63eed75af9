#pragma once
// The engine's compute threads. One caller at a time cuts a loop into even parts that the threads, itself included,
// claim in order. A worker that the system has not scheduled claims nothing and is not waited for, so other programs on
// the cores slow a step down but do not stall it. Workers spin for a few tens of microseconds after each job (kernels
// follow each other closely), then sleep.

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

  // Calls f(begin, end, thread) so that [0, count) is covered once, in contiguous ranges of `grain` or more where
  // possible; a loop too small for two ranges stays on the caller. One thread may get several ranges, or none.
  // Returns when all are done. f must not throw. Not reentrant; one caller at a time.
  template <class F>
  void split(std::int64_t count, std::int64_t grain, F&& f) {
    std::int64_t parts = grain > 1 ? count / grain : count;
    if (parts > size_ * kPartsEach) parts = size_ * kPartsEach;
    if (parts <= 1 || size_ == 1) {
      if (count > 0) f(std::int64_t{0}, count, 0);
      return;
    }
    struct Call {
      std::remove_reference_t<F>* f;
      std::int64_t count, parts;
    } call{&f, count, parts};
    run(
        [](void* p, int part, int thread) {
          const Call& c = *static_cast<Call*>(p);
          (*c.f)(c.count* part / c.parts, c.count * (part + 1) / c.parts, thread);
        },
        &call, static_cast<std::uint32_t>(parts));
  }

 private:
  using Job = void (*)(void*, int part, int thread);
  static constexpr int kPartsEach = 4;  // enough to even out a thread that comes late, few enough to stream memory
  static constexpr int kThreadsMax = 512;

  void run(Job job, void* argument, std::uint32_t parts);
  void work(int thread);
  bool claim_one(int thread);

  int size_;
  // Each on a cache line of its own.
  // Job number (32 bits), its parts (16), and the next unclaimed one (16): claimed by compare and swap, so that a
  // worker that read an older job's ticket cannot take a part of this one.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<std::int32_t> done_{0};        // parts of the job at hand
  alignas(64) std::atomic<std::int32_t> generation_{0};  // what sleeping workers wait on
  alignas(64) Job job_ = nullptr;
  void* argument_ = nullptr;
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace ganglion::local
