// The ledger while it runs: what is promised to whom and when, and what happens when the disk does not.

#include "metering/ledger.hpp"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/steady_timer.hpp>
#include <thread>

#include "metering/tail_reader.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;

class LedgerTest : public ::testing::Test {
 protected:
  std::unique_ptr<Ledger> open(std::uint64_t segment_bytes = 64 * 1024) {
    auto opened = Ledger::open(options_in(dir_, segment_bytes), clock_, hooks_, &storage_);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }

  TempDir dir_;
  core::ManualClock clock_;
  RecordingHooks hooks_;
  FaultyStorage storage_;
};

TEST_F(LedgerTest, TerminalIsDurableWhenTheWaitEnds) {
  const auto ledger = open();
  const auto prices = PriceBook::make({}).value();
  const Charge charge = prices->price("demo-chat", api::Tier::regular, {.input_tokens = 11, .output_tokens = 5});
  const auto id = ledger->intent(subject("r1"), "local").value();
  ASSERT_TRUE(ledger->attempt(id, 2, "remote"));
  EXPECT_EQ(ledger->stats().open_intents, 1U);
  const Attempt attempts[] = {{"local", 0, "queue_full"}, {"remote", 200, ""}};
  Terminal end = finished(charge);
  end.attempts = attempts;
  const int syncs = storage_.syncs;
  ASSERT_TRUE(await(ledger->terminal(id, end)));
  EXPECT_GT(storage_.syncs, syncs);
  EXPECT_EQ(ledger->stats().durable_sequence, ledger->stats().next_sequence - 1);
  EXPECT_EQ(ledger->stats().open_intents, 0U);

  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 1U);
  const LedgerRecord& record = records[0];
  EXPECT_EQ(record.request_id, "r1");
  EXPECT_EQ(record.tenant, "acme");
  EXPECT_EQ(record.key_id, "key-1");
  EXPECT_EQ(record.gateway, "default");
  EXPECT_EQ(record.model, "demo-chat");
  EXPECT_EQ(record.outcome, Outcome::completed);
  EXPECT_EQ(record.reason, "stop");
  EXPECT_EQ(record.units, end.units);
  EXPECT_EQ(record.nano_neurons, 2457 * 11000 + 18252 * 5000);
  EXPECT_TRUE(record.exact == charge.exact);
  EXPECT_EQ(record.usd_pico_per_neuron, 11'000'000U);
  EXPECT_EQ(record.schedule, "cloudflare-2026/1");
  EXPECT_EQ(record.price_source, PriceSource::fallback);
  EXPECT_EQ(record.http_status, 200);
  EXPECT_EQ(record.latency, 12ms);
  EXPECT_EQ(record.time, std::chrono::microseconds{1'767'225'600'000'000});
  ASSERT_EQ(record.attempts.size(), 2U);
  EXPECT_EQ(record.attempts[0].reason, "queue_full");
  EXPECT_EQ(record.attempts[1].backend, "remote");
  EXPECT_EQ(record.attempts[1].http_status, 200);
}

TEST_F(LedgerTest, AFolderThatItMakesIsForItsUserAlone) {
  using std::filesystem::perms;
  const mode_t before = ::umask(022);
  for (const std::string& slash : {std::string{}, std::string{"/"}}) {
    std::filesystem::remove_all(dir_ / "new");
    const LedgerOptions options{.directory = dir_ / "new/ledger" + slash, .segment_bytes = 64 * 1024};
    EXPECT_TRUE(Ledger::open(options, clock_, hooks_, &storage_));
    EXPECT_EQ(std::filesystem::status(dir_ / "new/ledger").permissions(), perms::owner_all);
    EXPECT_EQ(std::filesystem::status(dir_ / "new").permissions(), perms{0755}) << "others may have their things there";
  }
  std::filesystem::permissions(dir_ / "new/ledger", perms{0750});
  const LedgerOptions options{.directory = dir_ / "new/ledger", .segment_bytes = 64 * 1024};
  EXPECT_TRUE(Ledger::open(options, clock_, hooks_, &storage_));
  EXPECT_EQ(std::filesystem::status(dir_ / "new/ledger").permissions(), perms{0750}) << "somebody's choice";
  ::umask(before);
}

TEST_F(LedgerTest, OneRequestHasOneEnd) {
  const auto ledger = open();
  const auto id = ledger->intent(subject("r1"), "local").value();
  ASSERT_TRUE(await(ledger->terminal(id, finished())));
  const auto again = await(ledger->terminal(id, finished()));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().kind, core::ErrorKind::internal);
  EXPECT_FALSE(ledger->attempt(id, 2, "x"));
  // The slot is used again; the old id must not end the new request.
  const auto next = ledger->intent(subject("r2"), "local").value();
  EXPECT_EQ(next.slot, id.slot);
  EXPECT_FALSE(await(ledger->terminal(id, finished())));
  EXPECT_FALSE(await(ledger->terminal({}, finished())));
  EXPECT_EQ(records_of(dir_.ledger()).size(), 1U);
}

TEST_F(LedgerTest, CommitsAreSharedByWhoWaitsMeanwhile) {
  const auto ledger = open();
  constexpr int kRequests = 200;
  std::vector<IntentId> ids;
  for (int i = 0; i <= kRequests; ++i) ids.push_back(ledger->intent(subject("r" + std::to_string(i)), "local").value());
  storage_.hold();
  asio::io_context io;
  int done = 0;
  const auto spawn = [&](IntentId id) {
    asio::co_spawn(io, ledger->terminal(id, finished()),
                   [&](const std::exception_ptr&, const core::Result<void>& result) { done += result ? 1 : 0; });
  };
  spawn(ids[0]);
  storage_.wait_until_held();
  const int syncs = storage_.syncs;
  for (int i = 1; i <= kRequests; ++i) spawn(ids[static_cast<std::size_t>(i)]);
  io.poll();
  EXPECT_EQ(done, 0);
  storage_.release();
  io.run();
  EXPECT_EQ(done, kRequests + 1);
  EXPECT_LE(storage_.syncs - syncs, 3);  // the one that was held, one or two for the 200
}

TEST_F(LedgerTest, EachWorkerIsResumedOnItsOwnThread) {
  const auto ledger = open(1024 * 1024);
  constexpr int kWorkers = 3;
  std::atomic<int> right{0};
  std::vector<std::jthread> threads;
  for (int w = 0; w < kWorkers; ++w) {
    threads.emplace_back([&, w] {
      asio::io_context io{1};
      for (int c = 0; c < 20; ++c) {
        asio::co_spawn(
            io,
            [&, w, c]() -> asio::awaitable<void> {
              for (int i = 0; i < 10; ++i) {
                const std::string name = std::to_string(w) + "-" + std::to_string(c) + "-" + std::to_string(i);
                const auto id = ledger->intent(subject(name), "local");
                const auto before = std::this_thread::get_id();
                const auto end = co_await ledger->terminal(*id, finished());
                if (end && std::this_thread::get_id() == before) ++right;
              }
            },
            asio::detached);
      }
      io.run();
    });
  }
  threads.clear();
  EXPECT_EQ(right, kWorkers * 200);
  EXPECT_EQ(records_of(dir_.ledger()).size(), static_cast<std::size_t>(kWorkers * 200));
  // The hook is called after the waiters were answered.
  const std::uint64_t written = ledger->stats().next_sequence - 1;
  for (int tries = 0; tries < 1000 && hooks_.committed_records < written; ++tries) std::this_thread::sleep_for(1ms);
  EXPECT_EQ(hooks_.committed_records, written);
}

TEST_F(LedgerTest, CancelledWaitLeavesTheRecord) {
  using namespace asio::experimental::awaitable_operators;
  const auto ledger = open();
  const auto id = ledger->intent(subject("r1"), "local").value();
  storage_.hold();
  asio::io_context io;
  std::size_t winner = 99;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        asio::steady_timer deadline(co_await asio::this_coro::executor, 1ms);
        const auto result = co_await (ledger->terminal(id, finished()) || deadline.async_wait(asio::use_awaitable));
        winner = result.index();
      },
      asio::detached);
  while (winner == 99 && io.run_one() != 0) {
  }
  EXPECT_EQ(winner, 1U);  // ended although the disk stands still
  storage_.release();
  ASSERT_TRUE(ledger->flush());
  io.restart();
  io.run();  // frees the waiter
  EXPECT_EQ(records_of(dir_.ledger()).size(), 1U);
}

TEST_F(LedgerTest, LoopDestroyedWhileWaitingFreesTheCaller) {
  const auto ledger = open();
  const auto id = ledger->intent(subject("r1"), "local").value();
  auto alive = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = alive;
  storage_.hold();
  {
    asio::io_context io;
    asio::co_spawn(
        io,
        [](Ledger& l, IntentId i, std::shared_ptr<int> held) -> asio::awaitable<void> {
          static_cast<void>(co_await l.terminal(i, finished()));
          *held = 2;
        }(*ledger, id, std::move(alive)),
        asio::detached);
    io.poll();
    storage_.release();
    ASSERT_TRUE(ledger->flush());
    ledger->close();  // the answer is posted, and never run
  }
  EXPECT_TRUE(watch.expired());
}

TEST_F(LedgerTest, ZeroCostRecordsNeedNoWaiterToBecomeDurable) {
  const auto ledger = open();
  ledger->record_async(subject("hit"),
                       {.outcome = Outcome::cache_hit, .charge = {.schedule = "none"}, .http_status = 200});
  const auto id = ledger->intent(subject("r"), "local").value();
  ledger->terminal_async(id, {.outcome = Outcome::upstream_error, .reason = "upstream_connect"});
  const auto last = ledger->stats().next_sequence - 1;
  for (int i = 0; i < 60'000 && ledger->stats().durable_sequence < last; ++i) std::this_thread::sleep_for(1ms);
  EXPECT_GE(ledger->stats().durable_sequence, last);
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].outcome, Outcome::cache_hit);
  EXPECT_EQ(records[1].reason, "upstream_connect");
}

TEST_F(LedgerTest, AfterAFailedSyncNothingIsAcknowledgedUntilAllIsWrittenAnew) {
  const auto ledger = open();
  const auto first = ledger->intent(subject("r1"), "local").value();
  const auto second = ledger->intent(subject("r2"), "local").value();
  const auto third = ledger->intent(subject("r3"), "local").value();
  const std::string path = segment_path(dir_.ledger(), 1);
  TailReader tail(dir_.ledger(), 0);
  std::vector<std::string> followed;
  const auto follow = [&] {
    const auto done = tail.poll(ledger->stats().durable_sequence, 100,
                                [&](const LedgerRecord& record) { followed.push_back(record.request_id); });
    EXPECT_TRUE(done) << done.error().message;
  };
  ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("r0"), "local").value(), finished())));
  follow();
  struct stat before{};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  storage_.sync_fails = true;
  const auto end = await(ledger->terminal(first, finished()));
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_THAT(end.error().message, ::testing::Not(::testing::HasSubstr("/"))) << "clients are told no path";
  EXPECT_TRUE(hooks_.wait_for(LedgerState::broken));
  std::this_thread::sleep_for(400ms);  // it has tried once
  EXPECT_FALSE(await(ledger->terminal(second, finished())));
  const auto intent = ledger->intent(subject("r4"), "local");
  ASSERT_FALSE(intent);
  EXPECT_EQ(intent.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_FALSE(ledger->flush());
  EXPECT_EQ(ledger->stats().state, LedgerState::broken);

  storage_.sync_fails = false;
  const auto well = std::chrono::steady_clock::now();
  while (ledger->stats().state != LedgerState::ok && std::chrono::steady_clock::now() < well + 60s)
    std::this_thread::sleep_for(5ms);
  ASSERT_EQ(ledger->stats().state, LedgerState::ok);
  struct stat after{};
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_NE(before.st_ino, after.st_ino) << "another file: the old one is never asked again";
  EXPECT_FALSE(std::filesystem::exists(dir_.ledger() + "/sync-failed"));
  ASSERT_TRUE(await(ledger->terminal(third, finished())));
  ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("r5"), "local").value(), finished())));
  EXPECT_EQ(ledger->stats().open_intents, 0U) << "the end that was refused is made up for";
  follow();
  EXPECT_EQ(followed, (std::vector<std::string>{"r0", "r1", "r2", "r3", "r5"})) << "readers go on in the new file";
  ledger->close();
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 5U);
  EXPECT_EQ(records[1].outcome, Outcome::completed);
  EXPECT_EQ(records[2].outcome, Outcome::aborted);
  EXPECT_EQ(records[2].reason, "ledger_unavailable");
  EXPECT_TRUE(records[2].exact == 0);
  EXPECT_EQ(records[3].outcome, Outcome::completed);
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

// The pages that could not be written may be gone from the cache too: then what can be read is not what was appended,
// and only a restart, which may void it, can go on.
TEST_F(LedgerTest, WhatCannotBeReadAsItWasWrittenIsNotWrittenAnew) {
  storage_.map_fails = true;  // else the next start would find it in the buffer
  const auto ledger = open();
  ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("safe"), "local").value(), finished())));
  const std::string path = segment_path(dir_.ledger(), 1);
  const std::string durable = read_file(path);
  storage_.sync_fails = true;
  EXPECT_FALSE(await(ledger->terminal(ledger->intent(subject("unsure"), "local").value(), finished())));
  {
    std::fstream disk(path, std::ios::in | std::ios::out | std::ios::binary);
    disk.write(durable.data(), static_cast<std::streamsize>(durable.size()));
  }
  storage_.sync_fails = false;
  std::this_thread::sleep_for(1'500ms);  // two tries
  EXPECT_EQ(ledger->stats().state, LedgerState::broken);
  EXPECT_FALSE(ledger->intent(subject("new"), "local"));
  ledger->close();
  {
    const auto again = open();
    ASSERT_TRUE(await(again->terminal(again->intent(subject("new"), "local").value(), finished())));
  }
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].request_id, "safe");
  EXPECT_EQ(records[1].request_id, "new");
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

// The sync fails when a new segment has just been begun: both files are written anew.
TEST_F(LedgerTest, AFailedSyncAcrossASegmentsEndIsMended) {
  const auto ledger = open();
  storage_.hold();
  storage_.sync_fails = true;
  const std::uint64_t begun = ledger->stats().segments;
  int ended = 0;
  for (; ledger->stats().segments == begun && ended < 20'000; ++ended) {
    const auto id = ledger->intent(subject("r" + std::to_string(ended)), "local");
    if (!id) break;
    ledger->terminal_async(*id, finished());
    if (ended % 20 == 0) let_segments_keep_up(*ledger);
  }
  const bool crossed = ledger->stats().segments > begun;
  storage_.release();
  EXPECT_TRUE(hooks_.wait_for(LedgerState::broken));
  storage_.sync_fails = false;
  for (int i = 0; i < 12'000 && ledger->stats().state != LedgerState::ok; ++i) std::this_thread::sleep_for(5ms);
  ASSERT_EQ(ledger->stats().state, LedgerState::ok);
  ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("new"), "local").value(), finished())));
  ledger->close();
  EXPECT_TRUE(crossed);
  EXPECT_EQ(records_of(dir_.ledger()).size(), static_cast<std::size_t>(ended) + 1);
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

TEST_F(LedgerTest, FullDiskRefusesNewRequestsLetsRunningOnesEndAndRecovers) {
  storage_.create_fails = false;
  const auto ledger = open();
  const auto running = ledger->intent(subject("running"), "local").value();
  storage_.create_fails = true;
  // Fill the first segment and go into the second; there is no third.
  for (int i = 0; ledger->stats().state == LedgerState::ok && i < 20'000; ++i) {
    const auto id = ledger->intent(subject("r" + std::to_string(i)), "local");
    if (id) ledger->terminal_async(*id, finished());
    if (!id || i % 20 == 0) std::this_thread::sleep_for(1ms);
  }
  ASSERT_TRUE(hooks_.wait_for(LedgerState::full));
  const auto refused = ledger->intent(subject("new"), "local");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_TRUE(await(ledger->terminal(running, finished())));
  storage_.create_fails = false;
  ASSERT_TRUE(hooks_.wait_for(LedgerState::ok));  // within the second of the next try
  EXPECT_TRUE(ledger->intent(subject("new"), "local"));
  ledger->close();
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

TEST_F(LedgerTest, EveryRunningRequestEndsInThePreallocatedReserve) {
  const auto ledger = open();
  // As many as the reserve holds the ends of; then the disk takes not one byte more.
  std::vector<IntentId> running;
  for (int i = 0; i < 150; ++i) running.push_back(ledger->intent(subject("run" + std::to_string(i)), "local").value());
  storage_.create_fails = true;
  storage_.refuse_growth = true;
  for (int i = 0; i < 20'000; ++i) {
    const auto id = ledger->intent(subject("r" + std::to_string(i)), "local");
    if (!id && ledger->stats().state == LedgerState::full) break;
    if (id) ledger->terminal_async(*id, finished());
    if (!id || i % 20 == 0) std::this_thread::sleep_for(1ms);
  }
  ASSERT_EQ(ledger->stats().state, LedgerState::full);
  for (const IntentId id : running) ASSERT_TRUE(await(ledger->terminal(id, finished())));
  storage_.create_fails = false;
  ASSERT_TRUE(hooks_.wait_for(LedgerState::ok));
  ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("after"), "local").value(), finished())));
  ledger->close();
  EXPECT_TRUE(verify(dir_.ledger())->ok) << verify(dir_.ledger())->problem;
}

TEST_F(LedgerTest, AFullVolumeIsSeenWithinASecondAlthoughSegmentsAreReady) {
  const auto ledger = open();
  const auto running = ledger->intent(subject("running"), "local").value();
  const auto since = std::chrono::steady_clock::now();
  storage_.volume_full = true;
  ASSERT_TRUE(hooks_.wait_for(LedgerState::full));
  EXPECT_LT(std::chrono::steady_clock::now() - since, 10s);  // a second where idle
  const auto refused = ledger->intent(subject("new"), "local");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("no space is left"));
  EXPECT_THAT(refused.error().message, ::testing::Not(::testing::HasSubstr("/"))) << "clients are told no path";
  EXPECT_THAT(hooks_.why(), ::testing::HasSubstr(dir_.ledger())) << "the log is";
  EXPECT_TRUE(await(ledger->terminal(running, finished())));
  storage_.volume_full = false;
  ASSERT_TRUE(hooks_.wait_for(LedgerState::ok));
  EXPECT_TRUE(ledger->intent(subject("new"), "local"));
}

TEST_F(LedgerTest, AClockBeforeTheLastRecordKeepsItsTime) {
  const auto end = [&](Ledger& ledger, const std::string& id) {
    ASSERT_TRUE(await(ledger.terminal(ledger.intent(subject(id), "local").value(), finished())));
  };
  {
    const auto ledger = open();
    end(*ledger, "a");
    clock_.jump_wall(-24h);
    end(*ledger, "b");
    clock_.jump_wall(-24h * 365);
  }
  {
    const auto ledger = open();  // the last record's time is found by recovery
    end(*ledger, "c");
    clock_.jump_wall(24h * 366 + 1h);
    end(*ledger, "d");
  }
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 4U);
  for (std::size_t i = 1; i < records.size(); ++i) {
    EXPECT_GT(records[i].sequence, records[i - 1].sequence);
    EXPECT_GE(records[i].time, records[i - 1].time);
  }
  EXPECT_EQ(records[1].time, records[0].time);
  EXPECT_EQ(records[2].time, records[0].time);
  EXPECT_EQ(records[3].time, records[0].time + 1h);
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

TEST_F(LedgerTest, AfterAFailedSyncTheNextStartWritesTheSegmentsAnew) {
  const std::string note = dir_.ledger() + "/sync-failed";
  {
    const auto ledger = open();
    ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("safe"), "local").value(), finished())));
    storage_.sync_fails = true;
    EXPECT_FALSE(await(ledger->terminal(ledger->intent(subject("unsure"), "local").value(), finished())));
    for (int i = 0; i < 60'000 && !std::filesystem::exists(note); ++i) std::this_thread::sleep_for(1ms);
  }
  ASSERT_TRUE(std::filesystem::exists(note));
  // While the disk is sick nothing starts, and nothing is lost.
  EXPECT_FALSE(Ledger::open(options_in(dir_), clock_, hooks_, &storage_));
  EXPECT_TRUE(std::filesystem::exists(note));
  storage_.sync_fails = false;
  const std::string path = segment_path(dir_.ledger(), 1);
  struct stat before{};
  ASSERT_EQ(::stat(path.c_str(), &before), 0);
  {
    const auto ledger = open();
    ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("new"), "local").value(), finished())));
  }
  struct stat after{};
  ASSERT_EQ(::stat(path.c_str(), &after), 0);
  EXPECT_NE(before.st_ino, after.st_ino) << "another file, on other blocks";
  EXPECT_FALSE(std::filesystem::exists(note));
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].request_id, "safe");
  EXPECT_EQ(records[2].request_id, "new");
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

TEST_F(LedgerTest, WriteWithoutSpaceIsTriedAgainAndLeavesNoHole) {
  storage_.map_fails = true;  // appends that are buffered: ledger_buffer_test.cpp
  const auto ledger = open();
  const auto id = ledger->intent(subject("r1"), "local").value();
  storage_.write_full = true;
  const auto refused = ledger->intent(subject("r2"), "local");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, ::testing::Not(::testing::HasSubstr("/"))) << "clients are told no path";
  EXPECT_EQ(ledger->stats().open_intents, 1U);
  EXPECT_FALSE(await(ledger->terminal(id, finished())));
  EXPECT_EQ(ledger->stats().open_intents, 0U) << "nobody waits for an end that could not be written";
  EXPECT_EQ(ledger->stats().state, LedgerState::full);
  storage_.write_full = false;
  EXPECT_FALSE(ledger->intent(subject("r3"), "local"));  // not yet asked again
  clock_.advance(1s);
  EXPECT_TRUE(ledger->intent(subject("r4"), "local"));
  EXPECT_EQ(ledger->stats().state, LedgerState::ok);
  EXPECT_EQ(ledger->stats().open_intents, 1U);
  EXPECT_TRUE(await(ledger->terminal(id, finished())));
  EXPECT_EQ(ledger->stats().open_intents, 1U) << "of r4";
  const auto report = verify(dir_.ledger()).value();
  EXPECT_TRUE(report.ok) << report.problem;
  EXPECT_EQ(report.terminals, 1U);
  EXPECT_EQ(report.open_intents, 1U);
}

TEST_F(LedgerTest, SecondWriterIsRefusedByName) {
  const auto ledger = open();
  const auto second = Ledger::open(options_in(dir_), clock_, hooks_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_THAT(second.error().message, ::testing::HasSubstr("in use by process " + std::to_string(::getpid())));
  ledger->close();
  EXPECT_TRUE(Ledger::open(options_in(dir_), clock_, hooks_));
}

TEST_F(LedgerTest, ClosedLedgerTakesNothing) {
  const auto ledger = open();
  ledger->close();
  ledger->close();
  EXPECT_EQ(ledger->intent(subject("r"), "local").error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_FALSE(ledger->flush());
}

TEST_F(LedgerTest, TodayCountsByTierStartsAnewAtMidnightAndSurvivesRestart) {
  const Charge two{.nano_neurons = 2 * api::kNanoPerNeuron, .exact = NeuronParts{kPartsPerNeuron} * 2, .schedule = "s"};
  auto ledger = open();
  const auto use = [&](std::string_view id, api::Tier tier) {
    Subject who = subject(id);
    who.tier = tier;
    ledger->terminal_async(ledger->intent(who, "local").value(), finished(two));
  };
  use("a", api::Tier::regular);
  use("b", api::Tier::fast);
  use("c", api::Tier::fast);
  ledger = nullptr;
  ledger = open();
  EXPECT_TRUE(ledger->today("acme").regular == NeuronParts{kPartsPerNeuron} * 2);
  EXPECT_TRUE(ledger->today("acme").fast == NeuronParts{kPartsPerNeuron} * 4);
  EXPECT_TRUE(ledger->today("other").regular == 0);
  clock_.advance(24h);
  EXPECT_TRUE(ledger->today("acme").fast == 0);
  use("d", api::Tier::regular);
  EXPECT_TRUE(ledger->today("acme").regular == NeuronParts{kPartsPerNeuron} * 2);
}

TEST_F(LedgerTest, LongNamesAreCutNotRefused) {
  const auto ledger = open();
  const std::string big(5000, 'm');
  std::vector<Attempt> attempts(40, Attempt{.backend = big, .http_status = 500, .reason = big});
  Subject who = subject(big);
  who.model = big;
  const auto id = ledger->intent(who, big).value();
  Terminal end = finished();
  end.attempts = attempts;
  ASSERT_TRUE(await(ledger->terminal(id, end)));
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].model.size(), kNameBytesMax);
  EXPECT_EQ(records[0].attempts.size(), kAttemptsMax);
}

}  // namespace
}  // namespace ganglion::metering
