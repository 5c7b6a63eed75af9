#pragma once
// Windows of budgets as pure arithmetic on UTC time: which slot an instant falls into, and how much was spent in the
// window around an instant. No clock, no lock. Spending is filed under the time of its ledger record, so a total made
// here and one made from the ledger agree.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/clock.hpp"

namespace ganglion::metering {

// Neurons: NeuronParts. USD: pico-USD x kPartsPerNeuron. Both exact, so that totals never drift.
using BudgetAmount = unsigned __int128;
inline constexpr BudgetAmount kBudgetAmountMax = ~BudgetAmount{0};

constexpr BudgetAmount add_saturating(BudgetAmount a, BudgetAmount b) {
  return a > kBudgetAmountMax - b ? kBudgetAmountMax : a + b;
}

enum class WindowKind : std::uint8_t { hour, day, week, month, sliding };

// A calendar window (hour, day, week from Monday, month; UTC), or a sliding one of any length.
struct WindowSpec {
  WindowKind kind = WindowKind::month;
  std::chrono::seconds length{0};  // sliding only
  friend bool operator==(const WindowSpec&, const WindowSpec&) = default;
};
inline constexpr std::chrono::seconds kSlidingMin{60};
inline constexpr std::chrono::seconds kSlidingMax{366 * 86'400};

// "hour", "day", "week", "month", or a length such as "36h", "90m", "30d"; the error says what would be right.
std::optional<WindowSpec> parse_window(std::string_view text);
std::string format_window(const WindowSpec& window);
// "per calendar month (UTC)", "in any 24h": for messages.
std::string describe_window(const WindowSpec& window);

// A calendar window is one slot. A sliding window is kSlidingSlots slots and the one that is running: what was spent
// in a slot counts until the whole slot has left the window, so never too little is counted, and at most 1/60 of the
// length too long.
inline constexpr std::int64_t kSlidingSlots = 60;
std::int64_t slot_of(const WindowSpec& window, core::WallTime at);
core::WallTime slot_start(const WindowSpec& window, std::int64_t slot);
// The earliest instant whose spending still counts at `at`.
core::WallTime window_start(const WindowSpec& window, core::WallTime at);

// Amounts by slot. The wall clock may step back: then the totals of the slots that it returns to are still there.
class WindowedSpend {
 public:
  explicit WindowedSpend(const WindowSpec& window) : window_(window) {}

  void add(core::WallTime at, BudgetAmount amount);
  // What counts against a limit at `at`: the calendar window, or every sliding window that holds `at`.
  BudgetAmount total(core::WallTime at) const;
  // The earliest instant from `at` on at which the total will be `room` or less, if nothing else is spent.
  core::WallTime falls_to(BudgetAmount room, core::WallTime at) const;
  bool empty(core::WallTime at) const { return total(at) == 0; }

 private:
  static constexpr std::size_t kCalendarSlotsKept = 64;
  static constexpr std::size_t kSlidingSlotsKept = 192;  // 121 can count
  BudgetAmount sum(std::int64_t slot) const;

  WindowSpec window_;
  std::vector<std::pair<std::int64_t, BudgetAmount>> slots_;  // by slot, bounded
  mutable std::int64_t cached_slot_ = INT64_MIN;
  mutable BudgetAmount cached_ = 0;
};

}  // namespace ganglion::metering
