// See short_memory.hpp.

#include "tests/unit/backends/local/engine/short_memory.hpp"

#include <atomic>
#include <cstdlib>
#include <new>

namespace ganglion::local {
namespace {

thread_local bool chosen = false;  // the thread whose allocations fail
thread_local int spared = 0;
std::atomic<int> left{0}, failing{0}, failed{0};

bool fails() noexcept {
  if (!chosen || spared > 0 || failing <= 0) return false;
  if (left > 0) {
    --left;
    return false;
  }
  --failing;
  ++failed;
  return true;
}

}  // namespace

void fail_allocations(int after, int times) {
  chosen = true;
  failed = 0;
  left = after;
  failing = times;
}
void memory_is_back() {
  failing = 0;
}
int allocations_that_failed() {
  return failed;
}

EnoughMemory::EnoughMemory() {
  ++spared;
}
EnoughMemory::~EnoughMemory() {
  --spared;
}

}  // namespace ganglion::local

#if !__has_feature(thread_sanitizer)
void* operator new(std::size_t size) {
  if (!ganglion::local::fails()) {
    if (void* const memory = std::malloc(size > 0 ? size : 1)) return memory;
  }
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
#endif
