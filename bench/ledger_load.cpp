// The ledger under load: requests (intent, durable terminal) per second, latency of the durable terminal, CPU per
// request, and how long recovery of a large ledger takes. Build target: bench_ledger.
//   bench_ledger DIRECTORY [SECONDS]             closed loop with 1, 32 and 256 waiting at a time on two workers
//   bench_ledger DIRECTORY recover GIB           writes GIB of records, then opens and verifies
//   bench_ledger DIRECTORY fill GIB              writes GIB of records into DIRECTORY itself and leaves them there
//   bench_ledger DIRECTORY rollup REQUESTS       sums that many requests of 200 keys up, then asks for a month by key

#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "metering/ledger.hpp"
#include "metering/ledger_keeper.hpp"
#include "metering/ledger_reader.hpp"
#include "metering/usage.hpp"

namespace {

namespace asio = boost::asio;
using namespace ganglion;
using namespace ganglion::metering;
using Clock = std::chrono::steady_clock;

double seconds(Clock::duration d) {
  return std::chrono::duration<double>(d).count();
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto s = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return s(usage.ru_utime) + s(usage.ru_stime);
}

const Subject kSubject{.request_id = "01JD8Q0000000000000000000A",
                       .tenant = "acme",
                       .key_id = "key_4f1c2d",
                       .gateway = "default",
                       .model = "gpt-4o-mini"};

Terminal terminal() {
  static const Attempt kAttempts[] = {{"openai", 200, ""}};
  return {.outcome = Outcome::completed,
          .reason = "stop",
          .units = {.input_tokens = 812, .output_tokens = 164, .requests = 1, .llm_responses = 1},
          .charge = {.nano_neurons = 4'988'000'000,
                     .exact = NeuronParts{4'988'000'000} * kPartsPerNanoNeuron,
                     .schedule = "cloudflare-2026/1"},
          .http_status = 200,
          .latency = std::chrono::milliseconds{431},
          .attempts = kAttempts};
}

std::unique_ptr<Ledger> open(const std::string& directory, LedgerHooks& hooks) {
  static const core::SystemClock kClock;
  auto opened = Ledger::open({.directory = directory}, kClock, hooks);
  if (!opened) {
    std::fprintf(stderr, "%s\n", opened.error().message.c_str());
    std::exit(1);
  }
  return std::move(*opened);
}

asio::awaitable<void> requests(Ledger& ledger, Clock::time_point end, std::vector<double>& us) {
  while (Clock::now() < end) {
    const auto id = ledger.intent(kSubject, "openai");
    if (!id) std::abort();
    const auto start = Clock::now();
    const auto done = co_await ledger.terminal(*id, terminal());
    if (!done) std::abort();
    us.push_back(seconds(Clock::now() - start) * 1e6);
  }
}

void load(const std::string& directory, int waiting, double length) {
  LedgerHooks hooks;
  const auto ledger = open(directory, hooks);
  const int workers = waiting == 1 ? 1 : 2;
  std::vector<std::vector<double>> latencies(static_cast<std::size_t>(workers));
  const double cpu = cpu_seconds();
  const auto commits = ledger->stats().commits;
  const auto start = Clock::now();
  {
    std::vector<std::jthread> threads;
    for (int w = 0; w < workers; ++w) {
      threads.emplace_back([&, w] {
        asio::io_context io{1};
        for (int c = 0; c < waiting / workers; ++c)
          asio::co_spawn(
              io,
              requests(*ledger,
                       start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(length)),
                       latencies[static_cast<std::size_t>(w)]),
              asio::detached);
        io.run();
      });
    }
  }
  const double took = seconds(Clock::now() - start);
  const double used = cpu_seconds() - cpu;
  std::vector<double> all;
  for (const auto& part : latencies) all.insert(all.end(), part.begin(), part.end());
  std::ranges::sort(all);
  const auto at = [&](double q) { return all[static_cast<std::size_t>(q * static_cast<double>(all.size() - 1))]; };
  std::printf(
      "%4d waiting: %9.0f requests/s  %7.0f commits/s  terminal p50 %8.1f  p99 %8.1f  max %9.1f us  cpu %6.2f "
      "us/request\n",
      waiting, static_cast<double>(all.size()) / took, static_cast<double>(ledger->stats().commits - commits) / took,
      at(0.5), at(0.99), all.back(), used / static_cast<double>(all.size()) * 1e6);
}

void append_cost(const std::string& directory) {
  LedgerHooks hooks;
  const auto ledger = open(directory, hooks);
  constexpr int kCount = 20'000;
  const double cpu = cpu_seconds();
  const auto start = Clock::now();
  for (int i = 0; i < kCount; ++i) ledger->terminal_async(*ledger->intent(kSubject, "openai"), terminal());
  std::printf("append only: %.2f us for intent + terminal (%.2f us of CPU with the commit thread)\n",
              seconds(Clock::now() - start) / kCount * 1e6, (cpu_seconds() - cpu) / kCount * 1e6);
}

void fill(const std::string& directory, double gib) {
  LedgerHooks hooks;
  const auto ledger = open(directory, hooks);
  const auto bytes_of = [&] {
    std::uint64_t total = 0;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) total += entry.file_size();
    return static_cast<double>(total);
  };
  while (bytes_of() < gib * 1024 * 1024 * 1024) {
    for (int i = 0; i < 10'000; ++i) {
      const auto id = ledger->intent(kSubject, "openai");
      if (id)
        ledger->terminal_async(*id, terminal());
      else
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    }
    static_cast<void>(ledger->flush());
  }
  for (int i = 0; i < 500; ++i) static_cast<void>(ledger->intent(kSubject, "openai"));  // left open
}

void recovery(const std::string& directory, double gib) {
  fill(directory, gib);
  LedgerHooks hooks;
  auto start = Clock::now();
  const auto ledger = open(directory, hooks);
  const auto& report = ledger->recovery();
  std::printf("open after %.1f GiB: %.3f s (%llu segments, %llu records read, %llu aborted)\n", gib,
              seconds(Clock::now() - start), static_cast<unsigned long long>(report.segments),
              static_cast<unsigned long long>(report.records_scanned),
              static_cast<unsigned long long>(report.intents_aborted));
  start = Clock::now();
  const auto checked = verify(directory);
  std::printf("verify: %.2f s, %llu records, %s\n", seconds(Clock::now() - start),
              checked ? static_cast<unsigned long long>(checked->records) : 0ULL,
              checked && checked->ok ? "ok" : "BAD");
}

void rollup(const std::string& directory, int requests) {
  LedgerHooks hooks;
  static const core::SystemClock kClock;
  const auto ledger = open(directory, hooks);
  for (int i = 0; i < requests; ++i) {
    Subject who = kSubject;
    const std::string key = "key_" + std::to_string(i % 200);
    who.key_id = key;
    const auto id = ledger->intent(who, "openai");
    if (id)
      ledger->terminal_async(*id, terminal());
    else
      std::this_thread::sleep_for(std::chrono::milliseconds{1}), --i;
    if (i % 1000 == 0) static_cast<void>(ledger->flush());
  }
  static_cast<void>(ledger->flush());
  auto start = Clock::now();
  const double cpu = cpu_seconds();
  const auto keeper = LedgerKeeper::open({.directory = directory}, *ledger, kClock);
  if (!keeper || !(*keeper)->run_once()) std::abort();
  const double took = seconds(Clock::now() - start);
  std::printf("summed up: %.0f records/s, %.2f us of CPU a request\n", 2.0 * requests / took,
              (cpu_seconds() - cpu) / requests * 1e6);
  start = Clock::now();
  const auto report = usage(directory, {.by = {UsageKey::key}});
  std::printf("usage by key: %.1f ms, %zu rows\n", seconds(Clock::now() - start) * 1e3,
              report ? report->rows.size() : 0);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string directory = std::string{argc > 1 ? argv[1] : "."} + "/bench_ledger.tmp";
  std::filesystem::remove_all(directory);
  if (argc > 3 && std::string{argv[2]} == "fill") {
    fill(argv[1], std::atof(argv[3]));
    return 0;
  }
  if (argc > 3 && std::string{argv[2]} == "recover") {
    recovery(directory, std::atof(argv[3]));
  } else if (argc > 3 && std::string{argv[2]} == "rollup") {
    rollup(directory, std::atoi(argv[3]));
  } else {
    const double length = argc > 2 ? std::atof(argv[2]) : 3;
    append_cost(directory);
    for (const int waiting : {1, 32, 256}) load(directory, waiting, length);
  }
  std::filesystem::remove_all(directory);
  return 0;
}
