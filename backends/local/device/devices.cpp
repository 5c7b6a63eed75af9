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
  if (out.empty()) {
    return core::fail(ErrorKind::unsupported, "no usable GPU: compute capability 8.0 or later is needed");
  }
  return out;
}

Result<int> choose_device(std::string_view setting, std::string& reason) {
  if (setting == "cpu") return -1;
  const auto found = find_devices();
  if (setting == "auto") {
    if (!found) {
      reason = found.error().message;
      return -1;
    }
    return std::max_element(found->begin(), found->end(),
                            [](const auto& a, const auto& b) { return a.free_bytes < b.free_bytes; })
        ->index;
  }
  int index = -1;
  constexpr std::string_view kPrefix = "cuda:";
  const char* end = setting.data() + setting.size();
  if (!setting.starts_with(kPrefix) ||
      std::from_chars(setting.data() + kPrefix.size(), end, index) != std::from_chars_result{end, std::errc{}} ||
      index < 0) {
    return core::fail(ErrorKind::invalid_value,
                      "device must be auto, cpu or cuda:<number>, not \"" + std::string(setting) + "\"", "device");
  }
  if (!found) return std::unexpected(found.error());
  const bool there = std::any_of(found->begin(), found->end(), [&](const auto& d) { return d.index == index; });
  if (!there) {
    return core::fail(ErrorKind::unsupported, "there is no GPU " + std::string(setting) + " here", "device");
  }
  return index;
}

}  // namespace ganglion::local
