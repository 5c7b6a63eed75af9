// When a worker may wait for the disk in a request's place.

#include "gateway/worker_load.hpp"

#include <gtest/gtest.h>

namespace ganglion::gateway {
namespace {

using namespace std::chrono_literals;
using Time = std::chrono::steady_clock::time_point;

TEST(WorkerLoad, OneRequestIsAloneUntilAnotherComes) {
  WorkerLoad load;
  Time now{1h};
  EXPECT_TRUE(load.alone()) << "a call whose client has left";
  const WorkerLoad::Running one(load, now);
  EXPECT_TRUE(load.alone());
  {
    const WorkerLoad::Running another(load, now += 10ms);
    EXPECT_FALSE(load.alone());
  }
  EXPECT_TRUE(load.alone());
}

// Those that are served at once, as from the cache, never meet; but many would wait for the disk.
TEST(WorkerLoad, NobodyIsAloneAmongMany) {
  WorkerLoad load;
  Time now{1h};
  for (int i = 0; i < 40; ++i) const WorkerLoad::Running hit(load, now += 100us);
  {
    const WorkerLoad::Running one(load, now += 100us);
    EXPECT_FALSE(load.alone());
  }
  const WorkerLoad::Running late(load, now += 100ms);
  EXPECT_TRUE(load.alone());
}

}  // namespace
}  // namespace ganglion::gateway
