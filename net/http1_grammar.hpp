#pragma once
// The grammar that requests and responses share: field lines, framing headers, request targets, Host. Sans-I/O.
// A check returns nullptr for good input, else a short, client-safe reason that outlives the call.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "net/http_types.hpp"

namespace ganglion::net::http1 {

using Why = const char*;

bool is_token(std::string_view text);
// No control characters but HTAB; bytes >= 0x80 are opaque and allowed.
bool is_field_value(std::string_view text);

// Splits "name: value" (line without its CRLF); the value loses its outer spaces and tabs.
Why parse_field_line(std::string_view line, Header& out);

// Digits only, no sign, no leading zero, at most 18 digits.
std::optional<std::uint64_t> parse_content_length(std::string_view text);

// The headers that say where a message ends. One Content-Length at most, never beside Transfer-Encoding, and the
// only transfer coding is `chunked`, once.
struct Framing {
  std::optional<std::uint64_t> content_length;
  bool chunked = false;
  bool close = false;
  bool keep_alive = false;

  Why add(const Header& header);
};

// "/path?query" or "*"; splits it. Refuses absolute form, fragments, backslashes, empty and dot segments (encoded ones
// too), escapes of control characters, and escapes that are not UTF-8.
Why check_target(std::string_view target, std::string_view& path, std::string_view& query);

// host[:port], with host a name, an IPv4 address or a bracketed IPv6 address.
bool is_host(std::string_view text);

}  // namespace ganglion::net::http1
