// See metering/calendar.hpp; parse_time() of ledger_reader.hpp.

#include "metering/calendar.hpp"

#include <array>
#include <cstdio>

#include "metering/ledger_reader.hpp"

namespace ganglion::metering {
namespace {

using namespace std::chrono;

// Reads exactly the digits and separators of `pattern` ('0' is a digit) into `numbers`.
bool match(std::string_view text, std::string_view pattern, std::array<unsigned, 6>& numbers) {
  if (text.size() != pattern.size()) return false;
  std::size_t number = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (pattern[i] == '0') {
      if (text[i] < '0' || text[i] > '9') return false;
      numbers[number] = numbers[number] * 10 + static_cast<unsigned>(text[i] - '0');
    } else {
      if (text[i] != pattern[i]) return false;
      ++number;
    }
  }
  return true;
}

}  // namespace

std::string format_day(std::uint64_t days_since_1970) {
  const year_month_day date{sys_days{days{static_cast<std::int64_t>(days_since_1970)}}};
  std::array<char, 40> out{};
  const int size = std::snprintf(out.data(), out.size(), "%04d-%02u-%02u", static_cast<int>(date.year()),
                                 static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()));
  return {out.data(), static_cast<std::size_t>(size)};
}

std::string format_hour(std::int64_t hours_since_1970) {
  const auto hour = static_cast<unsigned>(hours_since_1970 % 24);
  return format_day(static_cast<std::uint64_t>(hours_since_1970 / 24)) + (hour < 10 ? "T0" : "T") +
         std::to_string(hour) + ":00:00Z";
}

std::string format_time(microseconds since_1970) {
  const auto day = floor<days>(since_1970);
  const auto us = static_cast<unsigned long long>((since_1970 - day).count());
  std::array<char, 40> out{};
  const int size = std::snprintf(out.data(), out.size(), "T%02llu:%02llu:%02llu.%06lluZ", us / 3'600'000'000,
                                 us / 60'000'000 % 60, us / 1'000'000 % 60, us % 1'000'000);
  return format_day(static_cast<std::uint64_t>(day.count())) + std::string{out.data(), static_cast<std::size_t>(size)};
}

core::Result<microseconds> parse_time(std::string_view text) {
  std::array<unsigned, 6> n{};
  std::array<unsigned, 6> m{};
  const bool whole_day = match(text, "0000-00-00", n);
  if (!whole_day && !match(text, "0000-00-00T00:00:00Z", m))
    return core::fail(
        core::ErrorKind::invalid_value,
        "\"" + std::string{text.substr(0, 40)} + "\" is no UTC time such as 2026-11-22 or 2026-11-22T10:00:00Z");
  const auto& at = whole_day ? n : m;
  const year_month_day date{year{static_cast<int>(at[0])}, month{at[1]}, day{at[2]}};
  if (!date.ok() || at[0] < 1970 || at[3] > 23 || at[4] > 59 || at[5] > 59)
    return core::fail(core::ErrorKind::invalid_value, "\"" + std::string{text} + "\" is not in the calendar");
  return sys_days{date}.time_since_epoch() + hours{at[3]} + minutes{at[4]} + seconds{at[5]};
}

}  // namespace ganglion::metering
