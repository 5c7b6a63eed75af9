// `ganglion upgrade`: asks the running gateway to be replaced, and says what came of it.

#include <signal.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <thread>

#include "app/application.hpp"
#include "app/args.hpp"
#include "app/commands.hpp"
#include "config/loader.hpp"

namespace ganglion::app {
namespace {

constexpr std::chrono::milliseconds kPoll{10};

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

int failed(const std::string& why) {
  std::cerr << "ganglion upgrade: " << why << "\n";
  return 1;
}

// What /proc says of a process; "" where it does not run.
std::string status_of(const std::string& pid, std::string_view what) {
  std::ifstream in("/proc/" + pid + "/status");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(what)) return line.substr(what.size());
  }
  return {};
}

bool runs(const std::string& pid) {
  const std::string state = pid.empty() ? "" : status_of(pid, "State:");
  return !state.empty() && !state.contains('Z');
}

// Without a handler the signal would end it.
bool handles_upgrades(const std::string& pid) {
  const std::string caught = status_of(pid, "SigCgt:");
  return !caught.empty() && (std::stoull(caught, nullptr, 16) >> (SIGUSR2 - 1) & 1) != 0;
}

// The directory that the words name, or that of their configuration.
std::expected<std::string, std::string> directory_of(const Args& args) {
  if (args.has("dir")) return args.get("dir");
  const auto loaded =
      args.positionals().empty() ? config::embedded_default() : config::load_file(args.positionals().front());
  if (!loaded)
    return std::unexpected("the configuration is wrong, nothing was done:\n" + config::format(loaded.error()));
  return loaded->ledger.directory;
}

}  // namespace

int upgrade_command(const Words& words) {
  const auto args = Args::parse(words, {.with_value = {"dir", "timeout"}, .positionals_max = 1});
  if (!args) {
    failed(args.error() + " (ganglion upgrade [FILE | --dir LEDGER] [--timeout SECONDS])");
    return 2;
  }
  const auto directory = directory_of(*args);
  if (!directory) {
    failed(directory.error());
    return 2;
  }
  const std::string pid = first_line(*directory + "/lock");
  if (!runs(pid)) {
    return failed("no gateway runs on the ledger in " + *directory + "; start one");
  }
  if (!handles_upgrades(pid)) {
    return failed("process " + pid + " cannot be upgraded while it runs (it is of an older version); restart it");
  }
  std::error_code ignored;
  std::filesystem::remove(upgrade_status_path(*directory), ignored);
  if (::kill(static_cast<pid_t>(std::stol(pid)), SIGUSR2) != 0) {
    return failed("cannot signal process " + pid + ": " + std::strerror(errno));
  }
  const auto limit = std::chrono::steady_clock::now() +
                     std::chrono::seconds{std::max(1, std::atoi(args->get("timeout", "600").c_str()))};
  while (std::chrono::steady_clock::now() < limit) {
    const std::string status = first_line(upgrade_status_path(*directory));
    if (status.starts_with("ok ")) {
      std::cout << "process " << status.substr(3) << " serves; process " << pid << " ends when its requests have\n";
      return 0;
    }
    if (status.starts_with("failed ")) return failed(status.substr(7) + " (process " + pid + " goes on serving)");
    if (!runs(pid)) return failed("process " + pid + " ended");
    std::this_thread::sleep_for(kPoll);
  }
  return failed("no news from process " + pid + " in time; its log says more");
}

}  // namespace ganglion::app
