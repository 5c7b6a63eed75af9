// Appends that wait in the mapped buffer: they outlive the process, add nothing that is not the ledger's next record,
// and where the buffer or the write fails, nothing is acknowledged that is not on the disk.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "metering/recovery.hpp"
#include "metering/repair_report.hpp"
#include "metering/write_buffer.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;

class LedgerBufferTest : public ::testing::Test {
 protected:
  std::unique_ptr<Ledger> open(const std::string& directory) {
    auto opened = Ledger::open({.directory = directory, .segment_bytes = 64 * 1024}, clock_, hooks_, &storage_);
    EXPECT_TRUE(opened) << opened.error().message;
    return opened ? std::move(*opened) : nullptr;
  }
  // The directory as kill -9 at this instant leaves it.
  std::string killed(const std::string& name) {
    const std::string to = dir_ / name;
    std::filesystem::copy(dir_.ledger(), to, std::filesystem::copy_options::recursive);
    std::filesystem::remove(to + "/lock");
    return to;
  }
  static std::string unwritten(const std::string& directory) { return directory + "/unwritten"; }
  std::string first_segment() { return read_file(segment_path(dir_.ledger(), 1)); }

  TempDir dir_{true};
  core::ManualClock clock_;
  RecordingHooks hooks_;
  FaultyStorage storage_;
};

TEST_F(LedgerBufferTest, AnIntentThatWasNotWrittenSurvivesTheProcess) {
  const auto ledger = open(dir_.ledger());
  const auto done = ledger->intent(subject("done"), "local").value();
  ASSERT_TRUE(await(ledger->terminal(done, finished())));
  const std::string before = first_segment();
  const auto id = ledger->intent(subject("running"), "local").value();
  ASSERT_TRUE(ledger->attempt(id, 2, "remote"));
  EXPECT_EQ(first_segment(), before) << "no write was made";
  const std::string directory = killed("killed");
  const auto report = repair_report(directory).value();
  ASSERT_EQ(report.open.size(), 1U) << "seen before a start, too";
  EXPECT_EQ(report.open[0].request_id, "running");
  EXPECT_THAT(report.open[0].backends, ::testing::ElementsAre("local", "remote"));

  const auto again = open(directory);
  EXPECT_EQ(again->recovery().intents_aborted, 1U);
  EXPECT_EQ(again->recovery().torn_bytes, 0U);
  const auto records = records_of(directory);
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[1].request_id, "running");
  EXPECT_EQ(records[1].outcome, Outcome::aborted);
  EXPECT_EQ(records[1].attempts.size(), 2U);
  EXPECT_TRUE(verify(directory)->ok);
}

TEST_F(LedgerBufferTest, AnEndThatNobodyWaitedForSurvivesTheProcess) {
  const auto ledger = open(dir_.ledger());
  storage_.hold();
  const auto id = ledger->intent(subject("left"), "local").value();
  ledger->terminal_async(id, finished());
  const std::string directory = killed("killed");
  storage_.release();
  const auto again = open(directory);
  EXPECT_EQ(again->recovery().intents_aborted, 0U);
  const auto records = records_of(directory);
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].outcome, Outcome::completed);
}

// Frames of a chain, as the writer makes them.
struct Frames {
  ChainState state;
  ChainHasher hasher;
  std::string next() {
    std::string out;
    begin_frame(out);
    encode_intent(out, 1, "", "x");
    finish_frame(out, 0, RecordType::intent, 0, state, hasher);
    return out;
  }
};

TEST_F(LedgerBufferTest, WhatIsBeingWrittenAndWhatCameSinceAreBothFound) {
  std::filesystem::create_directories(dir_.ledger());
  WriteBuffer buffer(dir_.ledger(), storage_);
  const std::atomic<bool> go_on{false};
  const auto file = buffer.wrap(storage_.create(segment_path(dir_.ledger(), 1), 64 * 1024, go_on).value(), 64 * 1024);
  Frames frames;
  bool out_of_space = false;
  std::uint64_t offset = 1;
  std::string all;
  const auto append = [&] {
    const std::string frame = frames.next();
    ASSERT_TRUE(file->write(offset, frame, out_of_space));
    offset += frame.size();
    all += frame;
  };
  for (int i = 0; i < 3; ++i) append();
  EXPECT_EQ(read_unwritten(dir_.ledger(), {}), all);
  storage_.write_full = true;
  EXPECT_FALSE(file->sync());  // these three are on their way
  for (int i = 0; i < 2; ++i) append();
  EXPECT_EQ(read_unwritten(dir_.ledger(), {}), all) << "in both halves";
  storage_.write_full = false;
  ASSERT_TRUE(file->sync());
  EXPECT_EQ(first_segment().substr(1, all.size()), all);
  // Of what has been written only what continues the given state counts.
  const ChainState written = frames.state;
  EXPECT_EQ(read_unwritten(dir_.ledger(), written), "");
  const std::size_t before = all.size();
  append();
  EXPECT_TRUE(read_unwritten(dir_.ledger(), {.next_sequence = 6, .chain = {}}).empty()) << "another ledger's";
  EXPECT_EQ(read_unwritten(dir_.ledger(), written), all.substr(before));
}

TEST_F(LedgerBufferTest, ATornOrForeignBufferAddsNothing) {
  const auto ledger = open(dir_.ledger());
  ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("safe"), "local").value(), finished())));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(ledger->intent(subject("run" + std::to_string(i)), "local"));
  const std::string whole = read_file(unwritten(killed("whole")));
  // A wrong byte at many places of the records.
  const std::size_t used = used_bytes(whole);
  ASSERT_GT(used, 300U);
  const std::string directory = killed("flip");
  std::filesystem::remove(segment_path(directory, 2));
  for (std::size_t at = 0; at < used; at += 5) {
    if (whole[at] == 0) continue;  // also what lies between the two halves' records
    write_file(segment_path(directory, 1), first_segment());
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 4);
    write_file(unwritten(directory), bytes);
    PosixStorage plain;
    const auto recovered = recover(directory, plain);
    ASSERT_TRUE(recovered) << at << ": " << recovered.error().message;
    for (const auto& [sequence, open] : recovered->replay.open()) {
      LedgerRecord who;
      ASSERT_TRUE(decode_subject(open, who));
      EXPECT_TRUE(who.request_id.starts_with("run")) << at;
    }
    EXPECT_TRUE(verify(directory)->ok) << at;
  }
  const std::string other = killed("other");
  write_file(unwritten(other), std::string(4096, 'x'));
  EXPECT_EQ(open(other)->recovery().intents_aborted, 0U);
}

TEST_F(LedgerBufferTest, AnOldBufferBesideANewerSegmentIsNotReadAgain) {
  std::string old;
  {
    const auto ledger = open(dir_.ledger());
    ASSERT_TRUE(ledger->intent(subject("once"), "local"));
    old = read_file(unwritten(killed("old")));
  }
  {
    const auto ledger = open(dir_.ledger());
    ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("new"), "local").value(), finished())));
  }
  const auto before = records_of(dir_.ledger()).size();
  write_file(unwritten(dir_.ledger()), old);
  const auto ledger = open(dir_.ledger());
  EXPECT_EQ(ledger->recovery().intents_aborted, 0U);
  EXPECT_EQ(records_of(dir_.ledger()).size(), before);
}

TEST_F(LedgerBufferTest, APageThatTheKernelCannotGiveIsNoCrash) {
  const auto ledger = open(dir_.ledger());
  ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("before"), "local").value(), finished())));
  const auto running = ledger->intent(subject("running"), "local").value();
  // The file is cut under the mapping: the next store into it is a SIGBUS.
  ASSERT_EQ(::truncate(unwritten(dir_.ledger()).c_str(), 0), 0);
  const auto id = ledger->intent(subject("after"), "local");
  ASSERT_TRUE(id) << id.error().message;
  const std::string directory = killed("killed");
  {
    const auto again = open(directory);
    EXPECT_EQ(again->recovery().intents_aborted, 2U) << "written by calls of their own";
  }
  ASSERT_TRUE(await(ledger->terminal(*id, finished())));
  ASSERT_TRUE(await(ledger->terminal(running, finished())));
  ledger->close();
  EXPECT_EQ(records_of(dir_.ledger()).size(), 3U);
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

// Under ASan the handler before ours is its own, which reports and exits.
TEST_F(LedgerBufferTest, AFaultElsewhereStillEndsTheProcess) {
  const auto map = GuardedMap::open(dir_ / "guarded", 8192).value();
  EXPECT_FALSE(map->lost());
  const auto fault = [&] {
    const std::string path = dir_ / "plain";
    write_file(path, std::string(4096, 'x'));
    const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    auto* const at = static_cast<char*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    if (::ftruncate(fd, 0) == 0) std::atomic_ref{*at}.store('y');
  };
  EXPECT_EXIT(fault(), [](int status) { return status != 0; }, "");
}

TEST_F(LedgerBufferTest, WhatCannotBeWrittenIsNotAcknowledgedAndIsTriedAgain) {
  const auto ledger = open(dir_.ledger());
  storage_.write_full = true;
  const auto id = ledger->intent(subject("r1"), "local").value();
  const auto ended = await(ledger->terminal(id, finished()));
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().kind, core::ErrorKind::ledger_unavailable);
  EXPECT_FALSE(ledger->intent(subject("r2"), "local"));
  EXPECT_EQ(ledger->stats().state, LedgerState::broken);
  storage_.write_full = false;
  ASSERT_TRUE(hooks_.wait_for(LedgerState::ok));
  ASSERT_TRUE(await(ledger->terminal(ledger->intent(subject("r3"), "local").value(), finished())));
  ledger->close();
  const auto records = records_of(dir_.ledger());
  ASSERT_EQ(records.size(), 2U) << "its record was there when the write failed";
  EXPECT_EQ(records[1].request_id, "r3");
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

TEST_F(LedgerBufferTest, AFullBufferIsWrittenByWhoeverAppends) {
  // One segment, no commit: more than a half of the buffer holds.
  const auto ledger =
      Ledger::open({.directory = dir_.ledger(), .segment_bytes = 8 * 1024 * 1024}, clock_, hooks_, &storage_).value();
  storage_.hold();
  constexpr int kCount = 6'000;  // of about 110 bytes
  for (int i = 0; i < kCount; ++i) ASSERT_TRUE(ledger->intent(subject("r" + std::to_string(i)), "local"));
  EXPECT_GT(used_bytes(first_segment()), 256U * 1024);
  const std::string directory = killed("killed");
  storage_.release();
  const auto again = open(directory);
  EXPECT_EQ(again->recovery().intents_aborted, static_cast<std::uint64_t>(kCount));
}

}  // namespace
}  // namespace ganglion::metering
