#pragma once
// Settings of Idempotency-Key, as the operator writes them.

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace ganglion::idempotency {

struct IdempotencyOptions {
  std::chrono::seconds ttl{24 * 3600};                    // an answer is repeated for so long
  std::size_t answer_bytes_max = 16 * 1024 * 1024;        // a larger answer is not kept: its key is then refused
  std::uint64_t store_bytes_max = 1024ULL * 1024 * 1024;  // of all answers; past it the oldest are let go
  std::size_t keys_max = 1'000'000;                       // remembered at once; past it new ones get 503
  bool shared = true;                                     // with other gateways, where Redis is configured
};

}  // namespace ganglion::idempotency
