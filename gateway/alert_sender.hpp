#pragma once
// Sends budgets' alerts to the operator's webhook, one after the other, each until it is taken. A call is a POST of the
// alert's JSON with
//   idempotency-key: the alert's id, the same at every try
//   x-ganglion-signature: t=UNIX_SECONDS,v1=HEX   HMAC-SHA-256 of "UNIX_SECONDS.BODY" under the operator's secret
// 2xx takes it; 408, 425, 429, 5xx and connection failures are tried again with growing pauses; any other answer, and
// the last try, give it up. Lives on one thread; push() may come from any.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "core/cancel.hpp"
#include "core/clock.hpp"
#include "gateway/alert_journal.hpp"
#include "metering/options.hpp"
#include "metrics/registry.hpp"
#include "net/http_client.hpp"

namespace ganglion::gateway {

std::string alert_signature(std::string_view secret, std::int64_t unix_s, std::string_view body);

class AlertSender {
 public:
  // What the journal still holds is sent once `io` runs. Throws std::invalid_argument for a webhook that is no URL.
  AlertSender(boost::asio::io_context& io, const metering::BudgetAlertOptions& options, AlertJournal journal,
              const core::Clock& clock, metrics::Registry& registry);
  ~AlertSender();
  AlertSender(const AlertSender&) = delete;
  AlertSender& operator=(const AlertSender&) = delete;

  void push(const metering::BudgetAlert& alert);
  std::size_t waiting() const { return queue_.size(); }  // on the io_context's thread

 private:
  enum class Result : std::uint8_t { taken, again, refused };
  void take(const metering::BudgetAlert& alert);
  void run();
  boost::asio::awaitable<void> pump();
  boost::asio::awaitable<Result> send(const AlertJournal::Pending& alert);
  void count(std::string_view outcome);

  boost::asio::io_context& io_;
  const metering::BudgetAlertOptions options_;
  AlertJournal journal_;
  const core::Clock& clock_;
  metrics::Shard& shard_;
  net::UpstreamHooks hooks_;
  core::CancelSource cancel_;
  std::string path_ = "/";
  std::optional<net::UpstreamClient> client_;  // none: no webhook
  boost::asio::steady_timer pause_;
  std::deque<AlertJournal::Pending> queue_;
  bool running_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // for what is posted
};

}  // namespace ganglion::gateway
