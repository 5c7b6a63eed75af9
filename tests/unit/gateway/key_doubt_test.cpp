// What a gateway that is back says of keys that others hold it to have: its table, its store and its share together.

#include <gtest/gtest.h>

#include <optional>

#include "core/digest.hpp"
#include "core/log.hpp"
#include "tests/unit/gateway/key_share_support.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::gateway {
namespace {

using namespace std::chrono_literals;
using Met = KeyShare::Met;

class KeyDoubtTest : public KeyShareTest {
 protected:
  void SetUp() override { core::set_log_level(core::LogLevel::off); }
  // A gateway that dies with these keys: as far as Redis knows, it has them.
  void die_with(std::initializer_list<const char*> names) {
    Node before(*this, "A");
    for (const char* name : names) {
      auto mine = claim(before, name);
      ASSERT_EQ(mine.met, Met::mine);
      mine.hold.abandon();
    }
    turn(20ms);
  }
  std::unique_ptr<Idempotency> table(metering::OpenIntents open = metering::OpenIntents::abort) {
    return std::make_unique<Idempotency>(options_, dir_.ledger(), *ledger_, time_, metrics_.registry(), open);
  }
  // Asked again and again, each of which asks the owner.
  void stays_in_doubt(Node& at, const std::string& name, const std::string& why) {
    EXPECT_EQ(claim_until(at, Met::doubt, name), Met::doubt) << why;
    for (int i = 0; i < 10; ++i) {
      EXPECT_EQ(claim(at, name).met, Met::doubt) << why;
      turn(20ms);
    }
  }
  std::string entry(const std::string& name) { return "t:idem:{" + core::hex(key(name)) + "}"; }
  Idempotency::Known claim_here(Idempotency& keys, const std::string& name) {
    auto known = keys.claim(key(name), body("body"), "id-" + name, io_.get_executor());
    EXPECT_EQ(known.kind, Idempotency::Known::Kind::lead);
    write_claim(io_, known);
    return known;
  }

  // Until gateway A can be asked.
  void listening() {
    const auto heard = [&] { return redis_.say({"PUBSUB", "CHANNELS"}).contains("idem:asked:A"); };
    for (int i = 0; i < 2'000 && !heard(); ++i) turn(10ms);
    ASSERT_TRUE(heard());
  }

  metering::TempDir dir_{true};
  metering::RecordingHooks hooks_;
  core::ManualClock time_;
  idempotency::IdempotencyOptions options_{.shared = true};
  std::unique_ptr<metering::Ledger> ledger_ = metering::Ledger::open(metering::options_in(dir_), time_, hooks_).value();
};

TEST_F(KeyDoubtTest, WhatWasNeverWrittenDownIsFreeAndWhatWasNotHeardIsSaidAgain) {
  die_with({"unwritten", "answered", "lost", "running"});
  const auto keys = table();
  auto answered = claim_here(*keys, "answered");
  keep_answer(io_, answered, "from the store");
  answered.claim->settle();
  claim_here(*keys, "lost").claim->bury();
  auto running = claim_here(*keys, "running");
  keep_answer(io_, running, "not billed yet");
  Node b(*this, "B");
  for (const char* name : {"unwritten", "answered", "lost", "running"}) {
    EXPECT_EQ(claim_until(b, Met::doubt, name), Met::doubt) << name;
  }
  Node a(*this, "A");  // back
  keys->share(a.share);
  EXPECT_EQ(claim_until(b, Met::mine, "unwritten"), Met::mine);
  ASSERT_EQ(claim_until(b, Met::answered, "answered"), Met::answered);
  EXPECT_EQ(claim(b, "answered").answer->body, "from the store");
  EXPECT_EQ(claim_until(b, Met::lost, "lost"), Met::lost);
  stays_in_doubt(b, "running", "whether it will be billed is not known");
}

// The process that it replaces may be about to write the key down.
TEST_F(KeyDoubtTest, AProcessThatTakesOverAnswersOnceTheOtherIsGone) {
  die_with({"unwritten"});
  const auto keys = table(metering::OpenIntents::keep);
  Node a(*this, "A");
  keys->share(a.share);
  Node b(*this, "B");
  listening();
  stays_in_doubt(b, "unwritten", "the other process may have it");
  keys->predecessor_gone();
  EXPECT_EQ(claim_until(b, Met::mine, "unwritten"), Met::mine);
}

TEST_F(KeyDoubtTest, AProcessThatIsReplacedLeavesTheAnswerToTheOther) {
  die_with({"unwritten", "later"});
  const auto keys = table();
  Node a(*this, "A");
  keys->share(a.share);
  keys->freeze();
  Node b(*this, "B");
  listening();
  stays_in_doubt(b, "unwritten", "it is not settled who has the keys");
  keys->thaw();
  EXPECT_EQ(claim_until(b, Met::mine, "unwritten"), Met::mine);
  keys->freeze();
  keys->follow({});
  stays_in_doubt(b, "later", "the other process has the keys");
}

// It came and went, and this one's table never saw it.
TEST_F(KeyDoubtTest, WhatAnotherProcessWroteIsNotFree) {
  die_with({"of the other"});
  const auto keys = table();
  auto other = table(metering::OpenIntents::keep);
  auto known = claim_here(*other, "of the other");
  keep_answer(io_, known, "billed there");
  Node a(*this, "A");
  keys->share(a.share);
  Node b(*this, "B");
  listening();
  stays_in_doubt(b, "of the other", "its row is in the store");
}

// A request has the key in Redis and is not admitted yet; Redis, or this gateway, stood still for longer than the
// lease.
TEST_F(KeyDoubtTest, AKeyThatARequestHoldsIsNotFree) {
  const auto keys = table();
  Node a(*this, "A");
  keys->share(a.share);
  Node b(*this, "B");
  listening();
  auto mine = claim(a, "held");
  ASSERT_EQ(mine.met, Met::mine);
  for (int i = 0; i < 20; ++i) {
    redis_.say({"HSET", entry("held"), "l", "1"});
    EXPECT_NE(claim(b, "held").met, Met::mine);
    turn(20ms);
  }
  mine.hold.release();
  EXPECT_EQ(claim_until(b, Met::mine, "held"), Met::mine);
}

// What is answered late is not about the claim that somebody has made since.
TEST_F(KeyDoubtTest, ALateAnswerIsAboutTheClaimThatWasAskedFor) {
  die_with({"a"});
  Node a(*this, "A");
  std::optional<KeyShare::Question> asked;
  a.share.on_asked([&](KeyShare::Question question) { asked.emplace(std::move(question)); });
  Node b(*this, "B");
  for (int i = 0; i < 2'000 && !asked; ++i) {
    claim(b);
    turn(20ms);
  }
  ASSERT_TRUE(asked);
  EXPECT_EQ(asked->key(), key("a"));
  Node after(*this, "A");  // the process that took its place
  const auto mine = claim(after);
  ASSERT_EQ(mine.met, Met::mine);
  std::move(*asked).never_called();
  settle(a);
  EXPECT_NE(claim(b).met, Met::mine);
}

// A store that was moved away because it was damaged, or lost: what it knew may be billed.
TEST_F(KeyDoubtTest, AStoreThatIsYoungerThanItsLedgerFreesNothingUntilOldKeysAreOver) {
  ledger_->terminal_async(ledger_->intent(metering::subject("id"), "up").value(), metering::finished());
  ASSERT_TRUE(ledger_->flush());
  die_with({"unknown"});
  const auto keys = table();
  Node a(*this, "A");
  keys->share(a.share);
  Node b(*this, "B");
  listening();
  stays_in_doubt(b, "unknown", "the store that is gone may have known it");
  time_.advance(options_.ttl + 1s);
  EXPECT_EQ(claim_until(b, Met::mine, "unknown"), Met::mine);
}

TEST_F(KeyDoubtTest, OddQuestionsAreIgnored) {
  Node a(*this, "A");
  int asked = 0;
  a.share.on_asked([&](const KeyShare::Question&) { ++asked; });
  listening();
  for (const std::string& message :
       {std::string{}, std::string{" "}, std::string(15, 'k') + " ", std::string(200, 'k')}) {
    redis_.say({"PUBLISH", "t:idem:asked:A", message});
  }
  turn(50ms);
  EXPECT_EQ(asked, 0);
  redis_.say({"PUBLISH", "t:idem:asked:A", std::string(16, 'k') + " "});
  for (int i = 0; i < 500 && asked == 0; ++i) turn(10ms);
  EXPECT_EQ(asked, 1);
}

}  // namespace
}  // namespace ganglion::gateway
