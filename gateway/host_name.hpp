#pragma once
// Names in Host and Origin headers.

#include <algorithm>
#include <string_view>

#include "core/text.hpp"

namespace ganglion::gateway {

// "name:80" -> "name", "[::1]:80" -> "::1". The header's grammar was checked with the request.
inline std::string_view without_port(std::string_view host) {
  if (host == "::1") return host;  // as a listener is given, not as a header has it
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

// "localhost" and addresses of this machine's loopback, with or without a port.
inline bool is_loopback_host(std::string_view host) {
  const std::string_view name = without_port(host);
  if (name == "::1" || core::iequals(name, "localhost")) return true;
  if (!name.starts_with("127.")) return false;
  return std::ranges::count(name, '.') == 3 && name.find_first_not_of("0123456789.") == std::string_view::npos;
}

}  // namespace ganglion::gateway
