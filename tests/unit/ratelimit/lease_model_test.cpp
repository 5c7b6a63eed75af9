// Random schedules of admissions, settlements, crashes, losses and clock steps against a slow account that only knows
// what a bucket may ever give: burst + rate * T, and a stated allowance for each thing that went wrong. And the limiter
// of one process against a bucket that recomputes its level from the whole history, in exact integers.

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/ratelimit/lease_fixture.hpp"

namespace ganglion::ratelimit {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;

struct Held {
  std::size_t gateway;
  std::uint64_t tokens;
  Permit permit;
};

// One kind of limit, tokens, so that settlements count; all gateways together.
class Schedule {
 public:
  Schedule(std::uint64_t seed, bool faults) : random_(seed), faults_(faults) {
    spec_ = {.amount = 1 + random_() % 5000,
             .period_s = static_cast<std::uint32_t>(1 + random_() % 60),
             .burst = 1 + random_() % 2000};
    for (std::uint64_t i = 1 + random_() % 3; i > 0; --i) gateways_.push_back(nullptr);
    for (auto& gateway : gateways_) gateway = fresh();
  }

  void run(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFatalFailure(); ++i) step();
  }

  // Left alone until the bucket is full, it gives nearly all of it, whichever gateways are asked.
  void expect_all_of_it_usable() {
    held_.clear();
    for (auto& gateway : gateways_) {
      gateway->link.up = true;
      gateway->link.next = StoreLink::Next::answer;
    }
    for (int i = 0; i < 12; ++i) {
      advance(nanoseconds{static_cast<std::int64_t>(spec_.burst * 1'000'000'000ULL * spec_.period_s / spec_.amount) +
                          300'000'000});
      for (auto& gateway : gateways_) gateway->tick();
    }
    std::uint64_t got = 0;
    std::uint64_t refused = 0;  // one after the other
    while (refused < 40) {
      auto permit = pick()->admit({.tokens = 1});
      if (!permit) {
        ++refused;
        continue;
      }
      ++got;
      refused = 0;
      permit->settle(1, 0);
    }
    ASSERT_GE(static_cast<double>(got), 0.99 * static_cast<double>(spec_.burst) - 1);
    ASSERT_LE(got, spec_.burst + spec_.burst / 8 + 1);  // what was lent out while the bucket filled comes on top
  }

 private:
  std::unique_ptr<TestGateway> fresh() {
    return std::make_unique<TestGateway>(store_, clock_, static_cast<std::uint32_t>(gateways_.size()),
                                         LimitSet{.tokens = spec_});
  }
  std::unique_ptr<TestGateway>& pick() { return gateways_[random_() % gateways_.size()]; }
  double burst() const { return static_cast<double>(spec_.burst); }
  double speed() const { return static_cast<double>(spec_.amount) / spec_.period_s; }

  void advance(nanoseconds by) {
    const double local = static_cast<double>(gateways_.size());
    // A gateway that alone cannot reach the store adds its own part for as long.
    for (const auto& gateway : gateways_) {
      if (gateway->limiter.local_holders() > 0) allowance_ += speed() * seconds(by) / local;
    }
    clock_.advance(by);
    elapsed_ += seconds(by);
  }
  static double seconds(nanoseconds time) { return std::chrono::duration<double>(time).count(); }

  void admit() {
    const std::size_t at = random_() % gateways_.size();
    const std::uint64_t tokens = 1 + random_() % std::max<std::uint64_t>(spec_.burst / (1 + random_() % 20), 1);
    TestGateway& gateway = *gateways_[at];
    const int failures = gateway.link.failures;
    auto permit = gateway.admit({.tokens = tokens});
    if (gateway.link.failures != failures) allowance_ += burst();  // it went over to its own part
    if (permit) {
      spent_ += static_cast<double>(tokens);
      held_.push_back({at, tokens, std::move(*permit)});
      ASSERT_LE(spent_, burst() + speed() * elapsed_ + allowance_ + 0.01);
    } else if (gateways_.size() == 1 && !faults_) {
      // Truthful: who waits as told is admitted, as nobody else is there.
      ASSERT_GT(permit.error().retry_after, 0ms);
      advance(permit.error().retry_after);
      auto again = gateway.admit({.tokens = tokens});
      ASSERT_TRUE(again) << "asked again after " << permit.error().retry_after.count() << " ms";
      spent_ += static_cast<double>(tokens);
      held_.push_back({at, tokens, std::move(*again)});
    }
  }

  void settle() {
    if (held_.empty()) return;
    const std::size_t at = random_() % held_.size();
    const std::uint64_t actual =
        random_() % 4 == 0 ? held_[at].tokens + random_() % 50 : random_() % (held_[at].tokens + 1);
    held_[at].permit.settle(actual, 0);
    if (actual < held_[at].tokens) spent_ -= static_cast<double>(held_[at].tokens - actual);
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(at));
  }

  // What its requests held is neither given back nor charged: a crash keeps the estimates.
  void crash() {
    const std::size_t at = random_() % gateways_.size();
    const bool up = gateways_[at]->link.up;
    std::erase_if(held_, [&](const Held& held) { return held.gateway == at; });
    gateways_[at] = fresh();
    gateways_[at]->link.up = up;
    if (!up) allowance_ += burst() / static_cast<double>(gateways_.size());  // it may begin its part anew
    // Debts that it had not charged yet are lost with it.
    allowance_ += burst();
  }

  void fault() {
    switch (random_() % 6) {
      case 0:
        store_.wipe();
        allowance_ += burst();
        break;
      case 1:
        pick()->link.next = StoreLink::Next::lose_answer;
        break;
      case 2:
        pick()->link.next = StoreLink::Next::lose_both;
        break;
      case 3: {
        const bool up = !gateways_.front()->link.up;
        for (auto& gateway : gateways_) gateway->link.up = up;
        allowance_ += burst();
        break;
      }
      case 4:
        store_.skew += nanoseconds{static_cast<std::int64_t>(random_() % 7'200'000'000'000) - 3'600'000'000'000};
        allowance_ += burst();
        break;
      default:
        crash();
    }
  }

  void step() {
    switch (random_() % 10) {
      case 0:
      case 1:
      case 2:
      case 3:
        admit();
        break;
      case 4:
      case 5:
        settle();
        break;
      case 6:
        advance(nanoseconds{random_() % 2'000'000'000});
        break;
      case 7:
        advance(nanoseconds{random_() % 5'000'000});
        break;
      case 8: {
        TestGateway& gateway = *pick();
        const int failures = gateway.link.failures;
        gateway.tick();
        if (gateway.link.failures != failures) allowance_ += burst();
        break;
      }
      default:
        if (faults_) fault();
    }
  }

  std::mt19937_64 random_;
  const bool faults_;
  RateSpec spec_;
  core::ManualClock clock_;
  MemoryStore store_{clock_};
  std::vector<std::unique_ptr<TestGateway>> gateways_;
  std::vector<Held> held_;
  double spent_ = 0;  // admitted, less what settlements gave back
  double elapsed_ = 0;
  double allowance_ = 0;
};

TEST(LeaseModel, NothingIsAdmittedThatOneBucketWouldNotGive) {
  for (std::uint64_t seed = 1; seed <= 6000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Schedule schedule(seed, false);
    schedule.run(80);
    if (seed % 10 == 0) schedule.expect_all_of_it_usable();
    ASSERT_FALSE(HasFatalFailure());
  }
}

TEST(LeaseModel, EachFaultCostsAtMostWhatIsStated) {
  for (std::uint64_t seed = 1; seed <= 6000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Schedule schedule(seed, true);
    schedule.run(80);
    if (seed % 10 == 0) schedule.expect_all_of_it_usable();
    ASSERT_FALSE(HasFatalFailure());
  }
}

// The level of a bucket from everything that ever happened to it, in exact fractions of a unit.
class ExactBucket {
 public:
  explicit ExactBucket(const RateSpec& spec) : spec_(spec) {}
  void refill_to(nanoseconds now) { history_.emplace_back(now, 0); }
  void change(nanoseconds now, std::int64_t units) { history_.emplace_back(now, units); }
  // units * period, so that refill is a whole number of it.
  __int128 level() const {
    const __int128 period = static_cast<__int128>(spec_.period_s) * 1'000'000'000;
    const __int128 full = static_cast<__int128>(spec_.burst) * period;
    __int128 level = full;
    nanoseconds at{0};
    for (const auto& [when, units] : history_) {
      level = std::min(full, level + static_cast<__int128>((when - at).count()) * spec_.amount);
      at = when;
      level = std::min(full, level + static_cast<__int128>(units) * period);
    }
    return level;
  }
  bool has(std::uint64_t units) const {
    return level() >= static_cast<__int128>(units) * spec_.period_s * 1'000'000'000;
  }

 private:
  RateSpec spec_;
  std::vector<std::pair<nanoseconds, std::int64_t>> history_;
};

TEST(LimiterModel, AdmitsExactlyWhatTheExactBucketHolds) {
  for (std::uint64_t seed = 1; seed <= 10'000; ++seed) {
    std::mt19937_64 random{seed};
    const RateSpec spec{.amount = 1 + random() % 5000,
                        .period_s = static_cast<std::uint32_t>(1 + random() % 90),
                        .burst = 1 + random() % 2000};
    core::ManualClock clock;
    Limiter limiter({}, clock);
    const std::vector<ScopedLimits> scoped{{Scope::key, "k", {.tokens = spec}}};
    const auto handle = limiter.resolve(scoped, 1).value();
    ExactBucket exact{spec};
    nanoseconds now{0};
    std::vector<std::pair<std::uint64_t, Permit>> held;
    for (int step = 0; step < 60; ++step) {
      const std::uint64_t tokens = 1 + random() % (spec.burst + 20);
      switch (random() % 4) {
        case 0:
          now += nanoseconds{random() % 3'000'000'000};
          clock.advance(now - nanoseconds{(clock.steady() - core::SteadyTime{1000s}).count()});
          clock.jump_wall(nanoseconds{static_cast<std::int64_t>(random() % 7'200'000'000'000) - 3'600'000'000'000});
          exact.refill_to(now);
          break;
        case 1:
          if (!held.empty()) {
            auto [estimated, permit] = std::move(held.back());
            held.pop_back();
            const std::uint64_t actual = random() % (2 * estimated + 1);
            permit.settle(actual, 0);
            exact.change(now, static_cast<std::int64_t>(estimated) - static_cast<std::int64_t>(actual));
          }
          break;
        default: {
          auto permit = limiter.admit(handle, {.tokens = tokens});
          ASSERT_EQ(permit.has_value(), exact.has(tokens)) << "seed " << seed << " step " << step;
          if (!permit) break;
          exact.change(now, -static_cast<std::int64_t>(tokens));
          held.emplace_back(tokens, std::move(*permit));
        }
      }
    }
    while (!held.empty()) held.pop_back();
  }
}

}  // namespace
}  // namespace ganglion::ratelimit
