// The tiers below memory, alone and between gateways: found, waited for, fenced, purged; slow, lost and lied to.

#include "cache/tiers.hpp"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_future.hpp>
#include <thread>

#include "tests/support/temp_dir.hpp"
#include "tests/unit/cache/fake_store.hpp"

namespace ganglion::cache {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::seconds;

const StoreSecret kSecret{"secret of the test"};

StoreKey name_of(std::uint64_t n) {
  return kSecret.name(std::to_string(n));
}
CacheKey key_of(std::uint64_t n) {
  return {.hash = {.low = n, .high = n}, .check = {.low = n, .high = n}, .bytes = 1};
}

// A gateway's cache: its memory, its tiers, one worker.
struct Gateway {
  explicit Gateway(core::Clock& c, std::shared_ptr<FakeServer> server, const std::string& directory = "",
                   CacheOptions o = {})
      : clock(c), options(std::move(o)), memory(options, clock, &purges) {
    options.disk.directory = directory;
    std::unique_ptr<DiskPlace> disk;
    if (!directory.empty()) disk = std::make_unique<DiskPlace>(options.disk, clock);
    Tiers::MakeStore make;
    if (server) make = [server](asio::any_io_executor e) { return std::make_shared<FakeStore>(server, std::move(e)); };
    tiers.emplace(options, clock, memory, purges, kSecret, std::move(disk), make);
    reader = tiers->reader(io.get_executor());
    while (!directory.empty() && !tiers->stats().disk.scanned) std::this_thread::sleep_for(milliseconds{1});
  }
  ~Gateway() { tiers->stop(); }

  template <class T>
  T run(asio::awaitable<T> what) {
    auto future = asio::co_spawn(io, std::move(what), asio::use_future);
    io.restart();
    io.run();
    return future.get();
  }
  TierAnswer find(std::uint64_t n, bool lease = false, std::string_view tenant = "acme",
                  std::shared_ptr<const Entry> known = nullptr) {
    return run(reader->find({.name = name_of(n),
                             .key = key_of(n),
                             .tenant = tenant,
                             .gateway = "g",
                             .lease = lease,
                             .known = std::move(known)}));
  }
  std::shared_ptr<Entry> make(std::uint64_t n, const std::string& body = "an answer") {
    auto entry = std::make_shared<Entry>();
    entry->key = key_of(n);
    entry->tenant = "acme";
    entry->gateway = "g";
    entry->model = "m";
    entry->content_type = "application/json";
    entry->body = body;
    entry->ttl = seconds{60};
    entry->stored = clock.steady();
    entry->stored_wall = clock.wall();
    entry->purge_sequence = purges.sequence();
    entry->generation = purges.generation();
    return entry;
  }
  // As the end of a flight does.
  void store(std::uint64_t n, const std::string& body = "an answer", std::string token = "") {
    auto entry = make(n, body);
    memory.insert(entry);
    tiers->store(entry, name_of(n), std::move(token));
    ASSERT_TRUE(tiers->flush(seconds{10}));
  }
  std::uint64_t looks(Tier tier, LookResult result) const {
    return tiers->stats().looks[static_cast<std::size_t>(tier)][static_cast<std::size_t>(result)];
  }
  std::uint64_t flights(SharedFlight flight) const {
    return tiers->stats().shared_flights[static_cast<std::size_t>(flight)];
  }
  std::uint64_t stores(Tier tier, StoreResult result) const {
    return tiers->stats().stores[static_cast<std::size_t>(tier)][static_cast<std::size_t>(result)];
  }
  bool in_memory(std::uint64_t n) { return memory.lookup(key_of(n), "acme", "g") != nullptr; }

  core::Clock& clock;
  CacheOptions options;
  PurgeLog purges;
  MemoryCache memory;
  asio::io_context io;
  std::optional<Tiers> tiers;
  std::unique_ptr<TierReader> reader;
};

template <class F>
bool soon(F condition) {
  for (int i = 0; i < 60'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds{1});
  }
  return false;
}

struct TiersTest : ::testing::Test {
  core::ManualClock clock;
  std::shared_ptr<FakeServer> server = std::make_shared<FakeServer>();
  test::TempDir directory;
};

TEST_F(TiersTest, WithoutFurtherTiersThereIsNothingToAsk) {
  Gateway gateway(clock, nullptr);
  EXPECT_FALSE(gateway.tiers->any());
  EXPECT_EQ(gateway.reader, nullptr);
  gateway.store(1);
  const PurgeReport report = gateway.run(gateway.tiers->purge({}));
  EXPECT_EQ(report.memory_entries, 1U);
  EXPECT_EQ(report.disk, PurgeReport::Disk::off);
  EXPECT_EQ(report.cluster, PurgeReport::Cluster::off);
}

TEST_F(TiersTest, TheDiskGivesAnswersBackAfterARestartWithTheirAge) {
  {
    Gateway gateway(clock, nullptr, directory / "c");
    for (std::uint64_t n = 0; n < 100; ++n) gateway.store(n, "answer " + std::to_string(n));
  }
  clock.advance(seconds{20});
  Gateway gateway(clock, nullptr, directory / "c");
  EXPECT_FALSE(gateway.in_memory(7));
  const TierAnswer answer = gateway.find(7);
  ASSERT_EQ(answer.found.freshness, Freshness::fresh);
  EXPECT_EQ(answer.found.entry->body, "answer 7");
  EXPECT_EQ(answer.found.entry->age(clock.steady()), seconds{20});
  EXPECT_TRUE(gateway.in_memory(7)) << "memory is warm again";
  EXPECT_EQ(gateway.find(100).found.entry, nullptr);
  clock.advance(seconds{40});
  EXPECT_EQ(gateway.find(8).found.entry, nullptr) << "its ttl went on while the gateway was away";
}

TEST_F(TiersTest, OneGatewaysAnswerIsAnothers) {
  Gateway a(clock, server);
  Gateway b(clock, server);
  const std::string body = "x\0y\xff" + std::string(5000, 'z');
  a.store(1, body);
  const TierAnswer answer = b.find(1);
  ASSERT_EQ(answer.found.freshness, Freshness::fresh);
  EXPECT_EQ(answer.found.entry->body, body);
  EXPECT_TRUE(b.in_memory(1));
  EXPECT_EQ(b.looks(Tier::redis, LookResult::hit), 1U);
}

TEST_F(TiersTest, AnotherTenantNeverGetsItEvenUnderTheSameName) {
  Gateway a(clock, server, directory / "a");
  a.store(1);
  EXPECT_EQ(a.find(1, false, "evil").found.entry, nullptr);
  EXPECT_EQ(a.looks(Tier::redis, LookResult::foreign), 1U);
  EXPECT_EQ(a.looks(Tier::disk, LookResult::foreign), 1U);
  EXPECT_EQ(a.find(1).found.freshness, Freshness::fresh);
}

TEST_F(TiersTest, ADamagedOrSwappedValueIsLookedPastAndReplaced) {
  Gateway a(clock, server);
  a.store(1);
  a.store(2);
  server->with([&] {
    server->values[name_of(1).hex()][70] ^= 1;
    server->values[name_of(2).hex()] = server->values[name_of(1).hex()];
  });
  for (const std::uint64_t n : {1U, 2U}) {
    TierAnswer answer = a.find(n, true);
    EXPECT_EQ(answer.found.entry, nullptr);
    ASSERT_NE(answer.lease, nullptr) << "so that a good one can be fetched";
    a.store(n, "a good one", answer.lease->hand_over());
    EXPECT_EQ(a.find(n).found.entry->body, "a good one");
  }
  EXPECT_EQ(a.looks(Tier::redis, LookResult::corrupt), 2U);
}

TEST_F(TiersTest, ALostStoreIsNotAskedAndAHangingOneNotWaitedForLong) {
  Gateway a(clock, server);
  server->mood = FakeServer::Mood::lost;
  TierAnswer answer = a.find(1, true);
  EXPECT_EQ(answer.found.entry, nullptr);
  EXPECT_EQ(answer.lease, nullptr);
  EXPECT_EQ(a.looks(Tier::redis, LookResult::off), 1U);
  server->mood = FakeServer::Mood::hanging;
  const auto began = std::chrono::steady_clock::now();
  answer = a.find(1, true);
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds{20}) << "it hangs for good";
  EXPECT_EQ(answer.lease, nullptr);
  EXPECT_EQ(a.looks(Tier::redis, LookResult::timeout), 1U);
}

TEST_F(TiersTest, TheDiskAnswersWhileTheStoreIsLost) {
  Gateway a(clock, server, directory / "a");
  a.store(1);
  a.memory.clear();
  server->mood = FakeServer::Mood::lost;
  EXPECT_EQ(a.find(1).found.freshness, Freshness::fresh);
}

TEST_F(TiersTest, AnswersBeyondTheQueueAreDroppedAndCounted) {
  CacheOptions options;
  options.queue_bytes_max = 100'000;
  Gateway a(clock, server, "", options);
  server->mood = FakeServer::Mood::hanging;
  const auto began = std::chrono::steady_clock::now();
  for (std::uint64_t n = 0; n < 100; ++n) a.tiers->store(a.make(n, std::string(10'000, 'x')), name_of(n), "");
  EXPECT_LT(std::chrono::steady_clock::now() - began, seconds{20}) << "never waits";
  EXPECT_GE(a.tiers->stats().queue_dropped, 80U);
  EXPECT_LE(a.tiers->stats().queue_bytes_now, 100'000U);
  EXPECT_TRUE(a.tiers->flush(seconds{10}));
  EXPECT_EQ(a.tiers->stats().queue_bytes_now, 0U);
  EXPECT_EQ(a.tiers->stats().queue_dropped + a.stores(Tier::redis, StoreResult::failed), 100U);
}

TEST_F(TiersTest, TooLargeForATierIsLeftOutThere) {
  CacheOptions options;
  options.compress_above = 0;
  options.redis.entry_bytes_max = 1000;
  Gateway a(clock, server, directory / "a", options);
  a.store(1, std::string(2000, 'x'));
  EXPECT_TRUE(server->with([&] { return server->values.empty(); }));
  EXPECT_EQ(a.stores(Tier::redis, StoreResult::refused), 1U);
  EXPECT_EQ(a.stores(Tier::disk, StoreResult::stored), 1U);
}

// --- one call for all gateways ---------------------------------------------------------------------------------------

TEST_F(TiersTest, AnotherGatewaysCallIsWaitedFor) {
  Gateway a(clock, server);
  Gateway b(clock, server);
  TierAnswer leader = a.find(1, true);
  ASSERT_NE(leader.lease, nullptr);
  TierAnswer follower;
  std::thread waits([&] { follower = b.find(1, true); });
  EXPECT_TRUE(soon([&] { return server->gets >= 3; }));
  a.store(1, "for both", leader.lease->hand_over());
  waits.join();
  ASSERT_EQ(follower.found.freshness, Freshness::fresh);
  EXPECT_EQ(follower.found.entry->body, "for both");
  EXPECT_EQ(follower.lease, nullptr);
  EXPECT_EQ(a.flights(SharedFlight::led), 1U);
  EXPECT_EQ(b.flights(SharedFlight::waited), 1U);
  EXPECT_TRUE(server->with([&] { return server->leases.empty(); }));
}

TEST_F(TiersTest, WhoeverWaitsTakesOverFromADeadLeaderAndTheLateAnswerIsFencedOff) {
  Gateway a(clock, server);
  Gateway b(clock, server);
  TierAnswer dead = a.find(1, true);
  TierAnswer heir;
  std::thread waits([&] { heir = b.find(1, true); });
  EXPECT_TRUE(soon([&] { return server->gets >= 3; }));
  server->end_leases();
  waits.join();
  ASSERT_NE(heir.lease, nullptr);
  EXPECT_EQ(b.flights(SharedFlight::took_over), 1U);
  a.store(1, "late", dead.lease->hand_over());
  EXPECT_EQ(a.stores(Tier::redis, StoreResult::fenced), 1U);
  b.store(1, "the heir's", heir.lease->hand_over());
  Gateway c(clock, server);
  EXPECT_EQ(c.find(1).found.entry->body, "the heir's");
  a.store(1, "very late", "a lease long gone");
  EXPECT_EQ(c.find(1).found.entry->body, "the heir's");
}

TEST_F(TiersTest, ALeaseThatCameToNothingIsGivenBackAtOnce) {
  Gateway a(clock, server);
  Gateway b(clock, server);
  TierAnswer failed = a.find(1, true);
  TierAnswer next;
  std::thread waits([&] { next = b.find(1, true); });
  EXPECT_TRUE(soon([&] { return server->gets >= 3; }));
  failed.lease.reset();
  waits.join();
  EXPECT_NE(next.lease, nullptr);
}

TEST_F(TiersTest, WaitingIsBounded) {
  CacheOptions options;
  options.redis.wait = milliseconds{50};
  Gateway a(clock, server);
  Gateway b(clock, server, "", options);
  const TierAnswer leader = a.find(1, true);
  const TierAnswer alone = b.find(1, true);
  EXPECT_EQ(alone.lease, nullptr);
  EXPECT_EQ(alone.found.entry, nullptr);
  EXPECT_EQ(b.flights(SharedFlight::gave_up), 1U);
  ASSERT_NE(leader.lease, nullptr);
}

TEST_F(TiersTest, ALeaseIsRenewedWhileTheCallRuns) {
  CacheOptions options;
  options.redis.lease = milliseconds{30};
  Gateway a(clock, server, "", options);
  TierAnswer leader = a.find(1, true);
  EXPECT_TRUE(soon([&] { return server->renewals >= 3; }));
  leader.lease.reset();
  EXPECT_TRUE(soon([&] { return server->with([&] { return server->leases.empty(); }); }));
  const int renewals = server->renewals;
  std::this_thread::sleep_for(milliseconds{60});
  EXPECT_EQ(server->renewals, renewals);
}

TEST_F(TiersTest, WhatLiesOnTheDiskIsSharedInsteadOfFetched) {
  {
    Gateway a(clock, nullptr, directory / "a");
    a.store(1, "from disk");
  }
  Gateway a(clock, server, directory / "a");
  Gateway b(clock, server);
  const TierAnswer answer = a.find(1, true);
  ASSERT_EQ(answer.found.freshness, Freshness::fresh);
  EXPECT_EQ(answer.lease, nullptr);
  ASSERT_TRUE(a.tiers->flush(seconds{10}));
  EXPECT_EQ(b.find(1).found.entry->body, "from disk");
}

// --- staleness -------------------------------------------------------------------------------------------------------

TEST_F(TiersTest, OnlyANewerAnswerReplacesAKnownStaleOne) {
  Gateway a(clock, server, directory / "a");
  auto entry = a.make(1, "old");
  entry->stale_while_revalidate = seconds{100};
  a.memory.insert(entry);
  a.tiers->store(entry, name_of(1), "");
  ASSERT_TRUE(a.tiers->flush(seconds{10}));
  clock.advance(seconds{61});
  Gateway b(clock, server);
  const TierAnswer stale = b.find(1);
  EXPECT_EQ(stale.found.freshness, Freshness::revalidate);
  TierAnswer refresh = a.find(1, true, "acme", entry);
  EXPECT_EQ(refresh.found.entry, nullptr);
  ASSERT_NE(refresh.lease, nullptr);
  EXPECT_EQ(b.find(1, true, "acme", nullptr).found.freshness, Freshness::revalidate)
      << "stale is good enough while another gateway fetches";
  a.store(1, "new", refresh.lease->hand_over());
  EXPECT_EQ(b.find(1, true, "acme", stale.found.entry).found.entry->body, "new");
}

// --- purges ----------------------------------------------------------------------------------------------------------

TEST_F(TiersTest, APurgeReachesEveryTierOfEveryGateway) {
  Gateway a(clock, server, directory / "a");
  Gateway b(clock, server, directory / "b");
  a.store(1);
  ASSERT_EQ(b.find(1).found.freshness, Freshness::fresh);
  b.store(2);
  const PurgeReport report = a.run(a.tiers->purge({.tenant = "acme"}));
  EXPECT_EQ(report.memory_entries, 1U);
  EXPECT_EQ(report.disk, PurgeReport::Disk::done);
  EXPECT_EQ(report.cluster, PurgeReport::Cluster::told);
  EXPECT_TRUE(soon([&] { return !b.in_memory(1) && !b.in_memory(2); }));
  for (Gateway* gateway : {&a, &b}) {
    EXPECT_EQ(gateway->find(1).found.entry, nullptr);
    EXPECT_EQ(gateway->find(2).found.entry, nullptr);
  }
  a.store(1, "after the purge");
  EXPECT_EQ(b.find(1).found.entry->body, "after the purge");
  EXPECT_EQ(a.tiers->stats().purges_made, 1U);
  EXPECT_EQ(b.tiers->stats().purges_heard, 1U);
}

TEST_F(TiersTest, AGatewayThatMissedTheMessageCatchesUpBeforeItServesFromTheStore) {
  Gateway a(clock, server);
  Gateway b(clock, server);
  a.store(1);
  b.store(2);
  // Both have looked at the store's purges and look again in a second.
  EXPECT_TRUE(soon([&] { return a.tiers->stats().redis_up && b.tiers->stats().redis_up; }));
  server->loses_messages = true;
  EXPECT_EQ(a.run(a.tiers->purge({.tenant = "acme"})).cluster, PurgeReport::Cluster::told);
  EXPECT_EQ(b.find(1).found.entry, nullptr);
  EXPECT_FALSE(b.in_memory(2)) << "hearing of it purges memory too";
  EXPECT_EQ(b.looks(Tier::redis, LookResult::purged), 1U);
}

TEST_F(TiersTest, AGatewayThatServesFromMemoryAloneHearsWithinASecondOrTwo) {
  Gateway a(clock, server);
  Gateway b(clock, server);
  b.store(2);
  server->loses_messages = true;
  a.run(a.tiers->purge({}));
  EXPECT_TRUE(soon([&] { return !b.in_memory(2); }));
}

TEST_F(TiersTest, APurgeWhileTheStoreIsLostIsToldLater) {
  Gateway a(clock, server);
  Gateway b(clock, server);
  b.store(1);
  ASSERT_EQ(a.find(1).found.freshness, Freshness::fresh);
  server->mood = FakeServer::Mood::lost;
  const PurgeReport report = a.run(a.tiers->purge({.tenant = "acme"}));
  EXPECT_EQ(report.memory_entries, 1U);
  EXPECT_EQ(report.cluster, PurgeReport::Cluster::pending);
  EXPECT_EQ(a.tiers->stats().purges_untold, 1U);
  server->mood = FakeServer::Mood::well;
  EXPECT_EQ(a.find(1).found.entry, nullptr) << "its own gateway knows, told or not";
  EXPECT_TRUE(soon([&] { return a.tiers->stats().purges_untold == 0 && !b.in_memory(1); }));
  EXPECT_EQ(b.find(1).found.entry, nullptr);
}

TEST_F(TiersTest, AStoreThatForgotItsPurgesIsToldThemAgain) {
  Gateway a(clock, server);
  a.run(a.tiers->purge({.tenant = "acme"}));
  EXPECT_TRUE(soon([&] { return a.purges.generation() != 0; }));
  const std::uint64_t generation = a.purges.generation();
  server->forget_everything();
  EXPECT_TRUE(soon([&] { return server->with([&] { return server->generation; }) == generation; }));
  Gateway late(clock, server);
  EXPECT_TRUE(soon([&] { return late.purges.generation() == generation; }));
  ASSERT_EQ(late.purges.with_generation().size(), 1U);
  EXPECT_EQ(late.purges.with_generation().front().scope.tenant, "acme");
}

TEST_F(TiersTest, ARestartedGatewaysDiskKeepsWhatWasWrittenAfterAnOldPurgeAndHearsWhatItMissed) {
  std::uint64_t generation = 0;
  {
    Gateway a(clock, server, directory / "a");
    a.store(1, "before");
    a.run(a.tiers->purge({}));
    EXPECT_TRUE(soon([&] { return a.purges.generation() != 0; }));
    generation = a.purges.generation();
    a.store(1, "after");
    a.store(2, "after");
  }
  server->with([&] {
    server->values.clear();
    server->purges.emplace_back(++server->generation, R"({"key":"not theirs"})");
  });
  {
    Gateway a(clock, server, directory / "a");
    EXPECT_TRUE(soon([&] { return a.purges.generation() == generation + 1; }));
    ASSERT_EQ(a.find(1).found.freshness, Freshness::fresh) << "the purge of everything was before it";
    EXPECT_EQ(a.find(1).found.entry->body, "after");
  }
  server->with([&] { server->purges.emplace_back(++server->generation, R"({"tenant":"acme"})"); });
  Gateway a(clock, server, directory / "a");
  EXPECT_TRUE(soon([&] { return a.purges.generation() == generation + 2; }));
  EXPECT_EQ(a.find(2).found.entry, nullptr) << "purged while it was away";
}

TEST_F(TiersTest, AnAnswerAskedForBeforeAPurgeEntersNoTier) {
  Gateway a(clock, server, directory / "a");
  auto entry = a.make(1);
  a.run(a.tiers->purge({.tenant = "acme"}));
  EXPECT_FALSE(a.memory.insert(entry));
  a.tiers->store(entry, name_of(1), "");
  ASSERT_TRUE(a.tiers->flush(seconds{10}));
  EXPECT_TRUE(server->with([&] { return server->values.empty(); }));
  EXPECT_EQ(a.stores(Tier::disk, StoreResult::refused), 1U);
  EXPECT_EQ(a.find(1).found.entry, nullptr);
}

TEST_F(TiersTest, ItStopsWithWorkUnderWay) {
  for (int i = 0; i < 20; ++i) {
    CacheOptions options;
    options.redis.lease = milliseconds{30};
    Gateway a(clock, server, directory / "a", options);
    server->mood = i % 2 == 0 ? FakeServer::Mood::hanging : FakeServer::Mood::well;
    for (std::uint64_t n = 0; n < 50; ++n) a.tiers->store(a.make(n), name_of(n), "");
    const TierAnswer answer = a.find(1000 + static_cast<std::uint64_t>(i), true);
  }
}

// One process takes another's place.
TEST_F(TiersTest, TheDiskGoesFromOneProcessToTheNextAndBack) {
  Gateway a(clock, nullptr, directory / "c");
  a.store(1, "of the first");
  EXPECT_TRUE(a.tiers->give_up_disk(seconds{60}));
  a.memory.purge({});
  EXPECT_TRUE(a.tiers->disk_on());
  EXPECT_FALSE(a.tiers->settled());
  EXPECT_FALSE(a.tiers->stats().disk.writing);
  EXPECT_EQ(a.find(1).found.entry, nullptr) << "a miss, not an error";
  a.store(2, "too late");
  EXPECT_EQ(a.stores(Tier::disk, StoreResult::refused), 1U);
  const std::uint64_t written = a.tiers->stats().disk.writes;
  EXPECT_EQ(written, 1U) << "counts stay";
  {
    Gateway b(clock, nullptr, directory / "c");
    EXPECT_EQ(b.find(1).found.entry->body, "of the first");
    EXPECT_EQ(b.find(2).found.entry, nullptr);
    b.store(3, "of the second");
    // It has not given up yet: the first waits until it is gone.
    a.tiers->take_disk_back();
    EXPECT_FALSE(a.tiers->settled());
  }
  ASSERT_TRUE(soon([&] { return a.tiers->settled(); }));
  EXPECT_EQ(a.find(1).found.entry->body, "of the first");
  EXPECT_EQ(a.find(3).found.entry->body, "of the second");
  a.store(4, "again");
  EXPECT_EQ(a.tiers->stats().disk.writes, written + 1);
}

TEST_F(TiersTest, APurgeWhileAnotherProcessHasTheDiskIsMadeWhenItIsBack) {
  Gateway a(clock, nullptr, directory / "c");
  a.store(1);
  a.store(2);
  EXPECT_TRUE(a.tiers->give_up_disk(seconds{60}));
  const PurgeReport report = a.run(a.tiers->purge({.tenant = "acme"}));
  EXPECT_EQ(report.disk, PurgeReport::Disk::failed) << "who asked must know: the other process has not purged it";
  EXPECT_NE(report.disk_problem, "");
  a.tiers->take_disk_back();
  ASSERT_TRUE(soon([&] { return a.tiers->settled(); }));
  EXPECT_GE(a.tiers->stats().disk.entries_now, 1U);
  EXPECT_EQ(a.find(1).found.entry, nullptr);
  a.store(3);
  a.memory.purge({});
  EXPECT_NE(a.find(3).found.entry, nullptr);
}

}  // namespace
}  // namespace ganglion::cache
