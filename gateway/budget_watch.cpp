// See gateway/budget_watch.hpp.

#include "gateway/budget_watch.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "api/error_body.hpp"
#include "core/log.hpp"
#include "metering/calendar.hpp"

namespace ganglion::gateway {
namespace {

using Json = nlohmann::ordered_json;
using metrics::Family;

std::string instant(core::WallTime at) {
  std::string text = metering::format_time(std::chrono::floor<std::chrono::seconds>(at).time_since_epoch());
  const auto point = text.find('.');
  return point == std::string::npos ? text : text.substr(0, point) + "Z";
}

}  // namespace

void BudgetWatch::crossed(const metering::BudgetAlert& alert) {
  if (sender_ && !muted_.load(std::memory_order_relaxed)) sender_(alert);
}

void log_alert(const metering::BudgetAlert& alert) {
  core::log(core::LogLevel::warn, "budget_alert",
            {{"budget", alert.budget},
             {"of", alert.value},
             {"percent", static_cast<std::int64_t>(alert.percent)},
             {"spent", metering::format_amount(alert.unit, alert.spent)},
             {"limit", metering::format_amount(alert.unit, alert.limit)},
             {"refusing", alert.refused ? "true" : "false"}});
}

void BudgetWatch::refused(std::string_view budget) {
  shard_.counter(Family::budget_refused_total, {budget}).add();
}

void BudgetWatch::overrun(std::string_view budget) {
  shard_.counter(Family::budget_overruns_total, {budget}).add();
  core::log(core::LogLevel::warn, "budget_overrun", {{"budget", budget}});
}

net::Handler budgets_page(const metering::Budgets& budgets) {
  return [&budgets](net::Exchange& exchange) -> boost::asio::awaitable<void> {
    const net::Method method = exchange.head().method;
    if (method != net::Method::get && method != net::Method::head) {
      const std::string body =
          api::openai_error_body(core::make_error(core::ErrorKind::method_not_allowed, "/admin/budgets takes GET"));
      [[maybe_unused]] const auto told =
          co_await exchange.respond({.status = 405, .content_type = "application/json"}, body);
      co_return;
    }
    const std::string body = budgets_json(budgets);
    [[maybe_unused]] const auto sent =
        co_await exchange.respond({.status = 200, .content_type = "application/json"}, body);
  };
}

std::string budgets_json(const metering::Budgets& budgets) {
  Json list = Json::array();
  for (const metering::BudgetState& state : budgets.states()) {
    const auto amount = [&](metering::BudgetAmount value) { return metering::amount_text(state.unit, value); };
    const metering::BudgetAmount used =
        metering::add_saturating(metering::add_saturating(state.spent, state.spent_elsewhere), state.reserved);
    Json item = {{"budget", state.budget}};
    if (!state.value.empty()) item["of"] = state.value;
    item.update({{"unit", metering::name(state.unit)},
                 {"window", metering::format_window(state.window)},
                 {"window_start", instant(state.window_start)},
                 {"resets", instant(state.resets)},
                 {"limit", amount(state.limit)},
                 {"spent", amount(state.spent)},
                 {"spent_elsewhere", amount(state.spent_elsewhere)},
                 {"reserved", amount(state.reserved)},
                 {"remaining", amount(state.limit > used ? state.limit - used : 0)},
                 {"on_exceed", state.on_exceed == metering::OnExceed::cut ? "cut" : "finish"}});
    list.push_back(std::move(item));
  }
  return Json{{"budgets", std::move(list)}}.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void scrape_budgets(const metering::Budgets& budgets, metrics::Scrape& out) {
  struct Share {
    double spent = 0;
    double reserved = 0;
  };
  std::map<std::string, Share> shares;
  for (const metering::BudgetState& state : budgets.states()) {
    Share& share = shares[state.budget];
    if (state.limit == 0) {  // a daily allocation of nothing is used up
      share.spent = std::max(share.spent, 1.0);
      continue;
    }
    const auto limit = static_cast<double>(state.limit);
    share.spent = std::max(share.spent,
                           static_cast<double>(metering::add_saturating(state.spent, state.spent_elsewhere)) / limit);
    share.reserved = std::max(share.reserved, static_cast<double>(state.reserved) / limit);
  }
  for (const auto& [budget, share] : shares) {
    out.set(Family::budget_spent_ratio, {budget}, share.spent);
    out.set(Family::budget_reserved_ratio, {budget}, share.reserved);
  }
}

std::string alert_json(const metering::BudgetAlert& alert) {
  Json json = {{"id", alert.id},
               {"type", "budget.alert"},
               {"time", instant(alert.at)},
               {"budget", alert.budget},
               {"percent", alert.percent},
               {"refusing", alert.refused},
               {"unit", metering::name(alert.unit)},
               {"limit", metering::amount_text(alert.unit, alert.limit)},
               {"spent", metering::amount_text(alert.unit, alert.spent)},
               {"window", metering::format_window(alert.window)},
               {"window_start", instant(alert.window_start)}};
  if (!alert.value.empty()) json["of"] = alert.value;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace ganglion::gateway
