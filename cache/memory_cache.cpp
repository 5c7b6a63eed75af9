// S3-FIFO, one instance a shard; see cache/memory_cache.hpp. Queues are intrusive lists, oldest at the front.

#include "cache/memory_cache.hpp"

#include <algorithm>
#include <list>
#include <unordered_map>
#include <utility>

#include "api/openai_convert.hpp"
#include "api/openai_stream.hpp"
#include "api/sse.hpp"
#include "cache/purge_log.hpp"

namespace ganglion::cache {
namespace {

constexpr std::uint8_t kFrequencyMax = 3;
constexpr std::uint8_t kPromoteAbove = 1;  // a probationer seen more often than this moves to the main queue
constexpr std::size_t kSmallPercent = 10;

// What an entry costs beside its own memory: its node in a list, its slot in the index (two hash nodes and buckets: the
// entry's, and a ghost's once it is gone) and the shared_ptr's control block.
constexpr std::size_t kNodeBytes = 320;

// A shard should hold a few of the largest entries, so a small cache gets fewer shards.
constexpr std::size_t kLargestInShard = 4;

// Where the usage event of a stream lies, if it has one.
api::Span find_usage_event(std::string_view stream) {
  api::SseParser parser;
  api::StreamInspector inspector;
  parser.feed(stream);
  while (true) {
    const auto event = parser.next();
    if (!event || !*event) return {};
    if (inspector.inspect(**event).usage_only) {
      return {.offset = static_cast<std::size_t>((*event)->raw.data() - stream.data()), .length = (*event)->raw.size()};
    }
  }
}

}  // namespace

std::size_t Entry::bytes() const {
  const auto heap = [](const std::string& text) { return text.capacity() > 15 ? text.capacity() + 1 : 0; };
  std::size_t out = sizeof(Entry) + heap(tenant) + heap(gateway) + heap(model) + heap(content_type) + heap(body) +
                    heap(custom_key) + pace.capacity() * sizeof(PaceMark);
  for (const std::string& tag : tags) out += sizeof tag + heap(tag);
  return out;
}

bool Entry::claim_refresh(core::SteadyTime now) const {
  constexpr std::chrono::minutes kOverdue{5};
  core::SteadyTime from = refresh_from_.load(std::memory_order_relaxed);
  return from <= now && refresh_from_.compare_exchange_strong(from, now + kOverdue, std::memory_order_relaxed);
}

void Entry::refresh_failed(core::SteadyTime again) const {
  refresh_from_.store(again, std::memory_order_relaxed);
}

struct MemoryCache::Shard {
  struct Node {
    std::shared_ptr<const Entry> entry;
    std::size_t bytes = 0;  // charged
    std::uint8_t frequency = 0;
    bool in_main = false;
  };
  using Queue = std::list<Node>;
  using Garbage = std::vector<std::shared_ptr<const Entry>>;  // freed after the lock is given back

  mutable std::mutex lock;
  std::unordered_map<CacheKey, Queue::iterator, CacheKeyHash> index;
  Queue small;
  Queue main;
  std::size_t small_bytes = 0;
  std::size_t bytes = 0;
  std::size_t bytes_max = 0;
  // Keys that left probation unseen, oldest first; at most as many as there are entries.
  std::list<CacheKey> ghosts;
  std::unordered_map<CacheKey, std::list<CacheKey>::iterator, CacheKeyHash> ghost_index;
  MemoryStats stats;

  void remove(Queue::iterator node, Garbage& garbage) {
    bytes -= node->bytes;
    if (!node->in_main) small_bytes -= node->bytes;
    index.erase(node->entry->key);
    garbage.push_back(std::move(node->entry));
    (node->in_main ? main : small).erase(node);
  }

  void remember(const CacheKey& key) {
    const auto [it, fresh] = ghost_index.try_emplace(key);
    if (!fresh) return;
    it->second = ghosts.insert(ghosts.end(), key);
    while (ghosts.size() > std::max<std::size_t>(index.size(), 16)) {
      ghost_index.erase(ghosts.front());
      ghosts.pop_front();
    }
  }

  bool forget(const CacheKey& key) {
    const auto it = ghost_index.find(key);
    if (it == ghost_index.end()) return false;
    ghosts.erase(it->second);
    ghost_index.erase(it);
    return true;
  }

  // One step: evicts, promotes or gives a second chance. Each step lowers a counter or takes an entry out of a queue,
  // so a caller's loop ends.
  void step(Garbage& garbage) {
    if (!small.empty() && (main.empty() || small_bytes * 100 >= bytes_max * kSmallPercent)) {
      const auto node = small.begin();
      if (node->frequency > kPromoteAbove) {
        node->frequency = 0;
        node->in_main = true;
        small_bytes -= node->bytes;
        main.splice(main.end(), small, node);
        return;
      }
      const CacheKey key = node->entry->key;
      remove(node, garbage);
      ++stats.evicted;
      remember(key);
      return;
    }
    const auto node = main.begin();
    if (node->frequency > 0) {
      --node->frequency;
      main.splice(main.end(), main, node);
      return;
    }
    remove(node, garbage);
    ++stats.evicted;
  }

  void make_room(std::size_t need, Garbage& garbage) {
    while (bytes + need > bytes_max && !index.empty()) step(garbage);
  }
};

MemoryCache::MemoryCache(const CacheOptions& options, const core::Clock& clock, const PurgeLog* purges)
    : clock_(clock), purges_(purges), entry_bytes_max_(options.entry_bytes_max) {
  const std::size_t fitting = options.memory_bytes_max / std::max<std::size_t>(1, entry_bytes_max_ * kLargestInShard);
  const std::size_t count = std::clamp<std::size_t>(fitting, 1, std::max(1U, options.shards));
  for (std::size_t i = 0; i < count; ++i) {
    shards_.push_back(std::make_unique<Shard>());
    shards_.back()->bytes_max = options.memory_bytes_max / count;
  }
}

MemoryCache::~MemoryCache() = default;

// By other bits than the index inside the shard takes.
MemoryCache::Shard& MemoryCache::shard(const CacheKey& key) const {
  return *shards_[key.hash.high % shards_.size()];
}

std::shared_ptr<const Entry> MemoryCache::lookup(const CacheKey& key, std::string_view tenant,
                                                 std::string_view gateway) {
  return locate(key, tenant, gateway, false, false).entry;
}

std::shared_ptr<const Entry> MemoryCache::lookup_again(const CacheKey& key, std::string_view tenant,
                                                       std::string_view gateway) {
  return locate(key, tenant, gateway, true, false).entry;
}

Found MemoryCache::find(const CacheKey& key, std::string_view tenant, std::string_view gateway) {
  return locate(key, tenant, gateway, false, true);
}

Found MemoryCache::locate(const CacheKey& key, std::string_view tenant, std::string_view gateway, bool again,
                          bool stale_too) {
  const core::SteadyTime now = clock_.steady();
  Shard& s = shard(key);
  Shard::Garbage garbage;
  const std::lock_guard guard{s.lock};
  const auto it = s.index.find(key);
  const bool theirs =
      it != s.index.end() && it->second->entry->tenant == tenant && it->second->entry->gateway == gateway;
  if (!theirs) {
    if (!again) ++s.stats.misses;
    return {};
  }
  Shard::Node& node = *it->second;
  if (const Freshness freshness = node.entry->freshness(now); freshness != Freshness::fresh) [[unlikely]] {
    if (freshness == Freshness::dead) {
      ++s.stats.expired;
      s.remove(it->second, garbage);
    } else if (stale_too) {
      ++s.stats.stale;
      if (node.frequency < kFrequencyMax) ++node.frequency;
      return {.entry = node.entry, .freshness = freshness};
    }
    if (!again) ++s.stats.misses;
    return {};
  }
  ++s.stats.hits;
  if (again && s.stats.misses != 0) --s.stats.misses;  // this request's first look was counted as one
  if (node.frequency < kFrequencyMax) ++node.frequency;
  return {.entry = node.entry, .freshness = Freshness::fresh};
}

bool MemoryCache::insert(std::shared_ptr<Entry> entry) {
  Shard& s = shard(entry->key);
  entry->body.shrink_to_fit();
  if (entry->stored == core::SteadyTime{}) {
    entry->stored = clock_.steady();
    entry->stored_wall = clock_.wall();
  }
  const std::size_t charge = entry->bytes() + kNodeBytes;
  Shard::Garbage garbage;
  const std::lock_guard guard{s.lock};
  if (((entry->status < 200 || entry->status > 299) && !entry->refusal) || entry->ttl.count() <= 0) {
    ++s.stats.refused_answers;
    return false;
  }
  if (entry->body.size() > entry_bytes_max_ || charge > s.bytes_max) {
    ++s.stats.refused_size;
    return false;
  }
  // Under the lock: a purge enters the log before it sweeps this shard, so either we see it or it sees the entry.
  if (purges_ != nullptr && purges_->purged(*entry)) {
    ++s.stats.refused_purged;
    return false;
  }
  std::uint8_t frequency = 0;
  bool to_main = s.forget(entry->key);
  if (const auto it = s.index.find(entry->key); it != s.index.end()) {
    if (it->second->entry->stored > entry->stored) return false;
    // A newer answer to the same question inherits the place that the old one earned.
    frequency = it->second->frequency;
    to_main = it->second->in_main;
    s.remove(it->second, garbage);
    ++s.stats.replaced;
  } else {
    ++s.stats.inserted;
  }
  s.make_room(charge, garbage);
  Shard::Queue& queue = to_main ? s.main : s.small;
  const CacheKey key = entry->key;
  const auto node = queue.insert(
      queue.end(), {.entry = std::move(entry), .bytes = charge, .frequency = frequency, .in_main = to_main});
  s.index.emplace(key, node);
  s.bytes += charge;
  if (!to_main) s.small_bytes += charge;
  return true;
}

core::Result<Rendered> MemoryCache::render(const std::shared_ptr<const Entry>& entry, bool as_stream) {
  const bool recorded_as_stream = entry->recorded_as == RecordedAs::stream;
  if (entry->endpoint == api::Endpoint::embeddings || as_stream == recorded_as_stream || entry->refusal) {
    return Rendered{
        .owner = entry, .content_type = entry->content_type, .body = entry->body, .usage_event = entry->usage_event};
  }
  const std::string_view content_type = as_stream ? "text/event-stream; charset=utf-8" : "application/json";
  std::shared_ptr<const std::string> made;
  std::size_t extra = 0;
  {
    const std::lock_guard guard{entry->other_lock_};
    if (!entry->other_) {
      auto converted = as_stream ? api::stream_from_body(entry->endpoint, entry->body, true)
                                 : api::assemble_from_stream(entry->endpoint, entry->body);
      if (!converted) return std::unexpected(converted.error());
      converted->shrink_to_fit();
      entry->other_ = std::make_shared<const std::string>(*std::move(converted));
      if (as_stream) entry->other_usage_event_ = find_usage_event(*entry->other_);
      extra = sizeof(std::string) + entry->other_->capacity() + 1;
    }
    made = entry->other_;
  }
  if (extra != 0) {
    Shard& s = shard(entry->key);
    Shard::Garbage garbage;
    const std::lock_guard guard{s.lock};
    const auto it = s.index.find(entry->key);
    if (it != s.index.end() && it->second->entry == entry) {
      it->second->bytes += extra;
      s.bytes += extra;
      if (!it->second->in_main) s.small_bytes += extra;
      s.make_room(0, garbage);
    }
  }
  return Rendered{.owner = made, .content_type = content_type, .body = *made, .usage_event = entry->other_usage_event_};
}

bool MemoryCache::erase(const CacheKey& key) {
  Shard& s = shard(key);
  Shard::Garbage garbage;
  const std::lock_guard guard{s.lock};
  const auto it = s.index.find(key);
  if (it == s.index.end()) return false;
  s.remove(it->second, garbage);
  return true;
}

std::size_t MemoryCache::purge(const PurgeScope& scope) {
  std::size_t count = 0;
  for (const auto& each : shards_) {
    Shard::Garbage garbage;
    const std::lock_guard guard{each->lock};
    for (Shard::Queue* queue : {&each->small, &each->main}) {
      for (auto node = queue->begin(); node != queue->end();) {
        const auto next = std::next(node);
        if (scope.matches(*node->entry)) each->remove(node, garbage);
        node = next;
      }
    }
    each->stats.purged += garbage.size();
    count += garbage.size();
  }
  return count;
}

void MemoryCache::clear() {
  for (const auto& each : shards_) {
    Shard::Queue small;
    Shard::Queue main;
    const std::lock_guard guard{each->lock};
    small.swap(each->small);
    main.swap(each->main);
    each->index.clear();
    each->ghosts.clear();
    each->ghost_index.clear();
    each->bytes = 0;
    each->small_bytes = 0;
  }
}

MemoryStats MemoryCache::stats() const {
  MemoryStats sum;
  for (const auto& each : shards_) {
    const std::lock_guard guard{each->lock};
    sum.hits += each->stats.hits;
    sum.misses += each->stats.misses;
    sum.expired += each->stats.expired;
    sum.inserted += each->stats.inserted;
    sum.replaced += each->stats.replaced;
    sum.evicted += each->stats.evicted;
    sum.refused_size += each->stats.refused_size;
    sum.refused_answers += each->stats.refused_answers;
    sum.refused_purged += each->stats.refused_purged;
    sum.stale += each->stats.stale;
    sum.purged += each->stats.purged;
    sum.entries_now += each->index.size();
    sum.bytes_now += each->bytes;
  }
  return sum;
}

}  // namespace ganglion::cache
