// The ledger after any kind of end: cut at every byte, flipped at every bit, killed at any time. Recovery may lose what
// was never acknowledged; it never invents, reorders or forgets the rest.

#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>
#include <set>
#include <thread>

#include "metering/recovery.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;

class LedgerRecoveryTest : public ::testing::Test {
 protected:
  std::unique_ptr<Ledger> open(std::uint64_t segment_bytes = 64 * 1024) {
    auto opened = Ledger::open(options_in(dir_, segment_bytes), clock_, hooks_);
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? std::move(*opened) : nullptr;
  }
  std::string segment(std::uint64_t epoch) const { return segment_path(dir_.ledger(), epoch); }

  // A ledger directory holding only `bytes` as its first segment.
  void become(std::string_view bytes) {
    std::filesystem::remove_all(dir_.ledger());
    std::filesystem::create_directories(dir_.ledger());
    write_file(segment(1), bytes);
  }

  TempDir dir_{true};
  core::ManualClock clock_;
  RecordingHooks hooks_;
};

TEST_F(LedgerRecoveryTest, OpenIntentsAreClosedAsAborted) {
  std::string bytes;
  {
    const auto ledger = open();
    const auto done = ledger->intent(subject("done"), "local").value();
    const auto open_one = ledger->intent(subject("open"), "local").value();
    ASSERT_TRUE(ledger->attempt(open_one, 2, "remote"));
    ASSERT_TRUE(await(ledger->terminal(done, finished())));
    bytes = read_file(segment(1));  // as kill -9 leaves it
  }
  become(bytes);
  const auto ledger = open();
  EXPECT_EQ(ledger->recovery().intents_aborted, 1U);
  EXPECT_EQ(ledger->recovery().torn_bytes, 0U);
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[1].request_id, "open");
  EXPECT_EQ(records[1].outcome, Outcome::aborted);
  EXPECT_EQ(records[1].reason, "process_ended");
  EXPECT_TRUE(records[1].exact == 0);
  ASSERT_EQ(records[1].attempts.size(), 2U);
  EXPECT_EQ(records[1].attempts[1].backend, "remote");
  const auto report = verify(dir_.ledger()).value();
  EXPECT_TRUE(report.ok) << report.problem;
  EXPECT_EQ(report.open_intents, 0U);
}

TEST_F(LedgerRecoveryTest, CleanCloseLeavesNothingToDo) {
  {
    const auto ledger = open();
    ledger->terminal_async(ledger->intent(subject("a"), "x").value(), finished());
  }
  const auto ledger = open();
  EXPECT_EQ(ledger->recovery().intents_aborted, 0U);
  EXPECT_EQ(ledger->recovery().torn_bytes, 0U);
  EXPECT_EQ(records_of(dir_.ledger()).size(), 1U);
}

TEST_F(LedgerRecoveryTest, SpareOfTheLastRunIsUsedAndShortOnesReplaced) {
  {
    const auto ledger = open();
  }
  for (int i = 0; i < 2000 && !std::filesystem::exists(segment(2)); ++i) {
    const auto ledger = open();
    std::this_thread::sleep_for(1ms);
  }
  ASSERT_TRUE(std::filesystem::exists(segment(2)));
  std::filesystem::resize_file(segment(2), 4096);  // killed while filling it
  const auto ledger = open();
  churn(*ledger, 600);
  ASSERT_TRUE(ledger->flush());
  EXPECT_GE(ledger->stats().segments, 2U);
  EXPECT_TRUE(verify(dir_.ledger())->ok);
  EXPECT_EQ(records_of(dir_.ledger()).size(), 600U);
}

// Bytes of a short history; `durable` is the end of what was acknowledged.
struct History {
  std::string bytes;
  std::size_t used = 0;
  std::size_t durable = 0;
  std::vector<std::string> acknowledged;
  std::vector<std::string> all;
};

History history(const std::string& directory, const core::Clock& clock, LedgerHooks& hooks) {
  History out;
  FaultyStorage storage;
  storage.map_fails = true;  // what was appended stands in the segment, durable or not
  const auto ledger =
      Ledger::open({.directory = directory, .segment_bytes = 64 * 1024}, clock, hooks, &storage).value();
  for (int i = 0; i < 4; ++i) {
    const auto id = ledger->intent(subject("ack" + std::to_string(i)), "local").value();
    EXPECT_TRUE(await(ledger->terminal(id, finished())));
    out.acknowledged.push_back("ack" + std::to_string(i));
  }
  out.all = out.acknowledged;
  out.durable = used_bytes(read_file(segment_path(directory, 1)));
  storage.hold();  // nothing after this is acknowledged
  for (int i = 0; i < 3; ++i) {
    const auto id = ledger->intent(subject("late" + std::to_string(i)), "local").value();
    ledger->terminal_async(id, finished());
    out.all.push_back("late" + std::to_string(i));
  }
  out.bytes = read_file(segment_path(directory, 1));
  out.used = used_bytes(out.bytes);
  storage.release();
  return out;
}

bool is_prefix(const std::vector<std::string>& part, const std::vector<std::string>& whole) {
  return part.size() <= whole.size() && std::equal(part.begin(), part.end(), whole.begin());
}

// Terminal ids in order, without those that recovery wrote itself.
std::vector<std::string> kept(const std::string& directory) {
  std::vector<std::string> out;
  for (const LedgerRecord& record : records_of(directory))
    if (record.outcome != Outcome::aborted) out.push_back(record.request_id);
  return out;
}

TEST_F(LedgerRecoveryTest, CutAtEveryByteOfTheTailKeepsWhatWasAcknowledged) {
  const History h = history(dir_.ledger(), clock_, hooks_);
  ASSERT_GT(h.used, h.durable);
  PosixStorage storage;
  for (std::size_t cut = h.durable; cut <= h.used; ++cut) {
    std::string bytes = h.bytes;
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(cut), bytes.end(), '\0');
    become(bytes);
    auto recovered = recover(dir_.ledger(), storage);
    ASSERT_TRUE(recovered) << cut << ": " << recovered.error().message;
    EXPECT_LE(used_bytes(read_file(segment(1))), recovered->offset) << "the torn bytes are gone";
    const auto ids = kept(dir_.ledger());
    ASSERT_TRUE(is_prefix(ids, h.all)) << cut;
    ASSERT_TRUE(is_prefix(h.acknowledged, ids)) << cut;
    EXPECT_TRUE(verify(dir_.ledger())->ok);
  }
}

TEST_F(LedgerRecoveryTest, TornPagesBeforeSurvivingOnesAreATailWhenNotAcknowledged) {
  // After power loss a later page may have reached the disk and an earlier one not.
  const History h = history(dir_.ledger(), clock_, hooks_);
  PosixStorage storage;
  for (std::size_t hole = h.durable; hole + 64 <= h.used; hole += 7) {
    std::string bytes = h.bytes;
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(hole), 64, '\0');
    become(bytes);
    auto recovered = recover(dir_.ledger(), storage);
    ASSERT_TRUE(recovered) << hole << ": " << recovered.error().message;
    const auto ids = kept(dir_.ledger());
    EXPECT_TRUE(is_prefix(ids, h.all) && is_prefix(h.acknowledged, ids)) << hole;
  }
}

TEST_F(LedgerRecoveryTest, AFlippedBitAnywhereIsFoundAndNeverBelieved) {
  const History h = history(dir_.ledger(), clock_, hooks_);
  PosixStorage storage;
  std::mt19937 random{5};
  // Starts of records, to check that the first bad record is the one that is named.
  std::vector<std::size_t> starts;
  for (std::size_t at = 0; at < h.used;) {
    Frame frame;
    ASSERT_EQ(parse_frame(std::string_view{h.bytes}.substr(at), frame), FrameStatus::ok);
    starts.push_back(at);
    at += frame.bytes;
  }
  for (std::size_t at = 0; at < h.used; ++at) {
    std::string bytes = h.bytes;
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << (random() % 8)));
    become(bytes);
    const std::size_t start = *std::prev(std::ranges::upper_bound(starts, at));
    const auto report = verify(dir_.ledger()).value();
    EXPECT_EQ(report.bad_offset, start) << at;
    EXPECT_EQ(report.bad_segment, "000000000001.segment");
    EXPECT_FALSE(report.problem.empty());
    const auto recovered = recover(dir_.ledger(), storage);
    // What had been acknowledged before another record was written cannot be cut silently.
    const bool proven = start < h.durable && start != starts.back();
    const auto last_acknowledged = std::prev(std::ranges::lower_bound(starts, h.durable));
    if (proven && start < *last_acknowledged) {
      EXPECT_FALSE(report.ok) << at;
      ASSERT_FALSE(recovered) << at;
      EXPECT_THAT(recovered.error().message, ::testing::HasSubstr("offset " + std::to_string(start)));
      EXPECT_EQ(read_file(segment(1)), bytes) << "a corrupt ledger is left as it is";
    }
    if (recovered) EXPECT_TRUE(is_prefix(kept(dir_.ledger()), h.all)) << at;
  }
}

TEST_F(LedgerRecoveryTest, GarbageIsNoLedger) {
  std::mt19937 random{9};
  PosixStorage storage;
  for (int round = 0; round < 50; ++round) {
    std::string bytes(1 + random() % 4000, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    become(bytes);
    const auto recovered = recover(dir_.ledger(), storage);
    ASSERT_TRUE(recovered);  // nothing in it had ever been durable
    EXPECT_TRUE(recovered->fresh);
    EXPECT_TRUE(kept(dir_.ledger()).empty());
  }
}

TEST_F(LedgerRecoveryTest, MissingSegmentIsNamed) {
  {
    const auto ledger = open();
    churn(*ledger, 1500);
    ASSERT_GE(ledger->stats().segments, 4U);
  }
  ASSERT_TRUE(verify(dir_.ledger())->ok);
  std::filesystem::remove(segment(2));
  EXPECT_FALSE(verify(dir_.ledger())->ok);
  const auto opened = Ledger::open(options_in(dir_), clock_, hooks_);
  ASSERT_FALSE(opened);
  EXPECT_THAT(opened.error().message, ::testing::HasSubstr("000000000002.segment is missing"));
}

TEST_F(LedgerRecoveryTest, SegmentsCarryOpenIntentsSoOnlyTheLastIsRead) {
  std::map<std::uint64_t, std::string> files;
  {
    const auto ledger = open();
    const auto early = ledger->intent(subject("early"), "x").value();
    ASSERT_TRUE(ledger->attempt(early, 2, "y"));
    churn(*ledger, 1500);
    ASSERT_GE(ledger->stats().segments, 4U);
    ASSERT_TRUE(ledger->flush());
    for (const SegmentFile& file : list_segments(dir_.ledger()).value()) files[file.epoch] = read_file(file.path);
  }
  for (const auto& [epoch, bytes] : files) write_file(segment(epoch), bytes);
  const auto ledger = open();
  EXPECT_EQ(ledger->recovery().intents_aborted, 1U);
  EXPECT_LT(ledger->recovery().records_scanned, 800U);  // of more than 3000
  const auto records = records_of(dir_.ledger());
  EXPECT_EQ(records.back().request_id, "early");
  ASSERT_EQ(records.back().attempts.size(), 2U);
  EXPECT_EQ(records.back().attempts[1].backend, "y");
  EXPECT_EQ(records.size(), 1501U);
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

TEST_F(LedgerRecoveryTest, CrashWhileASegmentIsBegunFallsBackToTheOneBefore) {
  // Two segments, the second cut at every byte of its first 2,000: the checkpoint and the first records.
  std::string first;
  std::string second;
  {
    const auto ledger = open();
    std::vector<IntentId> held;
    for (int i = 0; i < 5; ++i) held.push_back(ledger->intent(subject("held" + std::to_string(i)), "x").value());
    for (int i = 0; ledger->stats().segments < 2; ++i) {
      ledger->terminal_async(ledger->intent(subject("r" + std::to_string(i)), "x").value(), finished());
      ASSERT_TRUE(ledger->flush());
    }
    ledger->terminal_async(ledger->intent(subject("last"), "x").value(), finished());
    ASSERT_TRUE(ledger->flush());
    first = read_file(segment(1));
    second = read_file(segment(2));
  }
  PosixStorage storage;
  std::size_t before = 0;
  for (std::size_t cut = 0; cut < std::min<std::size_t>(used_bytes(second), 2000); cut += 3) {
    become(first);
    std::string bytes = second;
    std::fill(bytes.begin() + static_cast<std::ptrdiff_t>(cut), bytes.end(), '\0');
    write_file(segment(2), bytes);
    const auto recovered = recover(dir_.ledger(), storage);
    ASSERT_TRUE(recovered) << cut << ": " << recovered.error().message;
    EXPECT_GE(recovered->replay.open().size(), 5U) << cut;
    const auto report = verify(dir_.ledger()).value();
    ASSERT_TRUE(report.ok) << cut << ": " << report.problem;
    EXPECT_EQ(report.torn_bytes, 0U);
    EXPECT_GE(report.terminals, before);
    before = report.terminals;
  }
}

TEST_F(LedgerRecoveryTest, TailOfTheSegmentBeforeLostWithPowerTakesTheNextOneWithIt) {
  std::string first;
  std::string second;
  {
    FaultyStorage storage;
    const auto ledger = Ledger::open(options_in(dir_), clock_, hooks_, &storage).value();
    int i = 0;
    const auto write_one = [&] {
      const auto intent = ledger->intent(subject("r" + std::to_string(i)), "x");
      if (!intent) {  // the next of these tiny segments is not ready yet
        std::this_thread::sleep_for(1ms);
        return;
      }
      ledger->terminal_async(*intent, finished());
      ++i;
    };
    while (ledger->stats().next_sequence < 300) write_one();
    ASSERT_TRUE(ledger->flush());
    storage.hold();  // from here nothing is acknowledged
    while (ledger->stats().segments < 2) write_one();
    first = read_file(segment(1));
    second = read_file(segment(2));
    storage.release();
  }
  // The last page of the first segment never reached the disk; the second segment did.
  const std::size_t lost = (used_bytes(first) - 1) / 4096 * 4096;
  std::fill(first.begin() + static_cast<std::ptrdiff_t>(lost), first.end(), '\0');
  become(first);
  write_file(segment(2), second);
  const auto ledger = open();
  ASSERT_NE(ledger, nullptr);
  EXPECT_GT(ledger->recovery().torn_bytes, 0U);
  const auto report = verify(dir_.ledger()).value();
  EXPECT_TRUE(report.ok) << report.problem;
  EXPECT_GE(report.terminals, 140U);
}

// Child: writes requests as fast as it can, tells the parent each id: 'i' once the intent returned, 't' once durable.
[[noreturn]] void write_until_killed(const std::string& directory, int round, int pipe_fd) {
  const core::SystemClock clock;
  LedgerHooks hooks;
  auto ledger = Ledger::open({.directory = directory, .segment_bytes = 64 * 1024}, clock, hooks);
  if (!ledger) _exit(3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0;; ++i) {
        const std::string id = std::to_string(round) + "." + std::to_string(t) + "." + std::to_string(i);
        const auto intent = (*ledger)->intent(subject(id), "x");
        if (!intent) {  // the next of these tiny segments is not ready yet
          std::this_thread::sleep_for(1ms);
          continue;
        }
        std::string line = "i" + id + "\n";
        if (::write(pipe_fd, line.data(), line.size()) < 0) _exit(5);
        if (!await((*ledger)->terminal(*intent, finished()))) _exit(6);
        line[0] = 't';
        if (::write(pipe_fd, line.data(), line.size()) < 0) _exit(5);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  _exit(0);
}

TEST_F(LedgerRecoveryTest, KilledAtAnyTimeLosesNothingAndInventsNothing) {
  std::set<std::string> intents;
  std::set<std::string> ends;
  std::mt19937 random{std::random_device{}()};
  for (int round = 0; round < 8; ++round) {
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::close(fds[0]);
      write_until_killed(dir_.ledger(), round, fds[1]);
    }
    ::close(fds[1]);
    // Kill once it has told us so much; the moment differs in each round.
    const std::size_t enough = 1 + random() % 60'000;
    std::string told;
    char buffer[4096];
    while (told.size() < enough) {
      const ssize_t got = ::read(fds[0], buffer, sizeof buffer);
      if (got <= 0) break;
      told.append(buffer, static_cast<std::size_t>(got));
    }
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    for (ssize_t got; (got = ::read(fds[0], buffer, sizeof buffer)) > 0;)
      told.append(buffer, static_cast<std::size_t>(got));
    ::close(fds[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "child ended by itself with " << WEXITSTATUS(status);
    std::istringstream lines(told);
    for (std::string line; std::getline(lines, line);) (line[0] == 'i' ? intents : ends).insert(line.substr(1));
  }
  {
    const auto ledger = open();
  }
  const auto report = verify(dir_.ledger()).value();
  ASSERT_TRUE(report.ok) << report.problem;
  EXPECT_EQ(report.open_intents, 0U);
  std::map<std::string, Outcome> recorded;
  for (const LedgerRecord& record : records_of(dir_.ledger()))
    EXPECT_TRUE(recorded.emplace(record.request_id, record.outcome).second) << record.request_id << " billed twice";
  for (const std::string& id : intents) EXPECT_TRUE(recorded.contains(id)) << id << " lost";
  for (const std::string& id : ends) EXPECT_EQ(recorded[id], Outcome::completed) << id;
  EXPECT_GT(ends.size(), 0U);
}

}  // namespace
}  // namespace ganglion::metering
