// What the request path counts, read back through the exposition.

#include "metrics/worker_metrics.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "metrics/metrics.hpp"

namespace ganglion::metrics {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using testing::HasSubstr;
using testing::Not;

class WorkerMetricsTest : public testing::Test {
 protected:
  Registry registry;
  LabelBounds bounds{2};
  WorkerMetrics worker{registry, bounds};

  static RequestSample good() {
    return {.endpoint = "chat_completions",
            .model = "demo-chat",
            .tenant = "acme",
            .tier = "fast",
            .http_status = 200,
            .cache = CacheOutcome::miss,
            .dispatched = true,
            .duration = milliseconds{20},
            .first_token = milliseconds{4},
            .upstream = milliseconds{19},
            .overhead = microseconds{40},
            .request_body_bytes = 100,
            .response_body_bytes = 900};
  }
  static BillSample bill() {
    return {.input_tokens = 30,
            .cached_input_tokens = 10,
            .output_tokens = 7,
            .usage_estimated = true,
            .nano_neurons = 2'500'000'000};
  }
};

TEST_F(WorkerMetricsTest, CountsEveryFactOfARequest) {
  worker.request_done(good());
  worker.request_done(good());
  const std::string text = registry.expose();
  EXPECT_THAT(text,
              HasSubstr("ganglion_requests_total{endpoint=\"chat_completions\",model=\"demo-chat\",tenant=\"acme\","
                        "tier=\"fast\",code=\"200\",cache=\"miss\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_request_duration_seconds_sum{endpoint=\"chat_completions\",model=\"demo-chat\","
                              "tier=\"fast\"} 0.04\n"));
  EXPECT_THAT(text,
              HasSubstr("ganglion_request_time_to_first_token_seconds_count{model=\"demo-chat\",tier=\"fast\"} 2\n"));
  EXPECT_THAT(
      text,
      HasSubstr("ganglion_request_upstream_seconds_sum{endpoint=\"chat_completions\",model=\"demo-chat\"} 0.038\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "ganglion_request_overhead_seconds_bucket{endpoint=\"chat_completions\",cache=\"miss\",le=\"3e-05\"} 0\n"));
  EXPECT_THAT(
      text,
      HasSubstr(
          "ganglion_request_overhead_seconds_bucket{endpoint=\"chat_completions\",cache=\"miss\",le=\"5e-05\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_request_body_bytes_total{endpoint=\"chat_completions\"} 200\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_response_body_bytes_total{endpoint=\"chat_completions\"} 1800\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_cache_lookups_total{result=\"miss\"} 2\n"));
}

TEST_F(WorkerMetricsTest, ABillIsCountedWhenItSettlesEvenAfterTheWorkersMetricsAreGone) {
  auto gone = std::make_unique<WorkerMetrics>(registry, bounds);
  BillCounters late = gone->bills("acme", "demo-chat", "fast");
  gone.reset();
  late.add(bill());
  worker.bills("acme", "demo-chat", "fast").add(bill());
  const std::string text = registry.expose();
  EXPECT_THAT(
      text, HasSubstr("ganglion_tokens_total{kind=\"input\",tier=\"fast\",model=\"demo-chat\",tenant=\"acme\"} 40\n"));
  EXPECT_THAT(text, HasSubstr("kind=\"cached_input\",tier=\"fast\",model=\"demo-chat\",tenant=\"acme\"} 20\n"));
  EXPECT_THAT(text, HasSubstr("kind=\"output\",tier=\"fast\",model=\"demo-chat\",tenant=\"acme\"} 14\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_neurons_total{tier=\"fast\",model=\"demo-chat\",tenant=\"acme\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_usage_estimated_total{model=\"demo-chat\"} 2\n"));
}

TEST_F(WorkerMetricsTest, RefusalIsRejectedAndUpstreamErrorIsFailed) {
  const core::Error limited = core::make_error(core::ErrorKind::rate_limited);
  const core::Error broken = core::make_error(core::ErrorKind::upstream_closed);
  const core::Error cancelled = core::make_error(core::ErrorKind::cancelled);
  worker.request_done({.endpoint = "chat_completions", .http_status = 429, .error = &limited});
  worker.request_done(
      {.endpoint = "chat_completions", .tier = "regular", .http_status = 502, .dispatched = true, .error = &broken});
  worker.request_done({.endpoint = "chat_completions",
                       .tier = "regular",
                       .dispatched = true,
                       .error = &cancelled,
                       .cancelled = core::CancelReason::client_gone});
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_requests_rejected_total{reason=\"rate_limited\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_requests_failed_total{reason=\"upstream_closed\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_requests_cancelled_total{reason=\"client_gone\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("reason=\"cancelled\"")));
  EXPECT_THAT(text, HasSubstr("model=\"unknown\",tenant=\"unknown\",tier=\"none\",code=\"429\",cache=\"off\"} 1\n"));
}

TEST_F(WorkerMetricsTest, DurationsThatDidNotHappenAreNotObserved) {
  RequestSample sample = good();
  sample.first_token = sample.upstream = std::chrono::nanoseconds{-1};
  worker.request_done(sample);
  const std::string text = registry.expose();
  EXPECT_THAT(text, Not(HasSubstr("ganglion_request_time_to_first_token_seconds")));
  EXPECT_THAT(text, Not(HasSubstr("ganglion_request_upstream_seconds")));
}

TEST_F(WorkerMetricsTest, ModelsPastTheBoundAreOther) {
  for (const char* model : {"a", "b", "c", "d"}) worker.bills("acme", model, "fast").add(bill());
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_usage_estimated_total{model=\"b\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_usage_estimated_total{model=\"other\"} 2\n"));
  EXPECT_THAT(text, Not(HasSubstr("model=\"c\"")));
  EXPECT_EQ(bounds.model.overflows(), 2U);
}

TEST_F(WorkerMetricsTest, TokenGapsSkipTheFirstEvent) {
  TokenGaps gaps = worker.token_gaps("demo-chat");
  const core::SteadyTime start{std::chrono::seconds{5}};
  gaps.on_event(start);
  EXPECT_THAT(registry.expose(), HasSubstr("ganglion_request_inter_token_seconds_count{model=\"demo-chat\"} 0\n"));
  gaps.on_event(start + milliseconds{20});
  gaps.on_event(start + milliseconds{50});
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_request_inter_token_seconds_count{model=\"demo-chat\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_request_inter_token_seconds_sum{model=\"demo-chat\"} 0.05\n"));
}

TEST_F(WorkerMetricsTest, GuardsCountWhileTheyLive) {
  {
    const GaugeGuard connection = worker.connection_opened("proxy");
    GaugeGuard first = worker.request_started();
    const GaugeGuard moved = std::move(first);
    const GaugeGuard second = worker.request_started();
    const std::string text = registry.expose();
    EXPECT_THAT(text, HasSubstr("ganglion_requests_in_flight 2\n"));
    EXPECT_THAT(text, HasSubstr("ganglion_connections{listener=\"proxy\"} 1\n"));
  }
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_requests_in_flight 0\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_connections{listener=\"proxy\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_connections_accepted_total{listener=\"proxy\"} 1\n"));
}

TEST_F(WorkerMetricsTest, LimiterDecisions) {
  worker.admitted();
  worker.limited("key", "requests");
  worker.limited("tenant", "neurons");
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_limiter_admitted_total 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_limiter_limited_total{scope=\"key\",kind=\"requests\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_limiter_limited_total{scope=\"tenant\",kind=\"neurons\"} 1\n"));
}

TEST_F(WorkerMetricsTest, EndpointsPastTheBoundAreOther) {
  for (int i = 0; i < 40; ++i) {
    const std::string endpoint = "endpoint_" + std::to_string(i);
    RequestSample sample = good();
    sample.endpoint = endpoint;
    worker.request_done(sample);
  }
  const std::string text = registry.expose();
  EXPECT_THAT(text, HasSubstr("ganglion_request_body_bytes_total{endpoint=\"endpoint_29\"} 100\n"));
  EXPECT_THAT(text, HasSubstr("ganglion_request_body_bytes_total{endpoint=\"other\"} 1000\n"));
}

TEST(WorkerMetrics, WorkersAreAddedUpWhileScraped) {
  Registry registry;
  LabelBounds bounds{10};
  constexpr int kRequests = 2000;
  const auto serve = [&] {
    WorkerMetrics worker(registry, bounds);
    for (int i = 0; i < kRequests; ++i) {
      const std::string model = "m" + std::to_string(i % 15);
      worker.request_done(
          {.endpoint = "embeddings", .model = model, .tenant = "t", .tier = "regular", .http_status = 200});
    }
  };
  std::thread a(serve);
  std::thread b(serve);
  for (int i = 0; i < 20; ++i) (void)registry.expose();
  a.join();
  b.join();
  double total = 0;
  const std::string text = registry.expose();
  for (std::size_t at = text.find("\nganglion_requests_total{"); at != std::string::npos;
       at = text.find("\nganglion_requests_total{", at + 1)) {
    total += std::stod(text.substr(text.find("} ", at) + 2));
  }
  EXPECT_EQ(total, 2 * kRequests);
}

}  // namespace
}  // namespace ganglion::metrics
