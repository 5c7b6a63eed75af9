// See cache/semantic_index.hpp.

#include "cache/semantic_index.hpp"

#include <fstream>
#include <iostream>
#include <list>
#include <queue>
#include <random>
#include <unordered_set>
// hnswlib 0.6.2 reads one link behind the last of a list, for a prefetch whose address it then does not use. Our own
// code in this file, and the headers above, stay instrumented.
#ifdef __clang__
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wignored-attributes"
#pragma clang attribute push(__attribute__((no_sanitize("address"))), apply_to = function)
#endif
#include <hnswlib/hnswlib.h>
#ifdef __clang__
#pragma clang attribute pop
#pragma clang diagnostic pop
#endif

#include <algorithm>
#include <cmath>
#include <deque>
#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <utility>

namespace ganglion::cache {
namespace {

constexpr std::size_t kShardEntriesMin = 1'024;  // fewer than that in all: one shard, so that the cap is exact
constexpr std::size_t kShards = 8;
constexpr std::size_t kCandidates = 16;  // so that one refused for its length or numbers does not hide the next
constexpr std::size_t kLinks = 16, kEfConstruction = 100, kEf = 64;

// In lanes, so that it becomes vector code without leave to reorder sums.
float dot(const float* a, const float* b, std::size_t n) {
  constexpr std::size_t kLanes = 16;
  float sums[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  float sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (const float lane : sums) sum += lane;
  return sum;
}

// To length one. False: it has none, or is not a number.
bool normalise(std::vector<float>& vector) {
  double square = 0;
  for (const float v : vector) square += static_cast<double>(v) * v;
  if (!(square > 0) || !std::isfinite(square)) return false;
  const auto scale = static_cast<float>(1.0 / std::sqrt(square));
  for (float& v : vector) v *= scale;
  return true;
}

// hnswlib lays an 8-byte label behind 4-byte links and the vector: aligned only if the vector's length is odd. The
// floats added are 0, which changes no product.
constexpr std::size_t padded(std::size_t dimensions) {
  return dimensions | 1U;
}

bool length_differs(std::size_t a, std::size_t b, std::uint32_t percent_max) {
  const std::size_t longer = std::max(a, b), shorter = std::min(a, b);
  return (longer - shorter) * 100 > longer * percent_max;
}

}  // namespace

std::string_view name(SemanticResult result) {
  constexpr std::array<std::string_view, static_cast<std::size_t>(SemanticResult::kCount)> kNames{
      "hit", "too_far", "length", "numbers", "empty", "gone", "timed_out", "failed", "busy"};
  return kNames[static_cast<std::size_t>(result)];
}

struct SemanticIndex::Partition {
  struct Slot {
    bool live = false;
    CacheKey answer;
    std::size_t text_bytes = 0;
    std::uint64_t numbers = 0, text_digest = 0;
    std::string text;
    std::optional<StoreKey> name;
    core::SteadyTime expires;
    std::atomic<std::uint64_t> used{0};
  };
  struct Candidate {
    float score;
    std::size_t slot;
  };

  Partition(std::size_t dimensions, std::size_t least)
      : dims(dimensions), graph_min(least), space(padded(dimensions)) {}

  const float* vector_of(std::size_t slot) const { return vectors.data() + slot * padded(dims); }

  // The nearest live ones, best first. hnswlib hands out vectors that are marked as deleted to nobody.
  std::vector<Candidate> nearest(const float* asked) const {
    std::vector<Candidate> out;
    if (graph) {
      auto found = graph->searchKnn(asked, kCandidates);
      for (; !found.empty(); found.pop()) out.push_back({1.0F - found.top().first, found.top().second});
    } else {
      for (std::size_t i = 0; i < slots.size(); ++i) {
        if (slots[i].live) out.push_back({dot(asked, vector_of(i), padded(dims)), i});
      }
    }
    std::ranges::sort(out, [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    if (out.size() > kCandidates) out.resize(kCandidates);
    return out;
  }

  // Into the graph, which takes over once there are enough; a slot that is used again moves its node.
  void link(std::size_t slot) {
    if (!graph && slots.size() >= graph_min) {
      auto made = std::make_unique<hnswlib::HierarchicalNSW<float>>(&space, 2 * graph_min, kLinks, kEfConstruction);
      made->setEf(kEf);
      for (std::size_t i = 0; i < slots.size(); ++i) {
        made->addPoint(vector_of(i), i);
        if (!slots[i].live) made->markDelete(i);
      }
      graph = std::move(made);
      return;
    }
    if (!graph) return;
    if (slot >= graph->max_elements_) graph->resizeIndex(2 * graph->max_elements_);
    graph->addPoint(vector_of(slot), slot);
  }

  void drop(std::size_t slot) {
    Slot& s = slots[slot];
    by_answer.erase(s.answer);
    s.live = false;
    s.text.clear();
    free.push_back(slot);
    if (graph) graph->markDelete(slot);
  }

  const std::size_t dims, graph_min;
  hnswlib::InnerProductSpace space;
  std::vector<float> vectors;  // one slot after the other
  std::deque<Slot> slots;
  std::vector<std::size_t> free;
  std::unordered_map<CacheKey, std::size_t, CacheKeyHash> by_answer;  // the live ones
  std::unique_ptr<hnswlib::HierarchicalNSW<float>> graph;
};

struct SemanticIndex::Shard {
  mutable std::shared_mutex lock;
  std::unordered_map<CacheKey, std::unique_ptr<Partition>, CacheKeyHash> partitions;
  std::size_t entries = 0;
  std::size_t entries_max = 0;
};

SemanticIndex::SemanticIndex(const SemanticOptions& options, const core::Clock& clock)
    : options_(options), clock_(clock) {
  const std::size_t shards = options.entries_max < kShardEntriesMin ? 1 : kShards;
  for (std::size_t i = 0; i < shards; ++i) {
    shards_.push_back(std::make_unique<Shard>());
    shards_.back()->entries_max = std::max<std::size_t>(options.entries_max / shards, 1);
  }
}

SemanticIndex::~SemanticIndex() = default;

SemanticIndex::Shard& SemanticIndex::shard(const CacheKey& partition) const {
  return *shards_[partition.hash.high % shards_.size()];
}

SemanticLook SemanticIndex::look(const SemanticPoint& asked, const SemanticPolicy& policy) {
  SemanticLook out;
  std::vector<float> vector = asked.vector;
  if (!normalise(vector)) return {.result = SemanticResult::failed, .match = {}};
  const Shard& s = shard(asked.partition);
  const core::SteadyTime now = clock_.steady();
  const std::shared_lock guard(s.lock, std::try_to_lock);
  if (!guard) return {.result = SemanticResult::busy, .match = {}};
  const auto at = s.partitions.find(asked.partition);
  if (at == s.partitions.end() || at->second->dims != vector.size()) return out;
  vector.resize(padded(vector.size()));
  Partition& partition = *at->second;
  for (const auto& [score, slot] : partition.nearest(vector.data())) {
    Partition::Slot& stored = partition.slots[slot];
    if (now >= stored.expires) continue;
    SemanticResult result = SemanticResult::hit;
    if (score < policy.threshold) {
      result = SemanticResult::too_far;
    } else if (length_differs(asked.text_bytes, stored.text_bytes, policy.length_difference_max_percent)) {
      result = SemanticResult::length;
    } else if (policy.same_numbers && asked.numbers != stored.numbers) {
      result = SemanticResult::numbers;
    }
    if (result == SemanticResult::hit || !out.match) {
      out.result = result;
      out.match = {.answer = stored.answer,
                   .score = score,
                   .text_bytes = stored.text_bytes,
                   .text_digest = stored.text_digest,
                   .text = stored.text,
                   .name = stored.name};
    }
    if (result == SemanticResult::hit) stored.used.store(++tick_, std::memory_order_relaxed);
    if (result == SemanticResult::hit || result == SemanticResult::too_far) break;  // the others are farther still
  }
  return out;
}

void SemanticIndex::insert(SemanticPoint point, const CacheKey& answer, std::chrono::seconds ttl) {
  if (!normalise(point.vector)) return;
  forget(point.partition, answer);
  Shard& s = shard(point.partition);
  const std::unique_lock guard(s.lock);
  auto& held = s.partitions[point.partition];
  if (held && held->dims != point.vector.size()) {  // the embedding model was changed
    s.entries -= held->by_answer.size();
    entries_.fetch_sub(held->by_answer.size(), std::memory_order_relaxed);
    held.reset();
  }
  if (!held) held = std::make_unique<Partition>(point.vector.size(), options_.graph_min);
  Partition& partition = *held;
  if (partition.by_answer.size() >= options_.partition_entries_max) {
    std::size_t oldest = partition.slots.size();
    for (std::size_t i = 0; i < partition.slots.size(); ++i) {
      if (!partition.slots[i].live) continue;
      if (oldest == partition.slots.size() || partition.slots[i].used < partition.slots[oldest].used) oldest = i;
    }
    partition.drop(oldest);
    --s.entries;
    entries_.fetch_sub(1, std::memory_order_relaxed);
    evicted_.fetch_add(1, std::memory_order_relaxed);
  }
  point.vector.resize(padded(point.vector.size()));
  std::size_t slot = partition.slots.size();
  if (!partition.free.empty()) {
    slot = partition.free.back();
    partition.free.pop_back();
    std::ranges::copy(point.vector,
                      partition.vectors.begin() + static_cast<std::ptrdiff_t>(slot * padded(partition.dims)));
  } else {
    partition.slots.emplace_back();
    partition.vectors.insert(partition.vectors.end(), point.vector.begin(), point.vector.end());
  }
  Partition::Slot& stored = partition.slots[slot];
  stored.live = true;
  stored.answer = answer;
  stored.text_bytes = point.text_bytes;
  stored.numbers = point.numbers;
  stored.text_digest = point.text_digest;
  stored.text = std::move(point.text);
  stored.name = point.name;
  stored.expires = clock_.steady() + ttl;
  stored.used.store(++tick_, std::memory_order_relaxed);
  partition.by_answer.emplace(answer, slot);
  ++s.entries;
  entries_.fetch_add(1, std::memory_order_relaxed);
  try {
    partition.link(slot);
  } catch (const std::exception&) {  // no memory for the graph: this partition starts anew
    s.entries -= partition.by_answer.size();
    entries_.fetch_sub(partition.by_answer.size(), std::memory_order_relaxed);
    s.partitions.erase(point.partition);
    return;
  }
  if (s.entries > s.entries_max) make_room(s);
}

// Drops what was used longest ago in the shard. The lock is held.
void SemanticIndex::make_room(Shard& s) {
  const core::SteadyTime now = clock_.steady();
  auto victim = s.partitions.end();
  std::size_t victim_slot = 0;
  std::uint64_t oldest = ~std::uint64_t{0};
  for (auto at = s.partitions.begin(); at != s.partitions.end(); ++at) {
    for (std::size_t i = 0; i < at->second->slots.size(); ++i) {
      const Partition::Slot& slot = at->second->slots[i];
      if (!slot.live) continue;
      const std::uint64_t used = now >= slot.expires ? 0 : slot.used.load(std::memory_order_relaxed);
      if (used >= oldest) continue;
      oldest = used;
      victim = at;
      victim_slot = i;
    }
  }
  if (victim == s.partitions.end()) return;
  victim->second->drop(victim_slot);
  if (victim->second->by_answer.empty()) s.partitions.erase(victim);
  --s.entries;
  entries_.fetch_sub(1, std::memory_order_relaxed);
  evicted_.fetch_add(1, std::memory_order_relaxed);
}

void SemanticIndex::forget(const CacheKey& partition, const CacheKey& answer) {
  Shard& s = shard(partition);
  const std::unique_lock guard(s.lock);
  const auto at = s.partitions.find(partition);
  if (at == s.partitions.end()) return;
  const auto found = at->second->by_answer.find(answer);
  if (found == at->second->by_answer.end()) return;
  at->second->drop(found->second);
  if (at->second->by_answer.empty()) s.partitions.erase(at);
  --s.entries;
  entries_.fetch_sub(1, std::memory_order_relaxed);
}

void SemanticIndex::clear() {
  for (const auto& s : shards_) {
    const std::unique_lock guard(s->lock);
    s->partitions.clear();
    entries_.fetch_sub(std::exchange(s->entries, 0), std::memory_order_relaxed);
  }
}

}  // namespace ganglion::cache
