#pragma once
// What the outside sees of budgets: counters, the admin page, and alerts handed on. Thread-safe.

#include <atomic>
#include <functional>
#include <string>

#include "metering/budgets.hpp"
#include "metrics/registry.hpp"
#include "net/exchange.hpp"

namespace ganglion::gateway {

class BudgetWatch final : public metering::BudgetHooks {
 public:
  using Sender = std::function<void(const metering::BudgetAlert&)>;

  explicit BudgetWatch(metrics::Registry& registry) : shard_(registry.shared()) {}
  // Before the first request; called from any thread.
  void send_to(Sender sender) { sender_ = std::move(sender); }
  // Another process raises the alerts now, or does no longer. Any thread.
  void mute(bool mute) { muted_.store(mute, std::memory_order_relaxed); }

  void crossed(const metering::BudgetAlert& alert) override;
  void refused(std::string_view budget) override;
  void overrun(std::string_view budget) override;

 private:
  metrics::Shard& shard_;
  Sender sender_;
  std::atomic<bool> muted_{false};
};

// GET /admin/budgets. `budgets` outlives the handler.
net::Handler budgets_page(const metering::Budgets& budgets);
std::string budgets_json(const metering::Budgets& budgets);
// Gauges by budget; of a `per` budget the fullest one.
void scrape_budgets(const metering::Budgets& budgets, metrics::Scrape& out);
// The alert as the webhook and the log tell it.
std::string alert_json(const metering::BudgetAlert& alert);
void log_alert(const metering::BudgetAlert& alert);

}  // namespace ganglion::gateway
