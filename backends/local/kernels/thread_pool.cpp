// Fork-join by a generation counter and a countdown, both futex-sized atomics.

#include "backends/local/kernels/thread_pool.hpp"

namespace ganglion::local {
namespace {

// About 10-40 us, a pause being 40 to 140 cycles: longer than the gap between two kernels of one step, far shorter than
// an idle period, and not much lost where other programs want the core.
constexpr int kSpins = 600;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads)
    : size_(threads > 0 ? threads : static_cast<int>(std::thread::hardware_concurrency())) {
  if (size_ < 1) size_ = 1;
  if (size_ > 512) size_ = 512;
  threads_.reserve(static_cast<std::size_t>(size_ - 1));
  for (int i = 1; i < size_; ++i) threads_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.value.fetch_add(1, std::memory_order_release);
  generation_.value.notify_all();
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::run(Job job, void* argument) {
  job_ = job;
  argument_ = argument;
  pending_.value.store(size_ - 1, std::memory_order_relaxed);
  generation_.value.fetch_add(1, std::memory_order_release);
  generation_.value.notify_all();  // a load only, when nobody sleeps
  job(argument, 0);
  for (int spin = 0; pending_.value.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins) {
      pause();
      continue;
    }
    const std::int32_t left = pending_.value.load(std::memory_order_acquire);
    if (left != 0) pending_.value.wait(left, std::memory_order_acquire);
  }
}

void ThreadPool::work(int thread) {
  std::int32_t seen = 0;
  for (;;) {
    std::int32_t now = generation_.value.load(std::memory_order_acquire);
    for (int spin = 0; now == seen && spin < kSpins; ++spin) {
      pause();
      now = generation_.value.load(std::memory_order_acquire);
    }
    if (now == seen) {
      generation_.value.wait(seen, std::memory_order_acquire);
      continue;
    }
    seen = now;
    if (stop_.load(std::memory_order_relaxed)) return;
    job_(argument_, thread);
    if (pending_.value.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.value.notify_one();
  }
}

}  // namespace ganglion::local
