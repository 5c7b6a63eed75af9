// See ratelimit/admission.hpp.

#include "ratelimit/admission.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

namespace ganglion::ratelimit {
namespace {

// Long enough that a crowd does not hammer, short enough that a burst passes.
constexpr std::chrono::milliseconds kRetryAfterMin{1'000};
constexpr std::chrono::milliseconds kRetryAfterMax{60'000};

}  // namespace

std::string_view name(Shed why) {
  switch (why) {
    case Shed::queue_full:
      return "queue_full";
    case Shed::displaced:
      return "displaced";
    case Shed::waited_too_long:
      return "waited_too_long";
    case Shed::upstream_busy:
      return "upstream_busy";
    case Shed::memory:
      return "memory";
    case Shed::kCount:
      break;
  }
  return "unknown";
}

Ticket::Ticket(Ticket&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)),
      body_bytes_(std::exchange(other.body_bytes_, 0)),
      limit_(other.limit_) {}

Ticket& Ticket::operator=(Ticket&& other) noexcept {
  if (this == &other) return *this;
  release_body();
  owner_ = std::exchange(other.owner_, nullptr);
  body_bytes_ = std::exchange(other.body_bytes_, 0);
  limit_ = other.limit_;
  return *this;
}

core::Result<void> Ticket::reserve_body(std::uint64_t bytes) {
  if (owner_ == nullptr) return core::fail(core::ErrorKind::internal, "empty ticket");
  if (!owner_->take_body(bytes, limit_)) {
    core::Error error =
        core::make_error(core::ErrorKind::overloaded, "The gateway holds too many request bodies. Try again.");
    error.retry_after = kRetryAfterMin;
    return std::unexpected(std::move(error));
  }
  body_bytes_ += bytes;
  return {};
}

void Ticket::release_body() {
  if (owner_ != nullptr && body_bytes_ != 0) owner_->body_bytes_.fetch_sub(body_bytes_, std::memory_order_relaxed);
  body_bytes_ = 0;
}

Place::Place(Place&& other) noexcept
    : owner_(std::exchange(other.owner_, nullptr)), tier_(other.tier_), since_(other.since_), waited_(other.waited_) {}

Place& Place::operator=(Place&& other) noexcept {
  if (this == &other) return *this;
  const Place gone{std::move(*this)};
  owner_ = std::exchange(other.owner_, nullptr);
  tier_ = other.tier_;
  since_ = other.since_;
  waited_ = other.waited_;
  return *this;
}

Place::~Place() {
  if (owner_ != nullptr) owner_->left(tier_, since_);
}

// One coroutine in the queue. What the granting thread touches is shared and outlives the coroutine; the timer does
// not, and is touched on its own thread only.
class Admission::AsioWaiter final : public Slots::Waiter {
 public:
  AsioWaiter(Slots& slots, api::Tier tier, boost::asio::any_io_executor executor)
      : Waiter(tier),
        slots_(slots),
        mine_(tier),
        bell_(std::make_shared<Bell>()),
        timer_(executor),
        executor_(std::move(executor)) {
    bell_->timer = &timer_;
  }
  ~AsioWaiter() override {
    bell_->timer = nullptr;
    // A coroutine that is destroyed where it waits takes no slot along.
    if (!left_ && leave() == State::granted) slots_.give_back(mine_);
  }

  State leave() {
    left_ = true;
    return slots_.leave(*this);
  }

  boost::asio::awaitable<void> wait(core::Deadline until, core::CancelSource& cancel) {
    const core::CancelRegistration registration(cancel, [this](core::CancelReason) { timer_.cancel(); });
    while (!bell_->rung && !cancel.cancelled() && !until.passed()) {
      timer_.expires_at(until.at());
      co_await timer_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
    }
  }

 private:
  struct Bell {
    boost::asio::steady_timer* timer = nullptr;
    bool rung = false;
  };
  // Under the queue's lock, which leave() takes too: the executor is alive.
  void changed() override {
    boost::asio::post(executor_, [bell = bell_] {
      bell->rung = true;
      if (bell->timer != nullptr) bell->timer->cancel();
    });
  }

  Slots& slots_;
  const api::Tier mine_;
  std::shared_ptr<Bell> bell_;
  boost::asio::steady_timer timer_;
  boost::asio::any_io_executor executor_;
  bool left_ = false;
};

Slots::Limits Admission::limits(const AdmissionOptions& options, const TierOptions& tiers) {
  return {.total = options.in_flight_max,
          .regular = tiers.regular_share(options.in_flight_max),
          .queue_max = tiers.queue_max};
}

Admission::Admission(const AdmissionOptions& options, const TierOptions& tiers) : slots_(limits(options, tiers)) {
  configure(options, tiers);
}

void Admission::configure(const AdmissionOptions& options, const TierOptions& tiers) {
  memory_bytes_max_.store(options.memory_bytes_max, std::memory_order_relaxed);
  body_bytes_max_.store(options.body_memory_bytes_max, std::memory_order_relaxed);
  body_bytes_regular_.store(tiers.regular_share(options.body_memory_bytes_max), std::memory_order_relaxed);
  wait_max_ms_[index(api::Tier::regular)].store(tiers.regular_wait_max.count(), std::memory_order_relaxed);
  wait_max_ms_[index(api::Tier::fast)].store(tiers.fast_wait_max.count(), std::memory_order_relaxed);
  slots_.set_limits(limits(options, tiers));
}

core::Result<Ticket> Admission::enter(api::Tier presumed, std::uint64_t body_bytes) {
  if (short_of_memory(presumed)) {
    count_shed(presumed, Shed::memory);
    core::Error error = core::make_error(core::ErrorKind::overloaded, "The gateway is short of memory. Try again.");
    error.retry_after = kRetryAfterMin;
    return std::unexpected(std::move(error));
  }
  Ticket ticket;
  ticket.owner_ = this;
  ticket.limit_ = (presumed == api::Tier::fast ? body_bytes_max_ : body_bytes_regular_).load(std::memory_order_relaxed);
  if (body_bytes != 0) {
    const auto reserved = ticket.reserve_body(body_bytes);
    if (!reserved) return std::unexpected(reserved.error());
  }
  return ticket;
}

bool Admission::short_of_memory(api::Tier tier) const {
  const std::uint64_t limit = memory_bytes_max_.load(std::memory_order_relaxed);
  if (limit == 0) return false;
  return memory_bytes_.load(std::memory_order_relaxed) / (tier == api::Tier::fast ? 95 : 85) >= limit / 100;
}

bool Admission::take_body(std::uint64_t bytes, std::uint64_t limit) {
  std::uint64_t held = body_bytes_.load(std::memory_order_relaxed);
  do {
    if (bytes > limit || held > limit - bytes) return false;
  } while (!body_bytes_.compare_exchange_weak(held, held + bytes, std::memory_order_relaxed));
  return true;
}

Place Admission::granted(api::Tier tier, core::SteadyTime now, std::chrono::nanoseconds waited) {
  Place place;
  place.owner_ = this;
  place.tier_ = tier;
  place.since_ = now;
  place.waited_ = waited;
  return place;
}

void Admission::left(api::Tier tier, core::SteadyTime since) {
  const std::int64_t held = (std::chrono::steady_clock::now() - since).count();
  const std::int64_t mean = held_ns_.load(std::memory_order_relaxed);
  // A lost update under contention costs one sample.
  held_ns_.store(mean == 0 ? held : mean + (held - mean) / 16, std::memory_order_relaxed);
  slots_.give_back(tier);
}

// When those who wait now will have been served, going by how long a place was held lately.
core::Error Admission::refuse(api::Tier tier, Shed why) {
  count_shed(tier, why);
  core::Error error = core::make_error(
      core::ErrorKind::overloaded,
      "The gateway is serving as many requests as it may, and " +
          std::string{why == Shed::waited_too_long ? "none ended in time." : "its queue is full."} + " Try again.");
  const double waiting = 1.0 + slots_.waiting(api::Tier::fast) + slots_.waiting(api::Tier::regular);
  const double each = static_cast<double>(held_ns_.load(std::memory_order_relaxed)) / 1e6;
  const std::chrono::milliseconds estimate{static_cast<std::int64_t>(each * waiting / std::max(slots_.total(), 1U))};
  error.retry_after = std::clamp(estimate, kRetryAfterMin, kRetryAfterMax);
  return error;
}

std::optional<Place> Admission::place_now(api::Tier tier) {
  if (!slots_.try_take(tier)) return std::nullopt;
  return granted(tier, std::chrono::steady_clock::now(), {});
}

boost::asio::awaitable<core::Result<Place>> Admission::place(api::Tier tier, core::Deadline deadline,
                                                             core::CancelSource& cancel) {
  const core::SteadyTime asked = std::chrono::steady_clock::now();
  if (slots_.try_take(tier)) co_return granted(tier, asked, {});
  AsioWaiter waiter(slots_, tier, co_await boost::asio::this_coro::executor);
  if (!slots_.enqueue(waiter)) co_return std::unexpected(refuse(tier, Shed::queue_full));
  const std::chrono::milliseconds limit{wait_max_ms_[index(tier)].load(std::memory_order_relaxed)};
  co_await waiter.wait(deadline.capped(limit, asked), cancel);
  switch (waiter.leave()) {
    case Slots::Waiter::State::granted: {
      const core::SteadyTime now = std::chrono::steady_clock::now();
      Place place = granted(tier, now, now - asked);
      if (cancel.cancelled()) co_return core::fail(core::ErrorKind::cancelled);
      co_return place;
    }
    case Slots::Waiter::State::displaced:
      co_return std::unexpected(refuse(tier, Shed::displaced));
    default:
      break;
  }
  if (cancel.cancelled()) co_return core::fail(core::ErrorKind::cancelled);
  if (deadline.passed()) co_return core::fail(core::ErrorKind::deadline_exceeded, "no place came free in time");
  co_return std::unexpected(refuse(tier, Shed::waited_too_long));
}

}  // namespace ganglion::ratelimit
