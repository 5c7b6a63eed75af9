// See gateway/alert_sender.hpp.

#include "gateway/alert_sender.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <stdexcept>

#include "core/digest.hpp"
#include "core/log.hpp"
#include "gateway/budget_watch.hpp"
#include "net/keep_running.hpp"
#include "net/url.hpp"

namespace ganglion::gateway {
namespace {

constexpr std::chrono::seconds kCallTime{10};
constexpr std::chrono::minutes kPauseMax{10};
constexpr std::size_t kAnswerBytesMax = 64 * 1024;

bool worth_trying_again(int status) {
  return status == 408 || status == 425 || status == 429 || status >= 500;
}

}  // namespace

std::string alert_signature(std::string_view secret, std::int64_t unix_s, std::string_view body) {
  const std::string time = std::to_string(unix_s);
  return "t=" + time + ",v1=" + core::hex(core::hmac_sha256(secret, time + "." + std::string{body}));
}

AlertSender::AlertSender(boost::asio::io_context& io, const metering::BudgetAlertOptions& options, AlertJournal journal,
                         const core::Clock& clock, metrics::Registry& registry)
    : io_(io), options_(options), journal_(std::move(journal)), clock_(clock), shard_(registry.shared()), pause_(io) {
  if (!options_.webhook.empty()) {
    const auto url = net::parse_base_url(options_.webhook);
    if (!url) throw std::invalid_argument("budget_alerts.webhook is no URL");
    if (!url->prefix.empty()) path_ = url->prefix;
    client_.emplace(io.get_executor(),
                    net::UpstreamOptions{.base_url = (url->tls ? "https://" : "http://") + url->authority,
                                         .connections_max = 1,
                                         .first_byte_timeout = kCallTime},
                    hooks_);
    for (auto& pending : journal_.pending()) queue_.push_back(std::move(pending));
  }
  run();
}

AlertSender::~AlertSender() {
  *alive_ = false;
}

void AlertSender::push(const metering::BudgetAlert& alert) {
  boost::asio::post(io_, [this, alive = alive_, alert] {
    if (*alive) take(alert);
  });
}

void AlertSender::take(const metering::BudgetAlert& alert) {
  if (journal_.raised(alert)) return;
  if (client_ && queue_.size() >= options_.queue_max) {
    count("dropped");
    return;
  }
  const std::string body = alert_json(alert);
  // Without a webhook it is logged and counted, and done with.
  if (auto written = journal_.raise(alert, client_ ? body : ""); !written)
    core::log(core::LogLevel::error, "budget_alert_journal", {{"problem", written.error().message}});
  log_alert(alert);
  shard_.counter(metrics::Family::budget_alerts_total, {alert.budget, std::to_string(alert.percent)}).add();
  if (!client_) return;
  queue_.push_back({.id = alert.id, .body = body});
  run();
}

void AlertSender::run() {
  if (running_ || queue_.empty()) return;
  const net::Kept kept{
      .name = "budget alerts", .wanted = [alive = alive_] { return *alive; }, .begin = [this] { return pump(); }};
  running_ = true;
  net::keep_running(io_.get_executor(), kept);
}

boost::asio::awaitable<void> AlertSender::pump() {
  const std::shared_ptr<bool> alive = alive_;
  while (!queue_.empty()) {
    const AlertJournal::Pending alert = queue_.front();
    Result result = Result::again;
    auto pause = options_.backoff_base;
    for (std::uint32_t attempt = 1; result == Result::again; ++attempt) {
      result = co_await send(alert);
      if (!*alive) co_return;
      if (result != Result::again) break;
      if (attempt >= options_.attempts_max) {
        result = Result::refused;
        break;
      }
      count("retried");
      pause_.expires_after(pause);
      boost::system::error_code ignored;
      co_await pause_.async_wait(boost::asio::redirect_error(boost::asio::use_awaitable, ignored));
      if (!*alive) co_return;
      pause = std::min<std::chrono::milliseconds>(pause * 2, kPauseMax);
    }
    count(result == Result::taken ? "sent" : "given_up");
    if (result != Result::taken) core::log(core::LogLevel::error, "budget_alert_given_up", {{"id", alert.id}});
    if (auto written = journal_.done(alert.id); !written)
      core::log(core::LogLevel::error, "budget_alert_journal", {{"problem", written.error().message}});
    queue_.pop_front();
  }
  running_ = false;
}

boost::asio::awaitable<AlertSender::Result> AlertSender::send(const AlertJournal::Pending& alert) {
  const auto now = std::chrono::floor<std::chrono::seconds>(clock_.wall()).time_since_epoch().count();
  const std::string signature = alert_signature(options_.secret.reveal(), now, alert.body);
  const net::Header headers[] = {{"content-type", "application/json"},
                                 {"user-agent", "ganglion"},
                                 {"idempotency-key", alert.id},
                                 {"x-ganglion-signature", signature}};
  const auto deadline = core::Deadline::after(kCallTime);
  auto answer = co_await client_->send({.path = path_, .headers = headers, .body = alert.body}, deadline, cancel_);
  if (!answer) co_return Result::again;
  const int status = (*answer)->status();
  [[maybe_unused]] const auto rest = co_await (*answer)->read_all(kAnswerBytesMax);  // so the connection can be kept
  if (status / 100 == 2) co_return Result::taken;
  co_return worth_trying_again(status) ? Result::again : Result::refused;
}

void AlertSender::count(std::string_view outcome) {
  shard_.counter(metrics::Family::budget_webhook_calls_total, {outcome}).add();
}

}  // namespace ganglion::gateway
