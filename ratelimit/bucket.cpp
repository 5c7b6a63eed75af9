// See ratelimit/bucket.hpp.

#include "ratelimit/bucket.hpp"

#include <algorithm>
#include <limits>

namespace ganglion::ratelimit {
namespace {

constexpr std::uint64_t kUnitsMax = 1'000'000'000'000'000'000;
constexpr std::int64_t kPeriodMaxNs = 4'294'967'296LL * 1'000'000'000LL;

// With amounts <= 1e18 and periods <= 4.3e18 ns a capacity is <= 4.3e36, a refill <= 9.3e36; a debt stops here, so no
// sum leaves the 1.7e38 of 128 signed bits.
constexpr __int128 kDebtMax = static_cast<__int128>(kUnitsMax) * 4'000'000'000'000'000'000LL;

Rate bounded(Rate rate) {
  rate.amount = std::min(rate.amount, kUnitsMax);
  rate.burst = std::min(rate.burst == 0 ? rate.amount : rate.burst, kUnitsMax);
  rate.period = std::chrono::nanoseconds{std::clamp<std::int64_t>(rate.period.count(), 1, kPeriodMaxNs)};
  return rate;
}

std::chrono::nanoseconds time_for(__int128 deficit, std::uint64_t amount) {
  if (deficit <= 0) return std::chrono::nanoseconds{0};
  const __int128 ns = (deficit + amount - 1) / amount;
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  return std::chrono::nanoseconds{ns > kMax ? kMax : static_cast<std::int64_t>(ns)};
}

}  // namespace

Bucket::Bucket(const Rate& rate, core::SteadyTime now) : rate_(bounded(rate)), level_(capacity()), at_(now) {}

void Bucket::refill(core::SteadyTime now) {
  if (unlimited() || now <= at_) return;
  const auto elapsed = static_cast<Level>(std::chrono::nanoseconds{now - at_}.count());
  level_ = std::min(level_ + elapsed * rate_.amount, capacity());
  at_ = now;
}

bool Bucket::has(std::uint64_t units) const {
  return unlimited() || level_ >= static_cast<Level>(units) * rate_.period.count();
}

void Bucket::take(std::uint64_t units) {
  if (unlimited()) return;
  level_ = std::max(level_ - static_cast<Level>(units) * rate_.period.count(), -kDebtMax);
}

void Bucket::give(std::uint64_t units) {
  if (unlimited()) return;
  level_ = std::min(level_ + static_cast<Level>(units) * rate_.period.count(), capacity());
}

std::chrono::nanoseconds Bucket::wait_for(std::uint64_t units) const {
  if (has(units)) return std::chrono::nanoseconds{0};
  if (units > rate_.burst) return std::chrono::nanoseconds::max();
  return time_for(static_cast<Level>(units) * rate_.period.count() - level_, rate_.amount);
}

bool Bucket::full() const {
  return unlimited() || level_ >= capacity();
}

std::uint64_t Bucket::taken() const {
  if (full()) return 0;
  const Level period = rate_.period.count();
  return static_cast<std::uint64_t>((capacity() - level_ + period - 1) / period);
}

RateView Bucket::view() const {
  if (unlimited()) return {};
  const Level whole = level_ > 0 ? level_ / rate_.period.count() : 0;
  return {.limited = true,
          .limit = rate_.burst,
          .remaining = static_cast<std::uint64_t>(whole),
          .reset = time_for(capacity() - level_, rate_.amount)};
}

void Bucket::change(const Rate& rate, core::SteadyTime now) {
  const Rate next = bounded(rate);
  if (next == rate_) return;
  refill(now);
  // Used units, rounded up, so that reloading back and forth gains nothing.
  const Level used = unlimited() ? 0 : (capacity() - level_ + rate_.period.count() - 1) / rate_.period.count();
  rate_ = next;
  at_ = now;
  level_ = capacity();
  if (!unlimited()) level_ = std::max(level_ - std::min<Level>(used, kUnitsMax) * rate_.period.count(), -kDebtMax);
}

}  // namespace ganglion::ratelimit
