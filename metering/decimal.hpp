#pragma once
// Exact decimals: text to scaled integers and back. Never rounds on input; more digits than the scale holds are an
// error.

#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace ganglion::metering {

// "0.011" with 9 decimals is 11'000'000. invalid_value on signs, exponents, stray characters, too many decimals, or a
// value of 2^63 and more after scaling.
core::Result<std::uint64_t> parse_decimal(std::string_view text, unsigned decimals);

// 11'000'000 with 9 decimals is "0.011"; trailing zeros are cut.
std::string format_decimal(unsigned __int128 value, unsigned decimals);

}  // namespace ganglion::metering
