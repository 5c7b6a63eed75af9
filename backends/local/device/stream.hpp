#pragma once
// Owners of the CUDA objects that an engine drives its device with: stream, event, pinned host memory, captured graph.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>

#include "backends/local/device/status.hpp"

namespace ganglion::local {

// A CUDA handle that is destroyed with its owner.
template <class Handle, cudaError_t (*Destroy)(Handle)>
class DeviceHandle {
 public:
  DeviceHandle() = default;
  explicit DeviceHandle(Handle handle) : handle_(handle) {}
  DeviceHandle(DeviceHandle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  DeviceHandle& operator=(DeviceHandle&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~DeviceHandle() {
    if (handle_ != nullptr) Destroy(handle_);
  }
  Handle get() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }

 private:
  Handle handle_ = nullptr;
};

using Stream = DeviceHandle<cudaStream_t, cudaStreamDestroy>;
using Event = DeviceHandle<cudaEvent_t, cudaEventDestroy>;
using Graph = DeviceHandle<cudaGraph_t, cudaGraphDestroy>;
using GraphExec = DeviceHandle<cudaGraphExec_t, cudaGraphExecDestroy>;

// Does not wait for the legacy default stream.
inline core::Result<Stream> make_stream() {
  cudaStream_t stream = nullptr;
  if (auto ok = check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream"); !ok) {
    return std::unexpected(ok.error());
  }
  return Stream(stream);
}

// `timed`: can be given to cudaEventElapsedTime. A thread that waits for it sleeps instead of spinning when `sleep`.
inline core::Result<Event> make_event(bool timed, bool sleep) {
  cudaEvent_t event = nullptr;
  const unsigned flags = (timed ? 0u : cudaEventDisableTiming) | (sleep ? cudaEventBlockingSync : 0u);
  if (auto ok = check(cudaEventCreateWithFlags(&event, flags), "making an event"); !ok) {
    return std::unexpected(ok.error());
  }
  return Event(event);
}

// Host memory that the device can copy from and to without a detour.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer&& other) noexcept { swap(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~PinnedBuffer() {
    if (data_ != nullptr) cudaFreeHost(data_);
  }
  static core::Result<PinnedBuffer> make(std::size_t bytes) {
    PinnedBuffer out;
    if (auto ok = check(cudaMallocHost(&out.data_, bytes), "pinning host memory"); !ok) {
      return std::unexpected(ok.error());
    }
    out.size_ = bytes;
    return out;
  }
  char* data() const { return static_cast<char*>(data_); }
  std::size_t size() const { return size_; }

 private:
  void swap(PinnedBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ganglion::local
