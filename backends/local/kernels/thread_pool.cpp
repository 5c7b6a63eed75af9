// Fork-join over one claim ticket and one completion count; what threads sleep on is futex-sized.

#include "backends/local/kernels/thread_pool.hpp"

#include "core/thread.hpp"

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
  if (size_ > kThreadsMax) size_ = kThreadsMax;
  threads_.reserve(static_cast<std::size_t>(size_ - 1));
  for (int i = 1; i < size_; ++i) threads_.push_back(core::start_thread("kernels", [this, i] { work(i); }));
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::run(Job job, void* argument, std::uint32_t parts) {
  // Nobody reads these now: every part of the last job was claimed and done.
  job_ = job;
  argument_ = argument;
  done_.store(0, std::memory_order_relaxed);
  const std::uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(number << 32 | static_cast<std::uint64_t>(parts) << 16, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();  // a load only, when nobody sleeps
  while (claim_one(0)) {
  }
  const auto all = static_cast<std::int32_t>(parts);
  for (int spin = 0;; ++spin) {
    const std::int32_t done = done_.load(std::memory_order_acquire);
    if (done == all) return;
    if (spin < kSpins) {
      pause();
    } else {
      done_.wait(done, std::memory_order_acquire);
    }
  }
}

// Takes and does the next part of the job at hand. False when none is left.
bool ThreadPool::claim_one(int thread) {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  std::uint64_t next = 0, parts = 0;
  do {
    next = ticket & 0xffff;
    parts = ticket >> 16 & 0xffff;
    if (next >= parts) return false;
  } while (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire));
  job_(argument_, static_cast<int>(next), thread);
  done_.fetch_add(1, std::memory_order_acq_rel);
  if (thread != 0) done_.notify_one();
  return true;
}

void ThreadPool::work(int thread) {
  std::int32_t seen = 0;
  for (;;) {
    std::int32_t now = generation_.load(std::memory_order_acquire);
    for (int spin = 0; now == seen && spin < kSpins; ++spin) {
      pause();
      now = generation_.load(std::memory_order_acquire);
    }
    if (now == seen) {
      generation_.wait(seen, std::memory_order_acquire);
      continue;
    }
    seen = now;
    if (stop_.load(std::memory_order_relaxed)) return;
    while (claim_one(thread)) {
    }
  }
}

}  // namespace ganglion::local
