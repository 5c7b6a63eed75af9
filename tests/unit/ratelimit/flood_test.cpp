// The tiers' promise in virtual time: fast p99 under a flood of regular requests against its idle p99. A backend serves
// as many calls as there are slots; each takes a drawn time; regular requests arrive at several times what fits.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <queue>
#include <random>
#include <vector>

#include "ratelimit/options.hpp"
#include "ratelimit/slots.hpp"

namespace ganglion::ratelimit {
namespace {

using api::Tier;

class Simulation {
 public:
  Simulation(std::uint32_t seed, std::uint32_t total, std::uint32_t regular)
      : random_(seed), slots_({.total = total, .regular = regular, .queue_max = 200}) {}

  // Arrivals for `seconds`, Poisson; then what is under way ends.
  void load(Tier tier, double rate, double seconds) {
    std::exponential_distribution<double> gap(rate);
    for (double at = gap(random_); at < seconds; at += gap(random_)) {
      events_.push({at, [this, tier, at] { arrive(tier, at); }});
    }
  }
  void run() {
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.at;
      event.run();
    }
  }
  double p99(Tier tier) {
    auto& times = latency_[index(tier)];
    std::ranges::sort(times);
    return times.empty() ? 0 : times[times.size() * 99 / 100];
  }
  std::size_t served(Tier tier) const { return latency_[index(tier)].size(); }
  std::size_t shed(Tier tier) const { return shed_[index(tier)]; }

 private:
  struct Event {
    double at;
    std::function<void()> run;
    bool operator<(const Event& other) const { return at > other.at; }
  };
  struct Call final : Slots::Waiter {
    Call(Simulation& s, Tier t, double at) : Waiter(t), sim(s), tier(t), arrived(at) {}
    void changed() override {
      // Outside the queue's lock, as the real waiter does.
      sim.events_.push({sim.now_, [this] {
                          if (sim.slots_.leave(*this) == State::granted) {
                            sim.serve(tier, arrived);
                          } else {
                            ++sim.shed_[index(tier)];
                          }
                        }});
    }
    Simulation& sim;
    const Tier tier;
    const double arrived;
  };
  void arrive(Tier tier, double at) {
    if (slots_.try_take(tier)) return serve(tier, at);
    calls_.push_back(std::make_unique<Call>(*this, tier, at));
    if (!slots_.enqueue(*calls_.back())) ++shed_[index(tier)];
  }
  void serve(Tier tier, double arrived) {
    const double end = now_ + time_(random_);
    events_.push({end, [this, tier, arrived, end] {
                    latency_[index(tier)].push_back(end - arrived);
                    slots_.give_back(tier);
                  }});
  }

  std::mt19937 random_;
  std::lognormal_distribution<double> time_{-3.0, 0.3};  // about 50 ms
  Slots slots_;
  double now_ = 0;
  std::priority_queue<Event> events_;
  std::vector<std::unique_ptr<Call>> calls_;
  std::vector<double> latency_[kTierCount];
  std::size_t shed_[kTierCount] = {0, 0};
};

TEST(TierFlood, FastP99StaysWithinHalfOfIdle) {
  constexpr std::uint32_t kTotal = 64;
  const std::uint32_t regular = TierOptions{}.regular_share(kTotal);
  for (std::uint32_t seed = 1; seed <= 5; ++seed) {
    Simulation idle(seed, kTotal, regular), flood(seed, kTotal, regular);
    idle.load(Tier::fast, 100, 60);
    idle.run();
    flood.load(Tier::fast, 100, 60);
    flood.load(Tier::regular, 5'000, 60);  // about five times what fits
    flood.run();
    EXPECT_LE(flood.p99(Tier::fast), 1.5 * idle.p99(Tier::fast)) << "seed " << seed;
    EXPECT_EQ(flood.shed(Tier::fast), 0U);
    EXPECT_EQ(flood.served(Tier::fast), idle.served(Tier::fast));
    EXPECT_GT(flood.shed(Tier::regular), flood.served(Tier::regular)) << "it was a flood";
    // Spare capacity is used: what regular may take is busy nearly all the time.
    EXPECT_GT(static_cast<double>(flood.served(Tier::regular)), 0.9 * 60 * regular / 0.0521);
  }
}

TEST(TierFlood, WithoutAReserveItWouldNotHold) {
  Simulation idle(1, 64, 64), flood(1, 64, 64);
  idle.load(Tier::fast, 100, 60);
  idle.run();
  flood.load(Tier::fast, 2'000, 60);  // more than ever comes free: the order alone cannot help fast against itself
  flood.load(Tier::regular, 5'000, 60);
  flood.run();
  EXPECT_GT(flood.p99(Tier::fast), 1.5 * idle.p99(Tier::fast)) << "the measure can fail";
}

}  // namespace
}  // namespace ganglion::ratelimit
