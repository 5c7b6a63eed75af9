#pragma once
// Device memory in large pieces from cudaMalloc, given out in aligned parts that return to it. One arena per engine;
// it must outlive its buffers. Loading and the step loop take turns on it, so a lock is enough.

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace ganglion::local {

class Arena;

// Owns its part of an arena.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept { swap(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    DeviceBuffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  ~DeviceBuffer();

  void* data() const { return data_; }
  std::size_t size() const { return size_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  friend class Arena;
  DeviceBuffer(Arena* arena, void* data, std::size_t size) : arena_(arena), data_(data), size_(size) {}
  void swap(DeviceBuffer& other) noexcept {
    std::swap(arena_, other.arena_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
  }
  Arena* arena_ = nullptr;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

class Arena {
 public:
  explicit Arena(int device) : device_(device) {}
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Zeroed, aligned to 256 bytes. `what` names the use in the error, which tells how much was asked for.
  core::Result<DeviceBuffer> take(std::size_t bytes, std::string_view what);
  std::size_t held() const { return held_; }  // from cudaMalloc

 private:
  friend class DeviceBuffer;
  void give_back(void* data, std::size_t bytes);

  static constexpr std::size_t kAlign = 256;
  static constexpr std::size_t kPiece = std::size_t{64} << 20;  // smaller requests share pieces of this size

  int device_;
  std::mutex mutex_;
  std::vector<std::pair<char*, std::size_t>> pieces_;
  std::map<char*, std::size_t> free_;  // by address; neighbours of one piece are joined
  std::size_t held_ = 0;
};

}  // namespace ganglion::local
