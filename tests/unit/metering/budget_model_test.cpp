// Budgets against a slow, obvious reference over random schedules: reserves, raises, settles, releases, crashes with a
// rebuild from the ledger, reloads and steps of the clock. A failing schedule prints its seed; GANGLION_SEED replays
// it.

#include <cstdlib>
#include <ctime>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include "tests/unit/metering/budget_support.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono;
using namespace std::chrono_literals;

constexpr int kSchedules = 12'000;
constexpr int kSteps = 60;

struct Who {
  std::string key, tenant, gateway, model, team;  // team "": no tag
};

struct Event {
  core::WallTime at;
  Who who;
  BudgetCost cost;
};

// Calendar windows by the C library, sliding ones by walking all events.
class Reference {
 public:
  struct Rule {
    BudgetOptions options;
    BudgetAmount limit = 0;
  };
  struct Open {
    Who who;
    BudgetCost held;
  };

  static std::optional<std::string> value_of(const BudgetOptions& o, const Who& who) {
    if (!o.key.empty() && o.key != who.key) return std::nullopt;
    if (!o.tenant.empty() && o.tenant != who.tenant) return std::nullopt;
    if (!o.gateway.empty() && o.gateway != who.gateway) return std::nullopt;
    if (!o.model.empty() && o.model != who.model) return std::nullopt;
    if (o.tag == "team" && o.per != "tag" && who.team.empty()) return std::nullopt;
    if (o.tag == "team=red" && who.team != "red") return std::nullopt;
    if (o.per == "key") return who.key;
    if (o.per == "tenant") return who.tenant;
    if (o.per == "gateway") return who.gateway;
    if (o.per == "model") return who.model;
    if (o.per == "tag") return who.team;
    return "";
  }

  static bool counts(const std::string& window, core::WallTime event, core::WallTime now) {
    const std::time_t a = system_clock::to_time_t(floor<seconds>(event));
    const std::time_t b = system_clock::to_time_t(floor<seconds>(now));
    std::tm ta{};
    std::tm tb{};
    gmtime_r(&a, &ta);
    gmtime_r(&b, &tb);
    if (window == "month") return ta.tm_year == tb.tm_year && ta.tm_mon == tb.tm_mon;
    if (window == "day") return ta.tm_year == tb.tm_year && ta.tm_yday == tb.tm_yday;
    if (window == "hour") return ta.tm_year == tb.tm_year && ta.tm_yday == tb.tm_yday && ta.tm_hour == tb.tm_hour;
    if (window == "week") return monday_before(a, ta) == monday_before(b, tb);
    const std::int64_t length = window == "90m" ? 5'400 : 86'400;
    const std::int64_t slot = (length + 59) / 60;
    return std::abs(a / slot - b / slot) <= 60;
  }
  static std::time_t monday_before(std::time_t t, const std::tm& tm) { return t / 86'400 - (tm.tm_wday + 6) % 7; }

  BudgetAmount spent(const Rule& rule, const std::string& value, core::WallTime now) const {
    BudgetAmount out = 0;
    for (const Event& event : ledger) {
      const auto v = value_of(rule.options, event.who);
      if (v && *v == value && counts(rule.options.window, event.at, now)) out += of(rule, event.cost);
    }
    return out;
  }
  BudgetAmount reserved(const Rule& rule, const std::string& value) const {
    BudgetAmount out = 0;
    for (const auto& [id, hold] : open) {
      const auto v = value_of(rule.options, hold.who);
      if (v && *v == value) out += of(rule, hold.held);
    }
    return out;
  }
  // Whether `id` may hold `more` than it does.
  bool fits(const Who& who, const BudgetCost& more, core::WallTime now) const {
    for (const Rule& rule : rules) {
      const auto value = value_of(rule.options, who);
      if (!value || of(rule, more) == 0) continue;
      if (spent(rule, *value, now) + reserved(rule, *value) + of(rule, more) > rule.limit) return false;
    }
    return true;
  }
  static BudgetAmount of(const Rule& rule, const BudgetCost& cost) {
    return rule.options.limit_neurons.empty() ? cost.usd : cost.neurons;
  }

  std::vector<Rule> rules;
  std::vector<Event> ledger;
  std::map<int, Open> open;
};

class Schedule {
 public:
  explicit Schedule(std::uint64_t seed) : random_(seed) {
    clock_.advance(seconds{pick(86'400 * 40)});
    make_rules();
    restart();
  }

  void run() {
    for (int step = 0; step < kSteps && !::testing::Test::HasFailure(); ++step) {
      switch (pick(12)) {
        case 0:
          clock_.advance(seconds{pick(3) == 0 ? pick(86'400 * 3) : pick(4'000)});
          break;
        case 1:
          jump();
          break;
        case 2:
          if (pick(4) == 0) crash();
          break;
        case 3:
          if (pick(3) == 0) reload();
          break;
        case 4:
          raise();
          break;
        case 5:
          release();
          break;
        case 6:
        case 7:
        case 8:
          settle();
          break;
        default:
          reserve();
      }
      compare();
    }
  }

 private:
  std::int64_t pick(std::int64_t below) { return std::uniform_int_distribution<std::int64_t>(0, below - 1)(random_); }
  template <std::size_t N>
  std::string one_of(const char* const (&words)[N]) {
    return words[pick(N)];
  }

  void make_rules() {
    const std::int64_t count = 1 + pick(4);
    for (std::int64_t i = 0; i < count; ++i) {
      BudgetOptions o{.name = "b" + std::to_string(i)};
      o.window = one_of({"hour", "day", "week", "month", "90m", "24h"});
      if (pick(4) == 0) o.key = one_of({"k1", "k2"});
      if (pick(4) == 0) o.tenant = one_of({"t1", "t2"});
      if (pick(6) == 0) o.gateway = one_of({"g1", "g2"});
      if (pick(6) == 0) o.model = one_of({"m1", "m2"});
      if (pick(3) == 0) o.tag = one_of({"team", "team=red"});
      if (pick(2) == 0) o.per = one_of({"key", "tenant", "gateway", "model"});
      if (o.tag == "team" && pick(2) == 0) o.per = "tag";
      (pick(2) == 0 ? o.limit_neurons : o.limit_usd) = std::to_string(20 + pick(200));
      reference_.rules.push_back({.options = o});
    }
    set_limits();
  }
  void set_limits() {
    for (auto& rule : reference_.rules) rule.limit = compile_budget(rule.options).value().limit;
  }
  std::shared_ptr<const BudgetRules> compiled() const {
    std::vector<BudgetOptions> options;
    for (const auto& rule : reference_.rules) options.push_back(rule.options);
    return rules_of(options);
  }

  struct Subject {
    explicit Subject(const Who& who)
        : tag{"team", who.team},
          subject{.key = who.key, .tenant = who.tenant, .gateway = who.gateway, .model = who.model} {
      if (!who.team.empty()) subject.tags = {&tag, 1};
    }
    Subject(const Subject&) = delete;
    api::Tag tag;
    BudgetSubject subject;
  };

  void rebuild() {
    const core::WallTime from = history_from(*compiled(), clock_.wall());
    for (std::size_t i = 0; i < reference_.ledger.size(); ++i) {
      const Event& event = reference_.ledger[i];
      if (event.at < from) continue;
      budgets_->restore(Subject(event.who).subject, event.cost, event.at, "r" + std::to_string(i));
    }
    budgets_->ready();
  }
  void restart() {
    open_.clear();
    budgets_ = std::make_unique<Budgets>(clock_, hooks_);
    if (budgets_->prepare(compiled())) rebuild();
    floor_ = clock_.wall() - 47h;
  }
  void crash() {  // what was in flight is aborted and costs nothing
    reference_.open.clear();
    restart();
  }
  void reload() {
    auto& rule = reference_.rules[static_cast<std::size_t>(pick(std::ssize(reference_.rules)))];
    auto& limit = rule.options.limit_neurons.empty() ? rule.options.limit_usd : rule.options.limit_neurons;
    limit = std::to_string(20 + pick(200));
    set_limits();
    if (budgets_->prepare(compiled())) rebuild();
  }
  void jump() {
    const auto by = seconds{pick(2) == 0 ? pick(7'200) - 3'600 : pick(86'400 * 2) - 86'400};
    if (clock_.wall() + by > floor_) clock_.jump_wall(by);
  }

  BudgetCost some_cost() {
    return {.neurons = BudgetAmount(pick(60)) * kPartsPerNeuron + BudgetAmount(pick(1'000'000)),
            .usd = BudgetAmount(pick(60)) * 1'000'000'000'000 * kPartsPerNeuron + BudgetAmount(pick(1'000'000))};
  }
  int some_open() {
    auto it = open_.begin();
    std::advance(it, pick(std::ssize(open_)));
    return it->first;
  }

  void reserve() {
    const Who who{one_of({"k1", "k2", "k3"}), one_of({"t1", "t2"}), one_of({"g1", "g2"}), one_of({"m1", "m2"}),
                  one_of({"", "red", "blue"})};
    const BudgetCost cost = some_cost();
    const auto handle = budgets_->resolve(Subject(who).subject).value();
    auto held = budgets_->reserve(handle, cost);
    ASSERT_EQ(held.has_value(), reference_.fits(who, cost, clock_.wall()));
    if (!held) {
      EXPECT_EQ(held.error().kind, core::ErrorKind::quota_exceeded);
      return check_retry_after(who, cost, held.error());
    }
    open_.emplace(next_, std::move(*held));
    reference_.open.emplace(next_, Reference::Open{who, cost});
    ++next_;
  }
  // What the refusal promises: asked again then, with nobody else spending, it is not refused for what was spent.
  void check_retry_after(const Who& who, const BudgetCost& cost, const core::Error& error) {
    if (error.retry_after <= 1s) return;
    Reference later = reference_;
    later.open.clear();
    std::erase_if(later.rules, [&](const Reference::Rule& rule) {
      return error.message.find("`" + rule.options.name + "`") == std::string::npos;
    });
    for (auto& event : later.ledger) event.at = std::min(event.at, clock_.wall());  // none from a clock set back
    if (later.ledger.size() == reference_.ledger.size() &&
        std::ranges::equal(later.ledger, reference_.ledger, {}, &Event::at, &Event::at)) {
      EXPECT_TRUE(later.fits(who, cost, clock_.wall() + error.retry_after)) << error.message;
    }
  }
  void raise() {
    if (open_.empty()) return;
    const int id = some_open();
    auto& hold = reference_.open.at(id);
    const BudgetCost more = some_cost();
    const BudgetCost target{.neurons = hold.held.neurons + more.neurons, .usd = hold.held.usd + more.usd};
    const bool done = budgets_->raise(open_.at(id), target, false).has_value();
    ASSERT_EQ(done, reference_.fits(hold.who, more, clock_.wall()));
    if (done) hold.held = target;
  }
  void settle() {
    if (open_.empty()) return;
    const int id = some_open();
    const auto hold = reference_.open.extract(id).mapped();
    const auto part = static_cast<unsigned>(pick(101));
    const BudgetCost cost{.neurons = hold.held.neurons / 100 * part, .usd = hold.held.usd / 100 * part};
    budgets_->settle(open_.at(id), Subject(hold.who).subject, cost, "x" + std::to_string(id));
    open_.erase(id);
    reference_.ledger.push_back({clock_.wall(), hold.who, cost});
  }
  void release() {
    if (open_.empty()) return;
    const int id = some_open();
    open_.erase(id);
    reference_.open.erase(id);
  }

  void compare() {
    const core::WallTime now = clock_.wall();
    for (const BudgetState& state : budgets_->states()) {
      const auto& rule = reference_.rules[static_cast<std::size_t>(state.budget[1] - '0')];
      ASSERT_EQ(state.spent, reference_.spent(rule, state.value, now)) << state.budget << ' ' << state.value;
      ASSERT_EQ(state.reserved, reference_.reserved(rule, state.value)) << state.budget << ' ' << state.value;
    }
    ASSERT_EQ(hooks_.overruns.load(), 0);
  }

  std::mt19937_64 random_;
  core::ManualClock clock_;
  CountingHooks hooks_;
  Reference reference_;
  std::unique_ptr<Budgets> budgets_;
  std::map<int, BudgetReservation> open_;  // dies before budgets_ is replaced
  core::WallTime floor_{};
  int next_ = 0;
};

TEST(BudgetModel, RandomSchedulesAgreeWithTheReference) {
  const char* const replay = std::getenv("GANGLION_SEED");
  const std::uint64_t first = replay != nullptr ? std::strtoull(replay, nullptr, 10) : std::random_device{}();
  const int schedules = replay != nullptr ? 1 : kSchedules;
  for (int i = 0; i < schedules && !HasFailure(); ++i) {
    SCOPED_TRACE("GANGLION_SEED=" + std::to_string(first + static_cast<std::uint64_t>(i)));
    Schedule(first + static_cast<std::uint64_t>(i)).run();
  }
}

// Threads reserve, raise, settle and give back against shared budgets while the clock crosses windows. What the ledger
// would hold for each window stays within the limit, and in the end nothing is left reserved.
TEST(BudgetModel, NoInterleavingExceedsABudget) {
  constexpr int kThreads = 8;
  constexpr std::uint64_t kLimit = 500;
  core::ManualClock clock;
  CountingHooks hooks;
  Budgets budgets(clock, hooks);
  use(budgets, {{.name = "all", .limit_neurons = std::to_string(kLimit), .window = "hour"},
                {.name = "key", .per = "key", .limit_neurons = "120", .window = "hour"},
                {.name = "slide", .tenant = "t", .limit_neurons = "700", .window = "2h"}});
  std::atomic<bool> exceeded{false};
  std::atomic<std::uint64_t> admitted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(static_cast<std::uint64_t>(t));
      const std::string key = "k" + std::to_string(t % 4);
      const BudgetSubject subject{.key = key, .tenant = "t"};
      const auto handle = budgets.resolve(subject).value();
      for (int i = 0; i < 4'000; ++i) {
        auto held = budgets.reserve(handle, neurons(1 + random() % 40));
        if (held) {
          ++admitted;
          if (random() % 4 == 0) (void)budgets.raise(*held, neurons(60), false);
          if (random() % 5 != 0) {
            BudgetCost cost = held->held();
            cost.neurons = cost.neurons / 4 * (random() % 5);
            budgets.settle(*held, subject, cost, "");
          }
        }
        if (t == 0 && i % 10 == 0) clock.advance(3min);
        for (const BudgetState& state : budgets.states()) {
          if (state.spent + state.reserved > state.limit) exceeded = true;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_FALSE(exceeded);
  EXPECT_EQ(hooks.overruns.load(), 0);
  EXPECT_GT(hooks.refusals.load(), 0);
  EXPECT_GT(admitted.load(), 300U);
  for (const BudgetState& state : budgets.states()) EXPECT_EQ(state.reserved, BudgetAmount{0}) << state.budget;
}

}  // namespace
}  // namespace ganglion::metering
