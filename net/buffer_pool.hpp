#pragma once
// Fixed-size read buffers lent to connections while they read, so that an idle connection holds none. One thread.

#include <cstddef>
#include <memory>
#include <vector>

namespace ganglion::net {

class BufferPool {
 public:
  using Buffer = std::unique_ptr<char[]>;

  BufferPool(std::size_t buffer_bytes, std::size_t kept_max) : buffer_bytes_(buffer_bytes), kept_max_(kept_max) {
    kept_.reserve(kept_max);
  }

  std::size_t buffer_bytes() const { return buffer_bytes_; }
  Buffer take() {
    if (kept_.empty()) return std::make_unique_for_overwrite<char[]>(buffer_bytes_);
    Buffer buffer = std::move(kept_.back());
    kept_.pop_back();
    return buffer;
  }
  void give(Buffer buffer) {
    if (buffer && kept_.size() < kept_max_) kept_.push_back(std::move(buffer));
  }

 private:
  const std::size_t buffer_bytes_;
  const std::size_t kept_max_;
  std::vector<Buffer> kept_;
};

}  // namespace ganglion::net
