// Framing through the whole gateway, in the clear and in TLS: what two servers could read differently is refused, in
// whatever company and pieces it arrives, and no byte of it reaches an upstream or becomes another request.

#include <gtest/gtest.h>

#include <chrono>
#include <optional>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"
#include "tests/support/tls_files.hpp"
#include "tests/unit/net/reject_vectors.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

const TlsFiles& certificate() {
  static const TlsFiles files;
  return files;
}

std::string server_tls(bool tls) {
  return tls ? ", tls: {cert: " + certificate().cert() + ", key: " + certificate().key() + "}" : "";
}

// A client in the clear or in TLS.
class Wire {
 public:
  Wire(const RunningGateway& gateway, bool tls) : plain_(gateway.connect()) {
    if (tls) secure_.emplace(std::move(plain_));
  }
  void send(std::string_view bytes, std::size_t step = SIZE_MAX) {
    for (; !bytes.empty(); bytes.remove_prefix(std::min(step, bytes.size()))) {
      const std::string_view piece = bytes.substr(0, step);
      // Refused in its middle: nobody reads the rest.
      if (secure_ ? !secure_->send(piece) : !plain_.send(piece)) return;
    }
  }
  std::string read_until(std::string_view marker) {
    return secure_ ? secure_->read_until(marker) : plain_.read_until(marker);
  }
  // Everything up to the end that the gateway makes; it must come.
  std::string read_to_end() {
    const auto began = Clock::now();
    std::string all = read_until("no answer holds this \x01");
    EXPECT_LT(Clock::now() - began, 19s) << "the connection was left open";
    return all;
  }
  void half_close() { (secure_ ? secure_->socket() : plain_).half_close(); }

 private:
  RawSocket plain_;
  std::optional<TlsSocket> secure_;
};

std::string chat_request(const std::string& headers = "") {
  return RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body(), headers);
}

// To a path that is served, where a body is read.
std::string served_path(std::string bytes) {
  if (bytes.starts_with("POST /v1/x ")) bytes.replace(5, 5, "/v1/chat/completions");
  return bytes;
}

int answers_in(const std::string& bytes) {
  int count = 0;
  for (std::size_t at = 0; (at = bytes.find("HTTP/1.1 ", at)) != std::string::npos; ++at) ++count;
  return count;
}

class Framing : public ::testing::TestWithParam<bool> {
 protected:
  Wire wire() { return {gateway_, GetParam()}; }
  // The upstream saw these many requests, every one the good one.
  void expect_served(std::size_t count) {
    const auto requests = upstream_->requests();
    EXPECT_EQ(requests.size(), count);
    for (const std::string& request : requests) {
      EXPECT_TRUE(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\n")) << request;
      EXPECT_TRUE(request.ends_with("\r\n\r\n" + RunningGateway::chat_body())) << request;
    }
  }
  Answering upstream_{http_ok(kAnswer)};
  RunningGateway gateway_{provider(upstream_->port()) + kNoCache, 1, "127.0.0.1", {}, "", server_tls(GetParam())};
};

INSTANTIATE_TEST_SUITE_P(On, Framing, ::testing::Bool(),
                         [](const auto& info) { return std::string{info.param ? "Tls" : "Plain"}; });

TEST_P(Framing, EveryVectorIsRefusedAloneAndByteByByte) {
  for (const auto& vector : net::test::reject_vectors()) {
    if (GetParam() && vector.name == "TLS client hello") continue;
    for (const std::size_t step : {SIZE_MAX, std::size_t{1}}) {
      Wire client = wire();
      client.send(served_path(vector.bytes), step);
      const std::string answer = client.read_to_end();
      EXPECT_EQ(status_of(answer), vector.status) << vector.name << ", step " << step;
      EXPECT_EQ(answers_in(answer), 1) << vector.name << ", step " << step << "\n" << answer;
      EXPECT_EQ(header_of(answer, "Connection"), "close") << vector.name;
    }
  }
  EXPECT_EQ(upstream_->accepted(), 0) << "not even a connection was made";
  Wire client = wire();
  client.send(chat_request());
  EXPECT_EQ(status_of(client.read_until(kAnswer)), 200) << "and the next connection works";
}

TEST_P(Framing, EveryVectorIsRefusedBehindAGoodRequest) {
  std::size_t good = 0;
  for (const auto& vector : net::test::reject_vectors()) {
    for (const bool pipelined : {true, false}) {
      Wire client = wire();
      ++good;
      std::string first;
      if (pipelined) {
        client.send(chat_request() + served_path(vector.bytes));
      } else {
        client.send(chat_request());
        first = client.read_until(kAnswer);
        client.send(served_path(vector.bytes));
      }
      const std::string all = first + client.read_to_end();
      ASSERT_EQ(answers_in(all), 2) << vector.name << ", pipelined " << pipelined << "\n" << all;
      EXPECT_EQ(status_of(all), 200) << vector.name;
      EXPECT_EQ(status_of(all.substr(all.rfind("HTTP/1.1 "))), vector.status) << vector.name;
    }
  }
  expect_served(good);
}

TEST_P(Framing, WhatNeverEndsIsNeverServed) {
  const std::string head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n";
  const std::string body = RunningGateway::chat_body();
  for (const std::string& bytes :
       {std::string{"P"}, std::string{"POST /v1/chat/completions HTTP/1.1"}, head, head + "Content-Length: 500\r\n",
        head + "Content-Length: " + std::to_string(body.size() + 1) + "\r\n\r\n" + body,
        head + "Transfer-Encoding: chunked\r\n\r\n", head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(body),
        head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + "0",
        head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + "0\r\n",
        head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + "0\r\nX:",
        head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + "0\r\nX: y\r\n"}) {
    Wire client = wire();
    client.send(bytes);
    client.half_close();
    EXPECT_EQ(client.read_to_end().find("HTTP/1.1 200"), std::string::npos) << bytes;
  }
  EXPECT_EQ(upstream_->accepted(), 0);
}

TEST_P(Framing, NothingBehindConnectionCloseIsServed) {
  Wire client = wire();
  client.send(chat_request("Connection: close\r\n") + chat_request());
  EXPECT_EQ(answers_in(client.read_to_end()), 1);
  expect_served(1);
}

TEST_P(Framing, ABodyIsNeverTakenForARequest) {
  const std::string inner = chat_request();
  const std::string length = "Content-Length: " + std::to_string(inner.size()) + "\r\n\r\n";
  int closed = 0;
  for (const std::string& method : {"GET", "HEAD", "OPTIONS", "DELETE", "PUT"}) {
    for (const std::string& path : {"/v1/models", "/nowhere"}) {
      for (const bool chunked : {false, true}) {
        Wire client = wire();
        const std::string head = method + " " + path + " HTTP/1.1\r\nHost: a\r\n";
        const std::string with_body =
            chunked ? head + "Transfer-Encoding: chunked\r\n\r\n" + chunk(inner) + "0\r\n\r\n" : head + length + inner;
        client.send(with_body + "GET /v1/models/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        const int answers = answers_in(client.read_to_end());
        // Either the body was read off, or the connection was closed behind the first answer.
        EXPECT_TRUE(answers == 2 || answers == 1) << method << " " << path << " " << answers;
        closed += answers == 1 ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(closed, 10) << "a chunked body that nobody wanted is not decoded: the connection ends";
  EXPECT_EQ(upstream_->accepted(), 0);
}

TEST_P(Framing, UpgradesAreNotFollowed) {
  for (const char* upgrade :
       {"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "
        "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: "
        "13\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"}) {
    Wire client = wire();
    client.send("GET /v1/models HTTP/1.1\r\nHost: a\r\n" + std::string{upgrade} +
                "\r\nGET /nowhere HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    const std::string all = client.read_to_end();
    EXPECT_EQ(answers_in(all), 2);
    EXPECT_EQ(all.find(" 101 "), std::string::npos);
    EXPECT_NE(all.find("HTTP/1.1 404"), std::string::npos) << "what follows is a request as before";
  }
}

// Refused before its body was read: what the client sends afterwards is the body, not a request.
TEST(FramingOfRefusals, UnreadBodiesAreReadOffOrTheConnectionEnds) {
  Answering upstream(http_ok(kAnswer));
  RunningGateway gateway(provider(upstream->port()) + kNoCache +
                         "key_pepper: \"${PEPPER}\"\nkeys: [{id: app, secret: \"${APP_KEY}\"}]\n");
  const std::string inner =
      RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body(), "Authorization: Bearer sk-app\r\n");
  for (const std::string& more : {"", "Expect: 100-continue\r\n"}) {
    for (const bool chunked : {false, true}) {
      RawSocket client = gateway.connect();
      client.send("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n" + more +
                  (chunked ? "Transfer-Encoding: chunked\r\n\r\n"
                           : "Content-Length: " + std::to_string(inner.size()) + "\r\n\r\n"));
      const std::string refused = client.read_message();
      EXPECT_EQ(status_of(refused), 401);
      const bool goes_on = header_of(refused, "Connection") != "close";
      EXPECT_EQ(goes_on, !chunked && more.empty()) << "only a body of known length that is surely sent can be read off";
      client.send(chunked ? chunk(inner) + "0\r\n\r\n" : inner);
      client.send("GET /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
      EXPECT_EQ(answers_in(client.read_to_end()), goes_on ? 1 : 0) << more << chunked;
    }
  }
  EXPECT_EQ(upstream->accepted(), 0);
}

TEST(FramingOfRefusals, ABlockThatDripsIsCutByTheWallClock) {
  RunningGateway gateway(provider(1), 1, "127.0.0.1", {}, "", ", header_timeout: 200ms");
  RawSocket client = gateway.connect();
  const auto began = Clock::now();
  client.send("GET / HTTP/1.1\r\nX: ");
  while (!client.wait_closed(10ms) && Clock::now() - began < 60s) client.send("y");
  EXPECT_EQ(status_of(client.read_message()), 408);
  EXPECT_GE(Clock::now() - began, 200ms);
}

}  // namespace
}  // namespace ganglion::test
