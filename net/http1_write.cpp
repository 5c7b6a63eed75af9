// Head serialisation; see http1_write.hpp.

#include "net/http1_write.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "net/http1_grammar.hpp"

namespace ganglion::net::http1 {

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 402:
      return "Payment Required";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 415:
      return "Unsupported Media Type";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Status";
  }
}

bool append_header(std::string& out, std::string_view name, std::string_view value) {
  if (!is_token(name) || !is_field_value(value)) return false;
  const std::size_t at = out.size();
  const std::size_t end = at + name.size() + value.size() + 4;
  out.resize_and_overwrite(end, [&](char* to, std::size_t) {  // libstdc++ 12 may pass a size of its own
    to = std::copy_n(name.data(), name.size(), to + at);
    *to++ = ':';
    *to++ = ' ';
    to = std::copy_n(value.data(), value.size(), to);
    *to++ = '\r';
    *to = '\n';
    return end;
  });
  return true;
}

void append_number(std::string& out, std::uint64_t value) {
  char digits[20];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, end);
}

std::string_view chunk_size_line(std::uint64_t size, char* buffer) {
  char* end = std::to_chars(buffer, buffer + 16, size, 16).ptr;
  *end++ = '\r';
  *end++ = '\n';
  return {buffer, end};
}

std::string_view DateCache::now() {
  const std::time_t now = std::time(nullptr);
  if (now != rendered_at_) {
    rendered_at_ = now;
    std::tm utc{};
    gmtime_r(&now, &utc);
    std::strftime(text_, sizeof text_, "%a, %d %b %Y %H:%M:%S GMT", &utc);  // the C locale's names: never localised
  }
  return {text_, 29};
}

void append_response_head(std::string& out, const ResponseHead& head, ResponseFraming framing, std::uint64_t length,
                          bool http10, bool keep_alive, std::string_view date) {
  out.append("HTTP/1.1 ");
  append_number(out, static_cast<std::uint64_t>(head.status));
  out.append(" ").append(reason_phrase(head.status)).append("\r\nDate: ").append(date).append("\r\n");
  if (!head.content_type.empty()) append_header(out, "Content-Type", head.content_type);
  for (const Header& header : head.headers.view()) append_header(out, header.name, header.value);
  if (framing == ResponseFraming::length) {
    out.append("Content-Length: ");
    append_number(out, length);
    out.append("\r\n");
  } else if (framing == ResponseFraming::chunked) {
    out.append("Transfer-Encoding: chunked\r\n");
  }
  if (!keep_alive) {
    out.append("Connection: close\r\n");
  } else if (http10) {
    out.append("Connection: keep-alive\r\n");
  }
  out.append("\r\n");
}

}  // namespace ganglion::net::http1
