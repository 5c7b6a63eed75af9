// The pool covers every index once, survives idling, and does not burn processor time while idle.

#include "backends/local/kernels/thread_pool.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <numeric>

namespace ganglion::local {
namespace {

TEST(ThreadPool, CoversEveryIndexOnceForAllSizes) {
  for (int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.size(), threads);
    for (std::int64_t count : {0, 1, 2, 3, 7, 8, 9, 1000}) {
      for (std::int64_t grain : {1, 4, 5000}) {
        std::vector<int> hits(static_cast<std::size_t>(count), 0);
        std::atomic<int> calls{0};
        pool.split(count, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
          EXPECT_LT(thread, threads);
          ++calls;
          for (std::int64_t i = begin; i < end; ++i) ++hits[static_cast<std::size_t>(i)];
        });
        EXPECT_EQ(std::accumulate(hits.begin(), hits.end(), 0), count);
        for (int h : hits) EXPECT_EQ(h, 1);
        if (grain == 5000) {
          EXPECT_LE(calls, 1);
        }
      }
    }
  }
}

TEST(ThreadPool, ManyShortJobsInARowAllComplete) {
  ThreadPool pool(4);
  std::vector<std::int64_t> sums(4 * 16, 0);  // a cache line apart
  for (int round = 0; round < 2000; ++round) {
    pool.split(4, 1, [&](std::int64_t begin, std::int64_t end, int) {
      for (std::int64_t i = begin; i < end; ++i) sums[static_cast<std::size_t>(i * 16)] += i;
    });
  }
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(sums[i * 16], static_cast<std::int64_t>(i) * 2000);
}

TEST(ThreadPool, AStalledThreadHoldsUpOnlyItsOwnPart) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> by_caller{0}, stuck{0};
    pool.split(8, 1, [&](std::int64_t, std::int64_t, int thread) {
      if (thread == 0) {
        ++by_caller;
        return;
      }
      // The worker stays in its first part until the caller has done all the others.
      const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (by_caller < 7 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
      ++stuck;
    });
    EXPECT_GE(by_caller, 7);
    EXPECT_EQ(by_caller + stuck, 8);
  }
}

TEST(ThreadPool, IdleThreadsSleep) {
  ThreadPool pool(4);
  pool.split(4, 1, [](std::int64_t, std::int64_t, int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // past the spinning
  const std::clock_t before = std::clock();                    // processor time of all threads
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const double used_ms = 1000.0 * static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  EXPECT_LT(used_ms, 50.0);  // three spinning threads would use up to 300
  std::atomic<int> calls{0};
  pool.split(4, 1, [&](std::int64_t, std::int64_t, int) { ++calls; });
  EXPECT_EQ(calls, 4);
}

}  // namespace
}  // namespace ganglion::local
