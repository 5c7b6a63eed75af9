// aligned_alloc() for the binary, in front of mimalloc's: Asio asks it for every coroutine frame, with the alignment
// that malloc() gives anyway, and mimalloc's way for any alignment takes four times as many instructions
// (docs/adr/0010-mimalloc.md).

#include <cerrno>
#include <cstddef>
#include <cstdlib>

extern "C" void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept {
  if (alignment <= alignof(std::max_align_t)) return std::malloc(size);  // NOLINT(*-no-malloc): it is an allocator
  void* memory = nullptr;
  const int error = ::posix_memalign(&memory, alignment, size);
  if (error != 0) errno = error;
  return memory;
}
