// Alerts to a webhook: signed, retried, once a window, across restarts and crashes.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/clock.hpp"
#include "gateway/alert_sender.hpp"
#include "gateway/budget_watch.hpp"
#include "metrics/metrics.hpp"
#include "tests/support/scripted_upstream.hpp"
#include "tests/support/temp_dir.hpp"

namespace ganglion::gateway {
namespace {

using namespace std::chrono_literals;
using test::RawSocket;
using test::ScriptedUpstream;

constexpr const char* kOk = "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n";
constexpr const char* kBusy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
constexpr const char* kBad = "HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n";

// Answers requests in turn; the last answer for all further ones.
struct Hook {
  explicit Hook(std::vector<std::string> answers)
      : upstream({[this, answers](RawSocket& socket) {
          while (!upstream.read_request(socket).empty()) {
            if (!socket.send(answers[std::min(next++, answers.size() - 1)])) return;
          }
        }}) {}
  std::atomic<std::size_t> next{0};
  ScriptedUpstream upstream;
};

struct BudgetAlerts : ::testing::Test {
  metering::BudgetAlert alert(std::uint32_t percent, const std::string& window = "w1") const {
    return {.id = "id-" + std::to_string(percent) + window,
            .series = std::to_string(percent),
            .budget = "acme",
            .percent = percent,
            .limit = 100 * metering::BudgetAmount{metering::kPartsPerNeuron},
            .spent = percent * metering::BudgetAmount{metering::kPartsPerNeuron},
            .at = clock.wall(),
            .window_start = clock.wall()};
  }
  AlertJournal journal() const { return AlertJournal::open(directory / "alerts", clock.wall()).value(); }
  metering::BudgetAlertOptions options(const ScriptedUpstream& upstream) const {
    return {.webhook = upstream.base_url("/hook"),
            .secret = core::Secret{"s3cret"},
            .attempts_max = 4,
            .backoff_base = 5ms};
  }
  // A process: takes the alerts, runs until the queue is empty or `limit` has passed.
  void process(const metering::BudgetAlertOptions& with, const std::vector<metering::BudgetAlert>& alerts,
               std::chrono::milliseconds limit = 3s) {
    boost::asio::io_context io(1);
    AlertSender sender(io, with, journal(), clock, metrics.registry());
    for (const auto& one : alerts) sender.push(one);
    const auto end = std::chrono::steady_clock::now() + limit;
    do {
      io.run_for(10ms);
      io.restart();
    } while (sender.waiting() > 0 && std::chrono::steady_clock::now() < end);
  }
  static std::string header(const std::string& request, const std::string& name) {
    return test::header_of(request, name);
  }

  core::ManualClock clock;
  metrics::Metrics metrics{{}, {}, clock};
  test::TempDir directory;
};

TEST_F(BudgetAlerts, AreSignedAndRetriedUnderOneId) {
  Hook hook({kBusy, kBusy, kOk});
  process(options(hook.upstream), {alert(50)});
  const auto requests = hook.upstream.requests();
  ASSERT_EQ(requests.size(), 3U);
  for (const std::string& request : requests) {
    EXPECT_TRUE(request.starts_with("POST /hook HTTP/1.1\r\n")) << request;
    EXPECT_EQ(header(request, "idempotency-key"), "id-50w1");
    const std::string body = request.substr(request.find("\r\n\r\n") + 4);
    EXPECT_EQ(header(request, "x-ganglion-signature"), alert_signature("s3cret", 1'767'225'600, body));
    EXPECT_NE(body.find("\"budget\":\"acme\",\"percent\":50,\"refusing\":false,\"unit\":\"neurons\",\"limit\":\"100\""),
              std::string::npos)
        << body;
  }
}

// HMAC-SHA-256 of "1.{}" under "key", made with another implementation (Python's hmac).
TEST_F(BudgetAlerts, TheSignatureIsHmacSha256OfTimeAndBody) {
  EXPECT_EQ(alert_signature("key", 1, "{}"), "t=1,v1=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224");
}

TEST_F(BudgetAlerts, ComeOnceAWindowAlsoAfterARestart) {
  Hook hook({kOk});
  process(options(hook.upstream), {alert(50), alert(50), alert(80)});
  process(options(hook.upstream), {alert(50), alert(80)});
  EXPECT_EQ(hook.upstream.requests().size(), 2U);
  process(options(hook.upstream), {alert(50, "w2")});
  EXPECT_EQ(hook.upstream.requests().size(), 3U);
}

TEST_F(BudgetAlerts, OfASlidingWindowComeOnceALength) {
  Hook hook({kOk});
  auto first = alert(50);
  first.window = {.kind = metering::WindowKind::sliding, .length = 1h};
  process(options(hook.upstream), {first});
  clock.advance(59min);
  auto again = alert(50, "later");
  again.window = first.window;
  process(options(hook.upstream), {again});
  EXPECT_EQ(hook.upstream.requests().size(), 1U);
  clock.advance(1min);
  again.at = clock.wall();
  process(options(hook.upstream), {again});
  EXPECT_EQ(hook.upstream.requests().size(), 2U);
}

TEST_F(BudgetAlerts, WhatWasNotSentIsSentAfterARestart) {
  metering::BudgetAlertOptions nobody{
      .webhook = "http://127.0.0.1:1/hook", .secret = core::Secret{"s"}, .backoff_base = 60s};
  process(nobody, {alert(50), alert(80)}, 50ms);
  Hook hook({kOk});
  process(options(hook.upstream), {});
  ASSERT_EQ(hook.upstream.requests().size(), 2U);
  EXPECT_EQ(header(hook.upstream.requests()[0], "idempotency-key"), "id-50w1") << "in their order";
  process(options(hook.upstream), {});
  EXPECT_EQ(hook.upstream.requests().size(), 2U);
}

TEST_F(BudgetAlerts, ARefusalOrTooManyFailuresGiveUpAndDoNotBlockOthers) {
  Hook hook({kBad, kBusy, kBusy, kBusy, kBusy, kOk});
  process(options(hook.upstream), {alert(50), alert(80), alert(100)});
  EXPECT_EQ(hook.upstream.requests().size(), 6U) << "one, four, one";
  EXPECT_NE(metrics.expose().find("ganglion_budget_webhook_calls_total{outcome=\"given_up\"} 2"), std::string::npos);
  EXPECT_NE(metrics.expose().find("ganglion_budget_webhook_calls_total{outcome=\"sent\"} 1"), std::string::npos);
}

TEST_F(BudgetAlerts, TheQueueIsBounded) {
  metering::BudgetAlertOptions nobody{
      .webhook = "http://127.0.0.1:1/hook", .secret = core::Secret{"s"}, .backoff_base = 60s, .queue_max = 2};
  process(nobody, {alert(10), alert(20), alert(30)}, 50ms);
  EXPECT_EQ(journal().pending().size(), 2U);
  EXPECT_NE(metrics.expose().find("ganglion_budget_webhook_calls_total{outcome=\"dropped\"} 1"), std::string::npos);
}

TEST_F(BudgetAlerts, ATornLineOfTheJournalIsDropped) {
  {
    AlertJournal written = journal();
    ASSERT_TRUE(written.raise(alert(50), "{}"));
  }
  std::ofstream(directory / "alerts", std::ios::app) << "{\"id\":\"id-80w1\",\"ser";
  AlertJournal read = journal();
  EXPECT_TRUE(read.raised(alert(50)));
  EXPECT_FALSE(read.raised(alert(80)));
  ASSERT_TRUE(read.raise(alert(80), "{}"));
  EXPECT_EQ(journal().pending().size(), 2U);
}

}  // namespace
}  // namespace ganglion::gateway
