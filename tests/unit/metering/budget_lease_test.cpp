// Budgets that several gateways share: what a gateway asks for, keeps and gives back, and what it may use while the
// store is rebuilt or does not answer. The store is a model of the script in gateway/budget_share.cpp.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "tests/unit/metering/budget_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono_literals;

constexpr std::chrono::milliseconds kLapse = 300s;
constexpr std::chrono::milliseconds kRefresh = kLapse / 2;
constexpr std::chrono::milliseconds kInterval = 250ms;
const BudgetSubject kSubject{.key = "k", .tenant = "t"};

LeaseUnits units(std::uint64_t count) {
  return lease_units_up(BudgetUnit::neurons, neurons(count).neurons);
}

// One budget in the store, with no bound on the time of a rebuild.
struct Store {
  struct Entry {
    LeaseUnits spent = 0;
    LeaseUnits cap = 0;
    core::SteadyTime at;
  };
  explicit Store(std::size_t count) : gateways(count) {}

  LeaseGrant answer(int me, const LeaseAsk& ask, core::SteadyTime now) {
    LeaseGrant out{.rebuilding = registered.size() < gateways};
    LeaseUnits live = 1;
    for (const auto& [peer, entry] : entries) {
      if (peer == me) continue;
      const bool lapsed = now - entry.at > kLapse;
      out.others_spent += entry.spent;
      out.others_held += lapsed ? entry.spent : std::max(entry.spent, entry.cap);
      live += lapsed ? 0 : 1;
    }
    const LeaseUnits room = ask.limit - out.others_held;
    out.others_are_short = short_since && who_is_short != me && now - *short_since < 2s;
    if (!out.others_are_short && room > ask.used) out.slack = (room - ask.used) / (2 * live);
    out.cap = ask.keep;
    if (!out.rebuilding) out.cap = std::max(out.cap, std::min(room, ask.used + std::max(ask.need, out.slack)));
    if (ask.need > 0 && out.cap < ask.used + ask.need && room < ask.used + ask.need) {
      short_since = marks[me] = now;
      who_is_short = me;
    }
    entries[me] = {ask.spent, out.cap, now};
    return out;
  }
  bool short_for(int me, core::SteadyTime now) const {
    return std::ranges::any_of(marks, [&](const auto& mark) { return mark.first != me && now - mark.second < 2s; });
  }
  void flush() {
    ++data;
    entries.clear();
    registered.clear();
    marks.clear();
    short_since.reset();
  }

  std::size_t gateways;
  int data = 0;
  std::map<int, Entry> entries;
  std::set<int> registered;
  std::map<int, core::SteadyTime> marks;
  std::optional<core::SteadyTime> short_since;
  int who_is_short = -1;
};

struct BudgetLease : ::testing::Test {
  core::ManualClock clock;
  CountingHooks hooks;
  Budgets budgets{clock, hooks};
  Store store{1};

  void begin(std::uint64_t history, std::uint32_t gateways = 2) {
    budgets.prepare(rules_of({{.name = "b", .limit_neurons = "1000", .window = "day"}}));
    // A fraction of what the store counts in, as real requests leave it.
    if (history != 0) {
      budgets.restore(kSubject, {.neurons = neurons(history).neurons - 1}, clock.wall(), "old");
    }
    budgets.ready();
    budgets.share(Sharing::leased, gateways);
  }
  std::vector<LeaseAsk> asks(LeaseRound round = LeaseRound::due) { return budgets.lease_asks(round, kRefresh); }
  std::size_t exchange(LeaseRound round = LeaseRound::due) {
    const auto all = asks(round);
    for (const LeaseAsk& ask : all) budgets.leased(ask, store.answer(0, ask, clock.steady()));
    return all.size();
  }
  std::size_t rounds(std::chrono::milliseconds time) {
    std::size_t count = 0;
    for (auto at = 0ms; at < time; at += kInterval) {
      clock.advance(kInterval);
      count += exchange();
    }
    return count;
  }
  core::Result<BudgetReservation> reserve(std::uint64_t amount) {
    return budgets.reserve(budgets.resolve(kSubject).value(), neurons(amount));
  }
};

TEST_F(BudgetLease, AStoreThatIsRebuiltHasGrantedNothing) {
  begin(4);
  exchange(LeaseRound::all);
  budgets.share(Sharing::alone, 2);
  {
    const auto half = reserve(496);
    EXPECT_TRUE(half) << "the even share: " << half.error().message;
    EXPECT_FALSE(reserve(1));
  }
  // It answers again, and is not rebuilt any more.
  budgets.share(Sharing::leased, 2);
  store.registered.insert(0);
  EXPECT_EQ(exchange(), 1U);
  EXPECT_TRUE(reserve(400));
}

TEST_F(BudgetLease, WhatTheStoreDidNotGrantWhileItWasRebuiltIsAskedForThoughNobodyUsesIt) {
  begin(4);
  exchange(LeaseRound::all);
  store.registered.insert(0);
  clock.advance(kInterval);
  EXPECT_EQ(exchange(), 1U);
  budgets.share(Sharing::alone, 2);
  EXPECT_TRUE(reserve(400)) << "half of what was left";
  EXPECT_FALSE(reserve(600)) << "it was granted, so the even share is not taken besides";
}

TEST_F(BudgetLease, WhatOthersAreKnownToHoldIsNoPartOfAnEvenShare) {
  begin(4);
  for (const LeaseAsk& ask : asks(LeaseRound::all)) {
    budgets.leased(ask, {.cap = ask.keep,
                         .others_spent = units(100),
                         .others_held = units(800),
                         .slack = units(50),
                         .rebuilding = true});
  }
  budgets.share(Sharing::alone, 2);
  EXPECT_TRUE(reserve(196));
  EXPECT_FALSE(reserve(197));
}

TEST_F(BudgetLease, GatewaysThatOnlyRegisteredUseNoMoreThanTheLimitTogether) {
  Store shared(3);
  BudgetAmount total = 0;
  std::vector<std::unique_ptr<Budgets>> all;
  for (int i = 0; i < 3; ++i) {
    all.push_back(std::make_unique<Budgets>(clock, hooks));
    all[i]->prepare(rules_of({{.name = "b", .limit_neurons = "1000", .window = "day"}}));
    all[i]->restore(kSubject, neurons(i == 0 ? 300 : 3), clock.wall(), "old");
    all[i]->ready();
    all[i]->share(Sharing::leased, 3);
  }
  for (int i = 0; i < 2; ++i) {  // the third has not come yet
    for (const LeaseAsk& ask : all[i]->lease_asks(LeaseRound::all, kRefresh)) {
      all[i]->leased(ask, shared.answer(i, ask, clock.steady()));
    }
  }
  for (const auto& each : all) {
    each->share(Sharing::alone, 3);
    const auto handle = each->resolve(kSubject).value();
    while (auto held = each->reserve(handle, neurons(1))) each->settle(*held, kSubject, neurons(1), "");
    total += each->states().at(0).spent;
  }
  EXPECT_LE(total, neurons(1'000).neurons);
  EXPECT_GE(total, neurons(990).neurons);
}

TEST_F(BudgetLease, ARefusalForWantOfTheStoreSaysSoAndIsNoAlert) {
  begin(4);
  store.registered.insert(0);
  exchange(LeaseRound::all);
  const auto waits = reserve(600);
  ASSERT_FALSE(waits);
  EXPECT_TRUE(waits.error().retryable);
  EXPECT_EQ(waits.error().message.find("requests that are running"), std::string::npos) << "none is";
  budgets.share(Sharing::alone, 2);
  const auto refused = reserve(600);
  ASSERT_FALSE(refused);
  EXPECT_FALSE(refused.error().retryable);
  EXPECT_NE(refused.error().message.find("does not answer"), std::string::npos) << refused.error().message;
  EXPECT_EQ(refused.error().retry_after, 1s);
  EXPECT_EQ(hooks.refusals, 1);
  EXPECT_TRUE(hooks.alerts.empty()) << "next to nothing is spent";
  // One that is used up is another matter.
  const auto running = reserve(400);
  ASSERT_TRUE(running);
  const auto held = reserve(600);
  ASSERT_FALSE(held);
  EXPECT_NE(held.error().message.find("requests that are running"), std::string::npos) << held.error().message;
  EXPECT_EQ(hooks.alerts.size(), 1U);
}

TEST_F(BudgetLease, AnIdleBudgetFallsSilentAndKeepsItsSlice) {
  begin(4);
  store.registered.insert(0);
  exchange(LeaseRound::all);
  {
    auto held = reserve(10);
    ASSERT_TRUE(held);
    budgets.settle(*held, kSubject, {.neurons = neurons(7).neurons + 1}, "r");
  }
  EXPECT_GE(rounds(5s), 20U) << "in use, it hears of the others in every round";
  rounds(6s);
  EXPECT_EQ(rounds(60s), 0U);
  EXPECT_LE(rounds(600s), 8U) << "but for what keeps its slice from lapsing";
  EXPECT_LT(clock.steady() - store.entries[0].at, kLapse);
  budgets.share(Sharing::alone, 2);
  EXPECT_TRUE(reserve(400)) << "an outage does not refuse who was quiet before it";
}

TEST_F(BudgetLease, AnIdleBudgetGivesBackWhatAnotherGatewayIsShortOf) {
  begin(4);
  store.registered.insert(0);
  const auto told = asks(LeaseRound::all);
  ASSERT_EQ(told.size(), 1U);
  budgets.leased(told[0], store.answer(0, told[0], clock.steady()));
  ASSERT_GT(store.entries[0].cap, units(400));
  ASSERT_EQ(rounds(20s), 0U);
  // Another gateway asks for more than there is.
  LeaseAsk greedy{.limit = told[0].limit, .need = units(990)};
  store.answer(1, greedy, clock.steady());
  budgets.others_short({"another:0", told[0].digest});
  EXPECT_EQ(exchange(), 1U);
  EXPECT_EQ(store.entries[0].cap, units(4));
  store.answer(1, greedy, clock.steady());
  EXPECT_EQ(store.entries[1].cap, units(990));
  EXPECT_EQ(rounds(9s), 0U);
  // That one has done with it; some time later there is a slice again.
  greedy.need = 0;
  store.answer(1, greedy, clock.steady());
  EXPECT_LE(rounds(5s), 2U);
  EXPECT_GT(store.entries[0].cap, units(100));
}

TEST_F(BudgetLease, WhatWasHeardOfASlidingWindowGrowsOld) {
  for (const char* window : {"1h", "day"}) {
    use(budgets, {{.name = "b", .limit_neurons = "1000", .window = window}});
    budgets.share(Sharing::leased, 2);
    EXPECT_TRUE(reserve(200).error().retryable) << "nothing is known yet";
    for (const LeaseAsk& ask : asks()) budgets.leased(ask, {.cap = ask.used, .others_spent = units(900)});
    EXPECT_FALSE(reserve(200).error().retryable) << "it is used up";
    clock.advance(60s);
    EXPECT_EQ(reserve(200).error().retryable, window == std::string_view{"1h"})
        << "some of it may have left the window";
  }
}

TEST_F(BudgetLease, ARoundForWhoWaitsIsAboutNobodyElse) {
  use(budgets, {{.name = "b", .per = "key", .limit_neurons = "1000", .window = "day"}});
  budgets.share(Sharing::leased, 2);
  for (const char* key : {"a", "b", "c"}) {
    EXPECT_FALSE(budgets.reserve(budgets.resolve({.key = key}).value(), neurons(1)));
  }
  for (const LeaseAsk& ask : asks()) budgets.leased(ask, {.cap = ask.used + ask.need + units(2), .slack = units(2)});
  EXPECT_TRUE(asks(LeaseRound::waiting).empty());
  EXPECT_FALSE(budgets.reserve(budgets.resolve({.key = "b"}).value(), neurons(50)));
  const auto waiting = asks(LeaseRound::waiting);
  ASSERT_EQ(waiting.size(), 1U);
  EXPECT_EQ(waiting[0].need, units(50));
  EXPECT_EQ(asks().size(), 3U);
}

// Three gateways and a store that loses its data, asks and answers. What all have spent and reserved never passes the
// limit; what is left can be had to the end, also from those who are idle; and then they are quiet.
class LeaseSchedule {
 public:
  explicit LeaseSchedule(std::uint64_t seed) : random_(seed) {
    for (int i = 0; i < kGateways; ++i) {
      nodes_.push_back(std::make_unique<Node>(clock_));
      use(nodes_.back()->budgets, {{.name = "b", .limit_neurons = "1000", .window = "month"}});
      nodes_.back()->budgets.share(Sharing::leased, kGateways);
    }
  }

  void run() {
    for (int step = 0; step < 200 && !::testing::Test::HasFailure(); ++step) {
      const int i = pick(kGateways);
      switch (pick(10)) {
        case 0:
          clock_.advance(std::chrono::seconds{pick(4) == 0 ? pick(20) : 0} + std::chrono::milliseconds{pick(2'000)});
          break;
        case 1:
        case 2:
          exchange(i, LeaseRound::due, true);
          break;
        case 3:
          if (pick(8) == 0) store_.flush();
          break;
        case 4:
        case 5:
          settle(i);
          break;
        default:
          if (!reserve(i, some_cost())) exchange(i, LeaseRound::waiting, true);
      }
      for (int each = 0; each < kGateways; ++each) {
        if (clock_.steady() - nodes_[each]->last > 30s) exchange(each, LeaseRound::due, false);
      }
      ASSERT_LE(used(), neurons(1'000).neurons) << "step " << step;
    }
    rest_can_be_had();
    ASSERT_LE(used(), neurons(1'000).neurons);
    quiet();
  }

 private:
  static constexpr int kGateways = 3;
  struct Node {
    explicit Node(const core::Clock& clock) : budgets(clock, hooks), last(clock.steady()) {}
    BudgetHooks hooks;
    Budgets budgets;
    std::vector<BudgetReservation> open;  // dies before the budgets
    core::SteadyTime last;
    int registered_in = -1;
  };

  int pick(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }
  BudgetCost some_cost() {
    return {.neurons = neurons(static_cast<std::uint64_t>(pick(80))).neurons + BudgetAmount(pick(1'000'000))};
  }

  bool reserve(int i, const BudgetCost& cost) {
    Node& node = *nodes_[i];
    auto held = node.budgets.reserve(node.budgets.resolve(kSubject).value(), cost);
    if (!held) return !held.error().retryable;
    node.open.push_back(std::move(*held));
    return true;
  }
  void settle(int i) {
    Node& node = *nodes_[i];
    if (node.open.empty()) return;
    BudgetCost cost = node.open.back().held();
    cost.neurons = cost.neurons / 100 * static_cast<unsigned>(pick(101));
    if (pick(3) != 0) node.budgets.settle(node.open.back(), kSubject, cost, "");
    node.open.pop_back();
  }
  std::size_t exchange(int i, LeaseRound round, bool lossy) {
    Node& node = *nodes_[i];
    const core::SteadyTime now = clock_.steady();
    const bool forgotten = node.registered_in != store_.data;
    if (forgotten) round = LeaseRound::all;
    if (round != LeaseRound::waiting && store_.short_for(i, now)) node.budgets.others_short({digest_});
    bool answered = true;
    const auto asks = node.budgets.lease_asks(round, kRefresh);
    for (const LeaseAsk& ask : asks) {
      digest_ = ask.digest;
      const int fate = lossy ? pick(10) : 9;
      std::optional<LeaseGrant> grant;
      if (fate != 0) grant = store_.answer(i, ask, now);
      if (fate > 1) {
        node.budgets.leased(ask, *grant);
      } else {
        node.budgets.lease_failed(ask);
        answered = false;
      }
    }
    if (answered && forgotten) {
      node.registered_in = store_.data;
      store_.registered.insert(i);
    }
    if (answered && round != LeaseRound::waiting) node.last = now;
    return asks.size();
  }
  BudgetAmount used() const {
    BudgetAmount out = 0;
    for (const auto& node : nodes_) {
      for (const BudgetState& state : node->budgets.states()) out += state.spent + state.reserved;
    }
    return out;
  }
  std::size_t all_exchange() {
    std::size_t count = 0;
    for (int i = 0; i < kGateways; ++i) count += exchange(i, LeaseRound::due, false);
    clock_.advance(kInterval);
    return count;
  }

  void rest_can_be_had() {
    for (const auto& node : nodes_) node->open.clear();
    clock_.advance(20s);
    for (int i = 0; i < 3; ++i) all_exchange();
    const auto left = static_cast<std::uint64_t>((neurons(1'000).neurons - used()) / kPartsPerNeuron);
    if (left < 2) return;  // each gateway's use is rounded up
    const std::size_t before = nodes_[0]->open.size();
    for (int i = 0; i < 40 && nodes_[0]->open.size() == before; ++i) {
      if (reserve(0, neurons(left - 1))) continue;
      exchange(0, LeaseRound::waiting, false);
      clock_.advance(25ms);
      if (i % 10 == 9) all_exchange();
    }
    EXPECT_GT(nodes_[0]->open.size(), before) << left << " neurons that nobody uses";
  }
  void quiet() {
    for (const auto& node : nodes_) node->open.clear();
    clock_.advance(20s);
    for (int i = 0; i < 4; ++i) all_exchange();
    std::size_t count = 0;
    for (int i = 0; i < 200; ++i) count += all_exchange();
    EXPECT_LE(count, 30U) << "of 600";
  }

  std::mt19937_64 random_;
  core::ManualClock clock_;
  Store store_{kGateways};
  std::vector<std::unique_ptr<Node>> nodes_;
  std::string digest_;
};

TEST(BudgetLeaseModel, GatewaysTogetherNeverPassTheLimit) {
  const char* const replay = std::getenv("GANGLION_SEED");
  const std::uint64_t first = replay != nullptr ? std::strtoull(replay, nullptr, 10) : std::random_device{}();
  const int schedules = replay != nullptr ? 1 : 1'000;
  for (int i = 0; i < schedules && !HasFailure(); ++i) {
    SCOPED_TRACE("GANGLION_SEED=" + std::to_string(first + static_cast<std::uint64_t>(i)));
    LeaseSchedule(first + static_cast<std::uint64_t>(i)).run();
  }
}

}  // namespace
}  // namespace ganglion::metering
