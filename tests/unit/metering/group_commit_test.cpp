// Who syncs: the worker of a request that is alone, else the ledger's thread.

#include "metering/group_commit.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "core/log.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;

class GroupCommitTest : public ::testing::Test {
 protected:
  void SetUp() override { ledger_ = Ledger::open(options_in(dir_), clock_, hooks_, &storage_).value(); }
  IntentId begin(const std::string& id) { return ledger_->intent(subject(id), "local").value(); }
  // Ends it on this thread; whether this thread also synced.
  bool synced_here(IntentId id) {
    storage_.synced_by = std::thread::id{};
    EXPECT_TRUE(await(ledger_->terminal(id, finished(), Commit::in_place)));
    return storage_.synced_by.load() == std::this_thread::get_id();
  }
  // A sync that this machine was slow with sends the next one to the thread.
  bool becomes_synced_here() {
    for (int i = 0; i < 200; ++i) {
      let_segments_keep_up(*ledger_);
      if (synced_here(begin("again" + std::to_string(i)))) return true;
    }
    return false;
  }
  // A thread that ends a request and stands in its own sync, until the storage is released.
  std::jthread held_in_place() {
    for (int i = 0; i < 200; ++i) {
      let_segments_keep_up(*ledger_);
      const auto id = begin("held" + std::to_string(i));
      storage_.hold();
      std::jthread worker([this, id] { EXPECT_TRUE(await(ledger_->terminal(id, finished(), Commit::in_place))); });
      storage_.wait_until_held();
      if (storage_.synced_by.load() == worker.get_id()) return worker;
      storage_.release();
    }
    ADD_FAILURE() << "no request synced itself";
    return {};
  }
  bool becomes_well() {
    for (int i = 0; i < 6'000 && ledger_->stats().state != LedgerState::ok; ++i) std::this_thread::sleep_for(10ms);
    return ledger_->stats().state == LedgerState::ok;
  }

  TempDir dir_{true};
  core::ManualClock clock_;
  RecordingHooks hooks_;
  FaultyStorage storage_;
  std::unique_ptr<Ledger> ledger_;
};

TEST_F(GroupCommitTest, AloneItSyncsItself) {
  const std::uint64_t before = ledger_->stats().durable_sequence;
  ASSERT_TRUE(becomes_synced_here());
  EXPECT_GT(ledger_->stats().durable_sequence, before);
  ledger_->close();
  EXPECT_EQ(hooks_.committed_records, ledger_->stats().next_sequence - 1) << "counted as any commit";
}

TEST_F(GroupCommitTest, WithAnotherRequestUnderWayTheThreadSyncs) {
  ASSERT_TRUE(becomes_synced_here());
  const auto other = begin("other");
  EXPECT_FALSE(synced_here(begin("r1")));
  EXPECT_FALSE(await(ledger_->terminal({}, finished(), Commit::in_place)));
  ledger_->terminal_async(other, finished());
  EXPECT_TRUE(becomes_synced_here());
}

TEST_F(GroupCommitTest, ASlowDiskIsLeftToTheThreadUntilItIsQuick) {
  ASSERT_TRUE(becomes_synced_here());
  storage_.slow_ms = 5;
  static_cast<void>(synced_here(begin("finds out")));
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(synced_here(begin("slow" + std::to_string(i)))) << i;
  }
  storage_.slow_ms = 0;
  EXPECT_TRUE(becomes_synced_here());
}

TEST_F(GroupCommitTest, WhatIsAppendedMeanwhileIsSyncedNext) {
  std::jthread worker = held_in_place();
  const auto second = begin("second");
  std::jthread other([&] { EXPECT_TRUE(await(ledger_->terminal(second, finished(), Commit::in_place))); });
  ledger_->record_async(subject("hit"), finished());
  std::this_thread::sleep_for(5ms);
  storage_.release();
  other.join();
  worker.join();
  ASSERT_TRUE(ledger_->flush());
  EXPECT_EQ(ledger_->stats().durable_sequence, ledger_->stats().next_sequence - 1);
  ledger_->close();
  EXPECT_GE(records_of(dir_.ledger()).size(), 3U);
}

TEST_F(GroupCommitTest, ClosingWaitsForASyncInPlace) {
  std::jthread worker = held_in_place();
  std::jthread closer([&] { ledger_->close(); });
  std::this_thread::sleep_for(5ms);
  storage_.release();
  closer.join();
  worker.join();
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

// An upgrade, or its failure: all that was appended is durable before the ledger goes to another process.
TEST_F(GroupCommitTest, HandingOverWaitsForASyncInPlace) {
  std::jthread worker = held_in_place();
  std::jthread freezer([&] { EXPECT_TRUE(ledger_->freeze()); });
  std::this_thread::sleep_for(5ms);
  storage_.release();
  freezer.join();
  worker.join();
  EXPECT_EQ(ledger_->stats().durable_sequence, ledger_->stats().next_sequence - 1);
  ASSERT_TRUE(ledger_->thaw());
  EXPECT_TRUE(await(ledger_->terminal(begin("after"), finished(), Commit::in_place)));
}

TEST_F(GroupCommitTest, AFailureInPlaceIsToldAndMended) {
  core::set_log_level(core::LogLevel::off);
  bool here = false;
  for (int i = 0; i < 20 && !here; ++i) {
    ASSERT_TRUE(becomes_synced_here());
    const auto id = begin("unsure" + std::to_string(i));
    storage_.sync_fails = true;
    const auto end = await(ledger_->terminal(id, finished(), Commit::in_place));
    here = storage_.synced_by.load() == std::this_thread::get_id();
    ASSERT_FALSE(end);
    EXPECT_EQ(end.error().kind, core::ErrorKind::ledger_unavailable);
    EXPECT_EQ(ledger_->stats().state, LedgerState::broken);
    EXPECT_FALSE(ledger_->intent(subject("refused"), "local"));
    storage_.sync_fails = false;
    ASSERT_TRUE(becomes_well());
  }
  EXPECT_TRUE(here);
  EXPECT_TRUE(await(ledger_->terminal(begin("well"), finished(), Commit::in_place)));
  ledger_->close();
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

}  // namespace
}  // namespace ganglion::metering
