#pragma once
// The right to run kernels whose blocks wait for each other on a device: one holder a device and process. Two such
// kernels at once could each have some of the multiprocessors and wait for the others for ever. The device belongs to
// the process, so what guards it does too. Any thread.

#include <array>
#include <atomic>
#include <utility>

namespace ganglion::local {

class WholeDeviceRight {
 public:
  WholeDeviceRight() = default;
  // Holds nothing where another one holds it already.
  static WholeDeviceRight take(int device) {
    WholeDeviceRight out;
    if (device < 0 || device >= static_cast<int>(taken().size())) return out;
    bool free = false;
    if (taken()[static_cast<std::size_t>(device)].compare_exchange_strong(free, true)) out.device_ = device;
    return out;
  }
  WholeDeviceRight(WholeDeviceRight&& other) noexcept : device_(std::exchange(other.device_, -1)) {}
  WholeDeviceRight& operator=(WholeDeviceRight&& other) noexcept {
    std::swap(device_, other.device_);
    return *this;
  }
  // What the holder queued must be through.
  ~WholeDeviceRight() {
    if (device_ >= 0) taken()[static_cast<std::size_t>(device_)].store(false);
  }
  explicit operator bool() const { return device_ >= 0; }

 private:
  static std::array<std::atomic<bool>, 64>& taken() {
    static std::array<std::atomic<bool>, 64> devices{};
    return devices;
  }
  int device_ = -1;
};

}  // namespace ganglion::local
