// Keys while one process takes another's place: two tables over one store, as the two processes have them.

#include <gmock/gmock.h>

#include <future>

#include "core/log.hpp"
#include "gateway/idempotency.hpp"
#include "metrics/metrics.hpp"
#include "tests/support/coroutine.hpp"
#include "tests/unit/gateway/idempotency_support.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::gateway {
namespace {

using namespace std::chrono_literals;
using idempotency::Digest;
using Kind = Idempotency::Known::Kind;

class IdempotencyHandoverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    core::set_log_level(core::LogLevel::off);
    ledger_ = metering::Ledger::open(metering::options_in(dir_), clock_, hooks_).value();
    old_ = std::make_unique<Idempotency>(options_, dir_.ledger(), *ledger_, clock_, registry_);
  }
  // The second process reads the store; `claims`: it claims keys for the first one.
  void hand_over(bool claims = true) {
    old_->freeze();
    start_new();
    Idempotency::Heir heir;
    heir.ended = [this](const Digest& ended, Idempotency::End end, std::uint64_t bytes) {
      new_->ended_elsewhere(ended, end, bytes);
    };
    if (claims) {
      heir.claim = [this](const idempotency::KeyRow& row) {
        std::promise<core::Result<Idempotency::Found>> told;
        new_->claim_elsewhere(row, [&](core::Result<Idempotency::Found> found) { told.set_value(std::move(found)); });
        return told.get_future().get();
      };
    }
    old_->follow(std::move(heir));
  }
  void start_new() {
    new_ = std::make_unique<Idempotency>(options_, dir_.ledger(), *ledger_, clock_, registry_,
                                         metering::OpenIntents::keep);
  }
  Idempotency::Known claim(Idempotency& at, const std::string& name, const std::string& text = "body") {
    return at.claim(key(name), body(text), "id-" + name, io_.get_executor());
  }
  Idempotency::Known look(Idempotency& at, const std::string& name) {
    return at.look(key(name), body("body"), io_.get_executor());
  }
  void write(Idempotency::Known& known) { write_claim(io_, known); }
  void answer(Idempotency::Known& known, const std::string& text) {
    write(known);
    keep_answer(io_, known, text);
    known.claim->settle();
  }
  std::string answer_at(Idempotency& at, const std::string& name) { return kept_answer(io_, at, name); }

  metering::TempDir dir_{true};
  core::ManualClock clock_;
  metering::RecordingHooks hooks_;
  metrics::Registry registry_;
  idempotency::IdempotencyOptions options_;
  boost::asio::io_context io_;
  std::unique_ptr<metering::Ledger> ledger_;
  std::unique_ptr<Idempotency> old_, new_;
};

TEST_F(IdempotencyHandoverTest, ARequestWithoutAClaimYetRunsUnderOneOfTheNewProcess) {
  hand_over();
  EXPECT_EQ(look(*old_, "a").kind, Kind::fresh);
  auto lead = claim(*old_, "a");
  ASSERT_EQ(lead.kind, Kind::lead) << lead.error.message;
  EXPECT_EQ(claim(*old_, "a").kind, Kind::follow);
  EXPECT_EQ(claim(*new_, "a").kind, Kind::elsewhere) << "it would run twice";
  answer(lead, "once");
  EXPECT_EQ(claim(*new_, "a").kind, Kind::replay);
  EXPECT_EQ(answer_at(*new_, "a"), "once");
  old_.reset();
  new_.reset();
  start_new();
  EXPECT_EQ(look(*new_, "a").kind, Kind::replay) << "the state is not in the store";
}

TEST_F(IdempotencyHandoverTest, TheNewProcessMayHaveTheKeyAlready) {
  hand_over();
  auto running = claim(*new_, "a");
  ASSERT_EQ(running.kind, Kind::lead);
  EXPECT_EQ(claim(*old_, "a").kind, Kind::elsewhere);
  EXPECT_EQ(claim(*old_, "a", "another body").error.kind, core::ErrorKind::conflict);
  answer(running, "of the new one");
  EXPECT_EQ(claim(*old_, "a").kind, Kind::replay);
  EXPECT_EQ(answer_at(*old_, "a"), "of the new one");
  auto lost = claim(*new_, "b");
  write(lost);
  lost.claim->bury();
  const auto known = claim(*old_, "b");
  ASSERT_EQ(known.kind, Kind::refused);
  EXPECT_EQ(known.error.kind, core::ErrorKind::conflict);
  auto free = claim(*new_, "c");
  write(free);
  free.claim->release();
  EXPECT_EQ(claim(*old_, "c").kind, Kind::lead);
}

TEST_F(IdempotencyHandoverTest, AClaimThatIsNotYetAwaitedIsHandedOver) {
  auto lead = claim(*old_, "a");
  hand_over();
  EXPECT_EQ(claim(*new_, "a").kind, Kind::elsewhere);
  write(lead);
  lead.claim->release();
  EXPECT_EQ(claim(*new_, "a").kind, Kind::lead);
}

TEST_F(IdempotencyHandoverTest, AClaimWaitsUntilItIsSettledWhoHasTheKeys) {
  old_->freeze();
  auto waiting = std::async(std::launch::async, [this] { return claim(*old_, "a").kind; });
  EXPECT_EQ(waiting.wait_for(50ms), std::future_status::timeout);
  old_->thaw();
  EXPECT_EQ(waiting.get(), Kind::lead);
}

TEST_F(IdempotencyHandoverTest, WhatThePredecessorClaimedIsFreeOnceItDied) {
  hand_over();
  auto lead = claim(*old_, "a");
  ASSERT_EQ(lead.kind, Kind::lead);
  new_->predecessor_gone();
  EXPECT_EQ(claim(*new_, "a").kind, Kind::lead);
}

// Of a row that went while the new process read it, and of an end that nobody told.
TEST_F(IdempotencyHandoverTest, WhatThePredecessorTookAlongIsForgottenWithIt) {
  auto lead = claim(*old_, "a");
  hand_over();
  ASSERT_EQ(claim(*new_, "a").kind, Kind::elsewhere);
  {
    const auto store = idempotency::Store::open(dir_.ledger() + "/idempotency/keys.sqlite").value();
    store->remove(key("a"));
    store->flush();
  }
  new_->predecessor_gone();
  EXPECT_EQ(claim(*new_, "a").kind, Kind::lead);
}

TEST_F(IdempotencyHandoverTest, EndsWaitUntilItIsSettledWhoWritesThem) {
  auto a = claim(*old_, "a");
  auto b = claim(*old_, "b");
  write(a);
  write(b);
  old_->freeze();
  auto ends = std::async(std::launch::async, [&] { a.claim->bury(); });
  EXPECT_EQ(ends.wait_for(20ms), std::future_status::timeout);
  old_->thaw();
  ends.get();
  b.claim->release();
  old_.reset();
  start_new();
  EXPECT_EQ(claim(*new_, "a").kind, Kind::refused);
  EXPECT_EQ(claim(*new_, "b").kind, Kind::lead);
}

TEST_F(IdempotencyHandoverTest, AFullTableOfTheNewProcessRefuses) {
  options_.keys_max = 1;
  hand_over();
  ASSERT_EQ(claim(*new_, "a").kind, Kind::lead);
  const auto known = claim(*old_, "b");
  ASSERT_EQ(known.kind, Kind::refused);
  EXPECT_EQ(known.error.kind, core::ErrorKind::overloaded);
}

TEST_F(IdempotencyHandoverTest, AnOlderNewProcessMakesItAskAgain) {
  hand_over(false);
  const auto known = claim(*old_, "a");
  ASSERT_EQ(known.kind, Kind::refused);
  EXPECT_EQ(known.error.kind, core::ErrorKind::overloaded);
  EXPECT_GT(known.error.retry_after, 0ms);
}

// Its time over and claimed anew there: the old table's leftover does not take it away.
TEST_F(IdempotencyHandoverTest, TheOldTableForgetsWithoutTouchingTheStore) {
  auto lead = claim(*old_, "a");
  answer(lead, "first");
  hand_over();
  clock_.advance(options_.ttl + 1s);
  auto again = claim(*new_, "a");
  ASSERT_EQ(again.kind, Kind::lead);
  answer(again, "second");
  EXPECT_EQ(look(*old_, "b").kind, Kind::fresh);  // expires what it has
  new_.reset();
  start_new();
  EXPECT_EQ(answer_at(*new_, "a"), "second");
}

}  // namespace
}  // namespace ganglion::gateway
