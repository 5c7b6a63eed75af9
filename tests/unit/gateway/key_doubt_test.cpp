// What a gateway that is back says of keys that others hold it to have: its table, its store and its share together.

#include <gtest/gtest.h>

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
    return std::make_unique<Idempotency>(idempotency::IdempotencyOptions{.shared = true}, dir_.ledger(), *ledger_,
                                         clock_, metrics_.registry(), open);
  }
  Idempotency::Known claim_here(Idempotency& keys, const std::string& name) {
    auto known = keys.claim(key(name), body("body"), "id-" + name, io_.get_executor());
    EXPECT_EQ(known.kind, Idempotency::Known::Kind::lead);
    write_claim(io_, known);
    return known;
  }

  metering::TempDir dir_{true};
  metering::RecordingHooks hooks_;
  std::unique_ptr<metering::Ledger> ledger_ =
      metering::Ledger::open(metering::options_in(dir_), clock_, hooks_).value();
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
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(claim(b, "running").met, Met::doubt) << "whether it will be billed is not known";
    turn(20ms);
  }
}

// The process that it replaces may be about to write the key down.
TEST_F(KeyDoubtTest, AProcessThatTakesOverAnswersOnceTheOtherIsGone) {
  die_with({"unwritten"});
  const auto keys = table(metering::OpenIntents::keep);
  Node a(*this, "A");
  keys->share(a.share);
  Node b(*this, "B");
  EXPECT_EQ(claim_until(b, Met::doubt, "unwritten"), Met::doubt);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(claim(b, "unwritten").met, Met::doubt);
    turn(20ms);
  }
  keys->predecessor_gone();
  EXPECT_EQ(claim_until(b, Met::mine, "unwritten"), Met::mine);
}

TEST_F(KeyDoubtTest, AProcessThatIsReplacedLeavesTheAnswerToTheOther) {
  die_with({"unwritten"});
  const auto keys = table();
  Node a(*this, "A");
  keys->share(a.share);
  keys->freeze();
  Node b(*this, "B");
  EXPECT_EQ(claim_until(b, Met::doubt, "unwritten"), Met::doubt);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(claim(b, "unwritten").met, Met::doubt);
    turn(20ms);
  }
  keys->thaw();
  EXPECT_EQ(claim_until(b, Met::mine, "unwritten"), Met::mine);
}

}  // namespace
}  // namespace ganglion::gateway
