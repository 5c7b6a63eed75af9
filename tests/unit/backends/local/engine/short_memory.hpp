#pragma once
// Lets allocations of one thread fail, as they do where memory is short. The whole test program's operator new is in
// short_memory.cpp.

namespace ganglion::local {

// ThreadSanitizer brings an operator new of its own that cannot be replaced.
#if __has_feature(thread_sanitizer)
inline constexpr bool kAllocationsCanFail = false;
#else
inline constexpr bool kAllocationsCanFail = true;
#endif

// Of the calling thread, from now on: so many succeed, then so many fail, then all succeed.
void fail_allocations(int after, int times);
void memory_is_back();          // any thread
int allocations_that_failed();  // since fail_allocations()

// For its life the thread has memory whatever was said: in code that is not what is tested.
class EnoughMemory {
 public:
  EnoughMemory();
  ~EnoughMemory();
  EnoughMemory(const EnoughMemory&) = delete;
  EnoughMemory& operator=(const EnoughMemory&) = delete;
};

}  // namespace ganglion::local
