// Idempotency keys of two gateways through a real redis-server that is killed, emptied and hung, and with a gateway
// that dies.

#include "gateway/key_share.hpp"

#include <gtest/gtest.h>

#include "core/digest.hpp"
#include "tests/unit/gateway/key_share_support.hpp"

namespace ganglion::gateway {
namespace {

using namespace std::chrono_literals;
using Met = KeyShare::Met;
using idempotency::Digest;

KeyShare::Answer answer(const std::string& text) {
  return std::make_shared<const idempotency::StoredAnswer>(
      idempotency::StoredAnswer{.status = 201, .content_type = "text/plain", .body = text});
}

TEST_F(KeyShareTest, OneGatewayRunsTheOthersGetItsAnswer) {
  Node a(*this, "A");
  Node b(*this, "B");
  auto mine = claim(a);
  ASSERT_EQ(mine.met, Met::mine);
  EXPECT_EQ(claim(b).met, Met::running);
  EXPECT_EQ(claim(b, "a", "another body").met, Met::conflict);
  EXPECT_EQ(claim(b, "other").met, Met::mine);
  turn(kLease + 300ms);
  EXPECT_EQ(claim(b).met, Met::running) << "a call longer than its lease is renewed";
  bool told = false;
  const std::string bytes{"an\0swer\r\n", 9};
  mine.hold.done(answer(bytes), [&] { told = true; });
  settle(a);
  EXPECT_TRUE(told);
  for (Node* node : {&a, &b}) {
    const auto met = claim(*node);
    ASSERT_EQ(met.met, Met::answered);
    EXPECT_EQ(met.answer->status, 201);
    EXPECT_EQ(met.answer->content_type, "text/plain");
    EXPECT_EQ(met.answer->body, bytes);
  }
  EXPECT_EQ(claim(b, "a", "another body").met, Met::conflict);
  const std::string left = redis_.say({"PTTL", "t:idem:{" + core::hex(key("a")) + "}"});
  EXPECT_GT(std::stol(left.substr(left.starts_with(":") ? 1 : 0)), 50'000) << left;
}

TEST_F(KeyShareTest, WhatWasNotBilledRunsElsewhereAndWhatWasNeverDoes) {
  Node a(*this, "A");
  Node b(*this, "B");
  {
    auto mine = claim(a);
    ASSERT_EQ(mine.met, Met::mine);
  }  // as every refusal ends
  settle(a);
  auto mine = claim(b);
  ASSERT_EQ(mine.met, Met::mine);
  mine.hold.lost({});
  settle(b);
  EXPECT_EQ(claim(a).met, Met::lost);
}

// Two processes of one gateway, while one replaces the other: a request that waited here for the key of the other one.
TEST_F(KeyShareTest, WhoForgetsAKeyDoesNotFreeIt) {
  Node old_process(*this, "A");
  Node new_process(*this, "A");
  Node b(*this, "B");
  auto runs = claim(new_process);
  ASSERT_EQ(runs.met, Met::mine);
  auto waits = claim(old_process);
  ASSERT_EQ(waits.met, Met::mine) << "its own table tells it that it runs there";
  waits.hold.forget();
  turn(50ms);
  settle(old_process);
  EXPECT_NE(claim(b).met, Met::mine) << "it would run twice";
  turn(kLease + 300ms);
  EXPECT_NE(claim(b).met, Met::mine) << "silent is not free";
  runs.hold.done(answer("once"), {});
  settle(new_process);
  EXPECT_EQ(claim(b).met, Met::answered);
}

TEST_F(KeyShareTest, RequestsOfOneGatewayHoldAKeyTogether) {
  Node a(*this, "A");
  Node b(*this, "B");
  auto first = claim(a);
  auto second = claim(a);
  ASSERT_EQ(second.met, Met::mine) << "its own table tells them apart";
  second.hold.release();
  settle(a);
  EXPECT_EQ(claim(b).met, Met::running);
  first.hold.release();
  settle(a);
  EXPECT_EQ(claim(b).met, Met::mine);
}

// The release's script is not known to Redis and goes out once more, behind the next claim: that one stays.
TEST_F(KeyShareTest, AReleaseThatIsOvertakenByTheNextClaimReleasesNothing) {
  Node a(*this, "A");
  Node b(*this, "B");
  auto first = claim(a);
  ASSERT_EQ(first.met, Met::mine);
  first.hold.release();
  auto second = claim(a);
  ASSERT_EQ(second.met, Met::mine);
  settle(a);
  EXPECT_EQ(claim(b).met, Met::running);
  second.hold.release();
  settle(a);
  EXPECT_EQ(claim(b).met, Met::mine);
}

// One process of a gateway takes another's place: both have its name.
TEST_F(KeyShareTest, WhatTheReplacedProcessLetsGoIsNotTheNewOnesClaim) {
  Node before(*this, "A");
  Node after(*this, "A");
  Node b(*this, "B");
  auto released = claim(before);
  ASSERT_EQ(released.met, Met::mine);
  auto mine = claim(after);
  ASSERT_EQ(mine.met, Met::mine) << "the old one has told it that the key is free";
  turn(kLease / 2);  // the old one renews
  released.hold.release();
  settle(before);
  EXPECT_EQ(claim(b).met, Met::running) << "the new one works on it";
  mine.hold.done(answer("x"), {});
  settle(after);
  EXPECT_EQ(claim(b).met, Met::answered);
}

TEST_F(KeyShareTest, TheNewProcessReleasesWhatADeadOneHeld) {
  Node after(*this, "A");
  Node b(*this, "B");
  {
    Node before(*this, "A");
    ASSERT_EQ(claim(before).met, Met::mine);
    turn(50ms);
  }
  after.share.tell_released(key("a"), body("body"));
  settle(after);
  EXPECT_EQ(claim(b).met, Met::mine);
}

// Whether it was billed stands in its ledger: nobody may run the key before it has said so.
TEST_F(KeyShareTest, AKeyOfADeadGatewayIsInDoubtUntilItIsBack) {
  Node b(*this, "B");
  {
    Node a(*this, "A");
    auto mine = claim(a);
    ASSERT_EQ(mine.met, Met::mine);
    mine.hold.abandon();
    turn(20ms);
  }
  EXPECT_EQ(claim_until(b, Met::doubt), Met::doubt);
  turn(100ms);
  EXPECT_EQ(claim(b).met, Met::doubt);
  {
    Node a(*this, "A");  // restarted
    a.share.tell_done(key("a"), body("body"), answer("from the store"), {});
    settle(a);
    const auto met = claim(b);
    ASSERT_EQ(met.met, Met::answered);
    EXPECT_EQ(met.answer->body, "from the store");
    auto unbilled = claim(a, "c");
    unbilled.hold.abandon();
    turn(20ms);
  }
  Node a(*this, "A");
  a.share.tell_released(key("c"), body("body"));
  settle(a);
  EXPECT_EQ(claim(b, "c").met, Met::mine);
}

// The answer waits for Redis when another request of the gateway, which followed the call, lets go of the key.
TEST_F(KeyShareTest, WhoFollowedABilledCallDoesNotFreeItsKey) {
  Node a(*this, "A");
  Node b(*this, "B");
  auto leads = claim(a), follows = claim(a);
  ASSERT_EQ(follows.met, Met::mine);
  redis_.say({"SAVE"});
  redis_.kill();
  leads.hold.done(answer("billed"), {});
  settle(a);
  redis_.restart();
  ASSERT_TRUE(redis_.wait_ready());
  for (int i = 0; i < 10'000 && a.client.state() != net::RedisState::up; ++i) turn(std::chrono::milliseconds{1});
  follows.hold.release();
  Met met = Met::alone;
  for (int i = 0; i < 10'000 && met == Met::alone; ++i) {
    turn(std::chrono::milliseconds{1});
    met = claim(b).met;
  }
  EXPECT_NE(met, Met::mine);
  EXPECT_EQ(claim_until(b, Met::answered), Met::answered);
}

TEST_F(KeyShareTest, WithoutRedisAGatewayIsAloneAndTellsItsAnswersLater) {
  Node a(*this, "A");
  Node b(*this, "B");
  auto running = claim(a);
  ASSERT_EQ(running.met, Met::mine);
  redis_.kill();
  const auto began = std::chrono::steady_clock::now();
  auto alone = claim(a, "during");
  EXPECT_EQ(alone.met, Met::alone);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 15s) << "nobody listens there";
  int told = 0;
  alone.hold.done(answer("late"), [&] { ++told; });
  turn(300ms);
  EXPECT_EQ(told, 0);
  redis_.restart();  // empty
  ASSERT_TRUE(redis_.wait_ready());
  for (int i = 0; i < 3'000 && told == 0; ++i) turn(20ms);
  EXPECT_EQ(told, 1);
  for (int i = 0; i < 3'000 && claim(b, "probe").met == Met::alone; ++i) turn(20ms);  // B's connection is back as well
  const auto met = claim(b, "during");
  ASSERT_EQ(met.met, Met::answered);
  EXPECT_EQ(met.answer->body, "late");
  turn(kLease / 2);
  EXPECT_EQ(claim(b).met, Met::running) << "what Redis forgot is written down again while it runs";
  EXPECT_GE(metrics_.registry().shared().counter(metrics::Family::idempotency_alone_total).value(), 1U);
}

TEST_F(KeyShareTest, AHungRedisHoldsARequestUpOnlyShortly) {
  Node a(*this, "A", 500ms);
  ASSERT_EQ(claim(a, "first").met, Met::mine);
  redis_.stop();
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(claim(a).met, Met::alone);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 10s);
  redis_.resume();
}

// What another gateway wrote down is the answer, also where both ran while Redis was away.
TEST_F(KeyShareTest, TheFirstAnswerStays) {
  Node a(*this, "A");
  Node b(*this, "B");
  auto mine = claim(a);
  mine.hold.done(answer("first"), {});
  settle(a);
  b.share.tell_done(key("a"), body("body"), answer("second"), {});
  b.share.tell_lost(key("a"), body("body"), {});
  b.share.tell_released(key("a"), body("body"));
  settle(b);
  EXPECT_EQ(claim(b).answer->body, "first");
}

}  // namespace
}  // namespace ganglion::gateway
