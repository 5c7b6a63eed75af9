// Purging: which entries a scope names, what may not be stored any more, and what another gateway left.

#include <gtest/gtest.h>

#include <thread>

#include "cache/memory_cache.hpp"
#include "cache/purge_log.hpp"

namespace ganglion::cache {
namespace {

using std::chrono::seconds;

std::shared_ptr<Entry> entry_of(std::uint64_t n, const PurgeLog& log) {
  auto entry = std::make_shared<Entry>();
  entry->key = {.hash = {.low = n, .high = n}, .check = {.low = n, .high = n}, .bytes = 1};
  entry->tenant = n % 2 == 0 ? "even" : "odd";
  entry->gateway = "g";
  entry->model = n % 3 == 0 ? "m3" : "m";
  entry->tags = {"t" + std::to_string(n % 5), "all"};
  entry->custom_key = n % 7 == 0 ? "seven" : "";
  entry->ttl = seconds{60};
  entry->purge_sequence = log.sequence();
  return entry;
}

TEST(PurgeScope, MatchesWhatAgreesWithEveryField) {
  const PurgeLog log;
  const auto entry = entry_of(42, log);  // even, m3, t2, seven
  EXPECT_TRUE(PurgeScope{}.matches(*entry));
  EXPECT_TRUE((PurgeScope{.tenant = "even", .model = "m3", .tag = "t2", .key = "seven"}.matches(*entry)));
  EXPECT_FALSE((PurgeScope{.tenant = "odd", .model = "m3"}.matches(*entry)));
  EXPECT_FALSE(PurgeScope{.gateway = "h"}.matches(*entry));
  EXPECT_FALSE(PurgeScope{.tag = "t"}.matches(*entry)) << "a tag's beginning is not the tag";
  EXPECT_FALSE(PurgeScope{.key = "sevens"}.matches(*entry));
}

TEST(PurgeScope, GoesThroughTextAndRefusesWhatItDoesNotKnow) {
  const PurgeScope scope{.tenant = "a\"b", .gateway = "g", .model = "m/x", .tag = "t", .key = "k\n"};
  EXPECT_EQ(scope_from_text(to_text(scope)), scope);
  EXPECT_EQ(scope_from_text(to_text(PurgeScope{})), PurgeScope{});
  EXPECT_EQ(to_text(scope).find('\n'), std::string::npos);
  for (const char* bad : {"", "[]", "nonsense", R"({"user":"x"})", R"({"tenant":1})"}) {
    EXPECT_EQ(scope_from_text(bad), std::nullopt) << bad;
  }
}

TEST(Purge, DropsWhatMatchesFromMemory) {
  core::ManualClock clock;
  PurgeLog log;
  MemoryCache cache({}, clock, &log);
  for (std::uint64_t n = 0; n < 1000; ++n) ASSERT_TRUE(cache.insert(entry_of(n, log)));
  const PurgeScope scope{.tenant = "even", .tag = "t0"};  // multiples of 10
  log.add(scope);
  EXPECT_EQ(cache.purge(scope), 100U);
  EXPECT_EQ(cache.stats().entries_now, 900U);
  EXPECT_EQ(cache.stats().purged, 100U);
  for (std::uint64_t n = 0; n < 1000; ++n) {
    const auto probe = entry_of(n, log);
    EXPECT_EQ(cache.lookup(probe->key, probe->tenant, "g") == nullptr, n % 10 == 0) << n;
  }
  EXPECT_EQ(cache.purge({}), 900U);
  EXPECT_EQ(cache.stats().bytes_now, 0U);
}

TEST(Purge, AnAnswerAskedForBeforeItIsNotStoredAfter) {
  core::ManualClock clock;
  PurgeLog log;
  MemoryCache cache({}, clock, &log);
  auto theirs = entry_of(2, log);
  auto others = entry_of(3, log);
  log.add({.tenant = "even"});
  cache.purge({.tenant = "even"});
  EXPECT_FALSE(cache.insert(theirs));
  EXPECT_TRUE(cache.insert(others));
  EXPECT_TRUE(cache.insert(entry_of(2, log))) << "asked for after the purge";
  EXPECT_EQ(cache.stats().refused_purged, 1U);
}

TEST(Purge, NothingSlipsThroughWhileAnswersAreBeingStored) {
  core::ManualClock clock;
  PurgeLog log;
  MemoryCache cache({.shards = 4}, clock, &log);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t n = t; !stop; n += 3) cache.insert(entry_of(n % 300, log));
    });
  }
  for (int i = 0; i < 200; ++i) {
    const std::uint64_t at = log.add({.tenant = "even"});
    cache.purge({.tenant = "even"});
    for (std::uint64_t n = 0; n < 300; n += 2) {
      const auto found = cache.lookup(entry_of(n, log)->key, "even", "g");
      if (found) ASSERT_GE(found->purge_sequence, at);
    }
  }
  stop = true;
  for (auto& thread : threads) thread.join();
}

TEST(PurgeLog, RedisEntriesGoByGeneration) {
  PurgeLog log;
  Entry entry;
  entry.tenant = "a";
  entry.generation = 100;
  EXPECT_TRUE(log.hear(150, {.tenant = "a"}));
  EXPECT_FALSE(log.hear(150, {.tenant = "a"})) << "heard before";
  EXPECT_TRUE(log.purged_in_cluster(entry));
  entry.generation = 150;
  EXPECT_FALSE(log.purged_in_cluster(entry));
  const std::uint64_t own = log.add({.tenant = "a"});
  EXPECT_TRUE(log.purged_in_cluster(entry)) << "a purge that has no number yet counts as after everything";
  EXPECT_EQ(log.without_generation().size(), 1U);
  log.set_generation(own, 140);
  EXPECT_FALSE(log.purged_in_cluster(entry));
  ASSERT_EQ(log.with_generation().size(), 2U);
  EXPECT_EQ(log.with_generation().back().generation, 150U);
  EXPECT_EQ(log.generation(), 0U) << "not before Redis has told all up to it";
  log.caught_up(150);
  log.caught_up(120);
  EXPECT_EQ(log.generation(), 150U);
}

TEST(PurgeLog, OldPurgesAreFoldedIntoEverythingBefore) {
  PurgeLog log;
  Entry old;
  old.tenant = "nobody purged this one";
  const std::uint64_t first = log.sequence();
  for (std::size_t i = 0; i < PurgeLog::kPurgesMax; ++i) log.hear(i + 1, {.tenant = "a"});
  old.purge_sequence = first;
  old.generation = 0;
  EXPECT_FALSE(log.purged(old));
  EXPECT_FALSE(log.purged_in_cluster(old));
  log.hear(PurgeLog::kPurgesMax + 1, {.tenant = "a"});
  EXPECT_TRUE(log.purged(old)) << "what the forgotten purge was for is not known any more";
  EXPECT_TRUE(log.purged_in_cluster(old));
  old.purge_sequence = 1;
  old.generation = 1;
  EXPECT_FALSE(log.purged(old));
  EXPECT_FALSE(log.purged_in_cluster(old));
  EXPECT_EQ(log.with_generation().size(), PurgeLog::kPurgesMax);
}

TEST(PurgeLog, AForgottenPurgeThatNobodyWasToldOfBecomesOneOfEverything) {
  PurgeLog log;
  for (std::size_t i = 0; i <= PurgeLog::kPurgesMax; ++i) log.add({.tenant = "a"});
  ASSERT_EQ(log.without_generation().size(), PurgeLog::kPurgesMax);
  EXPECT_TRUE(log.without_generation().front().scope.all());
}

}  // namespace
}  // namespace ganglion::cache
