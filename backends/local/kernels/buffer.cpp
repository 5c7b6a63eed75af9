// Anonymous mappings: zeroed by the kernel, page-aligned, given back at once.

#include "backends/local/kernels/buffer.hpp"

#include <sys/mman.h>

namespace ganglion::local {

Buffer::Buffer(std::size_t bytes) {
  if (bytes == 0) return;
  constexpr std::size_t kHuge = std::size_t{2} << 20;
  if (bytes > ~std::size_t{0} - kHuge) return;
  const std::size_t granule = bytes >= kHuge ? kHuge : 4096;
  mapped_ = (bytes + granule - 1) / granule * granule;
  void* mapped = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) {
    mapped_ = 0;
    return;
  }
  if (granule == kHuge) madvise(mapped, mapped_, MADV_HUGEPAGE);  // advice only: refusal costs speed, not meaning
  data_ = mapped;
  size_ = bytes;
}

Buffer::~Buffer() {
  if (data_ != nullptr) munmap(data_, mapped_);
}

}  // namespace ganglion::local
