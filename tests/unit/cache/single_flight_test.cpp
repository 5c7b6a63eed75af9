// One upstream call for many clients, on one worker and across several; leaving, failing, lagging, storing.

#include "cache/single_flight.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <thread>

namespace ganglion::cache {
namespace {

namespace asio = boost::asio;
using core::ErrorKind;
using std::chrono::seconds;

CacheKey key_of(std::uint64_t n) {
  return {.hash = {.low = n * 77, .high = n}, .check = {.low = n, .high = n}, .bytes = 1};
}

// What one client got.
struct Outcome {
  std::string bytes;
  std::string usage;
  std::optional<core::Error> error;
  int status = 0;
  bool ended = false;
};

asio::awaitable<void> read_all(std::unique_ptr<Reader> reader, core::CancelSource& cancel, Outcome& out,
                               core::Deadline deadline = {}) {
  const auto head = co_await reader->head(cancel, deadline);
  if (!head) {
    out.error = head.error();
    out.ended = true;
    co_return;
  }
  out.status = (*head)->status;
  while (true) {
    const auto piece = co_await reader->next(cancel, deadline);
    if (!piece) {
      out.error = piece.error();
      break;
    }
    if (piece->bytes.empty()) break;
    (piece->usage_event ? out.usage : out.bytes) += piece->bytes;
  }
  out.ended = true;
}

struct SingleFlightTest : ::testing::Test {
  Join join(std::uint64_t n, bool stream = false) {
    return flights.join(key_of(n), stream, "t", "g", io.get_executor());
  }
  void follow(Join& join, Outcome& out, core::Deadline deadline = {}) {
    asio::co_spawn(io, read_all(std::move(join.reader), cancel, out, deadline), asio::detached);
  }
  void turn() {
    io.restart();
    io.poll();
  }
  std::shared_ptr<Entry> meta(std::uint64_t n) {
    auto entry = std::make_shared<Entry>();
    entry->key = key_of(n);
    entry->tenant = "t";
    entry->gateway = "g";
    entry->ttl = seconds{60};
    return entry;
  }

  core::ManualClock clock;
  MemoryCache memory{{.memory_bytes_max = 1 << 20, .entry_bytes_max = 64 * 1024, .shards = 1}, clock};
  SingleFlight flights{&memory, 64 * 1024};
  core::CancelSource cancel;
  asio::io_context io{1};
};

TEST_F(SingleFlightTest, OneLeadsAndTheOthersFollowLive) {
  Join leader = join(1);
  ASSERT_TRUE(leader.recorder);
  Join early = join(1);
  EXPECT_FALSE(early.recorder);
  Outcome a;
  Outcome b;
  Outcome c;
  follow(leader, a);
  follow(early, b);
  turn();
  leader.recorder->set_head({.status = 200, .content_type = "application/json"});
  leader.recorder->append("hello ");
  turn();
  EXPECT_EQ(a.bytes, "hello ");
  EXPECT_EQ(b.bytes, "hello ");
  Join late = join(1);
  EXPECT_FALSE(late.recorder);
  follow(late, c);
  turn();
  EXPECT_EQ(c.bytes, "hello ") << "a late joiner replays";
  leader.recorder->append("world");
  EXPECT_TRUE(flights.finish(*leader.recorder, meta(1)));
  turn();
  for (const Outcome* out : {&a, &b, &c}) {
    EXPECT_EQ(out->bytes, "hello world");
    EXPECT_TRUE(out->ended);
    EXPECT_FALSE(out->error);
    EXPECT_EQ(out->status, 200);
  }
  EXPECT_EQ(flights.stats().led, 1U);
  EXPECT_EQ(flights.stats().followed, 2U);
  EXPECT_EQ(flights.stats().flights_now, 0U);
  const auto stored = memory.lookup(key_of(1), "t", "g");
  ASSERT_TRUE(stored);
  EXPECT_EQ(stored->body, "hello world");
  EXPECT_EQ(stored->content_type, "application/json");
}

TEST_F(SingleFlightTest, AnAnswerThatWasStoredMeanwhileIsAHit) {
  Join leader = join(1);
  leader.recorder->set_head({});
  leader.recorder->append("x");
  flights.finish(*leader.recorder, meta(1));
  const Join next = join(1);
  ASSERT_TRUE(next.hit);
  EXPECT_EQ(next.hit->body, "x");
  EXPECT_FALSE(next.reader || next.recorder);
}

TEST_F(SingleFlightTest, KeysAndFormsAreDifferentFlights) {
  const Join one = join(1);
  const Join two = join(2);
  const Join stream = join(1, true);
  EXPECT_TRUE(one.recorder && two.recorder && stream.recorder);
  EXPECT_EQ(flights.stats().flights_now, 3U);
}

TEST_F(SingleFlightTest, TheLeadersClientLeavingHurtsNobody) {
  Join leader = join(1);
  Join follower = join(1);
  Outcome out;
  follow(follower, out);
  leader.reader.reset();
  turn();
  EXPECT_FALSE(leader.recorder->cancel().cancelled());
  leader.recorder->set_head({});
  leader.recorder->append("still here");
  leader.recorder->finish();
  turn();
  EXPECT_EQ(out.bytes, "still here");
  EXPECT_TRUE(out.ended && !out.error);
}

TEST_F(SingleFlightTest, TheLastOneToLeaveCancelsTheCall) {
  Join leader = join(1);
  Join follower = join(1);
  leader.recorder->set_head({});
  leader.reader.reset();
  follower.reader.reset();
  turn();
  EXPECT_EQ(leader.recorder->cancel().reason(), core::CancelReason::superseded);
  const Join next = join(1);
  EXPECT_TRUE(next.recorder) << "a dying flight is not joined";
  EXPECT_EQ(flights.stats().superseded, 1U);
  // What comes after everyone left is not kept, so it must not be stored as if it were whole.
  leader.recorder->append("tail");
  EXPECT_FALSE(flights.finish(*leader.recorder, meta(1)));
  EXPECT_FALSE(memory.lookup(key_of(1), "t", "g"));
  EXPECT_EQ(flights.stats().flights_now, 1U) << "the end of the old flight leaves the new one alone";
}

TEST_F(SingleFlightTest, AClientThatLeavesAfterTheLastByteStillFillsTheCache) {
  Join leader = join(1);
  leader.recorder->set_head({});
  leader.recorder->append("all");
  leader.reader.reset();
  EXPECT_TRUE(flights.finish(*leader.recorder, meta(1)));
  EXPECT_EQ(memory.lookup(key_of(1), "t", "g")->body, "all");
}

TEST_F(SingleFlightTest, AFailureReachesEveryReaderAfterItsBytes) {
  Join leader = join(1);
  Join follower = join(1);
  Outcome a;
  Outcome b;
  follow(leader, a);
  leader.recorder->set_head({});
  leader.recorder->append("part");
  turn();
  leader.recorder->append("ial");
  leader.recorder->fail(core::make_error(ErrorKind::upstream_closed));
  follow(follower, b);
  turn();
  for (const Outcome* out : {&a, &b}) {
    EXPECT_EQ(out->bytes, "partial");
    ASSERT_TRUE(out->error);
    EXPECT_EQ(out->error->kind, ErrorKind::upstream_closed);
  }
  EXPECT_TRUE(join(1).recorder) << "a failed flight is not joined";
  EXPECT_FALSE(memory.lookup(key_of(1), "t", "g"));
}

TEST_F(SingleFlightTest, WhoGotNothingMayLeadAgain) {
  Join leader = join(1);
  Join follower = join(1);
  leader.recorder->fail(core::make_error(ErrorKind::upstream_connect));
  Outcome out;
  const bool untouched = follower.reader->untouched();
  follow(follower, out);
  turn();
  ASSERT_TRUE(out.error);
  EXPECT_EQ(out.error->kind, ErrorKind::upstream_connect);
  EXPECT_TRUE(untouched);
  EXPECT_TRUE(join(1).recorder);
}

TEST_F(SingleFlightTest, APumpThatVanishesBreaksTheAnswer) {
  Join leader = join(1);
  Outcome out;
  follow(leader, out);
  turn();
  leader.recorder.reset();
  turn();
  ASSERT_TRUE(out.error);
  EXPECT_EQ(out.error->kind, ErrorKind::upstream_closed);
}

TEST_F(SingleFlightTest, ErrorAnswersAreSharedAndNotStored) {
  Join leader = join(1);
  Outcome out;
  follow(leader, out);
  leader.recorder->set_head({.status = 400, .content_type = "application/json"});
  leader.recorder->append("{}");
  EXPECT_FALSE(flights.finish(*leader.recorder, meta(1)));
  turn();
  EXPECT_EQ(out.status, 400);
  EXPECT_EQ(out.bytes, "{}");
  EXPECT_TRUE(join(1).recorder);
}

TEST_F(SingleFlightTest, UsageEventsComeAlone) {
  Join leader = join(1, true);
  Join late = join(1, true);
  Outcome live;
  Outcome replay;
  follow(leader, live);
  leader.recorder->set_head({.content_type = "text/event-stream", .event_stream = true});
  leader.recorder->append("data: a\n\n");
  turn();
  leader.recorder->append_usage_event("data: usage\n\n");
  leader.recorder->append("data: [DONE]\n\n");
  EXPECT_TRUE(flights.finish(*leader.recorder, meta(1)));
  follow(late, replay);
  turn();
  for (const Outcome* out : {&live, &replay}) {
    EXPECT_EQ(out->bytes, "data: a\n\ndata: [DONE]\n\n");
    EXPECT_EQ(out->usage, "data: usage\n\n");
  }
  const auto stored = memory.lookup(key_of(1), "t", "g");
  EXPECT_EQ(stored->recorded_as, RecordedAs::stream);
  EXPECT_EQ(stored->usage_event.of(stored->body), "data: usage\n\n");
}

TEST_F(SingleFlightTest, CancelAndDeadlineEndAWait) {
  Join leader = join(1);
  Join follower = join(1);
  core::CancelSource mine;
  Outcome cancelled;
  Outcome late;
  asio::co_spawn(io, read_all(std::move(leader.reader), mine, cancelled), asio::detached);
  follow(follower, late, core::Deadline::after(std::chrono::milliseconds{5}));
  turn();
  EXPECT_FALSE(cancelled.ended);
  mine.cancel(core::CancelReason::client_gone);
  turn();
  ASSERT_TRUE(cancelled.error);
  EXPECT_EQ(cancelled.error->kind, ErrorKind::cancelled);
  io.restart();
  io.run_for(seconds{60});
  ASSERT_TRUE(late.error);
  EXPECT_EQ(late.error->kind, ErrorKind::deadline_exceeded);
  turn();
  EXPECT_EQ(leader.recorder->cancel().reason(), core::CancelReason::superseded);
}

asio::awaitable<void> pump_blocks(Recorder& recorder, std::size_t blocks, std::size_t& written, bool& cancelled) {
  recorder.set_head({});
  for (std::size_t i = 0; i < blocks; ++i) {
    if (!co_await recorder.writable()) {
      cancelled = true;
      co_return;
    }
    recorder.append(std::string(16 * 1024, static_cast<char>('a' + i % 26)));
    written = i + 1;
  }
  recorder.finish();
}

TEST_F(SingleFlightTest, TheFastestReaderPacesThePump) {
  Join leader = join(1);
  std::size_t written = 0;
  bool cancelled = false;
  asio::co_spawn(io, pump_blocks(*leader.recorder, 64, written, cancelled), asio::detached);
  turn();
  EXPECT_EQ(written, 4U) << "64 KiB ahead of a client that reads nothing";
  Outcome out;
  follow(leader, out);
  turn();
  EXPECT_EQ(written, 64U);
  EXPECT_EQ(out.bytes.size(), 64U * 16 * 1024);
  EXPECT_TRUE(out.ended && !out.error);
  EXPECT_FALSE(cancelled);
}

TEST_F(SingleFlightTest, APumpThatWaitsLearnsThatNobodyIsLeft) {
  Join leader = join(1);
  std::size_t written = 0;
  bool cancelled = false;
  asio::co_spawn(io, pump_blocks(*leader.recorder, 64, written, cancelled), asio::detached);
  turn();
  leader.reader.reset();
  turn();
  EXPECT_TRUE(cancelled);
  EXPECT_EQ(written, 4U);
}

TEST_F(SingleFlightTest, TooLargeToKeepIsFollowedByThoseInItAndJoinedByNobody) {
  Join leader = join(1);
  Join lagging = join(1);
  std::size_t written = 0;
  bool cancelled = false;
  Outcome out;
  follow(leader, out);
  asio::co_spawn(io, pump_blocks(*leader.recorder, 64, written, cancelled), asio::detached);
  turn();
  EXPECT_EQ(out.bytes.size(), 1024U * 1024) << "past keep_bytes_max the stream goes on";
  EXPECT_TRUE(out.ended && !out.error);
  EXPECT_FALSE(leader.recorder->whole());
  EXPECT_EQ(leader.recorder->bytes(), "");
  EXPECT_FALSE(flights.finish(*leader.recorder, meta(1)));
  EXPECT_TRUE(join(1).recorder);
  Outcome lost;
  follow(lagging, lost);
  turn();
  ASSERT_TRUE(lost.error);
  EXPECT_EQ(lost.error->kind, ErrorKind::overloaded);
  EXPECT_TRUE(lost.bytes.empty());
}

TEST_F(SingleFlightTest, AloneNobodyJoinsAndItIsStored) {
  Join alone = flights.lead_alone(io.get_executor());
  Join other = join(1);
  EXPECT_TRUE(other.recorder);
  alone.recorder->set_head({});
  alone.recorder->append("fresh");
  EXPECT_TRUE(flights.finish(*alone.recorder, meta(1)));
  EXPECT_EQ(memory.lookup(key_of(1), "t", "g")->body, "fresh");
}

TEST_F(SingleFlightTest, ARefreshNeedsNoReaderAndOutlivesThoseItHad) {
  const auto refresh = flights.refresh(key_of(1), true, io.get_executor());
  ASSERT_TRUE(refresh);
  EXPECT_FALSE(flights.refresh(key_of(1), true, io.get_executor())) << "one at a time";
  Join joined = join(1, true);
  EXPECT_FALSE(joined.recorder) << "a miss meanwhile joins it";
  Outcome out;
  refresh->set_head({.event_stream = true});
  refresh->append("part ");
  joined.reader.reset();
  turn();
  EXPECT_FALSE(refresh->cancel().cancelled());
  refresh->append(std::string(60 * 1024, 'x'));
  bool writable = false;
  asio::co_spawn(
      io,
      [&]() -> asio::awaitable<void> {
        writable = (co_await refresh->writable()).has_value();
        writable = (co_await refresh->writable()).has_value();
      },
      asio::detached);
  turn();
  EXPECT_TRUE(writable) << "nobody paces it";
  EXPECT_TRUE(flights.finish(*refresh, meta(1)));
  EXPECT_EQ(memory.lookup(key_of(1), "t", "g")->body.size(), 5U + 60 * 1024);
  EXPECT_TRUE(flights.refresh(key_of(1), true, io.get_executor()));
}

TEST_F(SingleFlightTest, ARedirectSendsEveryReaderToTheEntry) {
  Join leader = join(1);
  Join follower = join(1);
  const std::shared_ptr<const Entry> entry = meta(1);
  leader.recorder->redirect(entry, true);
  for (Reader* reader : {leader.reader.get(), follower.reader.get()}) {
    std::shared_ptr<const RecordedHead> head;
    asio::co_spawn(
        io, [&]() -> asio::awaitable<void> { head = (co_await reader->head(cancel)).value_or(nullptr); },
        asio::detached);
    turn();
    ASSERT_TRUE(head);
    EXPECT_EQ(head->entry, entry);
    EXPECT_TRUE(head->after_error);
  }
  EXPECT_EQ(flights.stats().flights_now, 0U);
}

TEST_F(SingleFlightTest, TheTimesAtWhichAStreamCameAreKept) {
  Join leader = join(1, true);
  leader.recorder->set_head({.event_stream = true});
  leader.recorder->append("one");
  std::this_thread::sleep_for(std::chrono::milliseconds{5});
  leader.recorder->append("two");
  leader.recorder->append("three");
  flights.finish(*leader.recorder, meta(1));
  const auto pace = memory.lookup(key_of(1), "t", "g")->pace;
  ASSERT_GE(pace.size(), 2U);
  EXPECT_EQ(pace.front(), (PaceMark{.end = 3, .at_ms = 0}));
  EXPECT_GE(pace[1].at_ms, 5U);
  EXPECT_EQ(pace.back().end, 11U);
}

// --- Across threads --------------------------------------------------------------------------------------------------

struct Worker {
  Worker() : guard(asio::make_work_guard(io)), thread([this] { io.run(); }) {}
  ~Worker() {
    guard.reset();
    thread.join();
  }
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> guard;
  std::thread thread;
};

std::string expected_answer() {
  std::string out;
  for (int i = 0; i < 200; ++i) out += "data: " + std::to_string(i) + "\n\n";
  return out;
}

asio::awaitable<void> upstream(std::unique_ptr<Recorder> recorder, SingleFlight& flights, CacheKey key,
                               std::atomic<int>& calls) {
  ++calls;
  recorder->set_head({.content_type = "text/event-stream", .event_stream = true});
  asio::steady_timer timer{co_await asio::this_coro::executor};
  for (int i = 0; i < 200; ++i) {
    if (!co_await recorder->writable()) co_return;
    recorder->append("data: " + std::to_string(i) + "\n\n");
    if (i % 8 == 0) {
      timer.expires_after(std::chrono::microseconds{100});
      co_await timer.async_wait(asio::use_awaitable);
    }
  }
  auto entry = std::make_shared<Entry>();
  entry->key = key;
  entry->tenant = "t";
  entry->gateway = "g";
  entry->ttl = seconds{60};
  flights.finish(*recorder, std::move(entry));
}

struct Crowd {
  SingleFlight& flights;
  std::atomic<int> calls{0};
  std::atomic<int> whole{0};
  std::atomic<int> left{0};
  std::atomic<int> bad{0};
  std::string expected = expected_answer();
};

// One client: joins, leads if it must, reads to the end or leaves after `patience` pieces.
asio::awaitable<void> client(Crowd& crowd, CacheKey key, int patience) {
  const auto executor = co_await asio::this_coro::executor;
  core::CancelSource cancel;
  Join join = crowd.flights.join(key, true, "t", "g", executor);
  if (join.hit) {
    ++(join.hit->body == crowd.expected ? crowd.whole : crowd.bad);
    co_return;
  }
  if (join.recorder) {
    asio::co_spawn(executor, upstream(std::move(join.recorder), crowd.flights, key, crowd.calls), asio::detached);
  }
  std::string bytes;
  for (int pieces = 0;; ++pieces) {
    if (pieces == patience) {
      ++crowd.left;
      co_return;
    }
    const auto piece = co_await join.reader->next(cancel);
    if (!piece) {
      ++crowd.bad;
      co_return;
    }
    if (piece->bytes.empty()) break;
    bytes += piece->bytes;
  }
  ++(bytes == crowd.expected ? crowd.whole : crowd.bad);
}

TEST(SingleFlightThreads, AStampedeMakesOneCallAndAllGetEverything) {
  core::ManualClock clock;
  MemoryCache memory{{}, clock};
  SingleFlight flights{&memory, 1 << 20};
  Crowd crowd{flights};
  {
    std::array<Worker, 4> workers;
    for (int i = 0; i < 500; ++i) {
      asio::co_spawn(workers[static_cast<std::size_t>(i) % 4].io, client(crowd, key_of(1), -1), asio::detached);
    }
  }
  EXPECT_EQ(crowd.calls, 1);
  EXPECT_EQ(crowd.whole, 500);
  EXPECT_EQ(crowd.bad, 0);
}

TEST(SingleFlightThreads, ImpatientClientsNeverHurtPatientOnes) {
  core::ManualClock clock;
  MemoryCache memory{{}, clock};
  SingleFlight flights{&memory, 1 << 20};
  Crowd crowd{flights};
  int patient = 0;
  {
    std::array<Worker, 3> workers;
    std::mt19937 random{5};
    for (int i = 0; i < 600; ++i) {
      const int patience = random() % 2 == 0 ? -1 : static_cast<int>(random() % 20);
      patient += patience < 0 ? 1 : 0;
      const CacheKey key = key_of(1 + random() % 20);
      asio::co_spawn(workers[random() % 3].io, client(crowd, key, patience), asio::detached);
    }
  }
  EXPECT_EQ(crowd.bad, 0);
  EXPECT_GE(crowd.whole, patient);
  EXPECT_EQ(crowd.whole + crowd.left, 600);
  EXPECT_EQ(flights.stats().flights_now, 0U);
}

TEST(SingleFlightThreads, AWorkerThatDiesTakesItsClientsAlongQuietly) {
  core::ManualClock clock;
  MemoryCache memory{{}, clock};
  SingleFlight flights{&memory, 1 << 20};
  core::CancelSource cancel;
  Outcome out;
  asio::io_context stays{1};
  {
    asio::io_context dies{1};
    Join leader = flights.join(key_of(1), true, "t", "g", dies.get_executor());
    Join follower = flights.join(key_of(1), true, "t", "g", stays.get_executor());
    asio::co_spawn(stays, read_all(std::move(follower.reader), cancel, out), asio::detached);
    asio::co_spawn(
        dies,
        [](Join join) -> asio::awaitable<void> {
          core::CancelSource never;
          join.recorder->set_head({});
          join.recorder->append("x");
          (void)co_await join.reader->next(never);
          (void)co_await join.reader->next(never);  // sleeps for good
        }(std::move(leader)),
        asio::detached);
    dies.poll();
    stays.poll();
    EXPECT_EQ(out.bytes, "x");
  }
  stays.restart();
  stays.poll();
  ASSERT_TRUE(out.error);
  EXPECT_EQ(out.error->kind, ErrorKind::upstream_closed);
}

}  // namespace
}  // namespace ganglion::cache
