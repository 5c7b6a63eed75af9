// See metering/budget_window.hpp.

#include "metering/budget_window.hpp"

#include <algorithm>
#include <charconv>

namespace ganglion::metering {
namespace {

using namespace std::chrono;

// 1970-01-01 was a Thursday; weeks begin on Monday.
constexpr std::int64_t kDaysToMonday = 3;

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a / b - (a % b < 0 ? 1 : 0);
}

std::int64_t seconds_of(core::WallTime at) {
  return floor<seconds>(at).time_since_epoch().count();
}

std::int64_t sliding_slot_s(const WindowSpec& window) {
  return std::max<std::int64_t>((window.length.count() + kSlidingSlots - 1) / kSlidingSlots, 1);
}

std::string length_text(seconds length) {
  const std::int64_t s = length.count();
  if (s % 86'400 == 0) return std::to_string(s / 86'400) + "d";
  if (s % 3'600 == 0) return std::to_string(s / 3'600) + "h";
  if (s % 60 == 0) return std::to_string(s / 60) + "m";
  return std::to_string(s) + "s";
}

}  // namespace

std::optional<WindowSpec> parse_window(std::string_view text) {
  if (text == "hour") return WindowSpec{.kind = WindowKind::hour};
  if (text == "day") return WindowSpec{.kind = WindowKind::day};
  if (text == "week") return WindowSpec{.kind = WindowKind::week};
  if (text == "month") return WindowSpec{.kind = WindowKind::month};
  std::int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  const std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  const std::int64_t factor = unit == "s" ? 1 : unit == "m" ? 60 : unit == "h" ? 3'600 : unit == "d" ? 86'400 : 0;
  if (error != std::errc{} || factor == 0 || count <= 0 || count > kSlidingMax.count() / factor) return std::nullopt;
  const seconds length{count * factor};
  if (length < kSlidingMin) return std::nullopt;
  return WindowSpec{.kind = WindowKind::sliding, .length = length};
}

std::string format_window(const WindowSpec& window) {
  switch (window.kind) {
    case WindowKind::hour:
      return "hour";
    case WindowKind::day:
      return "day";
    case WindowKind::week:
      return "week";
    case WindowKind::month:
      return "month";
    case WindowKind::sliding:
      break;
  }
  return length_text(window.length);
}

std::string describe_window(const WindowSpec& window) {
  if (window.kind == WindowKind::sliding) return "in any " + length_text(window.length);
  return "per calendar " + format_window(window) + " (UTC)";
}

std::int64_t slot_of(const WindowSpec& window, core::WallTime at) {
  const std::int64_t s = seconds_of(at);
  switch (window.kind) {
    case WindowKind::hour:
      return floor_div(s, 3'600);
    case WindowKind::day:
      return floor_div(s, 86'400);
    case WindowKind::week:
      return floor_div(floor_div(s, 86'400) + kDaysToMonday, 7);
    case WindowKind::month: {
      const year_month_day date{floor<days>(at)};
      return std::int64_t{static_cast<int>(date.year())} * 12 + static_cast<unsigned>(date.month()) - 1;
    }
    case WindowKind::sliding:
      break;
  }
  return floor_div(s, sliding_slot_s(window));
}

core::WallTime slot_start(const WindowSpec& window, std::int64_t slot) {
  switch (window.kind) {
    case WindowKind::hour:
      return core::WallTime{seconds{slot * 3'600}};
    case WindowKind::day:
      return core::WallTime{seconds{slot * 86'400}};
    case WindowKind::week:
      return core::WallTime{seconds{(slot * 7 - kDaysToMonday) * 86'400}};
    case WindowKind::month: {
      const std::int64_t years = floor_div(slot, 12);
      return sys_days{year{static_cast<int>(years)} / month{static_cast<unsigned>(slot - years * 12) + 1} / day{1}};
    }
    case WindowKind::sliding:
      break;
  }
  return core::WallTime{seconds{slot * sliding_slot_s(window)}};
}

core::WallTime window_start(const WindowSpec& window, core::WallTime at) {
  const std::int64_t slot = slot_of(window, at);
  return slot_start(window, window.kind == WindowKind::sliding ? slot - kSlidingSlots : slot);
}

void WindowedSpend::add(core::WallTime at, BudgetAmount amount) {
  if (amount == 0) return;
  const std::int64_t slot = slot_of(window_, at);
  const auto it = std::ranges::lower_bound(slots_, slot, {}, &std::pair<std::int64_t, BudgetAmount>::first);
  if (it != slots_.end() && it->first == slot) {
    it->second = add_saturating(it->second, amount);
  } else {
    slots_.insert(it, {slot, amount});
    // The farthest from now goes: it is the last one that the clock may step to.
    if (slots_.size() > (window_.kind == WindowKind::sliding ? kSlidingSlotsKept : kCalendarSlotsKept)) {
      const bool first = slot - slots_.front().first >= slots_.back().first - slot;
      slots_.erase(first ? slots_.begin() : slots_.end() - 1);
    }
  }
  cached_slot_ = INT64_MIN;
}

BudgetAmount WindowedSpend::sum(std::int64_t slot) const {
  const std::int64_t reach = window_.kind == WindowKind::sliding ? kSlidingSlots : 0;
  BudgetAmount out = 0;
  for (const auto& [at, amount] : slots_) {
    if (at >= slot - reach && at <= slot + reach) out = add_saturating(out, amount);
  }
  return out;
}

BudgetAmount WindowedSpend::total(core::WallTime at) const {
  const std::int64_t slot = slot_of(window_, at);
  if (slot != cached_slot_) {
    cached_ = sum(slot);
    cached_slot_ = slot;
  }
  return cached_;
}

core::WallTime WindowedSpend::falls_to(BudgetAmount room, core::WallTime at) const {
  std::int64_t slot = slot_of(window_, at);
  if (total(at) <= room) return at;
  if (window_.kind != WindowKind::sliding) return slot_start(window_, slot + 1);
  // The total changes only when a slot leaves: look at those instants.
  for (const auto& [spent_at, amount] : slots_) {
    const std::int64_t left = spent_at + kSlidingSlots + 1;
    if (left > slot && sum(left) <= room) return slot_start(window_, left);
  }
  return slot_start(window_, slot + 2 * kSlidingSlots + 1);
}

}  // namespace ganglion::metering
