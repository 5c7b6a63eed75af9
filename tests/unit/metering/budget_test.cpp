// Budgets one rule at a time: windows, selectors, refusals, alerts, reloads.

#include <chrono>

#include "tests/unit/metering/budget_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;

core::WallTime utc(int year, unsigned month, unsigned day, std::chrono::seconds time = 0s) {
  return std::chrono::sys_days{std::chrono::year{year} / std::chrono::month{month} / std::chrono::day{day}} + time;
}

struct BudgetTest : ::testing::Test {
  core::ManualClock clock;  // 2026-01-01 00:00:00 UTC, a Thursday
  CountingHooks hooks;
  Budgets budgets{clock, hooks};
  const BudgetSubject alice{.key = "alice", .tenant = "acme", .gateway = "default", .model = "m"};

  core::Result<BudgetReservation> reserve(const BudgetSubject& subject, std::uint64_t amount) {
    return budgets.reserve(budgets.resolve(subject).value(), neurons(amount));
  }
  void spend(const BudgetSubject& subject, std::uint64_t amount) {
    auto held = reserve(subject, amount);
    ASSERT_TRUE(held) << held.error().message;
    budgets.settle(*held, subject, neurons(amount), "r");
  }
  bool room_for(const BudgetSubject& subject, std::uint64_t amount) { return reserve(subject, amount).has_value(); }
};

TEST(BudgetWindow, CalendarWindowsBeginWhereTheCalendarSays) {
  const auto start = [](std::string_view window, core::WallTime at) { return window_start(*parse_window(window), at); };
  EXPECT_EQ(start("hour", utc(2026, 11, 25, 13h + 16min + 5s)), utc(2026, 11, 25, 13h));
  EXPECT_EQ(start("day", utc(2026, 11, 25, 23h + 59min + 59s)), utc(2026, 11, 25));
  EXPECT_EQ(start("week", utc(2026, 11, 25)), utc(2026, 11, 23)) << "Monday";
  EXPECT_EQ(start("week", utc(2026, 11, 23)), utc(2026, 11, 23));
  EXPECT_EQ(start("week", utc(2026, 11, 22, 24h - 1s)), utc(2026, 11, 16)) << "Sunday is the week's last day";
  EXPECT_EQ(start("month", utc(2028, 2, 29)), utc(2028, 2, 1));
  EXPECT_EQ(start("month", utc(2038, 1, 19, 3h + 14min + 8s)), utc(2038, 1, 1)) << "past 2^31 seconds";
  const WindowSpec month{.kind = WindowKind::month};
  EXPECT_EQ(slot_start(month, slot_of(month, utc(2026, 12, 31)) + 1), utc(2027, 1, 1));
  EXPECT_EQ(start("week", utc(1969, 12, 30)), utc(1969, 12, 29)) << "a clock before 1970 harms nobody";
}

TEST(BudgetWindow, TextIsAKindOrALength) {
  EXPECT_EQ(parse_window("36h")->length, 36h);
  EXPECT_EQ(format_window(*parse_window("36h")), "36h");
  EXPECT_EQ(format_window(*parse_window("48h")), "2d");
  for (const char* bad : {"", "year", "5", "-1h", "30s", "367d", "1.5h", "99999999999999999999h", "h", "1hh"})
    EXPECT_FALSE(parse_window(bad)) << bad;
}

TEST(BudgetWindow, ASlidingWindowNeverCountsTooLittle) {
  for (const int length_s : {60, 61, 100, 3'600, 5'000}) {
    WindowedSpend spend({.kind = WindowKind::sliding, .length = std::chrono::seconds{length_s}});
    const core::WallTime at = utc(2026, 1, 1, 12h + 7s);
    spend.add(at, 10);
    EXPECT_EQ(spend.total(at + std::chrono::seconds{length_s} - 1s), BudgetAmount{10}) << length_s;
    const auto gone = spend.falls_to(0, at);
    EXPECT_GE(gone, at + std::chrono::seconds{length_s}) << length_s;
    EXPECT_LE(gone, at + std::chrono::seconds{length_s + 61 + length_s / 30}) << length_s;
    EXPECT_EQ(spend.total(gone), BudgetAmount{0});
    EXPECT_EQ(spend.total(gone - 1s), BudgetAmount{10});
  }
}

TEST_F(BudgetTest, ReservesTheWorstCaseAndGivesBackTheRest) {
  use(budgets, {{.name = "b", .limit_neurons = "100"}});
  auto first = reserve(alice, 60);
  ASSERT_TRUE(first);
  EXPECT_FALSE(room_for(alice, 41)) << "what is reserved is not there for others";
  EXPECT_TRUE(room_for(alice, 40));
  budgets.settle(*first, alice, neurons(10), "r");
  EXPECT_TRUE(room_for(alice, 90));
  EXPECT_FALSE(room_for(alice, 91));
  EXPECT_EQ(state_of(budgets, "b").spent, neurons(10).neurons);
}

TEST_F(BudgetTest, AllBudgetsOrNone) {
  use(budgets, {{.name = "wide", .limit_neurons = "100"}, {.name = "key", .key = "alice", .limit_neurons = "10"}});
  EXPECT_FALSE(room_for(alice, 11));
  EXPECT_EQ(state_of(budgets, "wide").reserved, BudgetAmount{0});
  EXPECT_TRUE(room_for({.key = "bob"}, 100));
}

TEST_F(BudgetTest, SelectorsAllHaveToFit) {
  use(budgets, {{.name = "b", .tenant = "acme", .model = "m", .tag = "team=red", .limit_neurons = "5"}});
  const api::Tag red{"team", "red"};
  const api::Tag blue{"team", "blue"};
  BudgetSubject subject = alice;
  EXPECT_TRUE(room_for(subject, 6)) << "no tag";
  subject.tags = {&blue, 1};
  EXPECT_TRUE(room_for(subject, 6));
  subject.tags = {&red, 1};
  EXPECT_FALSE(room_for(subject, 6));
  subject.model = "other";
  EXPECT_TRUE(room_for(subject, 6));
}

TEST_F(BudgetTest, PerTagEachValueHasItsOwnAndLeavingItOutIsNoWayAround) {
  use(budgets, {{.name = "b", .tag = "team", .per = "tag", .limit_neurons = "5"}});
  const api::Tag red{"team", "red"};
  const api::Tag blue{"team", "blue"};
  BudgetSubject subject = alice;
  subject.tags = {&red, 1};
  spend(subject, 5);
  EXPECT_FALSE(room_for(subject, 1));
  subject.tags = {&blue, 1};
  EXPECT_TRUE(room_for(subject, 5));
  spend(alice, 5);
  EXPECT_FALSE(room_for({.key = "bob"}, 1)) << "requests without the tag share one";
}

TEST_F(BudgetTest, UsdCountsTheTiersPrice) {
  use(budgets, {{.name = "b", .limit_usd = "1"}});
  const auto cost = [](std::uint64_t pico) {
    return cost_of({.exact = NeuronParts{1'000} * kPartsPerNeuron, .usd_pico_per_neuron = pico});
  };
  const auto handle = budgets.resolve(alice).value();
  EXPECT_TRUE(budgets.reserve(handle, cost(1'000'000'000)));
  EXPECT_FALSE(budgets.reserve(handle, cost(1'000'000'001)));
  EXPECT_FALSE(budgets.reserve(handle, cost_of({.exact = ~NeuronParts{0}, .usd_pico_per_neuron = 11'000'000})))
      << "saturates";
}

TEST_F(BudgetTest, ReservationsCarryOverTheTurnOfAWindow) {
  use(budgets, {{.name = "b", .limit_neurons = "100", .window = "hour"}});
  auto running = reserve(alice, 80);
  ASSERT_TRUE(running);
  clock.advance(1h);
  EXPECT_FALSE(room_for(alice, 21)) << "it will be spent in this window";
  EXPECT_TRUE(room_for(alice, 20));
  budgets.settle(*running, alice, neurons(80), "r");
  EXPECT_EQ(state_of(budgets, "b").spent, neurons(80).neurons);
}

TEST_F(BudgetTest, AClockSetBackFindsWhatWasSpent) {
  use(budgets, {{.name = "b", .limit_neurons = "100", .window = "hour"}});
  spend(alice, 100);
  clock.jump_wall(2h);
  spend(alice, 100);
  clock.jump_wall(-2h);
  EXPECT_FALSE(room_for(alice, 1));
}

TEST_F(BudgetTest, TheRefusalNamesBudgetWindowAndReset) {
  use(budgets, {{.name = "acme-month", .tenant = "acme", .limit_neurons = "100"}});
  spend(alice, 90);
  const auto refused = reserve(alice, 20);
  ASSERT_FALSE(refused);
  const core::Error& error = refused.error();
  EXPECT_EQ(error.kind, core::ErrorKind::quota_exceeded);
  EXPECT_EQ(error.message,
            "Budget `acme-month` (100 neurons per calendar month (UTC)) has no room for this request, which may cost "
            "up to 20 neurons. It resets at 2026-02-01T00:00:00Z.");
  EXPECT_EQ(error.retry_after, 31 * 24h);
  EXPECT_EQ(hooks.refusals, 1);
}

TEST_F(BudgetTest, ARefusalSaysWhetherWaitingHelps) {
  use(budgets, {{.name = "b", .limit_neurons = "100"}});
  auto running = reserve(alice, 90);
  const auto held = reserve(alice, 20);
  ASSERT_FALSE(held);
  EXPECT_EQ(held.error().retry_after, 1s) << "others are running";
  const auto never = reserve(alice, 101);
  ASSERT_FALSE(never);
  EXPECT_EQ(never.error().retry_after, 0s);
  EXPECT_NE(never.error().message.find("can never hold"), std::string::npos);
}

TEST_F(BudgetTest, ARunningAnswerMayFinishWhereTheOperatorSaysSo) {
  use(budgets, {{.name = "soft", .key = "alice", .limit_neurons = "100", .on_exceed = OnExceed::finish}});
  auto held = reserve(alice, 100);
  ASSERT_TRUE(held);
  EXPECT_FALSE(budgets.raise(*held, neurons(120), false)) << "before it runs the budget is hard";
  EXPECT_TRUE(budgets.raise(*held, neurons(120), true));
  budgets.settle(*held, alice, neurons(120), "r");
  EXPECT_EQ(state_of(budgets, "soft").spent, neurons(120).neurons);
  EXPECT_EQ(state_of(budgets, "soft").reserved, BudgetAmount{0});
}

TEST_F(BudgetTest, WhatWasSpentBeyondTheReservationIsCountedAndTold) {
  use(budgets, {{.name = "b", .limit_neurons = "100"}});
  auto held = reserve(alice, 60);
  budgets.settle(*held, alice, neurons(101), "r");
  EXPECT_EQ(hooks.overruns, 1);
  EXPECT_EQ(state_of(budgets, "b").spent, neurons(101).neurons);
  EXPECT_FALSE(room_for(alice, 1));
}

TEST_F(BudgetTest, AFreeOnlyTenantStopsAtItsDailyAllocation) {
  budgets.prepare(rules_of({}, {"acme"}, 10));
  budgets.ready();
  spend(alice, 10);
  const auto refused = reserve(alice, 1);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("`free-allocation:acme` (10 neurons per calendar day"), std::string::npos);
  EXPECT_TRUE(room_for({.key = "bob", .tenant = "other"}, 50));
  clock.advance(24h);
  EXPECT_TRUE(room_for(alice, 10));
}

TEST_F(BudgetTest, AlertsComeOnceAWindow) {
  use(budgets, {{.name = "b", .limit_neurons = "100", .window = "day"}});
  spend(alice, 49);
  EXPECT_TRUE(hooks.alerts.empty());
  spend(alice, 32);
  ASSERT_EQ(hooks.alerts.size(), 2U);
  EXPECT_EQ(hooks.alerts[0].percent, 50U);
  EXPECT_EQ(hooks.alerts[1].percent, 80U);
  spend(alice, 5);
  EXPECT_EQ(hooks.alerts.size(), 2U);
  EXPECT_FALSE(room_for(alice, 20));
  EXPECT_FALSE(room_for(alice, 20));
  ASSERT_EQ(hooks.alerts.size(), 3U) << "refusing is as good as spent";
  EXPECT_TRUE(hooks.alerts[2].refused);
  const std::string first = hooks.alerts[0].id;
  clock.advance(24h);
  spend(alice, 60);
  ASSERT_EQ(hooks.alerts.size(), 4U);
  EXPECT_NE(hooks.alerts[3].id, first);
}

TEST_F(BudgetTest, AnAlertOfARestartHasTheSameId) {
  const std::vector<BudgetOptions> options{{.name = "b", .limit_neurons = "100", .window = "day"}};
  use(budgets, options);
  spend(alice, 60);
  Budgets again(clock, hooks);
  again.prepare(rules_of(options));
  again.restore(alice, neurons(60), clock.wall(), "r");
  again.ready();
  ASSERT_EQ(hooks.alerts.size(), 2U);
  EXPECT_EQ(hooks.alerts[0].id, hooks.alerts[1].id);
}

TEST_F(BudgetTest, AReloadKeepsCountsUnderANewLimit) {
  use(budgets, {{.name = "b", .limit_neurons = "100"}});
  spend(alice, 50);
  EXPECT_FALSE(budgets.prepare(rules_of({{.name = "b", .limit_neurons = "60"}}))) << "no history needed";
  EXPECT_TRUE(room_for(alice, 10));
  EXPECT_FALSE(room_for(alice, 11));
}

TEST_F(BudgetTest, ABudgetAddedByAReloadCountsEachRecordOnce) {
  clock.advance(5h);
  use(budgets, {});
  auto before = reserve(alice, 5);  // ends before the scan sees it
  auto during = reserve(alice, 7);  // its record is scanned, then it settles
  auto after = reserve(alice, 9);   // ends after the scan
  ASSERT_TRUE(budgets.prepare(rules_of({{.name = "new", .limit_neurons = "100"}})));
  EXPECT_TRUE(room_for(alice, 1'000)) << "it does not bind before it knows its history";
  budgets.settle(*before, alice, neurons(5), "before");
  budgets.restore(alice, neurons(1), clock.wall() - 1h, "old");
  budgets.restore(alice, neurons(5), clock.wall(), "before");
  budgets.restore(alice, neurons(7), clock.wall(), "during");
  budgets.settle(*during, alice, neurons(7), "during");
  budgets.ready();
  budgets.settle(*after, alice, neurons(9), "after");
  EXPECT_EQ(state_of(budgets, "new").spent, neurons(1 + 5 + 7 + 9).neurons);
  EXPECT_FALSE(room_for(alice, 100));
}

TEST_F(BudgetTest, DistinctBudgetsAreBoundedAndIdleOnesForgotten) {
  Budgets few(clock, hooks, 2);
  few.prepare(rules_of({{.name = "b", .per = "key", .limit_neurons = "10", .window = "hour"}}));
  few.ready();
  const auto spend_as = [&](std::string_view key) {
    const BudgetSubject subject{.key = key};
    auto handle = few.resolve(subject);
    if (!handle) return handle.error().kind;
    auto held = few.reserve(*handle, neurons(1)).value();
    few.settle(held, subject, neurons(1), "r");
    return core::ErrorKind::kCount;
  };
  EXPECT_EQ(spend_as("a"), core::ErrorKind::kCount);
  EXPECT_EQ(spend_as("b"), core::ErrorKind::kCount);
  EXPECT_EQ(spend_as("c"), core::ErrorKind::overloaded);
  clock.advance(1h);
  EXPECT_EQ(spend_as("c"), core::ErrorKind::kCount);
}

TEST(BudgetRulesTest, WrongBudgetsAreNamed) {
  const auto problem = [](BudgetOptions options) {
    options.name = "b";
    const auto rule = compile_budget(options);
    return rule ? std::string{"none"} : rule.error().message;
  };
  EXPECT_NE(problem({}).find("exactly one of"), std::string::npos);
  EXPECT_NE(problem({.limit_neurons = "1", .limit_usd = "1"}).find("exactly one of"), std::string::npos);
  EXPECT_NE(problem({.limit_usd = "-5"}).find("\"-5\" is no amount"), std::string::npos);
  EXPECT_NE(problem({.limit_usd = "0"}).find("would refuse every request"), std::string::npos);
  EXPECT_NE(problem({.limit_usd = "9000001"}).find("the most is 9000000"), std::string::npos);
  EXPECT_NE(problem({.limit_neurons = "99999999999999999999"}).find("is no amount"), std::string::npos);
  EXPECT_NE(problem({.limit_usd = "1", .window = "year"}).find("none of hour"), std::string::npos);
  EXPECT_NE(problem({.per = "user", .limit_usd = "1"}).find("none of key"), std::string::npos);
  EXPECT_NE(problem({.per = "tag", .limit_usd = "1"}).find("needs the tag's name"), std::string::npos);
  EXPECT_NE(problem({.tag = "=red", .limit_usd = "1"}).find("no name"), std::string::npos);
  EXPECT_NE(problem({.limit_usd = "1", .alerts = {0}}).find("from 1 to"), std::string::npos);
  EXPECT_EQ(problem({.limit_usd = "0.000000001"}), "none");
  const std::vector<BudgetOptions> twice{{.name = "x", .limit_usd = "1"}, {.name = "x", .limit_usd = "1"}};
  EXPECT_FALSE(BudgetRules::make(twice, {}, 0));
}

// While the history of new rules is read, those that they replace go on, and count what is spent.
TEST(Budgets, RulesThatAreReplacedBindUntilTheNewOnesDo) {
  core::ManualClock clock;
  CountingHooks hooks;
  Budgets budgets(clock, hooks);
  use(budgets, {{.name = "old", .limit_neurons = "10"}});
  const BudgetSubject who{.key = "k", .tenant = "t", .gateway = "g", .model = "m"};
  ASSERT_TRUE(budgets.prepare(rules_of({{.name = "new", .limit_neurons = "5"}})));
  EXPECT_FALSE(budgets.reserve(budgets.resolve(who).value(), neurons(11)));
  auto running = budgets.reserve(budgets.resolve(who).value(), neurons(10));
  ASSERT_TRUE(running);
  budgets.settle(*running, who, neurons(4), "r1");
  EXPECT_EQ(state_of(budgets, "old").spent, BudgetAmount{4} * kPartsPerNeuron);
  EXPECT_EQ(state_of(budgets, "new").spent, BudgetAmount{4} * kPartsPerNeuron);
  budgets.ready();
  EXPECT_EQ(budgets.states().size(), 1U);
  EXPECT_FALSE(budgets.reserve(budgets.resolve(who).value(), neurons(2)));
  EXPECT_TRUE(budgets.reserve(budgets.resolve(who).value(), neurons(1)));
}

// 2026-01-01 by the clock: 7 neurons a day, from the 2nd none, from the 4th 3.
TEST(Budgets, AFreeAllocationIsThatOfTheDay) {
  using namespace std::chrono_literals;
  core::ManualClock clock;
  CountingHooks hooks;
  Budgets budgets(clock, hooks);
  FreeAllocation free{7};
  const auto instant = [&](std::chrono::nanoseconds later) {
    return std::chrono::duration_cast<std::chrono::microseconds>((clock.wall() + later).time_since_epoch());
  };
  free.change(instant(1h), 0);
  free.change(instant(72h), 3);
  const std::string tenant = "trial";
  budgets.prepare(BudgetRules::make({}, std::span{&tenant, 1}, free).value());
  budgets.ready();
  const BudgetSubject who{.key = "k", .tenant = "trial", .gateway = "g", .model = "m"};
  const auto handle = budgets.resolve(who).value();
  const auto fits = [&](std::uint64_t count) { return budgets.reserve(handle, neurons(count)).has_value(); };
  const auto left = [&] { return budgets.view(handle).left / kPartsPerNeuron; };
  clock.advance(23h);
  EXPECT_TRUE(fits(7)) << "the change counts from the next day";
  EXPECT_FALSE(fits(8));
  EXPECT_EQ(left(), 7U);
  clock.advance(1h);
  EXPECT_TRUE(fits(0)) << "what costs nothing passes";
  const auto refused = budgets.reserve(handle, neurons(1));
  ASSERT_FALSE(refused) << "an allocation of 0 is no allocation";
  EXPECT_NE(refused.error().message.find("allows nothing that costs anything"), std::string::npos)
      << refused.error().message;
  EXPECT_EQ(left(), 0U);
  EXPECT_EQ(budgets.states().at(0).limit, 0U);
  EXPECT_TRUE(hooks.alerts.empty());
  clock.advance(48h);
  EXPECT_TRUE(fits(3));
  EXPECT_FALSE(fits(4));
}

}  // namespace
}  // namespace ganglion::metering
