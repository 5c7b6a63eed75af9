#pragma once
// HTTP/1.1 message heads as the rest of the product sees them. Views only: each type says who owns the bytes.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/text.hpp"

namespace ganglion::net {

struct Header {
  std::string_view name;
  std::string_view value;
};

enum class Method : std::uint8_t { get, head, post, put, patch, delete_, options, other };

std::string_view name(Method method);  // "GET", ...; "" for other

using core::iequals;

// Value of the first header of that name, "" if none.
std::string_view find_header(std::span<const Header> headers, std::string_view name);

// A request head that passed every check of http1_request.hpp. The views belong to the Exchange and live as long.
struct RequestHead {
  Method method = Method::other;
  std::string_view method_text;
  std::string_view target;  // as sent: path and query, or "*" with OPTIONS
  std::string_view path;    // as sent, still percent-encoded; no dot segments, no empty segments
  std::string_view query;   // without '?'
  std::string_view host;    // as sent, "" only for HTTP/1.0
  std::span<const Header> headers;
  std::optional<std::uint64_t> content_length;
  bool chunked = false;
  bool http10 = false;
  bool keep_alive = true;
  bool expect_continue = false;

  std::string_view header(std::string_view wanted) const { return find_header(headers, wanted); }
  bool has_body() const { return chunked || content_length.value_or(0) > 0; }
};

// A few headers built on the caller's stack. Names and values stay the caller's.
class HeaderList {
 public:
  static constexpr std::size_t kMax = 32;
  // False when full: the header is left out.
  bool add(std::string_view header_name, std::string_view value) {
    if (size_ == kMax) return false;
    items_[size_++] = {header_name, value};
    return true;
  }
  std::span<const Header> view() const { return {items_.data(), size_}; }

 private:
  std::array<Header, kMax> items_;
  std::size_t size_ = 0;
};

// What a handler answers with. Framing (Content-Length, Transfer-Encoding, Connection) and Date are the server's and
// must not be among `headers`. A header with CR, LF or NUL in it is left out.
struct ResponseHead {
  int status = 200;
  std::string_view content_type;  // "": no such header
  HeaderList headers;
  bool close = false;  // close the connection after this answer
  // start_stream() only: the body's exact length, sent as Content-Length instead of chunked coding.
  std::optional<std::uint64_t> content_length;
};

// "%2F" and the like decoded; nullopt on a broken escape.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace ganglion::net
