#pragma once
// The base URL of an upstream, taken apart once at start-up.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ganglion::net {

struct BaseUrl {
  bool tls = false;
  std::string host;  // without brackets
  std::uint16_t port = 80;
  std::string authority;  // the Host header: host[:port], brackets kept, default port left out
  std::string prefix;     // "" or "/v1", no trailing slash
};

// http(s)://host[:port][/prefix]; no user, query or fragment. nullopt otherwise.
std::optional<BaseUrl> parse_base_url(std::string_view url);

}  // namespace ganglion::net
