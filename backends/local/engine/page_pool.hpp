#pragma once
// Which pages of the KV store are in use, and by how many. Counts references so that sequences with a common prefix
// can share pages. Engine thread only.

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace ganglion::local {

// Room in a page table before pages are taken for it: one that is taken and cannot be noted would be lost.
inline void widen_table(std::vector<std::int32_t>& pages, std::size_t wanted) {
  if (pages.capacity() < wanted) pages.reserve(std::max(wanted, 2 * pages.capacity()));
}

class PagePool {
 public:
  explicit PagePool(std::int32_t pages);

  std::optional<std::int32_t> take();  // a page with one reference; nullopt when none is free
  void retain(std::int32_t page);
  void release(std::int32_t page);  // free again when the last reference goes
  void release_all(std::vector<std::int32_t>& pages);

  int references(std::int32_t page) const { return references_[static_cast<std::size_t>(page)]; }

  std::int32_t total() const { return static_cast<std::int32_t>(references_.size()); }
  std::int32_t free() const { return static_cast<std::int32_t>(free_.size()); }
  std::int32_t used() const { return total() - free(); }

 private:
  std::vector<std::int32_t> references_;
  std::vector<std::int32_t> free_;
};

}  // namespace ganglion::local
