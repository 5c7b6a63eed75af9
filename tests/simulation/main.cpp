// simulation [--seeds FROM:COUNT] [--seed N] [--list FILE] [--lying-disk] [--double-return] [--trace] [--redis] [--log]
// [--record FILE]
// [--batch N]
// [--seconds N] Runs seeds, each batch of them in a process of its own, and says which of them violate the contract.
// Exit code 0: none did.

#include <malloc.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/simulation/run.hpp"

namespace {

constexpr std::uint64_t kTellEvery = 10'000;

struct Options {
  std::uint64_t from = 1, count = 100;
  std::uint64_t batch = 8;  // what killed lives leave in a process is bounded by it
  bool trace = false;
  bool twice = false;  // each seed again, to see that it repeats
  long seconds = 0;
  std::string list;    // a file of seeds, one a line
  std::string record;  // where to write what Redis was asked
  ganglion::sim::RunOptions run;
};

// What a batch says to its parent.
struct Sums {
  std::uint64_t seeds = 0, failed = 0, lives = 0, requests = 0, records = 0, billed = 0, aborted = 0, attempts = 0;
  double simulated_s = 0;
};

Sums sums_of(const ganglion::sim::RunResult& result) {
  return {.seeds = 1,
          .failed = result.violations.empty() ? 0U : 1U,
          .lives = result.lives,
          .requests = result.requests,
          .records = result.records,
          .billed = result.billed,
          .aborted = result.aborted,
          .attempts = result.attempts,
          .simulated_s = result.simulated_s};
}

void add(Sums& to, const Sums& more) {
  to.seeds += more.seeds;
  to.failed += more.failed;
  to.lives += more.lives;
  to.requests += more.requests;
  to.records += more.records;
  to.billed += more.billed;
  to.aborted += more.aborted;
  to.attempts += more.attempts;
  to.simulated_s += more.simulated_s;
}

void report(std::uint64_t seed, const ganglion::sim::RunResult& result, bool trace) {
  for (const std::string& violation : result.violations)
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), violation.c_str());
  if (trace)
    for (const std::string& line : result.trace) std::printf("  %s\n", line.c_str());
  std::fflush(stdout);
}

// Each command: a number of words, then each word behind its size. A 0 ends the seed.
void write_record(const std::string& path, const std::vector<std::vector<std::string>>& commands) {
  std::ofstream out(path, std::ios::binary | std::ios::app);
  for (const auto& words : commands) {
    out << words.size() << '\n';
    for (const std::string& word : words) out << word.size() << '\n' << word << '\n';
  }
  out << "0\n";
}

Sums run_batch(std::uint64_t from, std::uint64_t count, const Options& options) {
  Sums sums;
  for (std::uint64_t seed = from; seed < from + count; ++seed) {
    ::alarm(60);  // of real time: a simulation that does not end says which seed it was
    std::vector<std::vector<std::string>> asked;
    ganglion::sim::RunOptions run = options.run;
    if (!options.record.empty()) run.record = &asked;
    const auto result = ganglion::sim::run_seed(seed, run);
    if (!options.record.empty()) write_record(options.record, asked);
    report(seed, result, options.trace);
    if (options.trace)
      std::printf("digest %016llx\n", static_cast<unsigned long long>(result.digest)), std::fflush(stdout);
    add(sums, sums_of(result));
    if (options.twice) {
      const auto again = ganglion::sim::run_seed(seed, options.run);
      if (again.digest != result.digest) {
        std::printf("seed %llu does not repeat\n", static_cast<unsigned long long>(seed));
        ++sums.failed;
        for (std::size_t i = 0; i < std::min(again.trace.size(), result.trace.size()); ++i) {
          if (again.trace[i] == result.trace[i]) continue;
          std::printf("  first: %s\n  then:  %s\n", result.trace[i].c_str(), again.trace[i].c_str());
          break;
        }
      }
    }
  }
  return sums;
}

// In a child: what a killed life leaves in memory goes with the process.
bool fork_batch(std::uint64_t from, std::uint64_t count, const Options& options, Sums& total) {
  int ends[2];
  if (::pipe(ends) != 0) return false;
  const pid_t child = ::fork();
  if (child == 0) {
    const Sums sums = run_batch(from, count, options);
    const auto wrote = ::write(ends[1], &sums, sizeof sums);
    ::_exit(wrote == sizeof sums ? 0 : 1);
  }
  ::close(ends[1]);
  Sums sums;
  const bool got = ::read(ends[0], &sums, sizeof sums) == sizeof sums;
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (got && status == 0) {
    add(total, sums);
    return true;
  }
  return false;
}

// A batch that died: its seeds one by one.
void find_the_dead(std::uint64_t from, std::uint64_t count, const Options& options, Sums& total) {
  for (std::uint64_t seed = from; seed < from + count; ++seed) {
    if (fork_batch(seed, 1, options, total)) continue;
    std::printf("seed %llu: the simulation crashed or did not end\n", static_cast<unsigned long long>(seed));
    std::fflush(stdout);
    ++total.seeds;
    ++total.failed;
  }
}

void run_list(const Options& options, Sums& total) {
  std::ifstream in(options.list);
  for (std::string line; std::getline(in, line);)
    if (!line.empty() && line.front() != '#')
      find_the_dead(std::strtoull(line.c_str(), nullptr, 10), 1, options, total);
}

Options parse(int argc, char** argv) {
  Options out;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    const auto value = [&] { return i + 1 < argc ? std::string{argv[++i]} : std::string{}; };
    if (name == "--seed") {
      out.from = std::strtoull(value().c_str(), nullptr, 10);
      out.count = 1;
    } else if (name == "--seeds") {
      const std::string range = value();
      out.from = std::strtoull(range.c_str(), nullptr, 10);
      out.count = std::strtoull(range.substr(range.find(':') + 1).c_str(), nullptr, 10);
    } else if (name == "--list") {
      out.list = value();
    } else if (name == "--batch") {
      out.batch = std::strtoull(value().c_str(), nullptr, 10);
    } else if (name == "--seconds") {
      out.seconds = std::strtol(value().c_str(), nullptr, 10);
    } else if (name == "--lying-disk") {
      out.run.lying_disk = true;
    } else if (name == "--double-return") {
      out.run.double_return = true;
    } else if (name == "--log") {
      out.run.log = true;
    } else if (name == "--record") {
      out.record = value();
    } else if (name == "--redis") {
      out.run.redis = true;
    } else if (name == "--trace") {
      out.trace = true;
    } else if (name == "--twice") {
      out.twice = true;
    } else {
      std::fprintf(stderr, "simulation: unknown argument %s\n", name.c_str());
      std::exit(2);
    }
  }
  return out;
}

// One thread runs at a time: on one processor the baton costs a tenth of what it does across two.
void stay_on_one_processor() {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(::sched_getcpu()), &set);
  ::sched_setaffinity(0, sizeof set, &set);
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_CHILDREN, &usage);
  return static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

}  // namespace

int main(int argc, char** argv) {
  // Addresses must not depend on anything but the seed.
  if ((::personality(0xffffffff) & ADDR_NO_RANDOMIZE) == 0 && std::getenv("SIMULATION_AGAIN") == nullptr) {
    ::setenv("SIMULATION_AGAIN", "1", 1);
    ::personality(ADDR_NO_RANDOMIZE);
    ::execv("/proc/self/exe", argv);
  }
  Options options = parse(argc, argv);
  const char* const shm = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
  std::string pid = std::to_string(::getpid());
  pid.insert(0, 10 - pid.size(), '0');  // paths of one length: they are part of what a seed repeats
  options.run.root = std::string{shm} + "/ganglion-simulation-" + pid;
  ::mallopt(M_ARENA_MAX, 1);
  ::mallopt(M_TRIM_THRESHOLD, 256 << 20);  // page faults are a tenth of all otherwise
  ::mallopt(M_MMAP_THRESHOLD, 32 << 20);
  stay_on_one_processor();
  const auto began = std::chrono::steady_clock::now();
  Sums total;
  if (!options.record.empty()) std::filesystem::remove(options.record);
  ganglion::sim::run_seed(0, options.run);  // what a process does once only is behind it then, and its children
  if (!options.list.empty()) run_list(options, total);
  const std::uint64_t end = options.list.empty() ? options.from + options.count : options.from;
  for (std::uint64_t seed = options.from; seed < end; seed += options.batch) {
    const std::uint64_t count = std::min(options.batch, end - seed);
    if (!fork_batch(seed, count, options, total)) find_the_dead(seed, count, options, total);
    if (total.seeds % kTellEvery < count) {
      std::fprintf(stderr, "%llu seeds, %llu violate the contract, %.0f s of CPU time\n",
                   static_cast<unsigned long long>(total.seeds), static_cast<unsigned long long>(total.failed),
                   cpu_seconds());
    }
    if (options.seconds != 0 && std::chrono::steady_clock::now() - began > std::chrono::seconds{options.seconds}) break;
  }
  std::error_code ignored;
  std::filesystem::remove_all(options.run.root, ignored);
  std::printf(
      "seeds %llu to %llu: %llu violate the contract. %llu lives, %llu requests, %llu attempts at providers, %llu "
      "records (%llu billed, "
      "%llu aborted), %.0f s simulated in %.1f s of CPU time\n",
      static_cast<unsigned long long>(options.from), static_cast<unsigned long long>(options.from + total.seeds - 1),
      static_cast<unsigned long long>(total.failed), static_cast<unsigned long long>(total.lives),
      static_cast<unsigned long long>(total.requests), static_cast<unsigned long long>(total.attempts),
      static_cast<unsigned long long>(total.records), static_cast<unsigned long long>(total.billed),
      static_cast<unsigned long long>(total.aborted), total.simulated_s, cpu_seconds());
  return total.failed == 0 ? 0 : 1;
}
