// Budgets rebuilt from a real ledger: from its rollups, from the records behind them, and from both.

#include "metering/budget_history.hpp"

#include "metering/ledger_keeper.hpp"
#include "tests/unit/metering/budget_support.hpp"
#include "tests/unit/metering/ledger_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;

struct BudgetHistory : ::testing::Test {
  void spend(Ledger& ledger, std::uint64_t amount, const std::string& team) {
    const api::Tags tags{{"team", team, api::TagType::text}};
    const std::string id = "r" + std::to_string(++requests);
    Subject who = subject(id);
    who.tags = tags;
    const auto intent = ledger.intent(who, "x").value();
    ledger.terminal_async(
        intent, finished({.exact = neurons(amount).neurons, .usd_pico_per_neuron = 11'000'000, .schedule = "s"}));
    ASSERT_TRUE(ledger.flush());
  }
  void check(BudgetAmount day, BudgetAmount red) {
    Budgets budgets(clock, budget_hooks);
    const auto done =
        apply_rules(budgets,
                    rules_of({{.name = "day", .limit_neurons = "1000", .window = "day"},
                              {.name = "usd", .tenant = "acme", .limit_usd = "1", .window = "day"},
                              {.name = "red", .tag = "team=red", .limit_neurons = "1000", .window = "3h"}}),
                    clock, dir.ledger());
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_EQ(state_of(budgets, "day").spent, day * kPartsPerNeuron);
    EXPECT_EQ(state_of(budgets, "usd").spent, day * kPartsPerNeuron * 11'000'000);
    EXPECT_EQ(state_of(budgets, "red").spent, red * kPartsPerNeuron);
  }

  TempDir dir{true};
  core::ManualClock clock;
  RecordingHooks hooks;
  CountingHooks budget_hooks;
  int requests = 0;
};

TEST_F(BudgetHistory, RollupsAndRecordsCountOnceEach) {
  const auto ledger = Ledger::open(options_in(dir), clock, hooks).value();
  clock.advance(24h);
  spend(*ledger, 5, "red");  // of yesterday, as seen below
  clock.advance(25h);
  spend(*ledger, 10, "red");
  spend(*ledger, 20, "blue");
  check(30, 10);
  const auto keeper = LedgerKeeper::open(options_in(dir), *ledger, clock).value();
  ASSERT_TRUE(keeper->run_once());
  check(30, 10);
  spend(*ledger, 40, "red");
  check(70, 50);
  clock.advance(5h);
  spend(*ledger, 1, "red");
  check(71, 1);
  ASSERT_TRUE(keeper->run_once());
  check(71, 1);
}

// Rollups that can be read, over a ledger that cannot: found out when the new rules are half in force.
TEST_F(BudgetHistory, RulesWithoutReadableHistoryLeaveTheOldOnesInForce) {
  const std::vector<BudgetOptions> before{{.name = "day", .limit_neurons = "40", .window = "day"},
                                          {.name = "both", .limit_neurons = "100", .window = "day"}};
  Budgets budgets(clock, budget_hooks);
  {
    const auto ledger = Ledger::open(options_in(dir), clock, hooks).value();
    spend(*ledger, 30, "red");
    ASSERT_TRUE(apply_rules(budgets, rules_of(before), clock, dir.ledger()));
    const auto keeper = LedgerKeeper::open(options_in(dir), *ledger, clock).value();
    ASSERT_TRUE(keeper->run_once());
  }
  for (const SegmentFile& file : list_segments(dir.ledger()).value()) std::filesystem::remove(file.path);
  const BudgetSubject who{.key = "k", .tenant = "acme", .gateway = "default", .model = "m"};
  auto running = budgets.reserve(budgets.resolve(who).value(), neurons(10)).value();
  const auto done = apply_rules(budgets,
                                rules_of({{.name = "new", .limit_neurons = "1", .window = "day"},
                                          {.name = "both", .limit_neurons = "20", .window = "day"}}),
                                clock, dir.ledger());
  ASSERT_FALSE(done);
  EXPECT_EQ(state_of(budgets, "day").spent, BudgetAmount{30} * kPartsPerNeuron);
  EXPECT_EQ(state_of(budgets, "day").reserved, BudgetAmount{10} * kPartsPerNeuron);
  EXPECT_EQ(state_of(budgets, "both").limit, BudgetAmount{100} * kPartsPerNeuron);
  EXPECT_EQ(budgets.states().size(), 2U);
  EXPECT_FALSE(budgets.reserve(budgets.resolve(who).value(), neurons(1))) << "the old budget binds";
  budgets.settle(running, who, neurons(4), "r");
  EXPECT_EQ(state_of(budgets, "day").spent, BudgetAmount{34} * kPartsPerNeuron);
  EXPECT_TRUE(budgets.reserve(budgets.resolve(who).value(), neurons(6)));
}

TEST_F(BudgetHistory, ACorruptLedgerIsAnError) {
  Budgets budgets(clock, budget_hooks);
  std::ofstream(dir.ledger() + "/rollups.db") << "this is no database, and it is long enough to be looked at";
  EXPECT_FALSE(apply_rules(budgets, rules_of({{.name = "b", .limit_usd = "1"}}), clock, dir.ledger()));
  EXPECT_TRUE(apply_rules(budgets, rules_of({}), clock, dir.ledger())) << "nobody needs it";
}

}  // namespace
}  // namespace ganglion::metering
