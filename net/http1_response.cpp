// Response head parsing; see http1_response.hpp.

#include "net/http1_response.hpp"

namespace ganglion::net::http1 {

void ResponseParser::reset() {
  status_ = 0;
  http10_ = false;
  framing_ = {};
  headers_.clear();
  line_start_ = scanned_ = head_bytes_ = 0;
  why_ = nullptr;
}

// Looks only for the end of the block until it is there, so that the buffer may grow and move meanwhile.
ResponseParser::Status ResponseParser::feed(std::string_view bytes) {
  const auto refuse = [&](Why why) {
    why_ = why;
    return Status::refused;
  };
  static constexpr std::string_view kStart = "HTTP/1.";
  if (!bytes.starts_with(kStart.substr(0, bytes.size()))) return refuse("not an HTTP/1 answer");
  for (;;) {
    const std::size_t newline = bytes.find('\n', scanned_);
    if (newline == std::string_view::npos || newline >= kResponseHeadBytesMax) {
      if (bytes.size() >= kResponseHeadBytesMax) return refuse("response header block over 64 KiB");
      scanned_ = bytes.size();
      return Status::more;
    }
    if (newline == line_start_ || bytes[newline - 1] != '\r') return refuse("response line not ended by CRLF");
    const bool empty = newline - 1 == line_start_;
    line_start_ = scanned_ = newline + 1;
    if (!empty) continue;
    head_bytes_ = line_start_;
    if (Why why = parse(bytes.substr(0, head_bytes_))) return refuse(why);
    return Status::done;
  }
}

Why ResponseParser::parse(std::string_view block) {
  std::size_t end = block.find('\n');
  if (Why why = status_line(block.substr(0, end - 1))) return why;
  for (std::size_t start = end + 1; start + 2 < block.size(); start = end + 1) {
    end = block.find('\n', start);
    if (headers_.size() == kResponseHeaderLinesMax) return "too many response headers";
    Header header;
    if (Why why = parse_field_line(block.substr(start, end - 1 - start), header)) return why;
    if (Why why = framing_.add(header)) return why;
    headers_.push_back(header);
  }
  if (http10_ && framing_.chunked) return "Transfer-Encoding in an HTTP/1.0 answer";
  return nullptr;
}

Why ResponseParser::status_line(std::string_view line) {
  // "HTTP/1.1 200", then " reason" or nothing.
  if (line.size() < 12 || (line[7] != '0' && line[7] != '1') || line[8] != ' ') return "bad status line";
  http10_ = line[7] == '0';
  for (const char c : line.substr(9, 3)) {
    if (c < '0' || c > '9') return "bad status code";
    status_ = status_ * 10 + (c - '0');
  }
  if (status_ < 100 || status_ > 599) return "bad status code";
  if (line.size() > 12 && line[12] != ' ') return "bad status line";
  return is_field_value(line) ? nullptr : "control character in the status line";
}

bool ResponseParser::keep_alive() const {
  return !framing_.close && (!http10_ || framing_.keep_alive);
}

BodyKind ResponseParser::body_kind(bool head_request) const {
  if (head_request || status_ < 200 || status_ == 204 || status_ == 304) return BodyKind::none;
  if (framing_.chunked) return BodyKind::chunked;
  if (framing_.content_length) return *framing_.content_length == 0 ? BodyKind::none : BodyKind::length;
  return BodyKind::until_close;
}

}  // namespace ganglion::net::http1
