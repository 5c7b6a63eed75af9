#pragma once
// What a reloaded file changes in a running process, and what waits for a restart. A reload never takes a model away
// that runs on, nor what belongs to it: its prices, limits, budgets and keys, which the file cannot name any more.

#include <chrono>
#include <expected>
#include <string>
#include <vector>

#include "config/config.hpp"
#include "config/diagnostic.hpp"

namespace ganglion::config {

struct InForce {
  Config config;                           // the file, with what stays until a restart put back into it
  std::vector<std::string> needs_restart;  // key paths that keep the value of the start
  std::vector<std::string> until_restart;  // what that means for models, a sentence each
};

// Puts the values of all keys marked *restart* in `started` into `loaded`.
void keep_restart_only(const Config& started, Config& loaded);

// What is in force once a process that began with `started`, and has `now` in force, has taken `file`. `time`: since
// 1970-01-01 UTC, for dated prices. Error: a model that providers serve now would be gone until a restart.
std::expected<InForce, Diagnostic> in_force(const Config& started, const Config& now, const Config& file,
                                            std::chrono::microseconds time);

}  // namespace ganglion::config
