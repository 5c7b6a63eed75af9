// What finding a key costs by how many there are: `bench_key_growth [MAX]`, one JSON line a size up to MAX (1,000,000).

#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "gateway/auth.hpp"

namespace {

// Of this thread: what others do on the machine is not counted.
double cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace ganglion;
  const std::uint64_t most = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1'000'000;
  constexpr std::uint64_t kLooks = 200'000;
  for (std::uint64_t size = 1; size <= most; size *= 10) {
    gateway::GatewayOptions options;
    options.key_pepper = core::Secret{"a-pepper-for-benchmarks-only"};
    for (std::uint64_t i = 0; i < size; ++i) {
      gateway::KeyOptions key;
      key.id = "k" + std::to_string(i);
      key.secret = core::Secret{"sk-" + std::to_string(i)};
      options.keys.push_back(std::move(key));
    }
    double began = cpu_ns();
    const auto ring = std::make_shared<const gateway::KeyRing>(options);
    const double build_ms = (cpu_ns() - began) / 1e6;
    gateway::Authenticator authenticator(ring);
    std::uint64_t random = 88172645463325252ULL;
    std::uint64_t found = 0;
    std::string asked;
    began = cpu_ns();
    for (std::uint64_t i = 0; i < kLooks; ++i) {
      random ^= random << 13;
      random ^= random >> 7;
      random ^= random << 17;
      asked = "Bearer sk-" + std::to_string(random % size);
      found += authenticator.identify(asked) ? 1 : 0;
    }
    const double took_ns = cpu_ns() - began;
    std::printf("{\"keys\": %llu, \"build_ms\": %.1f, \"identify_ns\": %.1f, \"found\": %llu, \"looks\": %llu}\n",
                static_cast<unsigned long long>(size), build_ms, took_ns / static_cast<double>(kLooks),
                static_cast<unsigned long long>(found), static_cast<unsigned long long>(kLooks));
    std::fflush(stdout);
  }
  return 0;
}
