// Request head parsing; see http1_request.hpp.

#include "net/http1_request.hpp"

#include <algorithm>
#include <array>

#include "core/limits.hpp"

namespace ganglion::net::http1 {
namespace {

using core::ErrorKind;

Method method_of(std::string_view text) {
  static constexpr std::array kMethods = {Method::post,  Method::get,     Method::head,   Method::put,
                                          Method::patch, Method::delete_, Method::options};
  for (const Method method : kMethods) {
    if (name(method) == text) return method;
  }
  return Method::other;
}

bool is_method(std::string_view text) {
  return !text.empty() && text.size() <= 24 &&
         std::ranges::all_of(text, [](char c) { return (c >= 'A' && c <= 'Z') || c == '-'; });
}

}  // namespace

void RequestParser::reset() {
  head_ = {};
  headers_.clear();
  framing_ = {};
  line_start_ = scanned_ = 0;
  have_request_line_ = have_host_ = skipped_blank_ = false;
  why_ = nullptr;
}

core::Error RequestParser::error() const {
  return core::make_error(refusal_, why_ != nullptr ? why_ : "");
}

RequestParser::Status RequestParser::refuse(ErrorKind kind, Why why) {
  refusal_ = kind;
  why_ = why;
  return Status::refused;
}

RequestParser::Status RequestParser::feed(std::string_view bytes) {
  for (;;) {
    const std::size_t newline = bytes.find('\n', scanned_);
    if (newline == std::string_view::npos) return need_more(bytes);
    if (newline >= core::kHeaderBlockBytesMax) {
      if (!have_request_line_) return refuse(ErrorKind::uri_too_long, "the request target is over 8 KiB");
      return refuse(ErrorKind::header_too_large, "the header block is over 16 KiB");
    }
    if (newline == line_start_ || bytes[newline - 1] != '\r') {
      return refuse(ErrorKind::malformed_http, "line not ended by CRLF");
    }
    const std::string_view line = bytes.substr(line_start_, newline - 1 - line_start_);
    line_start_ = scanned_ = newline + 1;
    if (!have_request_line_) {
      // One empty line before a request is tolerated (RFC 9112, 2.2): old clients send it after a body.
      if (line.empty()) {
        if (skipped_blank_) return refuse(ErrorKind::malformed_http, "empty lines before the request line");
        skipped_blank_ = true;
        continue;
      }
      if (!request_line(line)) return Status::refused;
      have_request_line_ = true;
    } else if (line.empty()) {
      return finish() ? Status::done : Status::refused;
    } else if (!field(line)) {
      return Status::refused;
    }
  }
}

// The unfinished line is looked at too, so that garbage is refused at once and not after the header timeout.
RequestParser::Status RequestParser::need_more(std::string_view bytes) {
  const std::string_view line = bytes.substr(line_start_);
  const std::size_t carriage = line.find('\r', scanned_ > line_start_ ? scanned_ - line_start_ - 1 : 0);
  if (carriage != std::string_view::npos && carriage + 1 < line.size()) {
    return refuse(ErrorKind::malformed_http, "carriage return within a line");
  }
  if (!have_request_line_ && !line.empty() && line.front() != '\r') {
    if (!is_method(line.substr(0, 1))) return refuse(ErrorKind::malformed_http, "bad method");
    if (line.size() > core::kUriBytesMax + 64) {
      return refuse(ErrorKind::uri_too_long, "the request target is over 8 KiB");
    }
  }
  if (bytes.size() >= core::kHeaderBlockBytesMax) {
    return refuse(ErrorKind::header_too_large, "the header block is over 16 KiB");
  }
  scanned_ = bytes.size();
  return Status::more;
}

bool RequestParser::request_line(std::string_view line) {
  const auto bad = [&](Why why, ErrorKind kind = ErrorKind::malformed_http) {
    refuse(kind, why);
    return false;
  };
  const std::size_t first = line.find(' ');
  if (first == std::string_view::npos) return bad("bad request line");
  const std::size_t second = line.find(' ', first + 1);
  head_.method_text = line.substr(0, first);
  if (!is_method(head_.method_text)) return bad("bad method");
  if (second == std::string_view::npos) return bad("bad request line");
  head_.target = line.substr(first + 1, second - first - 1);
  const std::string_view version = line.substr(second + 1);
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return bad("the HTTP version must be 1.0 or 1.1");
  head_.http10 = version.back() == '0';
  head_.method = method_of(head_.method_text);
  if (head_.target.size() > core::kUriBytesMax) {
    return bad("the request target is over 8 KiB", ErrorKind::uri_too_long);
  }
  if (Why why = check_target(head_.target, head_.path, head_.query)) return bad(why);
  if (head_.target == "*" && head_.method != Method::options) return bad("the request target must be a path");
  return true;
}

bool RequestParser::field(std::string_view line) {
  const auto bad = [&](Why why, ErrorKind kind = ErrorKind::malformed_http) {
    refuse(kind, why);
    return false;
  };
  if (headers_.size() + 1 >= core::kHeaderLinesMax) {
    return bad("more than 100 header lines", ErrorKind::header_too_large);
  }
  Header header;
  if (Why why = parse_field_line(line, header)) return bad(why);
  if (Why why = framing_.add(header)) return bad(why);
  if (header.name.size() == 4 && iequals(header.name, "host")) {
    if (have_host_) return bad("more than one Host");
    if (!is_host(header.value)) return bad("bad Host");
    have_host_ = true;
    head_.host = header.value;
  } else if (header.name.size() == 6 && iequals(header.name, "expect")) {
    if (!iequals(header.value, "100-continue")) return bad("Expect other than 100-continue");
    head_.expect_continue = true;
  }
  headers_.push_back(header);
  return true;
}

bool RequestParser::finish() {
  if (!head_.http10 && !have_host_) {
    refuse(ErrorKind::malformed_http, "no Host");
    return false;
  }
  if (head_.http10 && framing_.chunked) {
    refuse(ErrorKind::malformed_http, "Transfer-Encoding in HTTP/1.0");
    return false;
  }
  head_.content_length = framing_.content_length;
  head_.chunked = framing_.chunked;
  head_.keep_alive = !framing_.close && (!head_.http10 || framing_.keep_alive);
  head_.expect_continue = head_.expect_continue && !head_.http10 && head_.has_body();
  head_.headers = headers_;
  return true;
}

}  // namespace ganglion::net::http1
