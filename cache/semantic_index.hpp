#pragma once
// Which stored answers answer a similar question: nearest neighbours by cosine, inside hard partitions. A partition is
// the hash of tenant, gateway, endpoint, model, policy and everything in the body but the question, so a neighbour in
// another partition is not even looked at. What is found is the key of an answer in the response cache; whether that
// answer still exists is the caller's to check (forget() when it does not).
//
// Small partitions are searched one by one, larger ones through hnswlib's graph (docs/adr/0009-semantic-index.md).
// Bounded in all and per partition; what was asked for longest ago leaves first. Thread-safe, sharded by partition:
// searches run side by side and never wait; one that meets an insertion is `busy`. An insertion takes microseconds,
// into a graph milliseconds: not for a worker's thread.

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/key.hpp"
#include "cache/semantic_options.hpp"
#include "core/clock.hpp"

namespace ganglion::cache {

// One question with its embedding, as asked or as stored.
struct SemanticPoint {
  CacheKey partition;
  std::vector<float> vector;  // any length but zero; normalised here
  std::size_t text_bytes = 0;
  std::uint64_t numbers = 0;      // numbers_of
  std::uint64_t text_digest = 0;  // for the operator's eyes
  std::string text;               // only where texts are shown
  std::optional<StoreKey> name;   // of its answer in the tiers below memory, where there are any
};

struct SemanticMatch {
  CacheKey answer;
  double score = 0;  // cosine
  std::size_t text_bytes = 0;
  std::uint64_t text_digest = 0;
  std::string text;
  std::optional<StoreKey> name;
};

enum class SemanticResult : std::uint8_t {
  hit,        // a stored question is near enough
  too_far,    // the nearest one is below the threshold
  length,     // near enough, but much longer or shorter
  numbers,    // near enough, but with other numbers
  empty,      // nothing is stored in this partition
  gone,       // near enough, but its answer has left the cache
  timed_out,  // the embedding did not come in time
  failed,     // the embedding failed
  busy,       // too many embeddings at once, or the index is being written to
  kCount
};
std::string_view name(SemanticResult result);

struct SemanticLook {
  SemanticResult result = SemanticResult::empty;
  std::optional<SemanticMatch> match;  // hit: the answer; too_far, length, numbers: the nearest that was refused
};

class SemanticIndex {
 public:
  SemanticIndex(const SemanticOptions& options, const core::Clock& clock);
  ~SemanticIndex();
  SemanticIndex(const SemanticIndex&) = delete;
  SemanticIndex& operator=(const SemanticIndex&) = delete;

  // The nearest stored question that the policy lets through.
  SemanticLook look(const SemanticPoint& asked, const SemanticPolicy& policy);
  // `answer`: its key in the response cache, where it stays for `ttl` at most. A second one of the same answer replaces
  // the first.
  void insert(SemanticPoint point, const CacheKey& answer, std::chrono::seconds ttl);
  // Its answer is gone.
  void forget(const CacheKey& partition, const CacheKey& answer);
  void clear();

  std::size_t entries() const { return entries_.load(std::memory_order_relaxed); }
  std::uint64_t evicted() const { return evicted_.load(std::memory_order_relaxed); }

 private:
  struct Partition;
  struct Shard;
  Shard& shard(const CacheKey& partition) const;
  void make_room(Shard& shard);

  const SemanticOptions options_;
  const core::Clock& clock_;
  std::vector<std::unique_ptr<Shard>> shards_;
  std::atomic<std::size_t> entries_{0};
  std::atomic<std::uint64_t> evicted_{0};
  std::atomic<std::uint64_t> tick_{0};  // of uses, for eviction
};

}  // namespace ganglion::cache
