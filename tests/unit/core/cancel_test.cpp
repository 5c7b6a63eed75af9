// Cancellation: first reason wins, callbacks run once, order and lifetime in both directions.

#include "core/cancel.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace ganglion::core {
namespace {

TEST(Cancel, RunsCallbacksOnceInOrderWithTheFirstReason) {
  CancelSource source;
  std::vector<int> calls;
  CancelReason seen = CancelReason::none;
  CancelRegistration first(source, [&](CancelReason reason) {
    calls.push_back(1);
    seen = reason;
  });
  CancelRegistration second(source, [&](CancelReason) { calls.push_back(2); });
  source.cancel(CancelReason::client_gone);
  source.cancel(CancelReason::deadline);
  EXPECT_EQ(calls, (std::vector<int>{1, 2}));
  EXPECT_EQ(seen, CancelReason::client_gone);
  EXPECT_EQ(source.reason(), CancelReason::client_gone);
}

TEST(Cancel, ARegistrationThatLeftIsNotCalled) {
  CancelSource source;
  int calls = 0;
  auto middle = std::make_unique<CancelRegistration>(source, [&](CancelReason) { ++calls; });
  CancelRegistration last(source, [&](CancelReason) { calls += 10; });
  middle.reset();
  source.cancel(CancelReason::shutdown);
  EXPECT_EQ(calls, 10);
}

TEST(Cancel, RegisteringLateRunsAtOnce) {
  CancelSource source;
  source.cancel(CancelReason::deadline);
  CancelReason seen = CancelReason::none;
  CancelRegistration late(source, [&](CancelReason reason) { seen = reason; });
  EXPECT_EQ(seen, CancelReason::deadline);
}

TEST(Cancel, ACallbackMayDropAnotherRegistration) {
  CancelSource source;
  int calls = 0;
  std::unique_ptr<CancelRegistration> victim;
  CancelRegistration killer(source, [&](CancelReason) { victim.reset(); });
  victim = std::make_unique<CancelRegistration>(source, [&](CancelReason) { ++calls; });
  source.cancel(CancelReason::client_gone);
  EXPECT_EQ(calls, 0);
}

TEST(Cancel, TheSourceMayDieFirst) {
  auto source = std::make_unique<CancelSource>();
  int calls = 0;
  CancelRegistration registration(*source, [&](CancelReason) { ++calls; });
  source.reset();
  registration.reset();
  EXPECT_EQ(calls, 0);
}

}  // namespace
}  // namespace ganglion::core
