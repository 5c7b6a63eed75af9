#pragma once
// Which GPUs this process can use. Safe to ask on a machine without driver or GPU: the answer is then none, with the
// reason.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local {

struct DeviceInfo {
  int index = 0;
  std::string name;
  int major = 0, minor = 0;  // compute capability
  int multiprocessors = 0;
  std::uint64_t memory_bytes = 0, free_bytes = 0;
};

// unsupported: no driver, no GPU, or none that this build has code for (8.0 and later); the message says which.
core::Result<std::vector<DeviceInfo>> find_devices();

// "cpu" gives none, "cuda:N" the N, "cuda:N,M" both. Errors: invalid_value (another word, or one twice), unsupported (a
// GPU that is not there).
core::Result<std::vector<int>> parse_devices(std::string_view setting);

}  // namespace ganglion::local
