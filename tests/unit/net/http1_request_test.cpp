// The request parser and chunk decoder as the server drives them, without sockets.

#include "net/http1_request.hpp"

#include <gtest/gtest.h>

#include <string>

#include "net/http1_chunk.hpp"
#include "tests/unit/net/reject_vectors.hpp"

namespace ganglion::net {
namespace {

using http1::ChunkDecoder;
using http1::RequestParser;

struct Verdict {
  int served = 0;
  int status = 0;  // 0: wants more
};

// Reads requests off `all` as a connection would, with `step` bytes arriving at a time.
Verdict serve(const std::string& all, std::size_t step) {
  Verdict verdict;
  std::size_t start = 0;
  for (;;) {
    RequestParser parser;
    auto status = RequestParser::Status::more;
    std::size_t arrived = start;
    while (status == RequestParser::Status::more && arrived < all.size()) {
      arrived = std::min(all.size(), arrived + step);
      status = parser.feed(std::string_view{all}.substr(start, arrived - start));
    }
    if (status == RequestParser::Status::more) return verdict;
    if (status == RequestParser::Status::refused) {
      verdict.status = core::face(parser.error().kind).http_status;
      return verdict;
    }
    start += parser.head_bytes();
    if (parser.head().chunked) {
      ChunkDecoder decoder;
      for (;;) {
        arrived = std::max(arrived, start);
        const auto piece = decoder.next(std::string_view{all}.substr(start, arrived - start));
        start += piece.consumed;
        if (piece.step == ChunkDecoder::Step::end) break;
        if (piece.step == ChunkDecoder::Step::broken) {
          verdict.status = 400;
          return verdict;
        }
        if (piece.step == ChunkDecoder::Step::more) {
          if (arrived == all.size()) return verdict;
          arrived = std::min(all.size(), arrived + step);
        }
      }
    } else {
      start += parser.head().content_length.value_or(0);
    }
    ++verdict.served;
    if (start >= all.size()) return verdict;
  }
}

constexpr const char* kGood = "POST /v1/good HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

TEST(RequestParser, RefusesEveryVector) {
  const auto vectors = test::reject_vectors();
  EXPECT_GE(vectors.size(), 90U);
  for (const auto& vector : vectors) {
    for (const std::size_t step : {std::size_t{1}, std::size_t{7}, vector.bytes.size()}) {
      const Verdict alone = serve(vector.bytes, step);
      EXPECT_EQ(alone.status, vector.status) << vector.name << ", step " << step;
      EXPECT_EQ(alone.served, 0) << vector.name << ", step " << step;
    }
    const std::string pipelined = kGood + vector.bytes;
    for (const std::size_t step : {std::size_t{1}, pipelined.size()}) {
      const Verdict after = serve(pipelined, step);
      EXPECT_EQ(after.status, vector.status) << vector.name << " pipelined, step " << step;
      EXPECT_EQ(after.served, 1) << vector.name << " pipelined, step " << step;
    }
  }
}

TEST(RequestParser, ServesGoodRequestsWhateverTheSplit) {
  const std::string all =
      std::string{kGood} + "\r\n" +
      "GET /v1/models/org%2Fname?limit=2&x=%20 HTTP/1.1\r\nhost: [::1]:8080\r\nX:\t a b \t\r\n\r\n" +
      "POST /v1/x HTTP/1.1\r\nHost: a.b:80\r\nTransfer-Encoding: Chunked\r\n\r\n"
      "5;a=b;c=\"d \\\" e\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n" +
      "HEAD / HTTP/1.0\r\n\r\n" + "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n" +
      "GET /client/v4/accounts/1/ai/run/@cf/meta/llama-2-7b-chat-int8 HTTP/1.1\r\nHost: localhost\r\n\r\n";
  for (std::size_t step = 1; step < all.size(); ++step) {
    const Verdict verdict = serve(all, step);
    ASSERT_EQ(verdict.served, 6) << step;
    ASSERT_EQ(verdict.status, 0) << step;
  }
}

TEST(RequestParser, SplitsTheHead) {
  RequestParser parser;
  const std::string bytes =
      "POST /v1/chat?x=1&y=/ HTTP/1.1\r\nHost: a:1\r\nAuthorization: Bearer k\r\nexpect: 100-Continue\r\n"
      "Content-Length: 12\r\nConnection: foo, close\r\n\r\nbody";
  ASSERT_EQ(parser.feed(bytes), RequestParser::Status::done);
  const RequestHead& head = parser.head();
  EXPECT_EQ(head.method, Method::post);
  EXPECT_EQ(head.target, "/v1/chat?x=1&y=/");
  EXPECT_EQ(head.path, "/v1/chat");
  EXPECT_EQ(head.query, "x=1&y=/");
  EXPECT_EQ(head.host, "a:1");
  EXPECT_EQ(head.header("AUTHORIZATION"), "Bearer k");
  EXPECT_EQ(head.header("nothing"), "");
  EXPECT_EQ(head.headers.size(), 5U);
  EXPECT_EQ(head.content_length, 12U);
  EXPECT_TRUE(head.expect_continue);
  EXPECT_FALSE(head.keep_alive);
  EXPECT_EQ(parser.head_bytes(), bytes.size() - 4);
}

TEST(RequestParser, KeepAliveFollowsTheVersion) {
  const auto keep_alive = [](const std::string& bytes) {
    RequestParser parser;
    EXPECT_EQ(parser.feed(bytes), RequestParser::Status::done);
    return parser.head().keep_alive;
  };
  EXPECT_TRUE(keep_alive("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_FALSE(keep_alive("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n"));
  EXPECT_FALSE(keep_alive("GET / HTTP/1.0\r\nHost: a\r\n\r\n"));
  EXPECT_TRUE(keep_alive("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"));
}

TEST(RequestParser, TakesExactlyTheCaps) {
  RequestParser parser;
  std::string lines = "GET /v1/x HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 99; ++i) lines += "X" + std::to_string(i) + ": y\r\n";
  const std::string hundred = lines + "\r\n";
  EXPECT_EQ(parser.feed(hundred), RequestParser::Status::done);
  parser.reset();
  std::string block = "GET /v1/x HTTP/1.1\r\nHost: a\r\nX: ";
  block += std::string(16 * 1024 - block.size() - 4, 'y') + "\r\n\r\n";
  EXPECT_EQ(parser.feed(block), RequestParser::Status::done);
  parser.reset();
  const std::string uri = "GET /" + std::string(8 * 1024 - 1, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n";
  EXPECT_EQ(parser.feed(uri), RequestParser::Status::done);
}

TEST(ChunkDecoder, RefusesExtensionFloods) {
  ChunkDecoder decoder;
  std::string in;
  for (int i = 0; i < 100; ++i) in += "1;" + std::string(100, 'a') + "\r\nx\r\n";
  std::size_t at = 0;
  for (;;) {
    const auto piece = decoder.next(std::string_view{in}.substr(at));
    at += piece.consumed;
    ASSERT_NE(piece.step, ChunkDecoder::Step::more);
    if (piece.step == ChunkDecoder::Step::broken) break;
  }
  EXPECT_STREQ(decoder.why(), "too many chunk extensions");
}

TEST(PercentDecode, RefusesBrokenEscapes) {
  EXPECT_EQ(percent_decode("a%2Fb%20"), "a/b ");
  EXPECT_EQ(percent_decode("%4"), std::nullopt);
  EXPECT_EQ(percent_decode("%xx"), std::nullopt);
}

}  // namespace
}  // namespace ganglion::net
