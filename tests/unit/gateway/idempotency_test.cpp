// The table of keys over its store and the ledger: what a key meets, when it is forgotten, and what a crash at each
// point leaves.

#include "gateway/idempotency.hpp"

#include <gmock/gmock.h>

#include <filesystem>

#include "core/log.hpp"
#include "metering/ledger_keeper.hpp"
#include "metrics/metrics.hpp"
#include "tests/support/coroutine.hpp"
#include "tests/unit/gateway/idempotency_support.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::gateway {
namespace {

using namespace std::chrono_literals;
using idempotency::Digest;
using ::testing::HasSubstr;
using Kind = Idempotency::Known::Kind;
using metering::Outcome;

class IdempotencyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    core::set_log_level(core::LogLevel::off);
    open();
  }
  void open() {
    ledger_ = metering::Ledger::open(metering::options_in(dir_), clock_, hooks_).value();
    keys_ = std::make_unique<Idempotency>(options_, dir_.ledger(), *ledger_, clock_, registry_);
  }
  // As a process that is killed: nothing is said to the ledger or the store about what runs.
  void reopen() {
    held_.clear();
    keys_.reset();
    ledger_.reset();
    open();
  }
  Idempotency::Known claim(const std::string& name, const std::string& text = "body", const std::string& id = "") {
    return keys_->claim(key(name), body(text), id.empty() ? "id-" + name : id, io_.get_executor());
  }
  Idempotency::Known look(const std::string& name, const std::string& text = "body") {
    return keys_->look(key(name), body(text), io_.get_executor());
  }
  void write(Idempotency::Known& known) { write_claim(io_, known); }
  void keep(Idempotency::Known& known, const std::string& text) { keep_answer(io_, known, text); }
  // A whole request with this key.
  void serve(const std::string& name, const std::string& text) {
    auto known = claim(name);
    ASSERT_EQ(known.kind, Kind::lead) << known.error.message;
    write(known);
    keep(known, text);
    known.claim->settle();
  }
  std::string answer(const std::string& name) { return kept_answer(io_, *keys_, name); }
  void bill(const std::string& id, Outcome outcome, bool costs) {
    metering::Terminal end = metering::finished();
    end.outcome = outcome;
    if (costs) end.charge = {.nano_neurons = 7, .exact = 7 * metering::kPartsPerNanoNeuron, .schedule = "s"};
    ledger_->terminal_async(ledger_->intent(metering::subject(id), "up").value(), end);
    EXPECT_TRUE(ledger_->flush());
  }

  metering::TempDir dir_{true};
  core::ManualClock clock_;
  metering::RecordingHooks hooks_;
  metrics::Registry registry_;
  idempotency::IdempotencyOptions options_;
  boost::asio::io_context io_;
  std::unique_ptr<metering::Ledger> ledger_;
  std::unique_ptr<Idempotency> keys_;
  std::vector<Idempotency::Known> held_;
};

TEST_F(IdempotencyTest, ItsFolderIsForTheGatewaysUserAlone) {
  EXPECT_EQ(std::filesystem::status(dir_.ledger() + "/idempotency").permissions(), std::filesystem::perms::owner_all);
}

TEST_F(IdempotencyTest, OneLeadsTheOthersFollowThenTheAnswerIsRepeated) {
  EXPECT_EQ(look("a").kind, Kind::fresh);
  auto lead = claim("a");
  ASSERT_EQ(lead.kind, Kind::lead);
  EXPECT_EQ(claim("a").kind, Kind::follow);
  EXPECT_EQ(look("a").kind, Kind::follow);
  EXPECT_EQ(keys_->running(), 1U);
  write(lead);
  keep(lead, "hello");
  lead.claim->settle();
  EXPECT_EQ(keys_->running(), 0U);
  EXPECT_EQ(look("a").kind, Kind::replay);
  EXPECT_EQ(claim("a").kind, Kind::replay);
  EXPECT_EQ(answer("a"), "hello");
}

TEST_F(IdempotencyTest, AnotherBodyIsAConflictWhileRunningAndAfter) {
  auto lead = claim("a");
  for (int i = 0; i < 2; ++i) {
    const auto other = claim("a", "another body");
    ASSERT_EQ(other.kind, Kind::refused);
    EXPECT_EQ(other.error.kind, core::ErrorKind::conflict);
    EXPECT_EQ(other.error.param, "idempotency-key");
    EXPECT_THAT(other.error.message, HasSubstr("another request"));
    if (i == 0) {
      write(lead);
      keep(lead, "x");
      lead.claim->settle();
    }
  }
}

TEST_F(IdempotencyTest, AReleasedKeyRunsAnew) {
  auto lead = claim("a");
  write(lead);
  lead.claim->release();
  EXPECT_EQ(look("a", "even with another body").kind, Kind::fresh);
  reopen();
  EXPECT_EQ(look("a").kind, Kind::fresh);
}

TEST_F(IdempotencyTest, WhatWasBilledWithoutAnAnswerIsNeverRunAgain) {
  auto lead = claim("a");
  write(lead);
  lead.claim->bury();
  for (int i = 0; i < 2; ++i) {
    const auto again = claim("a");
    ASSERT_EQ(again.kind, Kind::refused);
    EXPECT_EQ(again.error.kind, core::ErrorKind::conflict);
    EXPECT_THAT(again.error.message, HasSubstr("was billed"));
    reopen();
  }
}

TEST_F(IdempotencyTest, AnswersSurviveARestartUntilTheirTimeIsOver) {
  serve("a", "hello");
  clock_.advance(23h);
  reopen();
  EXPECT_EQ(look("a").kind, Kind::replay);
  EXPECT_EQ(answer("a"), "hello");
  clock_.advance(61min);
  EXPECT_EQ(look("a").kind, Kind::fresh);
  EXPECT_EQ(keys_->stats().keys, 0U);
  EXPECT_EQ(keys_->stats().answer_bytes, 0U);
  reopen();
  EXPECT_EQ(answer("a"), "(none)");
}

TEST_F(IdempotencyTest, AJumpOfTheWallClockNeitherForgetsNorFreezesKeys) {
  serve("a", "hello");
  clock_.jump_wall(48h);
  EXPECT_EQ(look("a").kind, Kind::replay);
  clock_.jump_wall(-96h);
  EXPECT_EQ(look("a").kind, Kind::replay);
  // Set back over a restart, a key lives for its 24 h at most.
  reopen();
  EXPECT_EQ(look("a").kind, Kind::replay);
  clock_.advance(24h);
  EXPECT_EQ(look("a").kind, Kind::fresh);
}

TEST_F(IdempotencyTest, PastItsSizeTheOldestAnswersGoAndTheirKeysAreRefused) {
  options_.store_bytes_max = 1000;
  reopen();
  serve("a", std::string(600, 'a'));
  serve("b", std::string(300, 'b'));
  EXPECT_EQ(look("a").kind, Kind::replay);
  serve("c", std::string(200, 'c'));
  EXPECT_EQ(keys_->stats().answer_bytes, 500U);
  EXPECT_EQ(keys_->stats().let_go, 1U);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(look("a").error.kind, core::ErrorKind::conflict);
    EXPECT_EQ(answer("b"), std::string(300, 'b'));
    EXPECT_EQ(answer("c"), std::string(200, 'c'));
    reopen();
  }
}

TEST_F(IdempotencyTest, AnAnswerOverTheSizeIsNotKept) {
  options_.answer_bytes_max = 100;
  reopen();
  auto lead = claim("a");
  write(lead);
  keep(lead, std::string(101, 'x'));
  lead.claim->settle();
  EXPECT_EQ(look("a").error.kind, core::ErrorKind::conflict);
}

TEST_F(IdempotencyTest, PastTheNumberOfKeysNewOnesAreRefused) {
  options_.keys_max = 2;
  reopen();
  serve("a", "1");
  serve("b", "2");
  const auto third = claim("c");
  ASSERT_EQ(third.kind, Kind::refused);
  EXPECT_EQ(third.error.kind, core::ErrorKind::overloaded);
  EXPECT_EQ(claim("a").kind, Kind::replay);
  clock_.advance(25h);
  EXPECT_EQ(claim("c").kind, Kind::lead);
}

// Each point at which the process may die, and what the ledger then says of the request.
TEST_F(IdempotencyTest, ACrashBeforeTheAnswerForgetsTheKey) {
  held_.push_back(claim("a"));
  write(held_[0]);
  ASSERT_TRUE(ledger_->intent(metering::subject("id-a"), "up"));
  reopen();  // the ledger closes the intent as aborted
  EXPECT_EQ(look("a", "any body").kind, Kind::fresh);
  EXPECT_EQ(metering::records_of(dir_.ledger()).at(0).outcome, Outcome::aborted);
  reopen();
  EXPECT_EQ(look("a").kind, Kind::fresh);
}

TEST_F(IdempotencyTest, ACrashAfterTheAnswerAndBeforeTheBillForgetsBoth) {
  held_.push_back(claim("a"));
  write(held_[0]);
  ASSERT_TRUE(ledger_->intent(metering::subject("id-a"), "up"));
  keep(held_[0], "never billed");
  reopen();
  EXPECT_EQ(look("a").kind, Kind::fresh);
  EXPECT_EQ(answer("a"), "(none)");
}

TEST_F(IdempotencyTest, ACrashAfterTheBillKeepsTheAnswer) {
  held_.push_back(claim("a"));
  write(held_[0]);
  keep(held_[0], "billed");
  bill("id-a", Outcome::completed, true);
  for (int i = 0; i < 2; ++i) {
    reopen();
    EXPECT_EQ(look("a").kind, Kind::replay);
    EXPECT_EQ(answer("a"), "billed");
  }
}

TEST_F(IdempotencyTest, ACrashAfterABillWithoutAnAnswerRefusesTheKey) {
  held_.push_back(claim("a"));
  write(held_[0]);
  bill("id-a", Outcome::cancelled, true);
  held_.push_back(claim("b"));
  write(held_[1]);
  bill("id-b", Outcome::upstream_error, false);
  reopen();
  EXPECT_EQ(look("a").error.kind, core::ErrorKind::conflict);
  EXPECT_EQ(look("b").kind, Kind::fresh);
}

TEST_F(IdempotencyTest, ManyCrashedKeysAreDecidedAcrossSegments) {
  for (int i = 0; i < 300; ++i) {
    held_.push_back(claim("k" + std::to_string(i)));
    write(held_.back());
    if (i % 3 == 0) keep(held_.back(), "answer " + std::to_string(i));
    if (i % 2 == 0) bill("id-k" + std::to_string(i), Outcome::completed, true);
    metering::churn(*ledger_, 5);
  }
  EXPECT_GT(ledger_->stats().segments, 2U);
  reopen();
  for (int i = 0; i < 300; ++i) {
    const auto known = look("k" + std::to_string(i));
    if (i % 2 != 0) {
      EXPECT_EQ(known.kind, Kind::fresh) << i;
    } else if (i % 3 == 0) {
      EXPECT_EQ(known.kind, Kind::replay) << i;
      EXPECT_EQ(answer("k" + std::to_string(i)), "answer " + std::to_string(i));
    } else {
      EXPECT_EQ(known.error.kind, core::ErrorKind::conflict) << i;
    }
  }
}

// The ledger has dropped the records that would tell: the key may have been billed, so it is never run again.
TEST_F(IdempotencyTest, AKeyThatOutlivedItsRecordsIsRefused) {
  options_.ttl = 30 * 24h;
  reopen();
  held_.push_back(claim("a"));
  write(held_[0]);
  keep(held_[0], "billed");
  bill("id-a", Outcome::completed, true);
  for (int i = 0; i < 50 && ledger_->stats().segments < 4; ++i) metering::churn(*ledger_, 300);
  clock_.advance(72h);
  held_.clear();
  keys_.reset();
  ledger_.reset();
  ledger_ = metering::Ledger::open(metering::options_in(dir_), clock_, hooks_).value();
  held_.clear();
  metering::LedgerOptions drops = metering::options_in(dir_);
  drops.retention = 48h;
  ASSERT_TRUE(metering::LedgerKeeper::open(drops, *ledger_, clock_).value()->run_once());
  ASSERT_GT(metering::oldest_sequence(dir_.ledger()).value(), 2U);
  for (int i = 0; i < 2; ++i) {
    keys_ = std::make_unique<Idempotency>(options_, dir_.ledger(), *ledger_, clock_, registry_);
    const auto known = look("a");
    ASSERT_EQ(known.kind, Kind::refused);
    EXPECT_EQ(known.error.kind, core::ErrorKind::conflict);
    EXPECT_EQ(look("b").kind, Kind::fresh);
    keys_.reset();
  }
}

TEST_F(IdempotencyTest, WhileItIsUnknownWhetherItWasBilledTheKeyWaits) {
  {
    auto lead = claim("a");
    write(lead);
    keep(lead, "x");
  }  // its coroutine was destroyed
  const auto again = look("a");
  ASSERT_EQ(again.kind, Kind::refused);
  EXPECT_EQ(again.error.kind, core::ErrorKind::ledger_unavailable);
  reopen();
  EXPECT_EQ(look("a").kind, Kind::fresh);
}

TEST_F(IdempotencyTest, AStoreThatCannotBeUsedRefusesKeysOnly) {
  keys_.reset();
  std::filesystem::remove_all(dir_.ledger() + "/idempotency");
  metering::write_file(dir_.ledger() + "/idempotency", "a file is in the way");
  keys_ = std::make_unique<Idempotency>(options_, dir_.ledger(), *ledger_, clock_, registry_);
  for (const bool claims : {false, true}) {
    const auto known = claims ? claim("a") : look("a");
    EXPECT_EQ(known.kind, Kind::refused);
    EXPECT_EQ(known.error.kind, core::ErrorKind::ledger_unavailable);
  }
}

}  // namespace
}  // namespace ganglion::gateway
