#pragma once
// For the waits that a whole thread depends on: where there is no memory to begin one, nothing on the thread can go on.

#include <new>
#include <thread>

namespace ganglion::net {

// Calls `begin` until it does not run out of memory.
template <class Begin>
void retry_for_memory(const Begin& begin) {
  for (;;) {
    try {
      begin();
      return;
    } catch (const std::bad_alloc&) {
      std::this_thread::yield();
    }
  }
}

}  // namespace ganglion::net
