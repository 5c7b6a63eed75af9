// What a durable append costs on this disk, by method: the numbers behind the ledger's choice of preallocated segments,
// pwrite and fdatasync. One thread, one commit at a time (the worst case: no batching). Stand-alone:
//   clang++-19 -O2 -std=c++23 bench/ledger_commit.cpp -o ledger_commit && ./ledger_commit DIRECTORY [COMMITS]

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::size_t kRecord = 400;                  // about what one request appends (intent + terminal)
constexpr std::size_t kSegment = 16UL * 1024 * 1024;  // room for all commits

void check(bool ok, const char* what) {
  if (ok) return;
  std::perror(what);
  std::exit(1);
}

double cpu_us() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto us = [](const timeval& t) { return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_usec); };
  return us(usage.ru_utime) + us(usage.ru_stime);
}

void measure(const char* name, int commits, const std::function<void(int)>& commit) {
  std::vector<double> us(static_cast<std::size_t>(commits));
  const double cpu_before = cpu_us();
  for (int i = 0; i < commits; ++i) {
    const auto start = Clock::now();
    commit(i);
    us[static_cast<std::size_t>(i)] = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  }
  const double cpu = (cpu_us() - cpu_before) / commits;
  std::ranges::sort(us);
  const auto at = [&](double q) { return us[static_cast<std::size_t>(q * (commits - 1))]; };
  std::printf("%-46s p50 %8.1f  p90 %8.1f  p99 %8.1f  max %9.1f us   cpu %6.1f us\n", name, at(0.5), at(0.9), at(0.99),
              at(1.0), cpu);
}

enum class Fill { none, fallocate, zeros };

int make_file(const std::string& path, Fill fill, int flags = 0) {
  unlink(path.c_str());
  int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  check(fd >= 0, "open");
  if (fill != Fill::none) check(posix_fallocate(fd, 0, kSegment) == 0, "posix_fallocate");
  if (fill == Fill::zeros) {
    const std::vector<char> zeros(1UL << 20);
    for (std::size_t at = 0; at < kSegment; at += zeros.size())
      check(pwrite(fd, zeros.data(), zeros.size(), static_cast<off_t>(at)) == static_cast<ssize_t>(zeros.size()),
            "zeros");
  }
  check(fsync(fd) == 0, "fsync");
  if (flags != 0) {
    close(fd);
    fd = open(path.c_str(), O_RDWR | O_CLOEXEC | flags);
    check(fd >= 0, "reopen");
  }
  return fd;
}

void pwrite_sync(const char* name, const std::string& path, int commits, Fill fill, int flags) {
  const int fd = make_file(path, fill, flags);
  const std::string record(kRecord, 'r');
  measure(name, commits, [&](int i) {
    check(pwrite(fd, record.data(), kRecord, static_cast<off_t>(i) * static_cast<off_t>(kRecord)) ==
              static_cast<ssize_t>(kRecord),
          "pwrite");
    if ((flags & O_DSYNC) == 0) check(fdatasync(fd) == 0, "fdatasync");
  });
  close(fd);
}

void direct(const char* name, const std::string& path, int commits) {
  const int fd = make_file(path, Fill::zeros, O_DIRECT | O_DSYNC);
  void* block = nullptr;
  check(posix_memalign(&block, 4096, 4096) == 0, "memalign");
  std::memset(block, 'r', 4096);
  measure(name, commits, [&](int i) {
    const off_t at = static_cast<off_t>(i) * static_cast<off_t>(kRecord) / 4096 * 4096;
    check(pwrite(fd, block, 4096, at) == 4096, "pwrite direct");
  });
  std::free(block);
  close(fd);
}

void mapped(const char* name, const std::string& path, int commits) {
  const int fd = make_file(path, Fill::zeros);
  char* const map = static_cast<char*>(mmap(nullptr, kSegment, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  check(map != MAP_FAILED, "mmap");
  measure(name, commits, [&](int i) {
    std::memset(map + static_cast<std::size_t>(i) * kRecord, 'r', kRecord);
    check(fdatasync(fd) == 0, "fdatasync");
  });
  munmap(map, kSegment);
  close(fd);
}

// The append alone, as a request thread pays it, with a sync every 16 appends (which write-protects mapped pages
// again).
void append_cost(const std::string& path, bool use_map) {
  const int fd = make_file(path, Fill::zeros);
  char* const map = static_cast<char*>(mmap(nullptr, kSegment, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  const std::string record(kRecord, 'r');
  double ns = 0;
  constexpr int kAppends = 16'000;
  for (int i = 0; i < kAppends; ++i) {
    const auto start = Clock::now();
    if (use_map)
      std::memcpy(map + static_cast<std::size_t>(i) * kRecord, record.data(), kRecord);
    else
      check(pwrite(fd, record.data(), kRecord, static_cast<off_t>(i) * static_cast<off_t>(kRecord)) > 0, "pwrite");
    ns += std::chrono::duration<double, std::nano>(Clock::now() - start).count();
    if (i % 16 == 15) check(fdatasync(fd) == 0, "fdatasync");
  }
  std::printf("append only, %-33s mean %8.2f us\n", use_map ? "mmap memcpy" : "pwrite", ns / kAppends / 1000);
  munmap(map, kSegment);
  close(fd);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string path = std::string{argc > 1 ? argv[1] : "."} + "/ledger_commit.tmp";
  const int commits = argc > 2 ? std::atoi(argv[2]) : 2000;
  pwrite_sync("growing file, pwrite + fdatasync", path, commits, Fill::none, 0);
  pwrite_sync("fallocate only, pwrite + fdatasync", path, commits, Fill::fallocate, 0);
  pwrite_sync("fallocate + zeros, pwrite + fdatasync", path, commits, Fill::zeros, 0);
  pwrite_sync("fallocate + zeros, O_DSYNC pwrite", path, commits, Fill::zeros, O_DSYNC);
  mapped("fallocate + zeros, mmap + fdatasync", path, commits);
  direct("fallocate + zeros, O_DIRECT|O_DSYNC 4 KiB", path, commits);
  append_cost(path, false);
  append_cost(path, true);
  unlink(path.c_str());
  return 0;
}
