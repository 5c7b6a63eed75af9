// See app/memory_watch.hpp.

#include "app/memory_watch.hpp"

#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <charconv>

#include "core/log.hpp"

// Where the program is linked with mimalloc.
extern "C" [[gnu::weak]] void mi_collect(bool force) noexcept;

namespace ganglion::app {
namespace {

constexpr std::chrono::milliseconds kInterval{100};
constexpr unsigned kLooksPerRelief = 10;

}  // namespace

std::uint64_t resident_bytes() {
  // Kept open: there may be no descriptor left when it matters.
  static const int fd = ::open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  char text[128];
  const auto n = fd < 0 ? -1 : ::pread(fd, text, sizeof text, 0);
  if (n <= 0) return 0;
  const char* const end = text + n;
  std::uint64_t pages = 0;
  const auto size = std::from_chars(text, end, pages);
  if (size.ec != std::errc{} || size.ptr == end) return 0;
  if (std::from_chars(size.ptr + 1, end, pages).ec != std::errc{}) return 0;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

void release_free_memory() {
  if (mi_collect != nullptr) {
    mi_collect(true);
  } else {
    ::malloc_trim(0);
  }
}

MemoryWatch::MemoryWatch(boost::asio::io_context& control, ratelimit::Admission& admission,
                         std::function<void()> relieve)
    : timer_(control), admission_(admission), relieve_(std::move(relieve)) {}

void MemoryWatch::look() {
  const std::uint64_t resident = resident_bytes();
  admission_.tell_memory(resident);
  const bool now_short = admission_.short_of_memory(api::Tier::regular);
  if (now_short != short_) {
    core::log(now_short ? core::LogLevel::warn : core::LogLevel::info, now_short ? "short_of_memory" : "memory_ok",
              {{"resident_bytes", resident}});
    looks_ = 0;
  }
  short_ = now_short;
  if (short_ && looks_++ % kLooksPerRelief == 0) {
    release_free_memory();
    relieve_();
  }
  timer_.expires_after(kInterval);
  timer_.async_wait([this](boost::system::error_code error) {
    if (!error) look();
  });
}

}  // namespace ganglion::app
