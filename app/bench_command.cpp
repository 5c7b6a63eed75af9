// `ganglion bench`: a mock upstream, a load generator and reports of what it measured, against any gateway.

#include <netdb.h>

#include <unistd.h>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>

#include "app/args.hpp"
#include "app/commands.hpp"
#include "bench/load.hpp"
#include "bench/mock_upstream.hpp"
#include "bench/report.hpp"

namespace ganglion::app {
namespace {

int usage_error(std::string_view problem) {
  std::cerr << "ganglion bench: " << problem << "\n";
  return 2;
}

// Numbers of options; the first that is none is remembered.
class Numbers {
 public:
  explicit Numbers(const Args& args) : args_(args) {}

  template <class Number>
  Number get(std::string_view name, Number fallback, Number low, Number high) {
    if (!args_.has(name)) return fallback;
    const std::string text = args_.get(name);
    Number value{};
    const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failed == std::errc{} && end == text.data() + text.size() && value >= low && value <= high) return value;
    std::ostringstream what;
    what << "--" << name << " must be a number from " << low << " to " << high << ", not '" << text << "'";
    if (problem.empty()) problem = what.str();
    return fallback;
  }
  std::string problem;

 private:
  const Args& args_;
};

int mock(const Words& words) {
  const auto args = Args::parse(
      words, {.with_value = {"port", "delay-ms", "answer-bytes", "deltas", "gap-ms", "journal"}, .flags = {"stdin"}});
  if (!args) return usage_error("mock: " + args.error());
  Numbers numbers(*args);
  const bench::MockOptions options{.port = numbers.get("port", 0, 0, 65'535),
                                   .delay_ms = numbers.get<std::int64_t>("delay-ms", 0, 0, 600'000),
                                   .answer_bytes = numbers.get<std::size_t>("answer-bytes", 500, 0, 100'000'000),
                                   .deltas = numbers.get("deltas", 64, 1, 1'000'000),
                                   .gap_ms = numbers.get<std::int64_t>("gap-ms", 20, 0, 600'000),
                                   .journal = args->get("journal"),
                                   .until_stdin_closes = args->has("stdin")};
  if (!numbers.problem.empty()) return usage_error("mock: " + numbers.problem);
  bench::run_mock(options);
  return 0;
}

// http://host[:port][/path] into the options; the problem, if there is one.
std::string set_target(bench::LoadOptions& options, std::string url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return "--url must begin with http:// (the load is plain HTTP)";
  url.erase(0, kScheme.size());
  if (const std::size_t slash = url.find('/'); slash != std::string::npos) {
    options.path = url.substr(slash);
    url.resize(slash);
  }
  options.authority = url;
  std::string port = "80";
  std::string host = url;
  if (const std::size_t colon = url.rfind(':');
      colon != std::string::npos && url.find(']', colon) == std::string::npos) {
    port = url.substr(colon + 1);
    host.resize(colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int failed = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); failed != 0)
    return "cannot resolve " + url + ": " + ::gai_strerror(failed);
  std::memcpy(&options.address, found->ai_addr, found->ai_addrlen);
  options.address_size = found->ai_addrlen;
  ::freeaddrinfo(found);
  return {};
}

// User and system time of a process and its children, in seconds; nothing where there is no such process.
std::optional<double> cpu_seconds(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;  // state ... cmajflt
  double user = 0;
  double system = 0;
  fields >> user >> system;
  double total = (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  std::error_code error;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + pid + "/task", error)) {
    std::ifstream children(task.path() / "children");
    for (std::string child; children >> child;) total += cpu_seconds(child).value_or(0);
  }
  return total;
}

int load(const Words& words) {
  const auto args =
      Args::parse(words, {.with_value = {"url", "port", "path", "key", "header", "model", "connections", "seconds",
                                         "rate", "count", "body-bytes", "max-tokens", "name", "pid", "out"},
                          .flags = {"stream", "unique", "json"}});
  if (!args) return usage_error("load: " + args.error());
  Numbers numbers(*args);
  bench::LoadOptions options;
  options.key = args->get("key", options.key);
  options.header = args->get("header");
  options.model = args->get("model", options.model);
  options.connections = numbers.get<std::size_t>("connections", 32, 1, 100'000);
  options.seconds = numbers.get("seconds", 5.0, 0.001, 86'400.0);
  options.rate = numbers.get("rate", 0.0, 0.0, 10'000'000.0);
  options.count = numbers.get<std::int64_t>("count", 0, 0, 1'000'000'000'000);
  options.body_bytes = numbers.get<std::size_t>("body-bytes", 1'100, 0, 100'000'000);
  options.max_tokens = numbers.get<std::int64_t>("max-tokens", 0, 0, 1'000'000'000);
  options.stream = args->has("stream");
  options.unique = args->has("unique");
  const int port = numbers.get("port", 8080, 1, 65'535);
  if (!numbers.problem.empty()) return usage_error("load: " + numbers.problem);
  if (args->has("url") && args->has("port")) return usage_error("load: say --url or --port, not both");
  const std::string url = args->get("url", "http://127.0.0.1:" + std::to_string(port) + options.path);
  if (const std::string problem = set_target(options, url); !problem.empty()) return usage_error("load: " + problem);
  options.path = args->get("path", options.path);
  const std::string pid = args->get("pid");
  const auto before = pid.empty() ? std::nullopt : cpu_seconds(pid);
  if (!pid.empty() && !before) return usage_error("load: no process " + pid);
  const auto result = bench::run_load(options);
  if (!result) {
    std::cerr << "ganglion bench load: " << result.error() << "\n";
    return 1;
  }
  bench::RunFacts facts{.name = args->get("name", options.authority)};
  if (const auto after = before ? cpu_seconds(pid) : std::nullopt; after && result->answered > 0)
    facts.cpu_us_per_request = (*after - *before) * 1e6 / static_cast<double>(result->answered);
  const std::string json = bench::to_json(options, *result, facts);
  if (args->has("out") && !(std::ofstream(args->get("out")) << json << "\n")) {
    std::cerr << "ganglion bench load: cannot write " << args->get("out") << "\n";
    return 1;
  }
  std::cout << (args->has("json") ? json + "\n" : bench::to_text(options, *result, facts));
  return result->errors == 0 ? 0 : 1;
}

int report(const Words& words) {
  const auto args = Args::parse(words, {.with_value = {"baseline", "svg", "out"}, .positionals_max = 256});
  if (!args) return usage_error("report: " + args.error());
  if (args->positionals().empty()) return usage_error("report: name the files that `ganglion bench load --out` wrote");
  std::vector<std::string> runs;
  for (const std::string& name : args->positionals()) {
    std::ifstream file(name);
    if (!file) return usage_error("report: cannot read " + name);
    runs.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  const std::string svg = args->get("svg");
  const auto made = bench::make_report(runs, args->get("baseline"), std::filesystem::path(svg).filename().string());
  if (!made) return usage_error("report: " + made.error());
  for (const auto& [name, text] : {std::pair{svg, &made->svg}, {args->get("out"), &made->markdown}}) {
    if (name.empty() || std::ofstream(name) << *text) continue;
    std::cerr << "ganglion bench report: cannot write " << name << "\n";
    return 1;
  }
  if (!args->has("out")) std::cout << made->markdown;
  return 0;
}

}  // namespace

int bench_command(const Words& words) {
  const std::string what = words.empty() ? "" : words.front();
  const Words rest(words.empty() ? words.end() : words.begin() + 1, words.end());
  if (what == "mock") return mock(rest);
  if (what == "load") return load(rest);
  if (what == "report") return report(rest);
  return usage_error("say mock, load or report");
}

}  // namespace ganglion::app
