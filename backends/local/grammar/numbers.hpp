#pragma once
// JSON numbers between bounds, as tables over their digits. What is compared is the decimal text, so bounds are exact.

#include <cstdint>
#include <optional>
#include <string>

#include "backends/local/grammar/builder.hpp"

namespace ganglion::local::grammar {

// Digits before the point, and behind it, that a generated number has at most: models are known to never end one.
inline constexpr int kDigitsMax = 18;
inline constexpr int kFractionMax = 18;

struct Decimal {
  bool negative = false;
  std::string whole = "0", fraction;  // no zeros in front or behind
  // From the text of a JSON number; nullopt: more than 40 digits.
  static std::optional<Decimal> parse(std::string_view text);
  bool zero() const { return whole == "0" && fraction.empty(); }
};

struct NumberSpec {
  bool integer = false;  // no fraction, no exponent
  std::optional<Decimal> minimum, maximum;
  bool minimum_open = false, maximum_open = false;  // the bound itself is out
  std::uint32_t multiple_of = 0;                    // integers: 0: any
  int fraction_max = kFractionMax;
};

// Bounded numbers are written without an exponent; others with one of at most two digits.
core::Result<ByteTable> number_table(AutomatonBuilder& builder, const NumberSpec& spec);

bool within(const Decimal& value, const NumberSpec& spec);  // the bounds alone
int compare(const Decimal& a, const Decimal& b);

}  // namespace ganglion::local::grammar
