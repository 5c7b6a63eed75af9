// Prints the CPU time of request_done(), of one token gap and of one scrape. Run it from a release build.

#include <time.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "metrics/worker_metrics.hpp"

using namespace ganglion::metrics;

namespace {

// CPU time of this thread: the machine may be busy with other things.
double cpu_ns() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

double ns_each(double start, int count) {
  return (cpu_ns() - start) / count;
}

}  // namespace

int main() {
  Registry registry;
  LabelBounds bounds(200);
  WorkerMetrics worker(registry, bounds);
  std::vector<std::string> models;
  for (int i = 0; i < 20; ++i) models.push_back("model-" + std::to_string(i));
  RequestSample sample{.endpoint = "chat_completions",
                       .tenant = "acme",
                       .tier = "regular",
                       .http_status = 200,
                       .cache = CacheOutcome::miss,
                       .dispatched = true,
                       .request_body_bytes = 1100,
                       .response_body_bytes = 500,
                       .input_tokens = 200,
                       .output_tokens = 50,
                       .nano_neurons = 123'456'789};
  sample.duration = std::chrono::milliseconds{30};
  sample.first_token = std::chrono::milliseconds{4};
  sample.upstream = std::chrono::milliseconds{29};
  sample.overhead = std::chrono::microseconds{60};
  constexpr int kRequests = 2'000'000;
  for (int round = 0; round < 3; ++round) {
    const double start = cpu_ns();
    for (int i = 0; i < kRequests; ++i) {
      sample.model = models[static_cast<std::size_t>(i) % models.size()];
      worker.request_done(sample);
    }
    std::printf("request_done  %7.1f ns\n", ns_each(start, kRequests));
  }
  TokenGaps gaps = worker.token_gaps("model-0");
  ganglion::core::SteadyTime now{std::chrono::seconds{1}};
  const double start = cpu_ns();
  for (int i = 0; i < kRequests; ++i) gaps.on_event(now += std::chrono::milliseconds{20});
  std::printf("token gap     %7.1f ns\n", ns_each(start, kRequests));
  const double scrape = cpu_ns();
  const std::size_t bytes = registry.expose().size();
  std::printf("scrape        %7.1f us, %zu bytes\n", ns_each(scrape, 1000), bytes);
}
