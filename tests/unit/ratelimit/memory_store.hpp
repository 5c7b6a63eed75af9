#pragma once
// Shared buckets in memory, for tests: what the Redis script does, in other words and numbers, with every way to fail.

#include <cmath>
#include <deque>
#include <map>
#include <string>

#include "core/clock.hpp"
#include "ratelimit/lease_store.hpp"

namespace ganglion::ratelimit {

class MemoryStore {
 public:
  explicit MemoryStore(const core::Clock& clock) : clock_(clock) {}

  LeaseGrant exchange(const LeaseAsk& ask) {
    const core::SteadyTime now = clock_.steady() + skew;
    auto& holder = holders_[ask.key];
    std::array<long double, kLeaseKinds> levels{};
    LeaseGrant grant{.enough = true};
    for (std::size_t kind = 0; kind < kLeaseKinds; ++kind) {
      const LeaseAsk::Part& part = ask.parts[kind];
      if (part.rate.amount == 0) continue;
      const auto burst = static_cast<long double>(part.rate.burst);
      const auto found = holder.find(kind);
      long double level = burst;
      std::int64_t back = part.back_if_new;
      if (found != holder.end()) {
        const auto passed = std::max<std::chrono::nanoseconds>(now - found->second.at, std::chrono::nanoseconds{0});
        level = std::min(burst, found->second.level + static_cast<long double>(passed.count()) *
                                                          static_cast<long double>(part.rate.amount) /
                                                          static_cast<long double>(part.rate.period.count()));
        back = part.back;
      }
      levels[kind] = std::min(burst, level + static_cast<long double>(back));
      if (levels[kind] + burst * 1e-12L + 1e-6L < static_cast<long double>(part.need)) grant.enough = false;
    }
    for (std::size_t kind = 0; kind < kLeaseKinds; ++kind) {
      const LeaseAsk::Part& part = ask.parts[kind];
      if (part.rate.amount == 0) continue;
      std::uint64_t granted = 0;
      if (grant.enough) {
        const long double spare = (levels[kind] - static_cast<long double>(part.need)) / ask.divisor;
        granted = part.need + static_cast<std::uint64_t>(
                                  std::floor(std::max(0.0L, std::min(static_cast<long double>(part.extra), spare))));
      }
      levels[kind] -= static_cast<long double>(granted);
      holder[kind] = {levels[kind], now};
      grant.parts[kind] = {granted, static_cast<double>(levels[kind])};
    }
    return grant;
  }

  void wipe() { holders_.clear(); }

  std::chrono::nanoseconds skew{0};  // of the store's clock

 private:
  struct Level {
    long double level = 0;
    core::SteadyTime at{};
  };
  const core::Clock& clock_;
  std::map<std::string, std::map<std::size_t, Level>> holders_;
};

// One gateway's way to it. Answers come when deliver() is called.
class StoreLink final : public LeaseStore {
 public:
  enum class Next : std::uint8_t { answer, lose_answer, lose_both };

  explicit StoreLink(MemoryStore& store) : store_(store) {}

  void exchange(const LeaseAsk& ask, std::move_only_function<void(LeaseResult)> done) override {
    ++exchanges;
    LeaseResult result = std::unexpected(LeaseFailure{.maybe_done = up && next != Next::lose_both});
    if (up && next != Next::lose_both) {
      const LeaseGrant grant = store_.exchange(ask);
      if (next == Next::answer) result = grant;
    }
    if (next != Next::answer || !up) ++failures;
    next = Next::answer;
    answers_.emplace_back(std::move(done), std::move(result));
  }
  bool available(std::string_view) const override { return up; }
  void report(std::string_view, std::move_only_function<void(std::uint32_t)>) override {}
  void leave(std::string_view, std::move_only_function<void()> done) override { done(); }

  bool deliver() {
    const bool any = !answers_.empty();
    while (!answers_.empty()) {
      auto [done, result] = std::move(answers_.front());
      answers_.pop_front();
      done(std::move(result));
    }
    return any;
  }

  bool up = true;
  Next next = Next::answer;
  int exchanges = 0;
  int failures = 0;

 private:
  MemoryStore& store_;
  std::deque<std::pair<std::move_only_function<void(LeaseResult)>, LeaseResult>> answers_;
};

}  // namespace ganglion::ratelimit
