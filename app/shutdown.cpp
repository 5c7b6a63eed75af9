// Signals and the drain: first SIGTERM or SIGINT stops accepting and lets running requests end within shutdown.drain;
// a second one ends the process at once. SIGHUP reads the configuration again and opens the access log anew.

#include <algorithm>
#include <boost/asio/post.hpp>
#include <csignal>
#include <cstdlib>

#include "app/application.hpp"
#include "core/log.hpp"

namespace ganglion::app {
namespace {

constexpr std::chrono::milliseconds kPoll{10};
// After the drain window: time for cancelled requests to answer and for their records to be written.
constexpr std::chrono::milliseconds kCancelGrace{2'000};
// For telling Redis, and so the other gateways, what this one held.
constexpr std::chrono::milliseconds kFarewell{300};

}  // namespace

void Application::wait_for_signal() {
  signals_.async_wait([this](boost::system::error_code error, int signal) {
    if (error) return;
    if (signal == SIGHUP) {
      reopen_access_log();
      if (upgrade_) {
        core::log(core::LogLevel::warn, "reload_refused", {{"why", "an upgrade is under way"}});
      } else if (reloader_) {
        apply(reloader_->reload());
      } else {
        core::log(core::LogLevel::warn, "nothing_to_reload",
                  {{"why", "started on the embedded default, without a file"}});
      }
    } else if (signal == SIGUSR2) {
      begin_upgrade();
    } else if (draining_) {
      core::log(core::LogLevel::warn, "stopped_at_once", {{"signal", signal}});
      std::_Exit(128 + signal);
    } else {
      begin_shutdown();
    }
    wait_for_signal();
  });
}

void Application::request_stop() {
  boost::asio::post(control_, [this] {
    if (!draining_) begin_shutdown();
  });
}

void Application::begin_shutdown() {
  if (upgrade_) upgrade_failed("the gateway was told to stop");
  if (draining_) return;
  draining_ = true;
  notify_service_manager("STOPPING=1");
  metrics_.set_draining(true);
  core::log(core::LogLevel::info, "draining",
            {{"requests", proxy_->exchanges()}, {"window_ms", config_->shutdown.drain.count()}});
  proxy_->stop_accepting();
  proxy_->drain();
  poll_drain(clock_.steady() + config_->shutdown.drain, false);
}

// Slices of limits and budgets are given back and ends of idempotency keys told: else they lapse, or wait for the next
// start.
bool Application::said_farewell() {
  const core::SteadyTime now = clock_.steady();
  if (farewell_until_ == core::SteadyTime{}) farewell_until_ = now + kFarewell;
  const bool given_back = !lease_keeper_ || lease_keeper_->close();
  const bool unspent = !budget_share_ || budget_share_->farewell();
  const bool told = !key_share_ || key_share_->sending() == 0;
  return (given_back && unspent && told) || now >= farewell_until_;
}

void Application::poll_drain(core::SteadyTime give_up, bool cancelled) {
  // A call that is shared lives apart from its clients, and ends a moment after the last of them: its bill is waited
  // for, or the next start would find it open and void it.
  const metering::LedgerStats ledger = ledger_->stats();
  // A ledger that cannot be written holds bills open for good.
  const bool billed = ledger.open_intents == 0 || ledger.state != metering::LedgerState::ok;
  // Connections without a request are on their way to the process that took this one's place.
  const bool given = !upgrade_ || proxy_->connections() == 0;
  const bool idle = proxy_->exchanges() == 0 && billed && given;
  const bool late = clock_.steady() >= give_up;
  const bool ended = idle || (late && cancelled);
  if (ended && said_farewell()) {
    core::log(core::LogLevel::info, "stopped", {{"cut", cut_}});
    control_.stop();
    return;
  }
  if (late && !ended) {
    const std::size_t running = proxy_->exchanges();
    core::log(core::LogLevel::warn, "drain_window_over", {{"cut", running}});
    cut_ = std::max(cut_, running);  // those that were called off before may not be gone yet
    proxy_->cancel_all();
    give_up = clock_.steady() + kCancelGrace;
    cancelled = true;
  }
  drain_timer_.expires_after(kPoll);
  drain_timer_.async_wait([this, give_up, cancelled](boost::system::error_code error) {
    if (!error) poll_drain(give_up, cancelled);
  });
}

}  // namespace ganglion::app
