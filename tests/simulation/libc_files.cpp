// The C library's files, as the simulated machine has them. What lies outside of the simulated disk's folder is the
// real file system's.

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "tests/simulation/disk.hpp"
#include "tests/simulation/net.hpp"

using ganglion::sim::disk;
using ganglion::sim::machine;
using ganglion::sim::net;
using ganglion::sim::next_symbol;

// NOLINTBEGIN(readability-identifier-naming): the C library's names
#define REAL(name)                                                                         \
  ([] {                                                                                    \
    static decltype(&::name) found = nullptr;                                              \
    if (found == nullptr) found = reinterpret_cast<decltype(&::name)>(next_symbol(#name)); \
    return found;                                                                          \
  }())

namespace {

// A point where another thread may go on, or the process may die.
void called() {
  auto* const m = machine();
  m->pass_time(static_cast<ganglion::sim::Nanos>(500 + m->schedule.below(3'000)));
  m->point();
}

// What this process has used of the real machine is no part of a seed.
bool of_real_process(const char* path) {
  return machine() != nullptr && path != nullptr && std::string_view{path}.starts_with("/proc/self/");
}

int open_any(int folder, const char* path, int flags, mode_t mode) {
  if (of_real_process(path)) {
    errno = ENOENT;
    return -1;
  }
  auto* const d = disk();
  const bool ours = d != nullptr && (d->holds(path) || (folder != AT_FDCWD && d->knows(folder)));
  if (!ours) return REAL(openat)(folder, path, flags, mode);
  called();
  const bool there = d->there(path) || ::access(path, F_OK) == 0;
  if (!there && (flags & O_CREAT) != 0 && d->short_of_space()) {
    errno = ENOSPC;
    return -1;
  }
  const int fd = REAL(openat)(folder, path, flags, mode);
  if (fd >= 0) d->opened(fd, path, !there, (flags & O_TRUNC) != 0);
  return fd;
}

int sync_any(int fd, bool data_only) {
  auto* const d = disk();
  if (d == nullptr || !d->knows(fd)) return data_only ? REAL(fdatasync)(fd) : REAL(fsync)(fd);
  return d->sync(fd, false);
}

}  // namespace

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open_any(AT_FDCWD, path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int folder, const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  auto* const d = disk();
  if ((d == nullptr || !d->holds(path)) && !of_real_process(path)) {
    static const auto real = reinterpret_cast<int (*)(int, const char*, int, ...)>(next_symbol("openat"));
    return real(folder, path, flags, mode);
  }
  return open_any(folder, path, flags, mode);
}

FILE* fopen64(const char* path, const char* mode) {
  if (!of_real_process(path)) return REAL(fopen64)(path, mode);
  errno = ENOENT;
  return nullptr;
}

FILE* fopen(const char* path, const char* mode) {
  return fopen64(path, mode);
}

DIR* opendir(const char* path) {
  if (!of_real_process(path)) return REAL(opendir)(path);
  errno = ENOENT;
  return nullptr;
}

int getrusage(__rusage_who_t who, rusage* out) noexcept {
  if (machine() == nullptr) return REAL(getrusage)(who, out);
  *out = {};
  return 0;
}

int close(int fd) {
  if (auto* const n = net(); n != nullptr && n->close(fd)) return 0;
  if (auto* const d = disk()) d->closed(fd);
  return REAL(close)(fd);
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  auto* const d = disk();
  if (d == nullptr || !d->knows(fd)) return REAL(pwrite)(fd, data, size, offset);
  called();
  return d->write(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void* data, size_t size, off64_t offset) {
  return pwrite(fd, data, size, offset);
}

ssize_t write(int fd, const void* data, size_t size) {
  if (auto* const n = net(); n != nullptr && n->knows(fd)) return n->write(fd, data, size);
  auto* const d = disk();
  if (d == nullptr || !d->knows(fd)) return REAL(write)(fd, data, size);
  called();
  const bool append = (::fcntl(fd, F_GETFL) & O_APPEND) != 0;
  const off_t at = ::lseek(fd, 0, append ? SEEK_END : SEEK_CUR);
  const ssize_t wrote = d->write(fd, data, size, at);
  if (wrote > 0) ::lseek(fd, at + wrote, SEEK_SET);
  return wrote;
}

ssize_t read(int fd, void* to, size_t size) {
  if (auto* const n = net(); n != nullptr && n->knows(fd)) return n->read(fd, to, size);
  return REAL(read)(fd, to, size);
}

int fdatasync(int fd) {
  return sync_any(fd, true);
}

int fsync(int fd) {
  return sync_any(fd, false);
}

int ftruncate(int fd, off_t size) noexcept {
  auto* const d = disk();
  if (d == nullptr || !d->knows(fd)) return REAL(ftruncate)(fd, size);
  return d->truncate(fd, size);
}

int ftruncate64(int fd, off64_t size) noexcept {
  return ftruncate(fd, size);
}

int posix_fallocate(int fd, off_t offset, off_t size) {
  auto* const d = disk();
  if (d == nullptr || !d->knows(fd)) return REAL(posix_fallocate)(fd, offset, size);
  called();
  return d->allocate(fd, offset + size);
}

int rename(const char* from, const char* to) noexcept {
  auto* const d = disk();
  if (d == nullptr || !d->holds(from)) return REAL(rename)(from, to);
  d->before_rename(to);
  const int result = REAL(rename)(from, to);
  if (result == 0) d->renamed(from, to);
  return result;
}

int unlink(const char* path) noexcept {
  auto* const d = disk();
  if (d == nullptr || !d->holds(path)) return REAL(unlink)(path);
  const int result = REAL(unlink)(path);
  if (result == 0) d->before_unlink(path);
  return result;
}

int remove(const char* path) noexcept {
  auto* const d = disk();
  struct stat info{};
  if (d == nullptr || !d->holds(path) || (::lstat(path, &info) == 0 && S_ISDIR(info.st_mode)))
    return REAL(remove)(path);
  return unlink(path);
}

int mkdir(const char* path, mode_t mode) noexcept {
  auto* const d = disk();
  const int result = REAL(mkdir)(path, mode);
  if (result == 0 && d != nullptr && d->holds(path)) d->made_folder(path);
  return result;
}

// Record locks are between processes, and here is one.
int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  const bool lock = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
  if (lock && disk() != nullptr && disk()->locks(fd)) return 0;
  static const auto real = reinterpret_cast<int (*)(int, int, ...)>(next_symbol("fcntl64"));
  return real(fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void* const argument = va_arg(arguments, void*);
  va_end(arguments);
  return fcntl(fd, command, argument);
}

// Only costs: nothing is swapped out here.
int mlock(const void* address, size_t size) noexcept {
  return machine() != nullptr ? 0 : REAL(mlock)(address, size);
}

void* mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) noexcept {
  return REAL(mmap)(at, size, protection, machine() != nullptr ? flags & ~MAP_POPULATE : flags, fd, offset);
}

int statvfs(const char* path, struct statvfs* out) noexcept {
  const int result = REAL(statvfs)(path, out);
  auto* const d = disk();
  if (result == 0 && d != nullptr && d->holds(path)) out->f_bavail = d->short_of_space() ? 0 : 1 << 20;
  return result;
}

}  // extern "C"
// NOLINTEND(readability-identifier-naming)
