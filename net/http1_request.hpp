#pragma once
// The strict request head parser: sans-I/O, one pass, line by line as bytes arrive, no copies. What it accepts has one
// meaning to every HTTP/1.1 recipient; everything else is refused before a handler hears of it.

#include <cstddef>
#include <string_view>
#include <vector>

#include "core/error.hpp"
#include "net/http1_grammar.hpp"
#include "net/http_types.hpp"

namespace ganglion::net::http1 {

class RequestParser {
 public:
  enum class Status : std::uint8_t { more, done, refused };

  void reset();
  // `bytes` is everything received from the head's first byte on; between calls it only grows, and it must not move.
  // Bytes past the head are left alone.
  Status feed(std::string_view bytes);

  const RequestHead& head() const { return head_; }       // after done; views into `bytes`
  std::size_t head_bytes() const { return line_start_; }  // after done: where the body starts
  core::Error error() const;                              // after refused

 private:
  Status refuse(core::ErrorKind kind, Why why);
  Status need_more(std::string_view bytes);
  bool request_line(std::string_view line);
  bool field(std::string_view line);
  bool finish();

  RequestHead head_;
  std::vector<Header> headers_;
  Framing framing_;
  std::size_t line_start_ = 0;
  std::size_t scanned_ = 0;
  bool have_request_line_ = false;
  bool have_host_ = false;
  bool skipped_blank_ = false;
  core::ErrorKind refusal_ = core::ErrorKind::malformed_http;
  Why why_ = nullptr;
};

}  // namespace ganglion::net::http1
