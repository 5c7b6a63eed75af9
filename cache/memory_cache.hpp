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
  std::uint64_t refused_purged = 0;   // asked for before a purge that it falls under
  std::uint64_t stale = 0;            // past their ttl, and handed out by find()
  std::uint64_t purged = 0;
  std::uint64_t entries_now = 0;
  std::uint64_t bytes_now = 0;
};

class PurgeLog;
struct PurgeScope;

// An entry that may be used now: fresh, or as its stale windows allow.
struct Found {
  std::shared_ptr<const Entry> entry;
  Freshness freshness = Freshness::dead;
};

class MemoryCache {
 public:
  // `purges`, where given, outlives the cache: answers that fall under a purge made since they were asked for are
  // refused.
  MemoryCache(const CacheOptions& options, const core::Clock& clock, const PurgeLog* purges = nullptr);
  ~MemoryCache();
  MemoryCache(const MemoryCache&) = delete;
  MemoryCache& operator=(const MemoryCache&) = delete;

  // A fresh entry, or nullptr. `tenant` and `gateway` must be those of the key: an entry that names others is a miss.
  std::shared_ptr<const Entry> lookup(const CacheKey& key, std::string_view tenant, std::string_view gateway);

  // The entry as long as it is of any use, fresh or stale. A stale one counts as neither hit nor miss.
  Found find(const CacheKey& key, std::string_view tenant, std::string_view gateway);

  // The same as lookup() for a caller that has looked before: a second miss is not counted.
  std::shared_ptr<const Entry> lookup_again(const CacheKey& key, std::string_view tenant, std::string_view gateway);

  // Takes the entry if it is a 2xx (or a refusal that is to be kept) with a ttl and fits. Stamped with the time now,
  // unless it has a stamp: then it came from another tier. Replaces one of the same key that is not newer. False if
  // refused.
  bool insert(std::shared_ptr<Entry> entry);

  // The entry in the form that the client asked for; converts on the first such call and charges the bytes to the
  // cache. Error: upstream_protocol, where the recording has no such form: ask the upstream instead.
  core::Result<Rendered> render(const std::shared_ptr<const Entry>& entry, bool as_stream);

  bool erase(const CacheKey& key);
  // Drops what matches and returns how many. Add the purge to the log first.
  std::size_t purge(const PurgeScope& scope);
  void clear();
  MemoryStats stats() const;

 private:
  struct Shard;
  Shard& shard(const CacheKey& key) const;
  Found locate(const CacheKey& key, std::string_view tenant, std::string_view gateway, bool again, bool stale_too);

  const core::Clock& clock_;
  const PurgeLog* purges_;
  std::size_t entry_bytes_max_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace ganglion::cache
