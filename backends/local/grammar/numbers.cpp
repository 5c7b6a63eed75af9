// See numbers.hpp. A number is compared with a bound digit by digit from the left; which of the two is longer before
// the point is known only at the point, and wins over what the digits said.

#include "backends/local/grammar/numbers.hpp"

#include <algorithm>
#include <charconv>
#include <compare>

#include "backends/local/grammar/explore.hpp"

namespace ganglion::local::grammar {
namespace {

constexpr std::size_t kBoundDigitsMax = 40;

// How a magnitude that is being written compares with a bound's.
struct Against {
  std::int8_t so_far = 0;  // of the digits that both have: -1 less, 0 equal, 1 greater
  friend auto operator<=>(const Against&, const Against&) = default;

  void whole_digit(const Decimal& bound, int position, int digit) {
    const auto at = static_cast<std::size_t>(position);
    if (so_far == 0 && at < bound.whole.size()) so_far = sign(digit - (bound.whole[at] - '0'));
  }
  void point(const Decimal& bound, int digits) {
    const auto length = static_cast<int>(bound.whole.size());
    if (digits != length) so_far = sign(digits - length);
  }
  void fraction_digit(const Decimal& bound, int position, int digit) {
    const auto at = static_cast<std::size_t>(position);
    const int other = at < bound.fraction.size() ? bound.fraction[at] - '0' : 0;
    if (so_far == 0) so_far = sign(digit - other);
  }
  // With all digits known; `digits` behind the point.
  std::int8_t end(const Decimal& bound, int digits) const {
    if (so_far != 0) return so_far;
    return static_cast<std::size_t>(digits) < bound.fraction.size() ? std::int8_t{-1} : std::int8_t{0};
  }
  static std::int8_t sign(int v) { return static_cast<std::int8_t>(v < 0 ? -1 : v > 0 ? 1 : 0); }
};

enum class Part : std::uint8_t { start, minus, zero, whole, point, fraction, e, e_sign, exponent };

struct Key {
  Part part = Part::start;
  bool negative = false, nonzero = false;
  std::int8_t digits = 0;  // of this part
  Against low, high;
  std::uint32_t remainder = 0;
  friend auto operator<=>(const Key&, const Key&) = default;
};

class Digits {
 public:
  explicit Digits(const NumberSpec& spec)
      : spec_(spec),
        bounded_(spec.minimum || spec.maximum),
        low_(spec.minimum.value_or(Decimal{})),
        high_(spec.maximum.value_or(Decimal{})) {}

  std::optional<Key> next(const Key& k, std::uint8_t byte) const {
    const char c = static_cast<char>(byte);
    if (c >= '0' && c <= '9') return digit(k, c - '0');
    Key to = k;
    to.digits = 0;
    const bool whole = k.part == Part::zero || k.part == Part::whole;
    if (c == '-' && k.part == Part::start) return to.part = Part::minus, to.negative = true, to;
    if (c == '.' && whole && !spec_.integer && spec_.fraction_max > 0) {
      to.low.point(low_, k.digits), to.high.point(high_, k.digits);
      return to.part = Part::point, to;
    }
    const bool may_e = !spec_.integer && !bounded_ && spec_.fraction_max == kFractionMax;
    if ((c == 'e' || c == 'E') && may_e && (whole || k.part == Part::fraction)) return to.part = Part::e, to;
    if ((c == '+' || c == '-') && k.part == Part::e) return to.part = Part::e_sign, to;
    return std::nullopt;
  }

  bool ends(const Key& k) const {
    if (k.part == Part::exponent) return true;
    if (k.part != Part::zero && k.part != Part::whole && k.part != Part::fraction) return false;
    if (k.negative && !k.nonzero && (bounded_ || spec_.integer)) return false;  // -0
    if (spec_.multiple_of != 0 && k.remainder != 0) return false;
    Against low = k.low, high = k.high;
    const int behind = k.part == Part::fraction ? k.digits : 0;
    if (k.part != Part::fraction) low.point(low_, k.digits), high.point(high_, k.digits);
    if (spec_.minimum) {
      const int c = signed_compare(k.negative, low.end(low_, behind), low_);
      if (c < 0 || (c == 0 && spec_.minimum_open)) return false;
    }
    if (spec_.maximum) {
      const int c = signed_compare(k.negative, high.end(high_, behind), high_);
      if (c > 0 || (c == 0 && spec_.maximum_open)) return false;
    }
    return true;
  }

 private:
  static int signed_compare(bool negative, int magnitudes, const Decimal& bound) {
    if (negative != bound.negative) return negative ? -1 : 1;
    return negative ? -magnitudes : magnitudes;
  }

  std::optional<Key> digit(const Key& k, int d) const {
    Key to = k;
    to.nonzero = k.nonzero || d != 0;
    switch (k.part) {
      case Part::start:
      case Part::minus:
        to.part = d == 0 ? Part::zero : Part::whole;
        to.digits = 0;
        break;
      case Part::whole:
        if (k.digits >= kDigitsMax) return std::nullopt;
        break;
      case Part::point:
        to.part = Part::fraction;
        to.digits = 0;
        break;
      case Part::fraction:
        if (k.digits >= spec_.fraction_max) return std::nullopt;
        break;
      case Part::e:
      case Part::e_sign:
        to.part = Part::exponent;
        to.digits = 1;
        return to;
      case Part::exponent:
        if (k.digits >= 2) return std::nullopt;
        ++to.digits;
        return to;
      case Part::zero:
        return std::nullopt;
    }
    if (to.part == Part::fraction) {
      to.low.fraction_digit(low_, to.digits, d), to.high.fraction_digit(high_, to.digits, d);
    } else {
      to.low.whole_digit(low_, to.digits, d), to.high.whole_digit(high_, to.digits, d);
      if (spec_.multiple_of != 0) to.remainder = (k.remainder * 10 + static_cast<std::uint32_t>(d)) % spec_.multiple_of;
    }
    ++to.digits;
    if (!bounded_) to.low = to.high = {};
    return to;
  }

  NumberSpec spec_;
  bool bounded_;
  Decimal low_, high_;
};

}  // namespace

std::optional<Decimal> Decimal::parse(std::string_view text) {
  Decimal out;
  if (text.starts_with('-')) out.negative = true, text.remove_prefix(1);
  int exponent = 0;
  if (const auto e = text.find_first_of("eE"); e != std::string_view::npos) {
    std::string_view digits = text.substr(e + 1);
    if (digits.starts_with('+')) digits.remove_prefix(1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), exponent);
    if (error != std::errc() || end != digits.data() + digits.size() || std::abs(exponent) > 60) return std::nullopt;
    text = text.substr(0, e);
  }
  const auto point = text.find('.');
  std::string whole(text.substr(0, point));
  std::string fraction(point == std::string_view::npos ? "" : text.substr(point + 1));
  for (; exponent > 0; --exponent) {
    whole.push_back(fraction.empty() ? '0' : fraction.front());
    if (!fraction.empty()) fraction.erase(0, 1);
  }
  for (; exponent < 0; ++exponent) {
    fraction.insert(fraction.begin(), whole.empty() ? '0' : whole.back());
    if (!whole.empty()) whole.pop_back();
  }
  whole.erase(0, std::min(whole.find_first_not_of('0'), whole.size()));
  fraction.erase(fraction.find_last_not_of('0') + 1);
  if (whole.size() > kBoundDigitsMax || fraction.size() > kBoundDigitsMax) return std::nullopt;
  out.whole = whole.empty() ? "0" : whole;
  out.fraction = fraction;
  if (out.zero()) out.negative = false;
  return out;
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  const auto key = [](const Decimal& d) { return std::pair(d.whole.size(), d.whole + '.' + d.fraction); };
  const auto order = key(a) <=> key(b);
  const int magnitude = order < 0 ? -1 : order > 0 ? 1 : 0;
  return a.negative ? -magnitude : magnitude;
}

bool within(const Decimal& value, const NumberSpec& spec) {
  if (spec.minimum) {
    const int c = compare(value, *spec.minimum);
    if (c < 0 || (c == 0 && spec.minimum_open)) return false;
  }
  if (spec.maximum) {
    const int c = compare(value, *spec.maximum);
    if (c > 0 || (c == 0 && spec.maximum_open)) return false;
  }
  return true;
}

core::Result<ByteTable> number_table(AutomatonBuilder& builder, const NumberSpec& spec) {
  const Digits digits(spec);
  return explore(
      builder, Key{}, [&](const Key& k, std::uint8_t byte) { return digits.next(k, byte); },
      [&](const Key& k) { return digits.ends(k); });
}

}  // namespace ganglion::local::grammar
