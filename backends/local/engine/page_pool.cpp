// A free list, last freed first taken: those pages are likeliest in the cache.

#include "backends/local/engine/page_pool.hpp"

#include <cassert>

namespace ganglion::local {

PagePool::PagePool(std::int32_t pages) : references_(static_cast<std::size_t>(pages), 0) {
  free_.reserve(references_.size());
  for (std::int32_t page = pages - 1; page >= 0; --page) free_.push_back(page);
}

std::optional<std::int32_t> PagePool::take() {
  if (free_.empty()) return std::nullopt;
  const std::int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<std::size_t>(page)] = 1;
  return page;
}

void PagePool::retain(std::int32_t page) {
  assert(references_[static_cast<std::size_t>(page)] > 0);
  ++references_[static_cast<std::size_t>(page)];
}

void PagePool::release(std::int32_t page) {
  assert(references_[static_cast<std::size_t>(page)] > 0);
  if (--references_[static_cast<std::size_t>(page)] == 0) free_.push_back(page);
}

void PagePool::release_all(std::vector<std::int32_t>& pages) {
  for (std::int32_t page : pages) release(page);
  pages.clear();
}

}  // namespace ganglion::local
