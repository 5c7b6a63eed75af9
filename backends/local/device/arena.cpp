// First fit over the free parts; a request that fits in none gets a new piece.

#include "backends/local/device/arena.hpp"

#include <algorithm>
#include <string>

#include "backends/local/device/status.hpp"

namespace ganglion::local {

DeviceBuffer::~DeviceBuffer() {
  if (arena_ != nullptr) arena_->give_back(data_, size_);
}

Arena::~Arena() {
  cudaSetDevice(device_);
  for (const auto& [data, size] : pieces_) cudaFree(data);
}

core::Result<DeviceBuffer> Arena::take(std::size_t bytes, std::string_view what) {
  const std::size_t size = std::max((bytes + kAlign - 1) / kAlign * kAlign, kAlign);
  const std::lock_guard lock(mutex_);
  cudaSetDevice(device_);
  auto at = std::find_if(free_.begin(), free_.end(), [&](const auto& part) { return part.second >= size; });
  if (at == free_.end()) {
    const std::size_t piece = std::max(size, kPiece);
    void* data = nullptr;
    if (const auto status = cudaMalloc(&data, piece); status != cudaSuccess) {
      cudaGetLastError();
      return core::fail(core::ErrorKind::overloaded, "the GPU has no memory for " + std::string(what) + " (" +
                                                         std::to_string(bytes >> 20) +
                                                         " MiB): " + cudaGetErrorName(status));
    }
    pieces_.emplace_back(static_cast<char*>(data), piece);
    held_ += piece;
    at = free_.emplace(static_cast<char*>(data), piece).first;
  }
  char* data = at->first;
  const std::size_t left = at->second - size;
  free_.erase(at);
  if (left > 0) free_.emplace(data + size, left);
  DeviceBuffer out(this, data, size);
  // On the legacy default stream, which waits for and is waited for by no other: so wait here.
  auto status = cudaMemsetAsync(data, 0, size, nullptr);
  if (status == cudaSuccess) status = cudaStreamSynchronize(nullptr);
  if (status != cudaSuccess) return std::unexpected(device_error(status, what));
  return out;
}

void Arena::give_back(void* data, std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  auto* begin = static_cast<char*>(data);
  const auto piece = std::find_if(pieces_.begin(), pieces_.end(),
                                  [&](const auto& p) { return begin >= p.first && begin < p.first + p.second; });
  auto at = free_.emplace(begin, bytes).first;
  const auto same_piece = [&](const char* p) { return p >= piece->first && p < piece->first + piece->second; };
  if (auto next = std::next(at);
      next != free_.end() && at->first + at->second == next->first && same_piece(next->first)) {
    at->second += next->second;
    free_.erase(next);
  }
  if (at != free_.begin()) {
    auto previous = std::prev(at);
    if (previous->first + previous->second == at->first && same_piece(previous->first)) {
      previous->second += at->second;
      free_.erase(at);
    }
  }
}

}  // namespace ganglion::local
