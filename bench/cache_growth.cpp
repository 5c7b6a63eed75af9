// What a look-up in the memory tier costs by how many answers it holds: `bench_cache_growth [MAX]`, one JSON line a
// size up to MAX (10,000,000) small answers. Keys are asked for in an order that no cache of the processor foresees.

#include <time.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "cache/memory_cache.hpp"

namespace {

using namespace ganglion;

cache::CacheKey key_of(std::uint64_t number) {
  const std::string_view bytes{reinterpret_cast<const char*>(&number), sizeof number};
  return {.hash = core::hash128(bytes, 1), .check = core::hash128(bytes, 2), .bytes = 100};
}

std::shared_ptr<cache::Entry> entry_of(std::uint64_t number) {
  auto entry = std::make_shared<cache::Entry>();
  entry->key = key_of(number);
  entry->tenant = "bench";
  entry->gateway = "default";
  entry->model = "gpt-4o-mini";
  entry->body = R"({"choices":[]})";
  entry->ttl = std::chrono::hours{24};
  return entry;
}

// Of this thread: what others do on the machine is not counted.
double cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

double nanoseconds_since(double began, std::uint64_t count) {
  return (cpu_ns() - began) / static_cast<double>(count);
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t most = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 10'000'000;
  constexpr std::uint64_t kLooks = 200'000;
  core::SystemClock clock;
  cache::CacheOptions options;
  options.memory_bytes_max = std::size_t{64} << 30;
  cache::MemoryCache memory(options, clock);
  std::uint64_t filled = 0;
  for (std::uint64_t size = 1; size <= most; size *= 10) {
    const std::uint64_t before = filled;
    auto began = cpu_ns();
    for (; filled < size; ++filled) memory.insert(entry_of(filled));
    const double insert_ns = nanoseconds_since(began, size - before);
    std::uint64_t random = 88172645463325252ULL;
    std::uint64_t found = 0;
    const auto look = [&](std::uint64_t offset) {
      began = cpu_ns();
      for (std::uint64_t i = 0; i < kLooks; ++i) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        found += memory.lookup(key_of(random % size + offset), "bench", "default") != nullptr ? 1 : 0;
      }
      return nanoseconds_since(began, kLooks);
    };
    const double hit_ns = look(0);
    const std::uint64_t hits = std::exchange(found, 0);
    const double miss_ns = look(std::uint64_t{1} << 40);
    std::printf(
        "{\"entries\": %llu, \"insert_ns\": %.1f, \"hit_ns\": %.1f, \"miss_ns\": %.1f, \"hits\": %llu, \"false_hits\": "
        "%llu, \"looks\": %llu}\n",
        static_cast<unsigned long long>(size), insert_ns, hit_ns, miss_ns, static_cast<unsigned long long>(hits),
        static_cast<unsigned long long>(found), static_cast<unsigned long long>(kLooks));
    std::fflush(stdout);
  }
  return 0;
}
