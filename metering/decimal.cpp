// See metering/decimal.hpp.

#include "metering/decimal.hpp"

#include <algorithm>
#include <limits>

namespace ganglion::metering {

core::Result<std::uint64_t> parse_decimal(std::string_view text, unsigned decimals) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::int64_t>::max();
  const auto bad = [&](const char* why) {
    return core::fail(core::ErrorKind::invalid_value, "\"" + std::string{text.substr(0, 40)} + "\" " + why);
  };
  std::uint64_t value = 0;
  const auto push = [&](unsigned digit) {
    return !__builtin_mul_overflow(value, 10U, &value) && !__builtin_add_overflow(value, digit, &value) &&
           value <= kMax;
  };
  const std::size_t point = text.find('.');
  const std::string_view whole = text.substr(0, point);
  std::string_view fraction = point == std::string_view::npos ? std::string_view{} : text.substr(point + 1);
  if (whole.empty() || (point != std::string_view::npos && fraction.empty()))
    return bad("is not a decimal number such as 0.25");
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  if (!std::ranges::all_of(whole, is_digit) || !std::ranges::all_of(fraction, is_digit))
    return bad("is not a decimal number such as 0.25");
  while (fraction.ends_with('0')) fraction.remove_suffix(1);
  if (fraction.size() > decimals) return bad("has more decimals than can be kept exactly");
  for (const char c : whole)
    if (!push(static_cast<unsigned>(c - '0'))) return bad("is too large");
  for (const char c : fraction)
    if (!push(static_cast<unsigned>(c - '0'))) return bad("is too large");
  for (std::size_t i = fraction.size(); i < decimals; ++i)
    if (!push(0)) return bad("is too large");
  return value;
}

std::string format_decimal(unsigned __int128 value, unsigned decimals) {
  std::string digits;  // least significant first
  do {
    digits.push_back(static_cast<char>('0' + static_cast<int>(value % 10)));
    value /= 10;
  } while (value != 0);
  while (digits.size() <= decimals) digits.push_back('0');
  std::size_t cut = 0;
  while (cut < decimals && digits[cut] == '0') ++cut;
  std::string out{digits.rbegin(), digits.rend() - static_cast<std::ptrdiff_t>(decimals)};
  if (cut < decimals) {
    out.push_back('.');
    out.append(digits.rend() - static_cast<std::ptrdiff_t>(decimals), digits.rend() - static_cast<std::ptrdiff_t>(cut));
  }
  return out;
}

}  // namespace ganglion::metering
