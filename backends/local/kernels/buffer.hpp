#pragma once
// A large, zeroed, 64-byte aligned block of memory for weights, keys and values; huge pages are asked for, since
// streaming weights through 4 KiB pages costs bandwidth.

#include <cstddef>
#include <utility>

namespace ganglion::local {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);  // data() is null when the memory cannot be had or bytes is 0
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer();

  void* data() const { return data_; }
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  std::size_t size() const { return size_; }

 private:
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(mapped_, other.mapped_);
  }
  void* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_ = 0;
};

}  // namespace ganglion::local
