#pragma once
// Settings of the response cache.

#include <chrono>
#include <cstddef>

namespace ganglion::cache {

struct CacheOptions {
  bool enabled = true;
  std::size_t memory_bytes_max = 256UL * 1024 * 1024;
  std::size_t entry_bytes_max = 4UL * 1024 * 1024;  // larger answers are relayed and not kept
  unsigned shards = 16;
};

// Per gateway: what is cached without being asked for by a request header.
struct CachePolicy {
  std::chrono::seconds ttl{300};    // 0: only requests that carry cf-aig-cache-ttl are cached
  bool keep_only_asked = false;     // true: all requests are looked up, only those that ask by a header are kept
  bool only_deterministic = false;  // true: keep only temperature 0 or seeded requests (and embeddings)
};

}  // namespace ganglion::cache
