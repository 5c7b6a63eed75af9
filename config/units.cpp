// Hand-written parsers: each form is small, and the messages are the point.

#include "config/units.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>

namespace ganglion::config {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string quoted(std::string_view text) {
  return "\"" + std::string(text) + "\"";
}

// The digits at the front of `text`, which is moved past them; nullopt when there are none or they overflow.
std::optional<std::uint64_t> take_number(std::string_view& text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

// a * b, or nullopt past 2^62.
std::optional<std::uint64_t> times(std::uint64_t a, std::uint64_t b) {
  if (b != 0 && a > (std::uint64_t{1} << 62) / b) return std::nullopt;
  return a * b;
}

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};
// Longest first where one begins another.
constexpr std::array kDurationUnits = {Unit{"us", 1},         Unit{"ms", 1'000},        Unit{"s", 1'000'000},
                                       Unit{"m", 60'000'000}, Unit{"h", 3'600'000'000}, Unit{"d", 86'400'000'000}};
constexpr std::array kSizeUnits = {
    Unit{"GiB", 1ULL << 30}, Unit{"MiB", 1ULL << 20}, Unit{"KiB", 1ULL << 10}, Unit{"GB", 1'000'000'000},
    Unit{"MB", 1'000'000},   Unit{"kB", 1'000},       Unit{"KB", 1'000},       Unit{"B", 1}};
constexpr std::array kPeriods = {Unit{"s", 1},    Unit{"sec", 1},     Unit{"second", 1},
                                 Unit{"min", 60}, Unit{"minute", 60}, Unit{"m", 60},
                                 Unit{"h", 3600}, Unit{"hour", 3600}, Unit{"day", 86'400}};

constexpr std::string_view kDurationForm = "a duration with its unit, such as 250ms, 10s or 5m";
constexpr std::string_view kSizeForm = "a size such as 65536, 64KiB or 10MiB";
constexpr std::string_view kRateForm = "a rate such as 60/min, 5/s, 100k/hour, or unlimited";
constexpr std::string_view kListenForm = "an address and port such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080";

std::unexpected<std::string> expected_form(std::string_view form, std::string_view text) {
  return std::unexpected("expected " + std::string(form) + ", got " + quoted(text));
}

}  // namespace

Parsed<std::int64_t> parse_integer(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return std::unexpected(std::string(text) + " does not fit 64 bits");
  if (error != std::errc{} || end != text.data() + text.size()) return expected_form("a whole number", text);
  return value;
}

Parsed<std::chrono::microseconds> parse_duration(std::string_view text) {
  if (text == "0") return std::chrono::microseconds{0};
  std::string_view rest = text;
  std::uint64_t total = 0;
  std::uint64_t last_factor = std::numeric_limits<std::uint64_t>::max();
  while (!rest.empty() || total == 0) {
    const auto number = take_number(rest);
    if (!number) return expected_form(kDurationForm, text);
    const std::string_view name =
        rest.substr(0, static_cast<std::size_t>(std::ranges::find_if(rest, is_digit) - rest.begin()));
    const auto unit = std::ranges::find(kDurationUnits, name, &Unit::name);
    // Units go from large to small: "1m30s", not "30s1m" or "1s2s".
    if (unit == kDurationUnits.end() || unit->factor >= last_factor) return expected_form(kDurationForm, text);
    const auto part = times(*number, unit->factor);
    if (!part || total + *part > (std::uint64_t{1} << 62)) return std::unexpected(quoted(text) + " is too long");
    total += *part;
    last_factor = unit->factor;
    rest.remove_prefix(name.size());
    if (rest.empty()) break;
  }
  return std::chrono::microseconds{static_cast<std::int64_t>(total)};
}

std::string format_duration(std::chrono::microseconds time) {
  const auto count = static_cast<std::uint64_t>(time.count());
  if (count == 0) return "0";
  for (auto unit = kDurationUnits.rbegin(); unit != kDurationUnits.rend(); ++unit) {
    if (unit->name == "d") continue;  // hours up to any number read better in a range: "1s to 24h"
    if (count % unit->factor == 0) return std::to_string(count / unit->factor) + std::string(unit->name);
  }
  return std::to_string(count) + "us";
}

Parsed<std::chrono::microseconds> parse_instant(std::string_view text) {
  using namespace std::chrono;
  constexpr std::string_view kPattern = "0000-00-00T00:00:00Z";
  constexpr std::size_t kDayBytes = 10;
  bool good = text.size() == kPattern.size() || text.size() == kDayBytes;
  std::array<unsigned, 6> n{};
  for (std::size_t i = 0, at = 0; good && i < text.size(); ++i) {
    if (kPattern[i] != '0') {
      good = text[i] == kPattern[i];
      ++at;
    } else {
      good = is_digit(text[i]);
      n[at] = n[at] * 10 + static_cast<unsigned>(text[i] - '0');
    }
  }
  const year_month_day date{year{static_cast<int>(n[0])}, month{n[1]}, day{n[2]}};
  if (!good || !date.ok() || n[0] < 1970 || n[3] > 23 || n[4] > 59 || n[5] > 59)
    return expected_form("a UTC time such as 2026-12-01T00:00:00Z or 2026-12-01", text);
  return sys_days{date}.time_since_epoch() + hours{n[3]} + minutes{n[4]} + seconds{n[5]};
}

std::string format_instant(std::chrono::microseconds since_1970) {
  using namespace std::chrono;
  const auto days_since = floor<days>(since_1970);
  const year_month_day date{sys_days{days_since}};
  const hh_mm_ss time{duration_cast<seconds>(since_1970 - days_since)};
  std::array<char, 40> out{};
  const int size = std::snprintf(out.data(), out.size(), "%04d-%02u-%02uT%02d:%02d:%02dZ",
                                 static_cast<int>(date.year()), static_cast<unsigned>(date.month()),
                                 static_cast<unsigned>(date.day()), static_cast<int>(time.hours().count()),
                                 static_cast<int>(time.minutes().count()), static_cast<int>(time.seconds().count()));
  return {out.data(), static_cast<std::size_t>(size)};
}

Parsed<std::uint64_t> parse_size(std::string_view text) {
  std::string_view rest = text;
  const auto number = take_number(rest);
  if (!number) return expected_form(kSizeForm, text);
  std::uint64_t factor = 1;
  if (!rest.empty()) {
    const auto unit = std::ranges::find(kSizeUnits, rest, &Unit::name);
    if (unit == kSizeUnits.end()) return expected_form(kSizeForm, text);
    factor = unit->factor;
  }
  const auto bytes = times(*number, factor);
  if (!bytes) return std::unexpected(quoted(text) + " is too large");
  return *bytes;
}

std::string format_size(std::uint64_t bytes) {
  for (const Unit& unit : {kSizeUnits[0], kSizeUnits[1], kSizeUnits[2]}) {
    if (bytes != 0 && bytes % unit.factor == 0) return std::to_string(bytes / unit.factor) + std::string(unit.name);
  }
  return std::to_string(bytes);
}

Parsed<ratelimit::RateSpec> parse_rate(std::string_view text) {
  if (text == "unlimited") return ratelimit::RateSpec{};
  std::string_view rest = text;
  auto amount = take_number(rest);
  if (!amount) return expected_form(kRateForm, text);
  if (rest.starts_with('k')) {
    amount = times(*amount, 1'000);
    rest.remove_prefix(1);
  } else if (rest.starts_with('M')) {
    amount = times(*amount, 1'000'000);
    rest.remove_prefix(1);
  }
  if (!rest.starts_with('/')) return expected_form(kRateForm, text);
  const auto period = std::ranges::find(kPeriods, rest.substr(1), &Unit::name);
  if (period == kPeriods.end()) return expected_form(kRateForm, text);
  if (!amount || *amount > (std::uint64_t{1} << 53)) return std::unexpected(quoted(text) + " is too large");
  if (*amount == 0)
    return std::unexpected("a rate of 0 would refuse everything; write unlimited for no limit, or revoke the key");
  return ratelimit::RateSpec{.amount = *amount, .period_s = static_cast<std::uint32_t>(period->factor), .burst = 0};
}

std::string format_rate(const ratelimit::RateSpec& rate) {
  if (rate.amount == 0) return "unlimited";
  const std::string amount = std::to_string(rate.amount) + "/";
  switch (rate.period_s) {
    case 1:
      return amount + "s";
    case 60:
      return amount + "min";
    case 3600:
      return amount + "hour";
    case 86'400:
      return amount + "day";
    default:
      return amount + std::to_string(rate.period_s) + "s";
  }
}

Parsed<Listen> parse_listen(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return expected_form(kListenForm, text);
  std::string_view host = text.substr(0, colon);
  const auto port = parse_integer(text.substr(colon + 1));
  if (!port || *port < 0 || *port > 65'535) {
    return std::unexpected("expected a port from 0 to 65535 after the last colon, got " + quoted(text));
  }
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  Listen listen{.host = host == "localhost" ? "127.0.0.1" : std::string(host),
                .port = static_cast<std::uint16_t>(*port)};
  in6_addr address{};
  if (inet_pton(bracketed ? AF_INET6 : AF_INET, listen.host.c_str(), &address) != 1)
    return expected_form(kListenForm, text);
  return listen;
}

std::string format_listen(const Listen& listen) {
  const bool v6 = listen.host.find(':') != std::string::npos;
  return (v6 ? "[" + listen.host + "]" : listen.host) + ":" + std::to_string(listen.port);
}

bool is_loopback(std::string_view host) {
  const std::string text(host);
  in_addr v4{};
  if (inet_pton(AF_INET, text.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6{};
  if (inet_pton(AF_INET6, text.c_str(), &v6) != 1) return false;
  if (IN6_IS_ADDR_V4MAPPED(&v6)) return v6.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&v6);
}

Parsed<std::string> parse_decimal(std::string_view text) {
  const std::size_t point = text.find('.');
  const std::string_view whole = text.substr(0, point);
  const std::string_view fraction = point == std::string_view::npos ? "0" : text.substr(point + 1);
  const bool good = !whole.empty() && whole.size() <= 12 && std::ranges::all_of(whole, is_digit) && !fraction.empty() &&
                    fraction.size() <= 9 && std::ranges::all_of(fraction, is_digit);
  if (!good) return expected_form("a decimal number such as 12 or 0.6 (at most nine digits after the point)", text);
  return std::string(text);
}

}  // namespace ganglion::config
