// A second opinion: whatever our request parser accepts, Boost.Beast's must read in the same way. Ours may refuse more,
// never less, and never see another target, method or body length.

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/src.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "net/http1_request.hpp"
#include "tests/unit/net/reject_vectors.hpp"

namespace ganglion::net {
namespace {

namespace http = boost::beast::http;

// False when Beast disagrees with what our parser made of an accepted head.
void expect_agreement(const http1::RequestParser& ours, const std::string& bytes) {
  const RequestHead& head = ours.head();
  http::request_parser<http::empty_body> theirs;
  theirs.header_limit(64 * 1024);
  theirs.body_limit(boost::none);
  boost::system::error_code error;
  // An empty line before the request line, which we skip, is outside Beast's grammar.
  const std::size_t skip = bytes.starts_with("\r\n") ? 2 : 0;
  const auto used = theirs.put(boost::asio::buffer(bytes.data() + skip, ours.head_bytes() - skip), error);
  ASSERT_FALSE(error && error != http::error::need_more) << error.message() << "\n" << bytes;
  ASSERT_TRUE(theirs.is_header_done()) << bytes;
  EXPECT_EQ(used + skip, ours.head_bytes()) << bytes;
  EXPECT_EQ(theirs.get().method_string(), head.method_text) << bytes;
  EXPECT_EQ(theirs.get().target(), head.target) << bytes;
  EXPECT_EQ(theirs.chunked(), head.chunked) << bytes;
  EXPECT_EQ(theirs.content_length().value_or(0), head.content_length.value_or(0)) << bytes;
  EXPECT_EQ(theirs.keep_alive(), head.keep_alive) << bytes;
  // Beast lists fields of one name together, so the order across names is not compared.
  std::vector<std::pair<std::string, std::string>> mine;
  std::vector<std::pair<std::string, std::string>> beasts;
  for (const Header& header : head.headers) mine.emplace_back(header.name, header.value);
  for (const auto& field : theirs.get()) beasts.emplace_back(field.name_string(), field.value());
  std::ranges::sort(mine);
  std::ranges::sort(beasts);
  EXPECT_EQ(mine, beasts) << bytes;
}

std::vector<std::string> seeds() {
  std::vector<std::string> out = {
      "GET /v1/models/org%2Fname?limit=2 HTTP/1.1\r\nHost: a.example:8080\r\nAccept: */*\r\nConnection: "
      "keep-alive\r\n\r\n",
      "POST /v1/chat/completions HTTP/1.1\r\nHost: [::1]\r\nContent-Type: application/json\r\nContent-Length: "
      "12\r\n\r\n",
      "POST /v1/x HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\nX-Empty:\r\nX-Tabs:\ta\tb\t\r\n\r\n",
      "HEAD / HTTP/1.0\r\nConnection: close, x\r\nUser-Agent: y z\r\n\r\n",
      "\r\nDELETE /v1/files/1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
  };
  for (const auto& vector : test::reject_vectors()) {
    if (vector.bytes.size() < 4096) out.push_back(vector.bytes);
  }
  return out;
}

TEST(BeastAgreement, AcceptedHeadsReadTheSame) {
  std::mt19937 random(20240229);
  const auto pick = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
  const std::vector<std::string> all = seeds();
  const std::vector<std::string> parts = {"\r\n",
                                          "\n",
                                          "\r",
                                          " ",
                                          "\t",
                                          ":",
                                          ",",
                                          "0",
                                          "5",
                                          "chunked",
                                          "close",
                                          "%2e",
                                          "/",
                                          "..",
                                          "Content-Length: 5\r\n",
                                          "Transfer-Encoding: chunked\r\n",
                                          "Host: b\r\n",
                                          std::string(1, '\0'),
                                          "\x7f",
                                          "\xff",
                                          "a",
                                          "HTTP/1.1",
                                          "\r\n\r\n"};
  int accepted = 0;
  for (int round = 0; round < 60'000; ++round) {
    std::string bytes = all[pick(round % 2 == 0 ? 5 : all.size())];
    for (std::size_t edits = pick(4); edits > 0 && !bytes.empty(); --edits) {
      const std::size_t at = pick(bytes.size());
      switch (pick(4)) {
        case 0:
          bytes.insert(at, parts[pick(parts.size())]);
          break;
        case 1:
          bytes.erase(at, 1 + pick(3));
          break;
        case 2:
          bytes[at] = static_cast<char>(pick(256));
          break;
        default:
          bytes.insert(at, bytes.substr(pick(bytes.size()), pick(20)));
          break;
      }
    }
    http1::RequestParser ours;
    if (ours.feed(bytes) != http1::RequestParser::Status::done) continue;
    ++accepted;
    expect_agreement(ours, bytes);
    if (HasFailure()) FAIL() << "round " << round;
  }
  EXPECT_GT(accepted, 10'000) << "the seeds hardly ever stay valid, so this proves little";
}

}  // namespace
}  // namespace ganglion::net
