// See backends/backend_set.hpp.

#include "backends/backend_set.hpp"

#include <algorithm>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/container/small_vector.hpp>
#include <optional>
#include <random>

namespace ganglion::backends {
namespace {

using core::ErrorKind;

// Counts a try into the backend's in-flight gauge for as long as the start takes; the answer then keeps its own.
class InFlight {
 public:
  InFlight(const Target& target, api::Tier tier) : health_(target.health), latency_(target.latency), tier_(tier) {
    ++health_->in_flight;
    ++latency_->in_flight(tier_);
  }
  InFlight(InFlight&&) = default;
  InFlight& operator=(InFlight&&) = delete;
  ~InFlight() {
    if (!health_) return;
    --health_->in_flight;
    --latency_->in_flight(tier_);
  }

 private:
  std::shared_ptr<Health> health_;
  std::shared_ptr<Latency> latency_;
  api::Tier tier_;
};

// Keeps the gauge up until the answer is gone.
class CountedAnswer final : public Answer {
 public:
  CountedAnswer(std::unique_ptr<Answer> inner, InFlight in_flight)
      : in_flight_(std::move(in_flight)), inner_(std::move(inner)) {}
  const AnswerHead& head() const override { return inner_->head(); }
  boost::asio::awaitable<core::Result<std::string_view>> next() override { return inner_->next(); }
  bool ended() const override { return inner_->ended(); }
  void expect_end() override { inner_->expect_end(); }
  std::optional<api::Usage> usage() const override { return inner_->usage(); }
  std::uint64_t engine_us() const override { return inner_->engine_us(); }

 private:
  InFlight in_flight_;
  std::unique_ptr<Answer> inner_;
};

// What the outcome of a try says about the backend's health. The client's own mistakes (400, 404...) say nothing.
// A Retry-After that the retry loop waits out itself rests nothing.
void judge(const Target& target, const core::Error& error, const Rejection& rejection, const RetryOptions& retry,
           core::SteadyTime now) {
  Health& health = *target.health;
  switch (error.kind) {
    case ErrorKind::cancelled:
    case ErrorKind::deadline_exceeded:
    case ErrorKind::context_length:
    case ErrorKind::invalid_value:
    case ErrorKind::unsupported:
    case ErrorKind::queue_full:
    case ErrorKind::overloaded:  // our own connections to it are all busy
      health.released();
      return;
    case ErrorKind::upstream_rejected:
      if (rejection.status == 429 || rejection.status == 503) {
        health.released();
        if (!rejection.retry_after || *rejection.retry_after <= retry.backoff_max) return;
        if (rejection.status == 429) {
          target.rest->begin(now, *rejection.retry_after);
        } else {
          health.rest(now, *rejection.retry_after);
        }
        return;
      }
      if (rejection.status < 500) {
        health.released();
        return;
      }
      break;
    default:
      break;
  }
  health.failed(now);
}

// What the gateway's account at one provider may not do, or the provider does not have, another may.
bool another_may(int status) {
  return status == 401 || status == 402 || status == 403 || status == 404;
}

}  // namespace

boost::asio::awaitable<bool> pause(std::chrono::nanoseconds time, core::Deadline deadline, core::CancelSource& cancel) {
  if (deadline.left() <= time || cancel.cancelled()) co_return false;
  boost::asio::steady_timer timer(co_await boost::asio::this_coro::executor, time);
  core::CancelRegistration registration(cancel, [&timer](core::CancelReason) { timer.cancel(); });
  boost::system::error_code ignored;
  co_await timer.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
  co_return !cancel.cancelled();
}

BackendSet::BackendSet(std::string model, std::vector<Target> targets)
    : model_(std::move(model)), targets_(std::move(targets)), jitter_state_(std::random_device{}() | 1U) {}

const Target* BackendSet::pick(api::Tier tier, core::SteadyTime now, std::span<const Target* const> tried) {
  const Target* best = nullptr;
  double best_score = 0;
  double least_expected = 0;
  for (const Target& target : targets_) {
    const double expected = tier == api::Tier::fast ? target.latency->expected_ns(tier, now) : 0;
    if (expected > 0 && (least_expected == 0 || expected < least_expected)) least_expected = expected;
  }
  if (least_expected == 0) least_expected = 1;
  for (std::size_t i = 0; i < targets_.size(); ++i) {
    const Target& target = targets_[(turn_ + i) % targets_.size()];
    if (target.weight == 0 || !target.health->available(now) || target.rest->left(now).count() > 0) continue;
    if (std::ranges::find(tried, &target) != tried.end()) continue;
    double score = 0;
    if (tier == api::Tier::fast) {
      // Regular requests do not count: what they do to this target is in its latency. An unmeasured target looks fast,
      // so it gets measured, by one request; until that is answered it counts as good as the best.
      const std::uint32_t in_flight = target.latency->in_flight(tier);
      double expected = target.latency->expected_ns(tier, now);
      if (expected == 0 && in_flight > 0) expected = least_expected;
      score = expected * (in_flight + 1.0) / target.weight;
    } else {
      score = (target.health->in_flight.load(std::memory_order_relaxed) + 1.0) / target.weight;
    }
    if (best == nullptr || score < best_score) {
      best = &target;
      best_score = score;
    }
  }
  ++turn_;
  return best;
}

core::Error BackendSet::nobody(core::SteadyTime now, Rejection& rejection) const {
  std::chrono::nanoseconds least = std::chrono::nanoseconds::max();
  bool limited = false;
  for (const Target& target : targets_) {
    if (target.weight == 0) continue;
    least = std::min(least, std::max(target.health->rest_left(now), target.rest->left(now)));
    limited = limited || (target.health->available(now) && target.rest->left(now).count() > 0);
  }
  core::Error error = core::make_error(limited ? ErrorKind::upstream_rejected : ErrorKind::no_backend,
                                       "no backend of model '" + model_ + "' is in rotation now");
  if (targets_.empty() || least == std::chrono::nanoseconds::max()) return error;
  error.retry_after = std::max(std::chrono::ceil<std::chrono::milliseconds>(least), std::chrono::milliseconds{1'000});
  if (limited) {
    rejection = {.status = 429,
                 .content_type = "application/json",
                 .body = R"({"error":{"message":"the provider's rate limit of this model is reached; it said when to )"
                         R"(ask again","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}})",
                 .retry_after = error.retry_after};
  }
  return error;
}

boost::asio::awaitable<core::Result<Started>> BackendSet::start(Call& call, const RetryOptions& retry,
                                                                const BodyFor& body_for, std::vector<Attempt>& attempts,
                                                                Rejection& rejection) {
  std::optional<core::Error> last;
  boost::container::small_vector<const Target*, 8> tried, refusing;
  auto backoff = std::chrono::duration_cast<std::chrono::nanoseconds>(retry.backoff_base);
  for (std::uint32_t attempt = 0; attempt < std::max(retry.attempts_max, 1U); ++attempt) {
    const core::SteadyTime now = std::chrono::steady_clock::now();
    const Target* target = pick(call.tier, now, tried);
    const bool again = target == nullptr && !tried.empty();
    if (again) {  // every backend was tried once: go round again, after a pause
      tried = refusing;
      target = pick(call.tier, now, tried);
    }
    while (target != nullptr && !target->health->claim(now)) {  // another worker has its trial
      tried.push_back(target);
      target = pick(call.tier, now, tried);
    }
    if (target == nullptr) break;
    if (again) {
      jitter_state_ = jitter_state_ * 6364136223846793005ULL + 1442695040888963407ULL;
      const auto jittered = std::chrono::nanoseconds{static_cast<std::int64_t>(
          static_cast<double>(backoff.count()) * static_cast<double>(jitter_state_ >> 11) * 0x1.0p-53)};
      backoff = std::min<std::chrono::nanoseconds>(backoff * 2, retry.backoff_max);
      if (last->retry_after > retry.backoff_max) {
        target->health->released();
        break;
      }
      if (!co_await pause(std::max<std::chrono::nanoseconds>(jittered, last->retry_after), call.deadline,
                          *call.cancel)) {
        target->health->released();
        if (call.cancel->cancelled()) co_return core::fail(ErrorKind::cancelled);
        break;
      }
    }
    tried.push_back(target);
    call.model = target->upstream_model;
    auto body = body_for(*target);
    if (!body) {
      target->health->released();
      co_return std::unexpected(std::move(body.error()));
    }
    call.body = *body;
    InFlight in_flight(*target, call.tier);
    const core::SteadyTime sent = std::chrono::steady_clock::now();
    Rejection refused;
    auto answer = co_await target->backend->start(call, &refused);
    const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - sent;
    attempts.push_back({.backend = target->backend->name(),
                        .outcome = answer ? ErrorKind::kCount : answer.error().kind,
                        .status = answer ? (*answer)->head().status : refused.status});
    if (target->hooks != nullptr) target->hooks->attempted(attempts.back(), took, attempts.size() > 1);
    if (answer) {
      target->health->succeeded();
      target->latency->observe(call.tier, took, sent + took);
      co_return Started{.answer = std::make_unique<CountedAnswer>(std::move(*answer), std::move(in_flight)),
                        .target = target};
    }
    judge(*target, answer.error(), refused, retry, std::chrono::steady_clock::now());
    refused.engine_us += rejection.engine_us;  // of all tries
    const bool may_pass = answer.error().retryable;
    const bool refuses = !may_pass && another_may(refused.status);
    if (refuses) refusing.push_back(target);
    if (!last || !refuses || !last->retryable) {  // what may pass with time is told before what this one refuses
      last = std::move(answer.error());
      rejection = std::move(refused);
    } else {
      rejection.engine_us = refused.engine_us;
    }
    if (call.deadline.passed() || call.cancel->cancelled() || !(may_pass || refuses)) break;
    if (refuses && !last->retryable && pick(call.tier, std::chrono::steady_clock::now(), tried) == nullptr) break;
  }
  if (call.cancel->cancelled()) co_return core::fail(ErrorKind::cancelled);
  if (!last) co_return std::unexpected(nobody(std::chrono::steady_clock::now(), rejection));
  co_return std::unexpected(std::move(*last));
}

}  // namespace ganglion::backends
