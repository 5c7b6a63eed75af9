#pragma once
// Small questions about ASCII text.

#include <string_view>

namespace ganglion::core {

// Equal but for the case of ASCII letters, as header names and schemes compare.
constexpr bool iequals(std::string_view a, std::string_view b) {
  constexpr auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; };
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

}  // namespace ganglion::core
