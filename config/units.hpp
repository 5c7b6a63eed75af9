#pragma once
// The written forms of quantities: durations, sizes, rates, listen addresses, decimals. Pure text functions; errors
// are sentences that say what would be right.

#include <chrono>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

#include "ratelimit/options.hpp"

namespace ganglion::config {

template <class T>
using Parsed = std::expected<T, std::string>;

// A whole decimal number, nothing around it.
Parsed<std::int64_t> parse_integer(std::string_view text);

// "250ms", "10s", "1m30s", "2h", "90d", "5ms", "200us"; a bare 0. Every other number needs its unit.
Parsed<std::chrono::microseconds> parse_duration(std::string_view text);
std::string format_duration(std::chrono::microseconds time);

// "2026-12-01T00:00:00Z" or the day alone, UTC; since 1970.
Parsed<std::chrono::microseconds> parse_instant(std::string_view text);
std::string format_instant(std::chrono::microseconds since_1970);

// "512", "64KiB", "10MiB", "1GiB" and the decimal "10MB"; bytes.
Parsed<std::uint64_t> parse_size(std::string_view text);
std::string format_size(std::uint64_t bytes);

// "60/min", "5/s", "100k/hour"; "unlimited" is the zero rate. Units: s, min, hour, day.
Parsed<ratelimit::RateSpec> parse_rate(std::string_view text);
std::string format_rate(const ratelimit::RateSpec& rate);  // without the burst

struct Listen {
  std::string host;  // IPv4 or IPv6 literal, without brackets
  std::uint16_t port = 0;
};
// "127.0.0.1:8080", "[::1]:8080"; "localhost" is 127.0.0.1. Names are refused: what they mean may change.
Parsed<Listen> parse_listen(std::string_view text);
std::string format_listen(const Listen& listen);
bool is_loopback(std::string_view host);

// A decimal number >= 0 with at most nine digits after the point ("0.6", "12"), returned as written.
Parsed<std::string> parse_decimal(std::string_view text);

}  // namespace ganglion::config
