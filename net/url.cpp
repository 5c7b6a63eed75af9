// See url.hpp.

#include "net/url.hpp"

#include <algorithm>
#include <charconv>

#include "net/http1_grammar.hpp"

namespace ganglion::net {

std::optional<BaseUrl> parse_base_url(std::string_view url) {
  BaseUrl out;
  if (url.starts_with("https://")) {
    out.tls = true;
    url.remove_prefix(8);
  } else if (url.starts_with("http://")) {
    url.remove_prefix(7);
  } else {
    return std::nullopt;
  }
  const std::size_t slash = std::min(url.find('/'), url.size());
  std::string_view authority = url.substr(0, slash);
  std::string_view prefix = url.substr(slash);
  if (!http1::is_host(authority)) return std::nullopt;
  out.port = out.tls ? 443 : 80;
  const std::uint16_t default_port = out.port;
  const std::size_t host_end =
      authority.starts_with('[') ? authority.find(']') + 1 : std::min(authority.find(':'), authority.size());
  std::string_view host = authority.substr(0, host_end);
  if (host_end < authority.size()) {
    const std::string_view digits = authority.substr(host_end + 1);
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out.port);
    if (error != std::errc{} || end != digits.data() + digits.size() || out.port == 0) return std::nullopt;
  }
  out.authority = host;
  if (out.port != default_port) out.authority.append(":").append(std::to_string(out.port));
  out.host = host.starts_with('[') ? host.substr(1, host.size() - 2) : host;
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (!prefix.empty()) {
    std::string_view path;
    std::string_view query;
    if (http1::check_target(prefix, path, query) != nullptr || path.size() != prefix.size()) return std::nullopt;
  }
  out.prefix = prefix;
  return out;
}

}  // namespace ganglion::net
