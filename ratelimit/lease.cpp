// See ratelimit/lease.hpp.

#include "ratelimit/lease.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ganglion::ratelimit {

using core::SteadyTime;
using std::chrono::nanoseconds;
using namespace std::chrono_literals;

namespace {

constexpr nanoseconds kWindow = 100ms;  // speed is measured over these
constexpr double kSliceParts = 8;
constexpr double kAheadS = 0.1;         // a slice is what will be spent in so long
constexpr nanoseconds kUnusedFor = 1s;  // after that what is held goes back
constexpr std::int64_t kCreditMax = 4'000'000'000'000'000'000;

double seconds(nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

std::int64_t clamped(double units) {
  return static_cast<std::int64_t>(
      std::clamp(units, -static_cast<double>(kCreditMax), static_cast<double>(kCreditMax)));
}

std::int64_t plus(std::int64_t a, std::int64_t b) {
  std::int64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return b > 0 ? kCreditMax : -kCreditMax;
  return std::clamp(sum, -kCreditMax, kCreditMax);
}

std::int64_t whole(std::uint64_t units) {
  return static_cast<std::int64_t>(std::min(units, static_cast<std::uint64_t>(kCreditMax)));
}

double units_per_s(const Rate& rate) {
  return static_cast<double>(rate.amount) / seconds(rate.period);
}

}  // namespace

Lease::Lease(const Rate& rate, SteadyTime now) {
  change(rate, now);
}

void Lease::change(const Rate& rate, SteadyTime now) {
  const Rate next = Bucket(rate, now).rate();  // bounded
  if (next == rate_) return;
  rate_ = next;
  level_ = std::min(predicted(now), static_cast<double>(rate_.burst));
  credit_ = std::min(credit_, whole(rate_.burst));
  if (local_) {
    Rate part = rate_;
    part.period *= gateways_;
    own_.change(part, now);
  }
}

double Lease::predicted(SteadyTime now) const {
  const double burst = static_cast<double>(rate_.burst);
  if (!known()) return burst;
  return std::min(burst, level_ + seconds(std::max(now - heard_at_, 0ns)) * units_per_s(rate_));
}

bool Lease::covers(std::uint64_t units, SteadyTime now) {
  if (unlimited()) return true;
  if (!local_) return credit_ >= whole(units);
  own_.refill(now);
  return own_.has(units);
}

void Lease::note_use(std::uint64_t units, SteadyTime now) {
  const auto elapsed = now - window_at_;
  if (elapsed >= kWindow) {
    // Half of the old speed for each window that has passed, so that a pause forgets it.
    const double now_speed = static_cast<double>(window_used_) / seconds(elapsed);
    speed_ = elapsed >= 4 * kWindow ? now_speed : (speed_ + now_speed) / 2;
    window_at_ = now;
    window_used_ = 0;
  }
  window_used_ += std::min(units, static_cast<std::uint64_t>(kCreditMax));
  last_cost_ = units;
  used_at_ = now;
}

void Lease::take(std::uint64_t units, SteadyTime now) {
  if (unlimited()) return;
  credit_ = plus(credit_, -whole(units));
  if (local_) own_.take(units);
  note_use(units, now);
}

void Lease::give(std::uint64_t units, SteadyTime now) {
  if (unlimited()) return;
  credit_ = plus(credit_, whole(units));
  if (!local_) return;
  own_.refill(now);
  own_.give(units);
}

nanoseconds Lease::wait_for(std::uint64_t units, SteadyTime now) {
  if (unlimited()) return 0ns;
  if (units > rate_.burst) return nanoseconds::max();
  if (local_) {
    own_.refill(now);
    return own_.wait_for(units);
  }
  const double missing = static_cast<double>(units) - static_cast<double>(credit_) - predicted(now);
  if (missing <= 0) return 0ns;
  const double wait_s = missing / units_per_s(rate_);
  // Rounded up, so that who waits finds what was promised.
  return wait_s > 9e9 ? nanoseconds::max() : nanoseconds{static_cast<std::int64_t>(std::ceil(wait_s * 1e9)) + 1000};
}

RateView Lease::view(SteadyTime now) {
  if (unlimited()) return {};
  if (local_) {
    own_.refill(now);
    return own_.view();
  }
  const double burst = static_cast<double>(rate_.burst);
  const double left = std::min(burst, static_cast<double>(credit_) + predicted(now));
  return {.limited = true,
          .limit = rate_.burst,
          .remaining = left > 0 ? static_cast<std::uint64_t>(left) : 0,
          .reset = nanoseconds{clamped(std::ceil((burst - left) / units_per_s(rate_) * 1e9))}};
}

std::uint64_t Lease::target(SteadyTime now) const {
  if (used_at_ == SteadyTime{} || now - used_at_ > kUnusedFor) return 0;
  const double running = static_cast<double>(window_used_) / std::max(seconds(now - window_at_), kAheadS);
  // All slices together are at most an eighth of the burst: that much more may be spent in a window that begins with
  // the bucket full.
  const double most = static_cast<double>(rate_.burst) / kSliceParts / sharers_;
  const double ahead = std::min(std::max(speed_, running) * kAheadS, most);
  return static_cast<std::uint64_t>(clamped(ahead)) + std::min<std::uint64_t>(last_cost_, rate_.burst);
}

bool Lease::low(SteadyTime now) const {
  return !unlimited() && credit_ < whole(target(now) / 2 + 1) && predicted(now) >= 1;
}

bool Lease::uneven(SteadyTime now) const {
  return !unlimited() && (credit_ < 0 || credit_ > 4 * whole(target(now)) || local_);
}

bool Lease::idle(SteadyTime now) const {
  return unlimited() || (!local_ && credit_ == 0 && predicted(now) >= static_cast<double>(rate_.burst));
}

LeaseAsk::Part Lease::plan(std::uint64_t units, std::uint64_t waiting, std::uint32_t gateways, SteadyTime now) {
  LeaseAsk::Part part{.rate = rate_};
  if (unlimited()) return part;
  sharers_ = std::max(gateways, 1U);
  const std::uint64_t wanted = target(now) + waiting;
  if (local_) {
    own_.refill(now);
    const RateView own = own_.view();
    // The bucket's debt, which a view does not show, is the wait for nothing.
    const double left = own.remaining > 0 ? static_cast<double>(own.remaining)
                                          : -seconds(own_.wait_for(0)) * units_per_s(rate_) / gateways_;
    // So that the shared bucket, if it starts anew, starts with what the gateways have left together.
    const std::int64_t deficit = clamped(static_cast<double>(rate_.burst) / gateways_ - left);
    part.back = -std::min(plus(0, -credit_), deficit);
    part.back_if_new = -std::max<std::int64_t>(deficit, 0);
    sent_ = credit_;
    part.extra = wanted;
    return part;
  }
  const bool surplus = credit_ > 4 * whole(target(now)) && units == 0 && waiting == 0;
  if (credit_ < 0) sent_ = credit_;
  if (surplus) sent_ = credit_ - whole(target(now));
  part.back = part.back_if_new = sent_;
  credit_ -= sent_;
  part.need = units > static_cast<std::uint64_t>(credit_) ? units - static_cast<std::uint64_t>(credit_) : 0;
  if (!surplus && wanted > static_cast<std::uint64_t>(credit_)) {
    part.extra = wanted - static_cast<std::uint64_t>(credit_);
  }
  return part;
}

LeaseAsk::Part Lease::close(std::uint32_t gateways, SteadyTime now) {
  LeaseAsk::Part part{.rate = rate_};
  if (unlimited()) return part;
  if (local_) {
    part = plan(0, 0, gateways, now);
  } else {
    part.back = part.back_if_new = sent_ = std::exchange(credit_, 0);
  }
  part.need = part.extra = 0;
  return part;
}

void Lease::granted(const LeaseGrant::Part& part, SteadyTime now) {
  if (unlimited()) return;
  if (local_) credit_ = plus(credit_, -sent_);  // what was spent after the asking is owed
  local_ = false;
  sent_ = 0;
  credit_ = plus(credit_, whole(part.granted));
  level_ = part.level;
  heard_at_ = now;
}

void Lease::failed(const LeaseFailure& failure) {
  // Units that may have gone back are not spent a second time; a debt that may have been charged is charged again.
  if (!local_ && (sent_ < 0 || !failure.maybe_done)) credit_ = plus(credit_, sent_);
  sent_ = 0;
}

void Lease::go_local(std::uint32_t gateways, SteadyTime now) {
  if (unlimited() || local_) return;
  gateways_ = std::max(gateways, 1U);
  const double burst = static_cast<double>(rate_.burst);
  // Never heard of: another gateway may have used it up.
  const double part = std::max(predicted(now), 0.0) / gateways_;
  const double start = std::min(burst, static_cast<double>(credit_) + part);
  Rate rate = rate_;
  rate.period *= gateways_;
  own_ = Bucket(rate, now);
  own_.take(static_cast<std::uint64_t>(clamped(std::ceil(burst - start))));
  local_ = true;
  sent_ = 0;
}

}  // namespace ganglion::ratelimit
