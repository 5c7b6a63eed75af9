// See metering/budget_account.hpp; and how budgets show themselves.

#include "metering/budget_account.hpp"

#include <algorithm>

#include "core/digest.hpp"
#include "metering/calendar.hpp"

namespace ganglion::metering {
namespace {

// Others hold the rest, running requests or gateways: some of it may come back soon.
constexpr std::chrono::seconds kRetryWhenReserved{1};

BudgetAmount percent_of(BudgetAmount limit, std::uint32_t percent) {
  return limit / 100 * percent + limit % 100 * percent / 100;
}

// 2026-12-01T00:00:00Z
std::string instant(core::WallTime at) {
  const auto us = std::chrono::floor<std::chrono::seconds>(at).time_since_epoch();
  std::string text = format_time(us);
  const std::size_t point = text.find('.');
  return point == std::string::npos ? text : text.substr(0, point) + "Z";
}

}  // namespace

namespace detail {

BudgetAccount::BudgetAccount(const BudgetRule& rule, std::string_view of)
    : identity(rule.identity),
      budget(rule.name),
      value(of),
      unit(rule.unit),
      window(rule.window),
      shown_to_clients(rule.one_tenants()),
      digest(core::hex(core::sha256(rule.identity + '\0' + std::string{of})).substr(0, 32)),
      spent(rule.window) {
  change(rule);
}

void BudgetAccount::change(const BudgetRule& rule) {
  counts_history = false;
  limit = rule.limit;
  daily = rule.daily;
  on_exceed = rule.on_exceed;
  if (alerts != rule.alerts) alerted = 0;
  alerts = rule.alerts;
}

BudgetAmount BudgetAccount::limit_at(core::WallTime now) const {
  return daily ? free_on_day(*daily, now) : limit;
}

bool BudgetAccount::fits(BudgetAmount more, core::WallTime now, Sharing sharing, std::uint32_t gateways) const {
  return add_saturating(add_saturating(spent.total(now), reserved), more) <= allowed(now, sharing, gateways);
}

BudgetAmount BudgetAccount::spent_everywhere(core::WallTime now) const {
  const BudgetAmount here = spent.total(now);
  return lease.slot == lease_slot(now) ? add_saturating(here, lease.others_spent) : here;
}

core::WallTime BudgetAccount::resets(core::WallTime now) const {
  return window.kind == WindowKind::sliding ? spent.falls_to(0, now) : slot_start(window, slot_of(window, now) + 1);
}

core::Error BudgetAccount::refusal(BudgetAmount whole, BudgetAmount more, core::WallTime now, Sharing sharing) const {
  const BudgetAmount now_limit = limit_at(now);
  std::string what = "Budget `" + budget + "`";
  if (!value.empty()) what += " of `" + value + "`";
  what += " (" + format_amount(unit, now_limit) + " " + describe_window(window) + ")";
  const std::string need = format_amount(unit, whole);
  core::Error error = core::make_error(core::ErrorKind::quota_exceeded);
  if (now_limit == 0) {
    error.message = what + " allows nothing that costs anything.";
    return error;
  }
  if (whole > now_limit) {
    error.message =
        what + " can never hold this request, which may cost up to " + need + ". Ask for fewer tokens (max_tokens).";
    return error;
  }
  if (sharing != Sharing::off && may_be_granted(more, now)) {
    error.message = what + " may have room for this request, which may cost up to " + need +
                    (sharing == Sharing::alone
                         ? ", but the store through which gateways share it does not answer, and this gateway's part "
                           "of it has none. Please try again later."
                         : ", but this gateway was not granted it. Please try again in a moment.");
    error.retry_after = kRetryWhenReserved;
    return error;
  }
  if (add_saturating(spent_everywhere(now), more) <= now_limit) {
    error.message = what + " is held by requests that are running; this one may cost up to " + need +
                    ". Please try again when they have ended.";
    error.retry_after = kRetryWhenReserved;
    return error;
  }
  const BudgetAmount room = now_limit - more;
  const core::WallTime when = spent.falls_to(room, now);
  error.retry_after = std::chrono::ceil<std::chrono::milliseconds>(when - now);
  error.message = what + " has no room for this request, which may cost up to " + need + ". It " +
                  (window.kind == WindowKind::sliding ? "will have at " : "resets at ") + instant(when) + ".";
  return error;
}

void BudgetAccount::check_alerts(core::WallTime now, bool refused, std::vector<BudgetAlert>& out) {
  const BudgetAmount now_limit = limit_at(now);
  if (fresh || alerts.empty() || now_limit == 0) return;
  const std::int64_t slot = slot_of(window, now);
  const BudgetAmount total = spent_everywhere(now);
  if (window.kind != WindowKind::sliding && slot != alerted_slot) alerted = 0;
  alerted_slot = slot;
  for (std::size_t i = 0; i < alerts.size(); ++i) {
    const std::uint32_t bit = 1U << i;
    const bool reached = total >= percent_of(now_limit, alerts[i]) || (refused && alerts[i] == 100);
    if (!reached) {
      alerted &= ~bit;  // a sliding window may pass it again
      continue;
    }
    if ((alerted & bit) != 0) continue;
    alerted |= bit;
    const auto id_of = [](const std::string& text) { return core::hex(core::sha256(text)).substr(0, 32); };
    const std::string key = identity + '\0' + value + '\0' + std::to_string(alerts[i]);
    out.push_back({.id = id_of(key + '\0' + std::to_string(slot)),
                   .series = id_of(key),
                   .budget = budget,
                   .value = value,
                   .percent = alerts[i],
                   .refused = refused,
                   .unit = unit,
                   .limit = now_limit,
                   .spent = total,
                   .window = window,
                   .at = now,
                   .window_start = window_start(window, now)});
  }
}

}  // namespace detail

BudgetView Budgets::view(const BudgetHandle& handle) const {
  BudgetView out;
  if (handle.empty()) return out;
  const core::WallTime now = clock_.wall();
  double least = 2;
  for (const auto& account : handle.group_->accounts) {
    if (!account->shown_to_clients) continue;
    const std::lock_guard lock(account->mutex);
    const BudgetAmount used = add_saturating(account->spent_everywhere(now), account->reserved);
    const BudgetAmount limit = account->limit_at(now);
    const BudgetAmount left = limit > used ? limit - used : 0;
    const double share = limit == 0 ? 0 : static_cast<double>(left) / static_cast<double>(limit);
    if (share >= least) continue;
    least = share;
    out = {.limited = true,
           .budget = account->budget,
           .unit = account->unit,
           .limit = limit,
           .left = left,
           .resets = account->resets(now)};
  }
  return out;
}

std::vector<BudgetState> Budgets::states() const {
  std::vector<BudgetState> out;
  {
    const std::lock_guard lock(mutex_);
    out.reserve(accounts_.size());
    for (const auto& [key, account] : accounts_) {
      const std::lock_guard account_lock(account->mutex);
      const core::WallTime now = clock_.wall();  // read inside: what is shown held at one instant
      out.push_back({.budget = account->budget,
                     .value = account->value,
                     .unit = account->unit,
                     .window = account->window,
                     .on_exceed = account->on_exceed,
                     .limit = account->limit_at(now),
                     .spent = account->spent.total(now),
                     .reserved = account->reserved,
                     .spent_elsewhere = account->spent_everywhere(now) - account->spent.total(now),
                     .window_start = window_start(account->window, now),
                     .resets = account->resets(now)});
    }
    // A budget for all that fit is there before anyone asked.
    const core::WallTime now = clock_.wall();
    for (const BudgetRule& rule : rules_->all()) {
      if (rule.per != BudgetPer::all || accounts_.contains(rule.identity + '\0')) continue;
      out.push_back({.budget = rule.name,
                     .value = {},
                     .unit = rule.unit,
                     .window = rule.window,
                     .on_exceed = rule.on_exceed,
                     .limit = rule.limit_at(now),
                     .window_start = window_start(rule.window, now),
                     .resets = slot_start(rule.window, slot_of(rule.window, now) + 1)});
    }
  }
  std::ranges::sort(out, [](const BudgetState& a, const BudgetState& b) {
    return std::tie(a.budget, a.value) < std::tie(b.budget, b.value);
  });
  return out;
}

}  // namespace ganglion::metering
