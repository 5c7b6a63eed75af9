#pragma once
// The memory tier: byte-bounded, sharded by key, evicting by S3-FIFO (Yang et al., SOSP 2023). Chosen because most
// prompts are asked once: a small probation queue (10 % of the bytes) lets one-hit wonders and scans leave without
// touching the main queue, a ghost list of keys brings back what was dropped too early, and a hit only bumps a 2-bit
// counter, with no list surgery under the lock (LRU moves a node, W-TinyLFU also keeps a sketch). Measured against LRU
// in tests; docs/adr/0005-cache-eviction.md. Thread-safe; a lock is held for a hash lookup or an eviction, never for a
// conversion or a free of a body.

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/entry.hpp"
#include "cache/options.hpp"
#include "core/clock.hpp"

namespace ganglion::cache {

struct MemoryStats {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;  // expired ones included
  std::uint64_t expired = 0;
  std::uint64_t inserted = 0;
  std::uint64_t replaced = 0;
  std::uint64_t evicted = 0;
  std::uint64_t refused_size = 0;     // larger than entry_bytes_max or than a shard's share
  std::uint64_t refused_answers = 0;  // not a complete 2xx, or no ttl
  std::uint64_t entries_now = 0;
  std::uint64_t bytes_now = 0;
};

class MemoryCache {
 public:
  MemoryCache(const CacheOptions& options, const core::Clock& clock);
  ~MemoryCache();
  MemoryCache(const MemoryCache&) = delete;
  MemoryCache& operator=(const MemoryCache&) = delete;

  // A fresh entry, or nullptr. `tenant` and `gateway` must be those of the key: an entry that names others is a miss.
  std::shared_ptr<const Entry> lookup(const CacheKey& key, std::string_view tenant, std::string_view gateway);

  // The same for a caller that has looked before: a second miss is not counted.
  std::shared_ptr<const Entry> lookup_again(const CacheKey& key, std::string_view tenant, std::string_view gateway);

  // Takes the entry, stamped with the time now, if it is a 2xx with a ttl and fits; replaces one of the same key.
  // False if refused.
  bool insert(std::shared_ptr<Entry> entry);

  // The entry in the form that the client asked for; converts on the first such call and charges the bytes to the
  // cache. Error: upstream_protocol, where the recording has no such form: ask the upstream instead.
  core::Result<Rendered> render(const std::shared_ptr<const Entry>& entry, bool as_stream);

  bool erase(const CacheKey& key);
  void clear();
  MemoryStats stats() const;

 private:
  struct Shard;
  Shard& shard(const CacheKey& key) const;
  std::shared_ptr<const Entry> find(const CacheKey& key, std::string_view tenant, std::string_view gateway, bool again);

  const core::Clock& clock_;
  std::size_t entry_bytes_max_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace ganglion::cache
