// The look at the machine.

#include "backends/local/device/devices.hpp"

#include <algorithm>
#include <charconv>

#include "backends/local/device/status.hpp"

namespace ganglion::local {

using core::ErrorKind;
using core::Result;

Result<std::vector<DeviceInfo>> find_devices() {
  int count = 0;
  if (const auto status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0) {
    cudaGetLastError();
    return core::fail(ErrorKind::unsupported, std::string("no usable GPU: ") +
                                                  (status == cudaSuccess ? "none found" : cudaGetErrorString(status)));
  }
  std::vector<DeviceInfo> out;
  int current = 0;  // of the caller's thread; looking around does not change it
  if (cudaGetDevice(&current) != cudaSuccess) cudaGetLastError();
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    if (cudaGetDeviceProperties(&properties, i) != cudaSuccess || properties.major < 8) {
      cudaGetLastError();
      continue;
    }
    DeviceInfo info{i,
                    properties.name,
                    properties.major,
                    properties.minor,
                    properties.multiProcessorCount,
                    properties.totalGlobalMem,
                    0};
    std::size_t free = 0, total = 0;
    if (cudaSetDevice(i) == cudaSuccess && cudaMemGetInfo(&free, &total) == cudaSuccess) info.free_bytes = free;
    cudaGetLastError();
    out.push_back(std::move(info));
  }
  if (cudaSetDevice(current) != cudaSuccess) cudaGetLastError();
  if (out.empty()) {
    return core::fail(ErrorKind::unsupported, "no usable GPU: compute capability 8.0 or later is needed");
  }
  return out;
}

Result<std::vector<int>> parse_devices(std::string_view setting) {
  std::vector<int> out;
  if (setting == "cpu") return out;
  const auto malformed = [&] {
    return core::fail(
        ErrorKind::invalid_value,
        "device must be auto, cpu, cuda:<number> or cuda:<number>,<number>..., not \"" + std::string(setting) + "\"",
        "device");
  };
  constexpr std::string_view kPrefix = "cuda:";
  if (!setting.starts_with(kPrefix)) return malformed();
  const char *at = setting.data() + kPrefix.size(), *const end = setting.data() + setting.size();
  for (;;) {
    int index = -1;
    const auto [after, failed] = std::from_chars(at, end, index);
    if (failed != std::errc{} || index < 0 || std::ranges::find(out, index) != out.end()) return malformed();
    out.push_back(index);
    if (after == end) break;
    if (*after != ',') return malformed();
    at = after + 1;
  }
  const auto found = find_devices();
  if (!found) return std::unexpected(found.error());
  for (const int index : out) {
    if (std::ranges::find(*found, index, &DeviceInfo::index) == found->end()) {
      return core::fail(ErrorKind::unsupported, "there is no GPU cuda:" + std::to_string(index) + " here", "device");
    }
  }
  return out;
}

}  // namespace ganglion::local
