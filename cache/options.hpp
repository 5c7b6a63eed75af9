#pragma once
// Settings of the response cache.

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "cache/semantic_options.hpp"
#include "core/secret.hpp"

namespace ganglion::cache {

// Answers on this machine's disk, found again after a restart.
struct DiskOptions {
  std::string directory;  // "": no disk tier
  std::size_t bytes_max = 4UL * 1024 * 1024 * 1024;
  std::size_t entry_bytes_max = 4UL * 1024 * 1024;
  std::chrono::milliseconds timeout{50};  // a request waits so long at most
};

// Answers in Redis, shared with other gateways.
struct RedisCacheOptions {
  bool enabled = true;  // where a Redis is configured
  std::size_t entry_bytes_max = 1UL * 1024 * 1024;
  std::chrono::milliseconds timeout{25};   // a request waits so long at most
  std::chrono::milliseconds lease{3'000};  // of a call that other gateways wait for; renewed while it runs
  std::chrono::milliseconds wait{10'000};  // for another gateway's call, before making one of our own; 0: never wait
};

struct CacheOptions {
  bool enabled = true;
  std::size_t memory_bytes_max = 256UL * 1024 * 1024;
  std::size_t entry_bytes_max = 4UL * 1024 * 1024;  // larger answers are relayed and not kept
  unsigned shards = 16;
  core::Secret secret;                               // names and seals what other tiers hold
  std::size_t compress_above = 1024;                 // bytes of a body, in other tiers; 0: never
  std::size_t queue_bytes_max = 64UL * 1024 * 1024;  // answers on their way to other tiers
  DiskOptions disk;
  RedisCacheOptions redis;
  SemanticOptions semantic;
};

// A 4xx of the upstream that is kept like an answer.
struct NegativeTtl {
  int status = 404;
  std::chrono::seconds ttl{10};
};

enum class InvalidateOn : unsigned char {
  never,  // beyond what a model's name leads to, which always counts
  policy,
  price,
  policy_and_price,
};

enum class Replay : unsigned char {
  at_once,
  recorded,  // streams that were recorded as such come at the pace they came at
};

// Per gateway: what is cached without being asked for by a request header.
struct CachePolicy {
  std::chrono::seconds ttl{300};    // 0: only requests that carry cf-aig-cache-ttl are cached
  bool keep_only_asked = false;     // true: all requests are looked up, only those that ask by a header are kept
  bool only_deterministic = false;  // true: keep only temperature 0 or seeded requests (and embeddings)
  std::chrono::seconds stale_while_revalidate{0};
  std::chrono::seconds stale_if_error{0};
  std::vector<NegativeTtl> negative;
  InvalidateOn invalidate_on = InvalidateOn::never;
  Replay replay = Replay::at_once;
  SemanticPolicy semantic;
};

}  // namespace ganglion::cache
