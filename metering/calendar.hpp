#pragma once
// UTC dates and times as text. No time zones, no locale.

#include <chrono>
#include <cstdint>
#include <string>

namespace ganglion::metering {

std::string format_day(std::uint64_t days_since_1970);          // 2026-11-22
std::string format_hour(std::int64_t hours_since_1970);         // 2026-11-22T10:00:00Z
std::string format_time(std::chrono::microseconds since_1970);  // 2026-11-22T10:00:00.000000Z

}  // namespace ganglion::metering
