#pragma once
// One seed: a few lives of a gateway on one disk, each ended by an order, by a kill or by a loss of power, then a last
// one without faults, and the oracle's verdict.

#include <cstdint>
#include <string>
#include <vector>

namespace ganglion::sim {

struct RunOptions {
  bool lying_disk = false;     // syncs do nothing: only to see that this is found
  bool double_return = false;  // Redis takes back twice what is returned of a limit: likewise
  bool log = false;            // the product's log, to stderr
  bool redis = false;          // what Redis is asked, in the trace
  std::string root;            // folder for disks
  std::vector<std::vector<std::string>>* record = nullptr;  // of what Redis was asked, with the time in front
};

struct RunResult {
  std::vector<std::string> violations;
  std::vector<std::string> trace;
  std::uint64_t digest = 0;
  std::size_t lives = 0, requests = 0, records = 0, billed = 0, aborted = 0, attempts = 0;
  double simulated_s = 0;
};

RunResult run_seed(std::uint64_t seed, const RunOptions& options);

}  // namespace ganglion::sim
