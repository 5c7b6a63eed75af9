#pragma once
// One gateway's hold on one shared bucket, as pure arithmetic: what it has borrowed and not spent, what it last heard
// of the bucket, how fast it spends; and, while the store cannot be used, its own part of the limit. No clock, no lock,
// no I/O. Not thread-safe.
//
// Units are debited from the shared bucket before they are spent, so as long as the store answers, all gateways
// together admit at most burst + rate * T from any start. Of a window that begins later, what was lent out and unspent
// at its start comes on top. docs/limits.md states the bounds.

#include <chrono>
#include <cstdint>

#include "core/clock.hpp"
#include "ratelimit/bucket.hpp"
#include "ratelimit/lease_store.hpp"

namespace ganglion::ratelimit {

class Lease {
 public:
  Lease() = default;
  Lease(const Rate& rate, core::SteadyTime now);

  bool unlimited() const { return rate_.amount == 0; }
  const Rate& rate() const { return rate_; }
  void change(const Rate& rate, core::SteadyTime now);

  // Units can be spent without asking. In local mode: this gateway's part has them.
  bool covers(std::uint64_t units, core::SteadyTime now);
  void take(std::uint64_t units, core::SteadyTime now);
  void give(std::uint64_t units, core::SteadyTime now);
  // How long until the units can be had, as far as is known: 0 if asking is worth it now; max(): never (over the
  // burst).
  std::chrono::nanoseconds wait_for(std::uint64_t units, core::SteadyTime now);
  RateView view(core::SteadyTime now);

  // What to ask for so that `units` more can be spent now (0: only for what comes); call once, then granted() or
  // failed().
  LeaseAsk::Part plan(std::uint64_t units, std::uint64_t waiting, std::uint32_t gateways, core::SteadyTime now);
  // Instead of plan(), when nothing more will be spent here: all that is held goes back, or what is owed is charged.
  LeaseAsk::Part close(std::uint32_t gateways, core::SteadyTime now);
  void granted(const LeaseGrant::Part& part, core::SteadyTime now);
  void failed(const LeaseFailure& failure);

  // Spending goes on and the slice is running low.
  bool low(core::SteadyTime now) const;
  // Units lie here unused, or more were used than borrowed: an exchange would put that right.
  bool uneven(core::SteadyTime now) const;
  bool known() const { return heard_at_ != core::SteadyTime{}; }
  core::SteadyTime heard_at() const { return heard_at_; }

  // Local mode: the store cannot be used. Starts from what is held plus this gateway's part of what was left there.
  void go_local(std::uint32_t gateways, core::SteadyTime now);
  bool local() const { return local_; }
  std::int64_t credit() const { return credit_; }
  // Nothing is held, nothing owed, and the bucket is full as far as is known: as good as new.
  bool idle(core::SteadyTime now) const;

 private:
  double predicted(core::SteadyTime now) const;
  std::uint64_t target(core::SteadyTime now) const;
  void note_use(std::uint64_t units, core::SteadyTime now);

  Rate rate_;
  std::int64_t credit_ = 0;  // borrowed and unspent; negative: used beyond it
  std::int64_t sent_ = 0;    // of credit_, what the exchange under way carries back
  double level_ = 0;         // of the shared bucket when last heard of
  core::SteadyTime heard_at_{};

  std::uint32_t sharers_ = 1;     // gateways that share the bucket, when last asked
  core::SteadyTime window_at_{};  // speed of spending, by windows
  std::uint64_t window_used_ = 0;
  double speed_ = 0;  // units/s over the last windows
  std::uint64_t last_cost_ = 0;
  core::SteadyTime used_at_{};

  bool local_ = false;
  std::uint32_t gateways_ = 1;  // when it went local
  Bucket own_;                  // local mode
};

}  // namespace ganglion::ratelimit
