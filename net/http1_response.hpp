#pragma once
// The response head parser of the upstream client: sans-I/O, as strict about framing as the request parser, because a
// misread end of one answer would become the start of another tenant's.

#include <cstddef>
#include <string_view>
#include <vector>

#include "net/http1_grammar.hpp"
#include "net/http_types.hpp"

namespace ganglion::net::http1 {

inline constexpr std::size_t kResponseHeadBytesMax = 64 * 1024;
inline constexpr std::size_t kResponseHeaderLinesMax = 256;

enum class BodyKind : std::uint8_t { none, length, chunked, until_close };

class ResponseParser {
 public:
  enum class Status : std::uint8_t { more, done, refused };

  void reset();
  // As RequestParser::feed, but `bytes` may move between calls while the status is `more`.
  Status feed(std::string_view bytes);

  // After done.
  int status() const { return status_; }
  bool keep_alive() const;
  std::span<const Header> headers() const { return headers_; }
  std::size_t head_bytes() const { return head_bytes_; }
  std::uint64_t content_length() const { return framing_.content_length.value_or(0); }
  BodyKind body_kind(bool head_request) const;
  Why why() const { return why_; }  // after refused

 private:
  Why status_line(std::string_view line);
  Why parse(std::string_view block);

  int status_ = 0;
  bool http10_ = false;
  Framing framing_;
  std::vector<Header> headers_;
  std::size_t line_start_ = 0;
  std::size_t scanned_ = 0;
  std::size_t head_bytes_ = 0;
  Why why_ = nullptr;
};

}  // namespace ganglion::net::http1
