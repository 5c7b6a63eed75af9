// LD_PRELOAD library: the N-th call of one libc function fails, once or from then on. For tests of what the gateway does
// when the system refuses.
//
//   FAIL_CALL=pwrite|write|writev|fdatasync|fsync|open|rename|malloc|accept4|getaddrinfo|ftruncate|posix_fallocate
//   FAIL_AT=5        which call fails, counted from 1 once the file FAIL_ARMED exists (unset: from the start)
//   FAIL_ERRNO=28    errno of the failure (malloc, also under operator new, and aligned_alloc: always ENOMEM; getaddrinfo: EAI_AGAIN; posix_fallocate returns it)
//   FAIL_STICKY=1    all later calls fail too
//   FAIL_UNMAPPED=1  files below FAIL_PATH cannot be mapped shared, from the start, whatever FAIL_CALL is
//   FAIL_PATH=text   only files whose path holds this text (functions that take a file or a path)
// Writes "fail_nth: CALL N" to FAIL_NOTE, a file, when it strikes first.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *g_call, *g_path, *g_armed, *g_note;
static long g_at;
static int g_errno, g_sticky, g_unmapped;
static atomic_long g_count;
static atomic_int g_is_armed, g_noted;

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);

__attribute__((constructor)) static void set_up(void) {
  real_open = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
  real_write = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  g_path = getenv("FAIL_PATH");
  g_armed = getenv("FAIL_ARMED");
  g_note = getenv("FAIL_NOTE");
  g_at = getenv("FAIL_AT") ? atol(getenv("FAIL_AT")) : 1;
  g_errno = getenv("FAIL_ERRNO") ? atoi(getenv("FAIL_ERRNO")) : EIO;
  g_sticky = getenv("FAIL_STICKY") != NULL;
  g_unmapped = getenv("FAIL_UNMAPPED") != NULL;
  if (!g_armed) atomic_store(&g_is_armed, 1);
  g_call = getenv("FAIL_CALL");  // last: from here on calls are counted
}

static void note(long n) {
  if (!g_note || atomic_exchange(&g_noted, 1)) return;
  char line[64];
  const int size = snprintf(line, sizeof line, "fail_nth: %s %ld\n", g_call, n);
  const int fd = real_open(g_note, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd >= 0) {
    if (real_write(fd, line, (size_t)size) < 0) { /* only a note */
    }
    close(fd);
  }
}

static int strikes(const char *call) {
  if (!g_call || strcmp(g_call, call) != 0) return 0;
  if (!atomic_load(&g_is_armed)) {
    if (access(g_armed, F_OK) != 0) return 0;
    atomic_store(&g_is_armed, 1);
  }
  const long n = atomic_fetch_add(&g_count, 1) + 1;
  const int hit = n == g_at || (g_sticky && n > g_at);
  if (hit) {
    note(n);
    errno = g_errno;
  }
  return hit;
}

static int path_matches(const char *path) {
  return !g_path || (path && strstr(path, g_path));
}

static int fd_matches(int fd) {
  if (!g_path) return 1;
  char link[40], path[512];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return path_matches(path);
}

#define ON_FD(type, name, params, args, fd)                            \
  type name params {                                                   \
    static type(*real) params;                                         \
    if (!real) real = (type(*) params)dlsym(RTLD_NEXT, #name);         \
    if (g_call && !strcmp(g_call, #name) && fd_matches(fd) && strikes(#name)) return -1; \
    return real args;                                                  \
  }

ON_FD(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd)
ON_FD(ssize_t, writev, (int fd, const struct iovec *pieces, int count), (fd, pieces, count), fd)
ON_FD(int, fdatasync, (int fd), (fd), fd)
ON_FD(int, fsync, (int fd), (fd), fd)
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size), fd)

#define ON_PWRITE(name)                                                                              \
  ssize_t name(int fd, const void *data, size_t size, off_t offset) {                               \
    static ssize_t (*real)(int, const void *, size_t, off_t);                                        \
    if (!real) real = (ssize_t(*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, #name);         \
    if (g_call && !strcmp(g_call, "pwrite") && fd_matches(fd) && strikes("pwrite")) return -1;       \
    return real(fd, data, size, offset);                                                             \
  }
ON_PWRITE(pwrite)
ON_PWRITE(pwrite64)

#define ON_OPEN(name)                                                                          \
  int name(const char *path, int flags, ...) {                                                 \
    static int (*real)(const char *, int, ...);                                                \
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);                \
    va_list rest;                                                                              \
    va_start(rest, flags);                                                                     \
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;            \
    va_end(rest);                                                                              \
    if (g_call && !strcmp(g_call, "open") && path_matches(path) && strikes("open")) return -1; \
    return real(path, flags, mode);                                                            \
  }
ON_OPEN(open)
ON_OPEN(open64)

// The call itself: allocators map before dlsym() works.
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  if (g_unmapped && fd >= 0 && (flags & MAP_SHARED) && fd_matches(fd)) {
    errno = ENODEV;
    return MAP_FAILED;
  }
  return (void *)syscall(SYS_mmap, at, size, protection, flags, fd, offset);
}

int rename(const char *from, const char *to) {
  static int (*real)(const char *, const char *);
  if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
  if (path_matches(from) && strikes("rename")) return -1;
  return real(from, to);
}

#define ON_FALLOCATE(name)                                                              \
  int name(int fd, off_t offset, off_t size) {                                          \
    static int (*real)(int, off_t, off_t);                                              \
    if (!real) real = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, #name);              \
    if (g_call && !strcmp(g_call, "posix_fallocate") && fd_matches(fd) && strikes("posix_fallocate")) return g_errno; \
    return real(fd, offset, size);                                                      \
  }
ON_FALLOCATE(posix_fallocate)
ON_FALLOCATE(posix_fallocate64)

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags) {
  static int (*real)(int, struct sockaddr *, socklen_t *, int);
  if (!real) real = (int (*)(int, struct sockaddr *, socklen_t *, int))dlsym(RTLD_NEXT, "accept4");
  if (strikes("accept4")) return -1;
  return real(fd, address, size, flags);
}

int accept(int fd, struct sockaddr *address, socklen_t *size) {
  static int (*real)(int, struct sockaddr *, socklen_t *);
  if (!real) real = (int (*)(int, struct sockaddr *, socklen_t *))dlsym(RTLD_NEXT, "accept");
  if (strikes("accept4")) return -1;
  return real(fd, address, size);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
  static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
  if (!real)
    real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(RTLD_NEXT, "getaddrinfo");
  if (strikes("getaddrinfo")) return EAI_AGAIN;
  return real(host, service, hints, out);
}

// Whichever allocator comes after us: what it gives out is freed by its own free().
extern void *__libc_malloc(size_t size);
void *malloc(size_t size) {
  static void *(*real)(size_t);
  static __thread int resolving;
  if (strikes("malloc")) {
    errno = ENOMEM;
    return NULL;
  }
  if (!real) {
    if (resolving) return __libc_malloc(size);
    resolving = 1;
    real = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    resolving = 0;
  }
  return real(size);
}

// Where Asio keeps coroutines and what waits.
void *aligned_alloc(size_t alignment, size_t size) {
  static void *(*real)(size_t, size_t);
  if (strikes("malloc")) {
    errno = ENOMEM;
    return NULL;
  }
  if (!real) real = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "aligned_alloc");
  return real(alignment, size);
}

// operator new(size_t) and operator new[]: an allocator that brings its own would pass malloc() by.
static void *new_or_throw(size_t size) {
  void *const memory = malloc(size);
  if (!memory) ((void (*)(void))dlsym(RTLD_DEFAULT, "_ZSt17__throw_bad_allocv"))();
  return memory;
}
void *_Znwm(size_t size) { return new_or_throw(size); }
void *_Znam(size_t size) { return new_or_throw(size); }
