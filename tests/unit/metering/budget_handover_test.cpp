// Budgets over two processes while one takes the other's place: together they never pass the limit.

#include <thread>

#include "tests/unit/metering/budget_support.hpp"

namespace ganglion::metering {
namespace {

const std::vector<BudgetOptions> kRules{{.name = "month", .tenant = "acme", .limit_neurons = "100"}};
const BudgetSubject kSubject{.key = "k", .tenant = "acme", .gateway = "default", .model = "m"};

class BudgetHandoverTest : public ::testing::Test {
 protected:
  // Asks the new process's budgets directly.
  struct Heir final : BudgetHeir {
    explicit Heir(Budgets& to) : budgets(to) {}
    core::Result<void> raise(const std::vector<BudgetHold>& more, bool running) override {
      return budgets.raise_adopted(more, running);
    }
    void settle(const std::vector<BudgetHold>& released, const BudgetSubject& subject, const BudgetCost& cost,
                std::string_view request_id) override {
      budgets.settle_adopted(released, subject, cost, request_id);
    }
    Budgets& budgets;
  };

  BudgetHandoverTest() { use(old_, kRules); }
  core::Result<BudgetReservation> reserve(Budgets& budgets, std::uint64_t count) {
    return budgets.reserve(budgets.resolve(kSubject).value(), neurons(count));
  }
  // With `spent` neurons in its history.
  void start_new(const std::vector<BudgetHold>& holds, std::uint64_t spent, std::string_view request_id = {}) {
    new_.prepare(rules_of(kRules));
    if (spent != 0) new_.restore(kSubject, neurons(spent), clock_.wall(), request_id);
    new_.ready();
    new_.adopt(holds);
    old_.follow(heir_);
  }
  BudgetAmount reserved() { return state_of(new_, "month").reserved / kPartsPerNeuron; }
  BudgetAmount spent() { return state_of(new_, "month").spent / kPartsPerNeuron; }

  core::ManualClock clock_;
  CountingHooks hooks_;
  Budgets old_{clock_, hooks_}, new_{clock_, hooks_};
  Heir heir_{new_};
};

TEST_F(BudgetHandoverTest, WhatRunningRequestsHoldIsHeldByTheNewProcess) {
  auto running = reserve(old_, 60).value();
  start_new(old_.freeze(), 20);
  EXPECT_EQ(reserved(), 60U);
  EXPECT_FALSE(reserve(new_, 21));
  EXPECT_TRUE(reserve(new_, 20));  // and let go at once
  old_.settle(running, kSubject, neurons(30), "r");
  EXPECT_EQ(reserved(), 0U);
  EXPECT_EQ(spent(), 50U);
  EXPECT_TRUE(reserve(new_, 50));
  EXPECT_FALSE(reserve(new_, 51));
}

TEST_F(BudgetHandoverTest, ARunningRequestAsksTheNewProcessForMore) {
  auto running = reserve(old_, 40).value();
  start_new(old_.freeze(), 0);
  auto of_new = reserve(new_, 50).value();
  EXPECT_TRUE(old_.raise(running, neurons(50), true));
  EXPECT_FALSE(old_.raise(running, neurons(51), true));
  EXPECT_EQ(reserved(), 100U);
  old_.settle(running, kSubject, neurons(50), "r");
  new_.settle(of_new, kSubject, neurons(10), "n");
  EXPECT_EQ(reserved(), 0U);
  EXPECT_EQ(spent(), 60U);
}

TEST_F(BudgetHandoverTest, ARequestThatBeganLateReservesAtTheNewProcess) {
  start_new(old_.freeze(), 95);
  EXPECT_FALSE(reserve(old_, 6));
  {
    const auto late = reserve(old_, 5);
    ASSERT_TRUE(late);
    EXPECT_EQ(reserved(), 5U);
  }
  EXPECT_EQ(reserved(), 0U);  // given back unsettled
}

TEST_F(BudgetHandoverTest, AnEndThatTheNewProcessHasReadInTheLedgerCountsOnce) {
  auto running = reserve(old_, 60).value();
  const auto holds = old_.freeze();  // its record was written before, its end is told after
  start_new(holds, 30, "r");
  old_.settle(running, kSubject, neurons(30), "r");
  EXPECT_EQ(spent(), 30U);
  EXPECT_EQ(reserved(), 0U);
}

TEST_F(BudgetHandoverTest, WhatADeadProcessHeldIsFreeAgain) {
  auto running = reserve(old_, 60).value();
  start_new(old_.freeze(), 0);
  auto own = reserve(new_, 40).value();
  new_.drop_adopted();
  EXPECT_EQ(reserved(), 40U);
  EXPECT_TRUE(reserve(new_, 60));
}

TEST_F(BudgetHandoverTest, AFrozenBudgetGoesOnWhenNobodyTookIt) {
  auto running = reserve(old_, 60).value();
  old_.freeze();
  std::atomic<bool> begun{false}, ended{false};
  std::thread worker([&] {
    begun = true;
    old_.settle(running, kSubject, neurons(10), "r");
    ended = true;
  });
  while (!begun) std::this_thread::yield();
  EXPECT_FALSE(ended && state_of(old_, "month").reserved != 0);
  old_.thaw();
  worker.join();
  EXPECT_EQ(state_of(old_, "month").reserved, 0U);
  EXPECT_EQ(state_of(old_, "month").spent / kPartsPerNeuron, 10U);
  EXPECT_TRUE(reserve(old_, 90));
}

}  // namespace
}  // namespace ganglion::metering
