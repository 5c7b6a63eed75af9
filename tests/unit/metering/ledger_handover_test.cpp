// A ledger that changes hands while requests run: what the process before began is ended by the one that goes on, and
// a handover that comes to nothing leaves everything as it was.

#include <gmock/gmock.h>

#include <map>
#include <thread>

#include "metering/ledger_heir.hpp"
#include "metering/ledger_reader.hpp"
#include "metering/record_codec.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

class LedgerHandoverTest : public ::testing::Test {
 protected:
  std::unique_ptr<Ledger> open(OpenIntents intents = OpenIntents::abort) {
    auto opened = Ledger::open(options_in(dir_, 64 * 1024), clock_, hooks_, nullptr, intents);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }

  std::map<std::string, Outcome> outcomes() {
    std::map<std::string, Outcome> out;
    for (const LedgerRecord& record : records_of(dir_.ledger())) {
      EXPECT_FALSE(out.contains(record.request_id)) << record.request_id << " has two ends";
      out[record.request_id] = record.outcome;
    }
    return out;
  }

  TempDir dir_;
  core::ManualClock clock_;
  RecordingHooks hooks_;
};

// The other process, here a second ledger.
class Heir final : public LedgerHeir {
 public:
  explicit Heir(Ledger& ledger) : ledger_(ledger) {
    for (const IntentId id : ledger.open_ids()) ids_[id.sequence] = id;
  }
  core::Result<std::uint64_t> intent(std::string_view payload) override {
    OpenIntent open;
    LedgerRecord record;
    EXPECT_TRUE(decode_intent(payload, kFormatVersion, open));
    EXPECT_TRUE(decode_subject(open, record));
    const auto id =
        ledger_.intent({.request_id = record.request_id, .tenant = record.tenant, .model = record.model}, "b");
    if (!id) return std::unexpected(id.error());
    ids_[id->sequence] = *id;
    return id->sequence;
  }
  core::Result<void> attempt(std::string_view payload) override {
    std::uint64_t sequence = 0;
    std::uint32_t number = 0;
    std::string backend;
    EXPECT_TRUE(decode_attempt(payload, sequence, number, backend));
    return ledger_.attempt(ids_.at(sequence), number, backend);
  }
  void terminal(std::string_view payload, std::function<void(core::Result<void>)> done) override {
    LedgerRecord record;
    std::uint64_t sequence = 0;
    EXPECT_TRUE(decode_terminal(payload, kFormatVersion, record, sequence));
    const Charge charge{.exact = record.exact, .schedule = "test"};
    ledger_.terminal_async(ids_.at(sequence), {.outcome = record.outcome, .charge = charge});
    done(ledger_.flush());
  }

 private:
  Ledger& ledger_;
  std::map<std::uint64_t, IntentId> ids_;
};

TEST_F(LedgerHandoverTest, WhatOneProcessBeganTheOtherEnds) {
  const auto old = open();
  const auto first = old->intent(subject("first"), "b").value();
  const auto second = old->intent(subject("second"), "b").value();
  const auto third = old->intent(subject("third"), "b").value();
  ASSERT_TRUE(await(old->terminal(first, finished())));
  ASSERT_TRUE(old->freeze());
  const auto fresh = open(OpenIntents::keep);
  EXPECT_EQ(fresh->stats().open_intents, 2U);
  EXPECT_EQ(fresh->id(), old->id());
  Heir heir(*fresh);
  old->follow(heir);
  // Own requests of the new one between those of the old one.
  const auto own = fresh->intent(subject("own"), "b").value();
  const auto late = old->intent(subject("late"), "b").value();
  EXPECT_EQ(late.slot, IntentId::kForeign);
  ASSERT_TRUE(old->attempt(second, 2, "c"));
  EXPECT_EQ(old->stats().open_intents, 3U);
  ASSERT_TRUE(await(old->terminal(second, finished())));
  ASSERT_TRUE(await(old->terminal(late, finished())));
  ASSERT_TRUE(await(fresh->terminal(own, finished())));
  EXPECT_EQ(old->stats().open_intents, 1U);
  ASSERT_TRUE(fresh->abort(third, "process_ended"));  // the old process is gone
  EXPECT_FALSE(fresh->abort(third, "process_ended"));
  for (int i = 0; i < 20; ++i) {  // slots that were adopted are used again
    const auto id = fresh->intent(subject("more" + std::to_string(i)), "b").value();
    fresh->terminal_async(id, finished());
  }
  ASSERT_TRUE(fresh->flush());
  const auto seen = outcomes();
  EXPECT_EQ(seen.size(), 25U);
  for (const char* id : {"first", "second", "late", "own"}) EXPECT_EQ(seen.at(id), Outcome::completed) << id;
  EXPECT_EQ(seen.at("third"), Outcome::aborted);
  EXPECT_TRUE(verify(dir_.ledger())->ok);
}

TEST_F(LedgerHandoverTest, AFrozenLedgerGoesOnWhenNobodyTookIt) {
  const auto ledger = open();
  const auto before = ledger->intent(subject("before"), "b").value();
  ASSERT_TRUE(ledger->freeze());
  std::atomic<bool> begun{false};
  core::Result<IntentId> meanwhile;
  std::thread worker([&] {
    begun = true;
    meanwhile = ledger->intent(subject("meanwhile"), "b");
  });
  while (!begun) std::this_thread::yield();
  ASSERT_TRUE(ledger->thaw());
  worker.join();
  ASSERT_TRUE(meanwhile) << meanwhile.error().message;
  ASSERT_TRUE(await(ledger->terminal(before, finished())));
  ASSERT_TRUE(await(ledger->terminal(*meanwhile, finished())));
  EXPECT_EQ(ledger->stats().open_intents, 0U);
  EXPECT_THAT(outcomes(), ::testing::ElementsAre(::testing::Pair("before", Outcome::completed),
                                                 ::testing::Pair("meanwhile", Outcome::completed)));
}

TEST_F(LedgerHandoverTest, WhoWaitsForALedgerThatIsLostIsTold) {
  const auto ledger = open();
  ASSERT_TRUE(ledger->freeze());
  const auto other = open(OpenIntents::keep);  // another process has it, and does not answer
  core::Result<IntentId> waiting;
  std::thread worker([&] { waiting = ledger->intent(subject("r"), "b"); });
  EXPECT_FALSE(ledger->thaw());
  worker.join();
  ASSERT_FALSE(waiting);
  EXPECT_EQ(waiting.error().kind, core::ErrorKind::ledger_unavailable);
}

TEST_F(LedgerHandoverTest, ABilledAnswerOfTheOldProcessCountsForItsTenant) {
  const auto old = open();
  const auto id = old->intent(subject("r"), "b").value();
  ASSERT_TRUE(old->freeze());
  const auto fresh = open(OpenIntents::keep);
  Heir heir(*fresh);
  old->follow(heir);
  ASSERT_TRUE(await(old->terminal(id, finished({.exact = 7, .schedule = "test"}))));
  EXPECT_EQ(fresh->today("acme").regular, 7);
}

}  // namespace
}  // namespace ganglion::metering
