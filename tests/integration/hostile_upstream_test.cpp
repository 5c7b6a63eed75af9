// Providers that lie, flood, stall and smuggle, seen through the whole gateway: the client gets an error or a cut
// answer within the limits, never a forged end; the connection is not used again; memory stays where it was.

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using Clock = std::chrono::steady_clock;

// What a client may get.
enum class Outcome : std::uint8_t {
  bad_gateway,  // 502
  cut,          // 200, and an end without [DONE]
  served,       // 200 whole: the answer itself was good, what follows it is not
};

struct Hostile {
  std::string name;
  std::string bytes;
  Outcome whole = Outcome::bad_gateway;   // to a request for a whole answer
  Outcome stream = Outcome::bad_gateway;  // to one for a stream
  std::string forever{};                  // sent again and again behind `bytes`, until the gateway hangs up
  bool close = false;                     // closes behind `bytes`
};

const std::string kOk = "HTTP/1.1 200 OK\r\n";
const std::string kJson = kOk + "Content-Type: application/json\r\n";

std::vector<Hostile> hostile_heads() {
  const std::string block(16 * 1024, 'x');
  return {
      {.name = "endless headers", .bytes = kOk, .forever = "X: y\r\n"},
      {.name = "a header line of 1 GB", .bytes = kOk + "X: ", .forever = block},
      {.name = "a status line of 1 GB", .bytes = "HTTP/1.1 200 ", .forever = block},
      {.name = "interim answers for ever", .bytes = "", .forever = "HTTP/1.1 100 Continue\r\n\r\n"},
      {.name = "early hints for ever", .bytes = "", .forever = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"},
      {.name = "101 unasked", .bytes = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"},
      {.name = "status 600", .bytes = "HTTP/1.1 600 No\r\nContent-Length: 0\r\n\r\n"},
      {.name = "status 000", .bytes = "HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n"},
      {.name = "HTTP/2 without asking", .bytes = "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64"s},
      {.name = "HTTP/0.9", .bytes = kAnswer, .close = true},
      {.name = "CL and TE", .bytes = kOk + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {.name = "TE and CL", .bytes = kOk + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"},
      {.name = "two lengths", .bytes = kOk + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}"},
      {.name = "a length below zero", .bytes = kOk + "Content-Length: -1\r\n\r\n{}"},
      {.name = "a length of 2^64", .bytes = kOk + "Content-Length: 18446744073709551616\r\n\r\n{}"},
      {.name = "another coding than chunked", .bytes = kOk + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
      {.name = "chunked in HTTP/1.0", .bytes = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {.name = "bare LF", .bytes = "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}"},
      {.name = "a folded header", .bytes = kOk + "X: y\r\n Content-Length: 2\r\n\r\n{}"},
      {.name = "NUL in a header", .bytes = kOk + "X: \0y\r\nContent-Length: 2\r\n\r\n{}"s},
      {.name = "nothing at all", .bytes = "", .close = true},
      {.name = "half a head", .bytes = kOk + "Content-Le", .close = true},
      {.name = "a gzip bomb", .bytes = kJson + "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"s},
  };
}

std::vector<Hostile> hostile_bodies() {
  const std::string chunked = kJson + "Transfer-Encoding: chunked\r\n\r\n";
  const std::string block(16 * 1024, 'x');
  return {
      // A body that is no stream is gathered, whoever asked for what.
      {.name = "a broken chunk size", .bytes = chunked + "zz\r\n"},
      {.name = "a chunk size of 17 digits", .bytes = chunked + "10000000000000000\r\nx"},
      {.name = "data longer than its chunk", .bytes = chunked + "2\r\n{}{}\r\n0\r\n\r\n"},
      {.name = "chunk extensions for ever", .bytes = chunked, .forever = "1;" + std::string(200, 'a') + "\r\nx\r\n"},
      {.name = "one chunk extension of 1 GB", .bytes = chunked + "1;", .forever = block},
      {.name = "trailers for ever", .bytes = chunked + "0\r\n", .forever = "X: y\r\n"},
      {.name = "less than its length", .bytes = kJson + "Content-Length: 500\r\n\r\n{\"id\":", .close = true},
      {.name = "a body without end", .bytes = chunked, .forever = chunk(block)},
      {.name = "a length of 1 GB", .bytes = kJson + "Content-Length: 1073741824\r\n\r\n", .forever = block},
      {.name = "surplus behind a length",
       .bytes = kJson + "Content-Length: " + std::to_string(kAnswer.size()) + "\r\n\r\n" + kAnswer + http_ok("stolen"),
       .whole = Outcome::served,
       .stream = Outcome::served},
      {.name = "surplus behind chunks",
       .bytes = chunked + chunk(kAnswer) + "0\r\n\r\n" + http_ok("stolen"),
       .whole = Outcome::served,
       .stream = Outcome::served},
  };
}

std::vector<Hostile> hostile_streams() {
  const std::string head = kStreamHead;
  const std::string block(16 * 1024, 'x');
  return {
      // Broken before its first whole event: an error can still be answered.
      {.name = "an event of 1 GB", .bytes = head + chunk("data: "), .forever = chunk(block)},
      {.name = "a line of 1 GB that is no field", .bytes = head, .forever = chunk(block)},
      {.name = "a chunk cut in its middle", .bytes = head + "ff\r\ndata: {", .close = true},
      {.name = "an event of 1 GB behind a good one",
       .bytes = head + chunk(delta("a") + "data: "),
       .stream = Outcome::cut,
       .forever = chunk(block)},
      {.name = "cut before [DONE]", .bytes = head + chunk(delta("a")), .stream = Outcome::cut, .close = true},
      {.name = "ended without [DONE]", .bytes = stream_of(delta("a")), .stream = Outcome::cut},
      {.name = "NUL and control bytes",
       .bytes = head + chunk("data: \0\x01\x02\n\n"s),
       .stream = Outcome::cut,
       .close = true},
      {.name = "surplus behind [DONE]",
       .bytes = stream_of(delta("a") + kFinish + kUsageEvent + kDone) + http_ok("stolen"),
       .stream = Outcome::served},
  };
}

// 0 under ASan, whose quarantine keeps what was freed.
std::size_t resident_kib() {
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
  return 0;
#endif
#endif
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stoul(line.substr(6));
  }
  return 0;
}

class HostileUpstream : public ::testing::Test {
 protected:
  // What the gateway made of it, and how much the upstream could send.
  struct Told {
    std::string answer;
    std::size_t sent = 0;
    int connections = 0;
    std::chrono::milliseconds took{};
  };
  // The connection behind the hostile one answers well.
  static Told tell(const Hostile& hostile, bool stream) {
    std::atomic<std::size_t> sent{0};
    ScriptedUpstream* self = nullptr;
    const auto attack = [&](RawSocket& socket) {
      (void)self->read_request(socket);
      if (!hostile.bytes.empty() && !socket.send(hostile.bytes)) return;
      if (hostile.close) return;
      while (!hostile.forever.empty() && socket.send(hostile.forever)) sent += hostile.forever.size();
      (void)socket.ended();
    };
    const auto behave = [&](RawSocket& socket) {
      while (!self->read_request(socket).empty()) socket.send(http_ok(kAnswer));
    };
    ScriptedUpstream upstream({attack, behave});
    self = &upstream;
    RunningGateway gateway(provider(upstream.port()) + kNoCache);
    Told told;
    RawSocket client = gateway.connect();
    const auto began = Clock::now();
    client.send(RunningGateway::request(
        "/v1/chat/completions", RunningGateway::chat_body(stream ? R"("stream":true,)" : ""), "Connection: close\r\n"));
    told.answer = client.read_to_end();
    told.took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began);
    EXPECT_EQ(body_of(gateway.chat()), kAnswer) << hostile.name << ": the next request is served by a new connection";
    told.connections = upstream.accepted();
    told.sent = sent;
    EXPECT_EQ(upstream.requests().size(), 2U) << hostile.name << ": nothing was asked twice";
    return told;
  }

  static void check(const Hostile& hostile, bool stream) {
    const std::string what = hostile.name + (stream ? ", streamed" : ", whole");
    const std::size_t before = resident_kib();
    const Told told = tell(hostile, stream);
    const Outcome expected = stream ? hostile.stream : hostile.whole;
    const bool done =
        told.answer.find("[DONE]") != std::string::npos || told.answer.find("\"usage\"") != std::string::npos;
    EXPECT_EQ(status_of(told.answer), expected == Outcome::bad_gateway ? 502 : 200) << what << "\n"
                                                                                    << told.answer.substr(0, 600);
    EXPECT_EQ(done, expected == Outcome::served) << what << "\n" << told.answer.substr(0, 600);
    EXPECT_EQ(told.answer.find("stolen"), std::string::npos) << what;
    EXPECT_EQ(told.connections, 2) << what << ": never pooled";
    EXPECT_LT(told.took, 30s) << what;
    // A whole answer may have 64 MiB; nothing else is gathered. Sockets hold a few MiB.
    EXPECT_LT(told.sent, 90UL << 20) << what;
    EXPECT_LT(resident_kib(), before + 96 * 1024) << what;
  }
};

TEST_F(HostileUpstream, HeadsThatNoClientMaySee) {
  const auto cases = hostile_heads();
  for (const Hostile& hostile : cases) {
    check(hostile, false);
    check(hostile, true);
  }
}

TEST_F(HostileUpstream, BodiesThatLieAboutTheirEnd) {
  for (const Hostile& hostile : hostile_bodies()) {
    check(hostile, false);
    check(hostile, true);
  }
}

TEST_F(HostileUpstream, StreamsWithoutAnEnd) {
  EXPECT_GE(hostile_heads().size() + hostile_bodies().size() + hostile_streams().size(), 30U);
  for (const Hostile& hostile : hostile_streams()) check(hostile, true);
}

// Comments keep a stream alive, and carry nothing: its end is the request's deadline.
TEST_F(HostileUpstream, AStreamOfCommentsEndsWithItsDeadline) {
  std::atomic<std::size_t> sent{0};
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    (void)self->read_request(socket);
    socket.send(kStreamHead);
    const std::string comments = chunk(std::string(1000, ':') + "\n\n");
    while (socket.send(comments)) sent += comments.size();
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache + "request: {timeout: 1s}\n");
  const std::size_t before = resident_kib();
  const auto began = Clock::now();
  RawSocket client = gateway.connect();
  client.send(RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body(R"("stream":true,)"),
                                      "Connection: close\r\n"));
  std::string tail;
  for (std::string piece; !(piece = client.read_some()).empty();) {
    tail = (tail + piece)
               .substr(std::max<std::ptrdiff_t>(0, static_cast<std::ptrdiff_t>(tail.size() + piece.size()) - 2000));
  }
  EXPECT_LT(Clock::now() - began, 30s);
  EXPECT_EQ(tail.find("[DONE]"), std::string::npos);
  EXPECT_LT(resident_kib(), before + 32 * 1024) << "after " << sent << " bytes";
}

}  // namespace
}  // namespace ganglion::test
