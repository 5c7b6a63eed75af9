#pragma once
// Requests that must never be served: each is refused with 400 (or the status stated) and the connection closed. The
// list follows the request-smuggling literature: framing conflicts, chunk grammar, line endings, names, targets, Host.

#include <string>
#include <vector>

namespace ganglion::net::test {

struct RejectVector {
  std::string name;
  std::string bytes;
  int status = 400;
};

inline std::vector<RejectVector> reject_vectors() {
  using namespace std::string_literals;
  std::vector<RejectVector> out;
  const auto raw = [&](std::string name, std::string bytes, int status = 400) {
    out.push_back({std::move(name), std::move(bytes), status});
  };
  // One odd header line (or several) in an otherwise good POST.
  const auto line = [&](std::string name, const std::string& lines, const std::string& body = "") {
    raw(std::move(name), "POST /v1/x HTTP/1.1\r\nHost: a\r\n" + lines + "\r\n\r\n" + body);
  };
  const auto chunks = [&](std::string name, const std::string& body) {
    raw("chunk: " + std::move(name), "POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body);
  };
  const auto target = [&](const std::string& text) {
    raw("target " + text, "GET " + text + " HTTP/1.1\r\nHost: a\r\n\r\n");
  };

  for (const char* value : {"+1", "-1", "-0", "0x10", "010", "1_0", "1 0", "1Z", "", " ", "9223372036854775808",
                            "18446744073709551617", "5, 6", "5, 5", "5,", "\"5\"", "1.0", "1e1"}) {
    line("Content-Length \""s + value + "\"", "Content-Length: "s + value, "hello");
  }
  line("two equal Content-Length", "Content-Length: 5\r\nContent-Length: 5", "hello");
  line("two different Content-Length", "Content-Length: 5\r\nContent-Length: 6", "hello!");
  line("Content_Length", "Content_Length: 5", "hello");
  line("CL.TE", "Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
  line("TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n");
  for (const auto& value : {"xchunked"s, "chunked, identity"s, "identity"s, "identity, chunked"s, "gzip, chunked"s,
                            ",chunked"s, "chunked,"s, "chunked;x=y"s, "\x0b"s + "chunked", "\x0c"s + "chunked",
                            "chunked\0"s, "\xa0"s + "chunked\x85", ""s, "\"chunked\""s, "chunked chunked"s, "cow"s}) {
    line("Transfer-Encoding " + value, "Transfer-Encoding: " + value, "0\r\n\r\n");
  }
  line("two Transfer-Encoding", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n");
  line("Transfer-Encoding on the next line", "Transfer-Encoding:\r\n chunked", "0\r\n\r\n");
  line("Transfer-Encoding with space before colon", "Transfer-Encoding : chunked", "0\r\n\r\n");
  line("Transfer_Encoding", "Transfer_Encoding: chunked", "0\r\n\r\n");
  raw("Transfer-Encoding in HTTP/1.0", "POST /v1/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");

  for (const auto& size : {"0x5"s, "+5"s, "-1"s, " 5"s, "5 "s, "5_0"s, "0_2e"s, ""s, "10000000000000005"s, "5\t"s, "g"s,
                           "5;"s, "5; a"s, "5;a\r"s, "5;a=\0"s, "5;a=\"b"s, "5;=b"s, "5;" + std::string(65536, 'a')}) {
    chunks("size " + size.substr(0, 24), size + "\r\nhello\r\n0\r\n\r\n");
  }
  chunks("bare LF after the size", "5\nhello\r\n0\r\n\r\n");
  chunks("bare LF after an extension", "5;a\nhello\r\n0\r\n\r\n");
  chunks("bare LF after the data", "5\r\nhello\n0\r\n\r\n");
  chunks("bare LF after the last chunk", "5\r\nhello\r\n0\n\r\n");
  chunks("bare LF as the end", "5\r\nhello\r\n0\r\n\n");
  chunks("bare CR after the size", "5\rhello\r\n0\r\n\r\n");
  chunks("CR and X as terminator", "5\r\nhello\rX0\r\n\r\n");
  chunks("no CRLF after the data", "5\r\nhello0\r\n\r\n");
  chunks("data longer than its size", "5\r\nhello world\r\n0\r\n\r\n");
  chunks("two CR in an extension", "5;a\r\r\nhello\r\n0\r\n\r\n");
  for (const char* field : {"Content-Length: 5", "Transfer-Encoding: chunked", "Host: b", "Authorization: Bearer x",
                            "Content_Length: 5", "X : y", ": y", "X", "X: \x01", " folded"}) {
    chunks("trailer "s + field, "5\r\nhello\r\n0\r\n"s + field + "\r\n\r\n");
  }
  chunks("trailer with bare LF", "5\r\nhello\r\n0\r\nX: y\n\r\n");
  chunks("endless trailers", "0\r\nX: " + std::string(8192, 'y') + "\r\n\r\n");

  raw("bare LF after the request line", "GET /v1/x HTTP/1.1\nHost: a\r\n\r\n");
  raw("bare LF after a header", "GET /v1/x HTTP/1.1\r\nHost: a\n\r\n");
  raw("bare LF everywhere", "GET /v1/x HTTP/1.1\nHost: a\n\n");
  raw("bare LF as the end", "GET /v1/x HTTP/1.1\r\nHost: a\r\n\n");
  raw("CR X as the end", "GET /v1/x HTTP/1.1\r\nHost: a\r\n\rX");
  raw("bare CR in a value", "GET /v1/x HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n");
  raw("bare CR in the request line", "GET /v1/x\rHTTP/1.1\r\nHost: a\r\n\r\n");
  line("NUL in a value", "X: a\0b"s);
  line("NUL in a name", "X\0Y: b"s);
  line("DEL in a value", "X: a\x7f");
  line("folded value", "X: a\r\n b");
  line("folded value with a tab", "X: a\r\n\tb");
  raw("leading space on the first header", "GET /v1/x HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n");
  line("space before colon", "X : a");
  line("tab before colon", "X\t: a");
  line("no colon", "X");
  line("empty name", ": a");
  line("only a colon", ":");
  line("non-ASCII name", "X\xc3\xa4: a");
  line("control byte in a name", "X\x01: a");
  line("slash in a name", "X/Y: a");
  line("name continued on the next line", "X\r\n Y: a");

  raw("two spaces after the method", "GET  /v1/x HTTP/1.1\r\nHost: a\r\n\r\n");
  raw("two spaces before the version", "GET /v1/x  HTTP/1.1\r\nHost: a\r\n\r\n");
  raw("tab after the method", "GET\t/v1/x HTTP/1.1\r\nHost: a\r\n\r\n");
  raw("trailing space", "GET /v1/x HTTP/1.1 \r\nHost: a\r\n\r\n");
  raw("leading space", " GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n");
  raw("two empty lines first", "\r\n\r\nGET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n");
  raw("lower-case method", "get /v1/x HTTP/1.1\r\nHost: a\r\n\r\n");
  raw("method with odd characters", "GE(T /v1/x HTTP/1.1\r\nHost: a\r\n\r\n");
  for (const char* version : {"HTTP/1.32", "HTTP/4294967295.255", "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/1",
                              "http/1.1", "HTTP/01.1", "HTTP/1.01", "HTTPS/1.1", "HTTP /1.1", ""}) {
    raw("version "s + version, "GET /v1/x "s + version + "\r\nHost: a\r\n\r\n");
  }
  raw("HTTP/0.9", "GET /v1/x\r\n\r\n");
  raw("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  raw("TLS client hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"s);
  for (const char* text : {"http://b/v1/x",
                           "https://a/v1/x",
                           "a:80",
                           "*",
                           "v1/x",
                           "?x",
                           "/v1/%00",
                           "/v1/%0d%0aX:y",
                           "/v1/%7f",
                           "/v1/%",
                           "/v1/%2",
                           "/v1/%zz",
                           "/v1/%c0%ae",
                           "/v1/%e0%80%af",
                           "/v1/%ff",
                           "/v1/\\x",
                           "/v1/%5cx",
                           "/v1/x#y",
                           "/v1/../admin",
                           "/v1/./x",
                           "/v1/..",
                           "/..",
                           "//v1",
                           "/v1//x",
                           "/v1/%2e%2e/admin",
                           "/v1/.%2E/admin",
                           "/v1/%2e/x",
                           "/v1/..%2fadmin",
                           "/v1/x%2f%2e%2e%2fy",
                           "/v1/x?%00",
                           "/v1/x?a#b",
                           "/v1/x?%0d%0a",
                           "/v1/\xc3\xa4",
                           "/v1/x\x01",
                           "/v1/<x>",
                           "/v1/\"x\"",
                           "/v1/x|y"}) {
    target(text);
  }
  raw("no Host", "GET /v1/x HTTP/1.1\r\n\r\n");
  raw("two Hosts", "GET /v1/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
  for (const char* host : {"a, b", "a@b", "a/b", "a/#@b", "", "a b", "a:", "a:x", "a:123456", "[::1", "[]", "::1",
                           "a\\b", "a%00", "http://a", "a?b", "[::1]x"}) {
    raw("Host "s + host, "GET /v1/x HTTP/1.1\r\nHost: "s + host + "\r\n\r\n");
  }
  line("Expect of something else", "Expect: 200-ok");
  line("Connection naming Transfer-Encoding", "Connection: close, transfer-encoding");
  line("Connection naming Authorization", "Connection: Authorization");
  line("Connection that is no token list", "Connection: close;x");

  std::string many = "GET /v1/x HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 100; ++i) many += "X" + std::to_string(i) + ": y\r\n";
  raw("101 headers", many + "\r\n", 431);
  raw("block over 16 KiB", "GET /v1/x HTTP/1.1\r\nHost: a\r\nX: " + std::string(16 * 1024, 'y') + "\r\n\r\n", 431);
  raw("target over 8 KiB", "GET /" + std::string(8 * 1024, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n", 414);
  raw("target far over 8 KiB", "GET /" + std::string(20 * 1024, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n", 414);
  return out;
}

}  // namespace ganglion::net::test
