// Purges that the shared store told of, made in memory and on the disk, whichever thread is quicker.

#include "cache/purge_hearing.hpp"

#include <gtest/gtest.h>

#include "tests/support/temp_dir.hpp"

namespace ganglion::cache {
namespace {

using std::chrono::seconds;

struct PurgeHearingTest : ::testing::Test {
  PurgeHearingTest() { open_disk(); }

  void open_disk() {
    disk.reset();
    disk = std::make_unique<DiskPlace>(DiskOptions{.directory = directory / "c"}, clock);
    ASSERT_TRUE(disk->take());
    while (disk->scan_some()) {
    }
  }
  std::shared_ptr<Entry> entry() {
    auto out = std::make_shared<Entry>();
    out->key = {.hash = {.low = 1, .high = 1}, .check = {.low = 1, .high = 1}, .bytes = 1};
    out->tenant = "acme";
    out->gateway = "g";
    out->body = "an answer";
    out->ttl = seconds{60};
    out->purge_sequence = purges.sequence();
    return out;
  }
  // As the disk's thread stores an answer: unless it knows of a purge, and in one go.
  bool store(const Entry& answer) {
    return !purges.purged(answer) && disk->write(key, answer.body, clock.wall() + seconds{60});
  }
  bool lies_there(const Entry& answer) {
    const auto record = disk->read(key);
    return record && !disk->purged(record->position, answer);
  }
  static SharedStore::Told told(std::uint64_t generation, const PurgeScope& scope) {
    return {.generation = generation, .purges = {{generation, to_text(scope)}}};
  }

  core::ManualClock clock;
  PurgeLog purges;
  MemoryCache memory{{}, clock, &purges};
  test::TempDir directory;
  std::unique_ptr<DiskPlace> disk;
  const StoreKey key = StoreSecret{"secret"}.name("1");
};

TEST_F(PurgeHearingTest, AnAnswerWrittenRightBehindTheDisksMarkIsRefused) {
  const auto answer = entry();
  bool stored = true;
  // The disk's thread is so quick that it marks, and goes on to the answer, before the caller comes to enter the purge.
  PurgeHearing hearing(purges, memory, disk.get(), [&](const std::function<void()>& job) {
    job();
    stored = store(*answer);
  });
  hearing.hear(told(1000, {.tenant = "acme"}));
  EXPECT_FALSE(stored) << "it was asked for before the purge";
  EXPECT_FALSE(lies_there(*answer));
  EXPECT_EQ(hearing.heard(), 1U);
  EXPECT_TRUE(store(*entry())) << "asked for after it";
  EXPECT_TRUE(lies_there(*entry()));
}

TEST_F(PurgeHearingTest, AnAnswerWrittenBeforeTheMarkFallsUnderIt) {
  const auto answer = entry();
  PurgeHearing hearing(purges, memory, disk.get(), [&](const std::function<void()>& job) {
    if (purges.sequence() == 0) EXPECT_TRUE(store(*answer));
    job();
  });
  hearing.hear(told(1000, {.tenant = "acme"}));
  EXPECT_FALSE(lies_there(*answer));
}

TEST_F(PurgeHearingTest, WhoReadsTheLogAndThenAsksTheDiskIsBehindTheMark) {
  std::vector<std::function<void()>> posted;
  PurgeHearing hearing(purges, memory, disk.get(), [&](std::function<void()> job) {
    if (posted.empty()) EXPECT_EQ(purges.sequence(), 0U) << "posted before it is entered";
    posted.push_back(std::move(job));
  });
  const auto answer = entry();
  EXPECT_TRUE(memory.insert(entry()));
  EXPECT_TRUE(store(*answer));
  hearing.hear({.generation = 1000, .purges = {{1000, "{}"}}});
  EXPECT_EQ(memory.stats().entries_now, 0U);
  EXPECT_TRUE(lies_there(*answer)) << "the disk's thread has not come to it";
  for (const auto& job : posted) job();
  EXPECT_FALSE(lies_there(*answer));
  EXPECT_EQ(hearing.heard(), 1U) << "once, though two threads entered it";
}

TEST_F(PurgeHearingTest, AGatewayThatWasRestartedMakesOnlyPurgesThatItsDiskHasNotSeen) {
  const PurgeHearing::Post at_once = [](const std::function<void()>& job) { job(); };
  PurgeHearing(purges, memory, disk.get(), at_once).hear(told(1000, {}));
  EXPECT_TRUE(store(*entry()));
  open_disk();
  // Its log is empty, so it is told everything again.
  PurgeLog later;
  PurgeHearing hearing(later, memory, disk.get(), at_once);
  hearing.hear(told(1000, {}));
  EXPECT_TRUE(lies_there(*entry())) << "written after that purge";
  Entry in_redis;
  EXPECT_TRUE(later.purged_in_cluster(in_redis)) << "what lies in Redis may be older";
  hearing.hear(told(1001, {.tenant = "acme"}));
  EXPECT_FALSE(lies_there(*entry())) << "made while it was away";
}

TEST_F(PurgeHearingTest, WhatTheStoreForgotIsAPurgeOfEverythingButOnce) {
  const PurgeHearing::Post at_once = [](const std::function<void()>& job) { job(); };
  const SharedStore::Told gap{
      .generation = 2000, .purges = {{1500, R"({"tenant":"x"})"}, {2000, "{}"}}, .complete = false};
  PurgeHearing(purges, memory, disk.get(), at_once).hear(gap);
  EXPECT_TRUE(store(*entry()));
  open_disk();
  PurgeLog later;
  PurgeHearing(later, memory, disk.get(), at_once).hear(gap);
  EXPECT_TRUE(lies_there(*entry()));
}

}  // namespace
}  // namespace ganglion::cache
