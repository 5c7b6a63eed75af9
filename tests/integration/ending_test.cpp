// How requests end when somebody leaves: what is stopped, how fast, and what is billed and counted for it.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <sstream>
#include <thread>

#include "tests/integration/answers.hpp"
#include "tests/integration/harness.hpp"

namespace ganglion::test {
namespace {

using namespace std::chrono_literals;
using metering::Outcome;
using Clock = std::chrono::steady_clock;

constexpr auto kGoneWithin = 3s;  // some ms where idle
constexpr auto kPatience = 60s;

// Until `done` says so; how long it took.
template <class Done>
Clock::duration wait_until(Done done) {
  const auto began = Clock::now();
  while (!done() && Clock::now() - began < kPatience) std::this_thread::sleep_for(1ms);
  return Clock::now() - began;
}

// A generation that would go on for the whole context: its end token is ruled out.
std::string long_generation(bool stream) {
  const std::string body = std::string{R"({"model":"demo-chat","max_tokens":900,"logit_bias":{"2":-100},)"} +
                           (stream ? R"("stream":true,)" : "") +
                           R"("messages":[{"role":"user","content":"What is a neuron?"}]})";
  return RunningGateway::request("/v1/chat/completions", body);
}

class LocalClientGone : public testing::TestWithParam<std::tuple<bool, const char*>> {};

TEST_P(LocalClientGone, StopsTheGenerationAndBillsWhatWasProduced) {
  const auto [stream, gateways] = GetParam();
  RunningGateway gateway(std::string{"local: [{name: demo-chat, path: models/demo-chat, threads: 1}]\n"} + gateways);
  RawSocket client = gateway.connect();
  client.send(long_generation(stream));
  if (stream) client.read_until("data: ");
  wait_until([&] { return gateway.metric("ganglion_engine_tokens_total", {"phase=\"generated\""}) >= 5; });
  EXPECT_EQ(gateway.metric("ganglion_engine_running_requests"), 1);
  EXPECT_GT(gateway.metric("ganglion_engine_kv_pages_used"), 0);

  client.close();
  const auto took = wait_until([&] {
    return gateway.metric("ganglion_engine_requests_total", {"result=\"cancelled\""}) == 1 &&
           gateway.metric("ganglion_engine_running_requests") + gateway.metric("ganglion_engine_queue_length") == 0;
  });
  EXPECT_LT(took, kGoneWithin);
  EXPECT_EQ(gateway.metric("ganglion_engine_kv_pages_used"), 0);
  wait_until([&] { return gateway.metric("ganglion_requests_cancelled_total", {"client_gone"}) == 1; });
  const double generated = gateway.metric("ganglion_engine_tokens_total", {"phase=\"generated\""});
  const double counted = gateway.metric("ganglion_tokens_total", {"kind=\"output\""});

  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].outcome, Outcome::cancelled);
  EXPECT_FALSE(records[0].estimated) << "the engine knows exactly";
  EXPECT_GT(records[0].units.input_tokens, 0U);
  EXPECT_GT(records[0].units.output_tokens, 0U);
  EXPECT_LT(records[0].units.output_tokens, 900U) << "it did not just run to its end";
  EXPECT_LE(static_cast<double>(records[0].units.output_tokens), generated);
  EXPECT_EQ(static_cast<double>(records[0].units.output_tokens), counted);
  EXPECT_GT(records[0].nano_neurons, 0);
}

INSTANTIATE_TEST_SUITE_P(Answers, LocalClientGone,
                         testing::Combine(testing::Bool(), testing::Values("", kNoCache)),  // in a flight, and alone
                         [](const auto& info) {
                           return std::string{std::get<0>(info.param) ? "streamed" : "whole"} +
                                  (*std::get<1>(info.param) != '\0' ? "" : "_flight");
                         });

class RemoteClientGone : public testing::TestWithParam<std::tuple<bool, const char*>> {};

TEST_P(RemoteClientGone, ClosesTheUpstreamsSocketWithin100Ms) {
  const auto [stream, gateways] = GetParam();
  std::promise<void> asked;
  std::promise<Clock::time_point> closed;
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    if (stream) socket.send(kStreamHead + chunk(delta("one")));
    asked.set_value();
    socket.wait_closed(5s);
    closed.set_value(Clock::now());
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + gateways);
  RawSocket client = gateway.connect();
  client.send(
      RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body(stream ? "\"stream\":true," : "")));
  asked.get_future().wait();
  if (stream) client.read_until("one");
  const auto left = Clock::now();
  client.close();
  EXPECT_LT(closed.get_future().get() - left, kGoneWithin);
  const auto records = gateway.records();
  ASSERT_EQ(records.size(), 1U);
  EXPECT_EQ(records[0].outcome, Outcome::cancelled);
  EXPECT_EQ(records[0].nano_neurons > 0, stream) << "billed is what was produced, if anything was";
}

INSTANTIATE_TEST_SUITE_P(Answers, RemoteClientGone, testing::Combine(testing::Bool(), testing::Values("", kNoCache)),
                         [](const auto& info) {
                           return std::string{std::get<0>(info.param) ? "streamed" : "whole"} +
                                  (*std::get<1>(info.param) != '\0' ? "" : "_flight");
                         });

TEST(Ending, NeuronsOfAFlightWhoseFirstClientLeftAreCountedLikeTheLedgers) {
  std::promise<void> go_on;
  auto released = go_on.get_future().share();
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    socket.send(kStreamHead + chunk(delta("first")));
    released.wait();
    socket.send(chunk(delta("second") + kFinish + kUsageEvent + kDone) + "0\r\n\r\n");
    self->read_request(socket);
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()));
  const std::string request =
      RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body("\"stream\":true,"));
  RawSocket leader = gateway.connect();
  leader.send(request);
  leader.read_until("first");
  RawSocket follower = gateway.connect();
  follower.send(request);
  follower.read_until("first");
  leader.close();
  wait_until([&] { return gateway.metric("ganglion_requests_cancelled_total", {"client_gone"}) == 1; });
  EXPECT_EQ(gateway.metric("ganglion_neurons_total"), 0) << "nothing is billed yet";
  go_on.set_value();
  EXPECT_NE(follower.read_until("[DONE]").find("second"), std::string::npos);

  const double neurons = gateway.metric("ganglion_neurons_total");
  const double output = gateway.metric("ganglion_tokens_total", {"kind=\"output\""});
  api::NanoNeurons billed = 0;
  std::uint64_t tokens = 0;
  for (const auto& record : gateway.records()) {
    billed += record.nano_neurons;
    tokens += record.units.output_tokens;
  }
  EXPECT_GT(billed, 0);
  EXPECT_DOUBLE_EQ(neurons, static_cast<double>(billed) / 1e9);
  EXPECT_EQ(output, static_cast<double>(tokens));
}

TEST(Ending, AStreamsLastPacketWithoutDataKeepsTheConnection) {
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    while (!self->read_request(socket).empty()) {
      socket.send(kStreamHead + chunk(delta("hi") + kFinish + kUsageEvent + kDone));
      std::this_thread::sleep_for(10ms);  // as a server that ends its body from another task
      socket.send("0\r\n\r\n");
    }
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(body_of(gateway.chat("\"stream\":true,")).ends_with(kDone));
    wait_until([&] { return gateway.metric("ganglion_upstream_connections", {"state=\"idle\""}) == 1; });
  }
  EXPECT_EQ(upstream.accepted(), 1);
}

// It is relayed in pieces, the oldest of which are dropped once its reader has them.
TEST(Ending, AnAnswerOverTheCachesEntryReachesItsClientWhole) {
  std::string large = kAnswer;
  large.replace(large.find("\"hi\""), 4, "\"" + std::string(3 << 20, 'x') + "\"");
  Answering upstream(http_ok(large));
  RunningGateway gateway(provider(upstream->port()) +
                         "gateways: [{name: default, cache: {ttl: 1h}}]\ncache: {max_entry: 64KiB}\n");
  for (int i = 0; i < 2; ++i) {
    const std::string answer = gateway.chat();
    EXPECT_EQ(status_of(answer), 200);
    EXPECT_EQ(body_of(answer), large);
  }
  EXPECT_EQ(upstream->requests().size(), 2U);
}

TEST(Drain, SaysAtItsEndHowManyRequestsItCut) {
  ScriptedUpstream* self = nullptr;
  ScriptedUpstream upstream({[&](RawSocket& socket) {
    self->read_request(socket);
    socket.wait_closed(60s);
  }});
  self = &upstream;
  RunningGateway gateway(provider(upstream.port()) + kNoCache + "shutdown: {drain: 50ms}\n");
  RawSocket first = gateway.connect();
  RawSocket second = gateway.connect();
  for (RawSocket* client : {&first, &second})
    client->send(RunningGateway::request("/v1/chat/completions", RunningGateway::chat_body()));
  wait_until([&] { return upstream.requests().size() == 2; });
  int fds[2] = {-1, -1};
  ASSERT_EQ(::pipe(fds), 0);
  core::set_log_fd(fds[1]);
  core::set_log_level(core::LogLevel::info);
  gateway.stop();
  core::set_log_level(core::LogLevel::off);
  core::set_log_fd(2);
  ::close(fds[1]);
  std::string log(64 * 1024, '\0');
  const ssize_t size = ::read(fds[0], log.data(), log.size());
  ::close(fds[0]);
  log.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  std::istringstream lines(log);
  int told = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.contains("\"drain_window_over\"") && !line.contains("\"stopped\"")) continue;
    ++told;
    EXPECT_TRUE(line.contains("\"cut\":2")) << line;
  }
  EXPECT_EQ(told, 2) << log;
}

}  // namespace
}  // namespace ganglion::test
