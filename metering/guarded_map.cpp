// See metering/guarded_map.hpp. The handler touches atomics and calls mmap only; a fault elsewhere goes to whoever
// handled SIGBUS before, which by default ends the process as ever.

#include "metering/guarded_map.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>
#include <system_error>

namespace ganglion::metering {
namespace {

struct Guard {
  std::atomic<bool> taken{false};
  std::atomic<std::uintptr_t> begin{0};
  std::atomic<std::uintptr_t> end{0};
  std::atomic<bool> lost{false};
};

constexpr std::size_t kGuardsMax = 64;  // one a ledger; tests open several
std::array<Guard, kGuardsMax> g_guards;
std::uintptr_t g_page = 4096;
struct sigaction g_before;

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const auto at = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (Guard& guard : g_guards) {
    if (at < guard.begin.load(std::memory_order_relaxed) || at >= guard.end.load(std::memory_order_relaxed)) continue;
    guard.lost.store(true, std::memory_order_relaxed);
    const int error = errno;
    void* const page = reinterpret_cast<void*>(at & ~(g_page - 1));  // NOLINT(performance-no-int-to-ptr)
    void* const got = ::mmap(page, g_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    errno = error;
    if (got == page) return;  // the store is made again, and succeeds
  }
  if ((g_before.sa_flags & SA_SIGINFO) != 0 && g_before.sa_sigaction != nullptr) {
    g_before.sa_sigaction(signal, info, context);
    return;
  }
  ::sigaction(signal, &g_before, nullptr);  // the fault comes again and ends the process
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    g_page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    struct sigaction action{};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    ::sigaction(SIGBUS, &action, &g_before);
  });
}

// kGuardsMax: all are taken.
std::size_t take_guard() {
  for (std::size_t i = 0; i < kGuardsMax; ++i)
    if (!g_guards[i].taken.exchange(true)) return i;
  return kGuardsMax;
}

// 0 or an errno.
int fill_with_zeros(int fd, std::size_t bytes) {
  if (::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return errno;
  if (const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes)); error != 0) return error;
  static constexpr std::array<char, 64UL * 1024> kZeros{};
  for (std::size_t at = 0; at < bytes;) {
    const ssize_t wrote = ::pwrite(fd, kZeros.data(), std::min(kZeros.size(), bytes - at), static_cast<off_t>(at));
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return wrote == 0 ? ENOSPC : errno;
    at += static_cast<std::size_t>(wrote);
  }
  return 0;
}

}  // namespace

core::Result<std::unique_ptr<GuardedMap>> GuardedMap::open(const std::string& path, std::size_t bytes) {
  const auto failed = [&](const char* what, int error) {
    return core::fail(core::ErrorKind::ledger_unavailable,
                      what + (" " + path) + ": " + std::system_category().message(error));
  };
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return failed("cannot create", errno);
  int error = fill_with_zeros(fd, bytes);
  void* at = MAP_FAILED;
  if (error == 0) {
    at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED) error = errno;
  }
  ::close(fd);
  if (error != 0) return failed("cannot map", error);
  install_handler();
  const std::size_t guard = take_guard();
  if (guard == kGuardsMax) {
    ::munmap(at, bytes);
    return failed("too many ledgers to map", ENOMEM);
  }
  // Where the limit allows it: pages that stay are never read back from a disk that may have failed.
  static_cast<void>(::mlock(at, bytes));
  g_guards[guard].lost = false;
  g_guards[guard].begin = reinterpret_cast<std::uintptr_t>(at);
  g_guards[guard].end = reinterpret_cast<std::uintptr_t>(at) + bytes;
  return std::unique_ptr<GuardedMap>{new GuardedMap{static_cast<char*>(at), bytes, guard}};
}

GuardedMap::~GuardedMap() {
  ::munmap(data_, bytes_);
  g_guards[guard_].end = 0;
  g_guards[guard_].begin = 0;
  g_guards[guard_].taken = false;
}

bool GuardedMap::lost() const {
  return g_guards[guard_].lost.load(std::memory_order_relaxed);
}

}  // namespace ganglion::metering
