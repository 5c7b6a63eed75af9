// See cache/single_flight.hpp. Lock order: a shard's lock, then a recording's or a memory shard's; unlinking comes from
// a recording without its lock.

#include "cache/single_flight.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "cache/recording_state.hpp"

namespace ganglion::cache {
namespace {

struct FlightKey {
  CacheKey key;
  bool stream = false;
  bool fast = false;
  friend bool operator==(const FlightKey&, const FlightKey&) = default;
};
struct FlightKeyHash {
  std::size_t operator()(const FlightKey& flight) const {
    return static_cast<std::size_t>(flight.key.hash.low) ^ (flight.stream ? 0x9E3779B97F4A7C15ULL : 0) ^
           (flight.fast ? 0xC2B2AE3D27D4EB4FULL : 0);
  }
};

}  // namespace

struct SingleFlight::Shard {
  std::mutex lock;
  std::unordered_map<FlightKey, std::shared_ptr<Recording>, FlightKeyHash> flights;
};

struct SingleFlight::Impl : std::enable_shared_from_this<Impl> {
  MemoryCache* memory = nullptr;
  std::size_t keep_bytes_max = 0;
  std::vector<std::unique_ptr<Shard>> shards;
  std::atomic<std::uint64_t> led{0};
  std::atomic<std::uint64_t> followed{0};
  std::atomic<std::uint64_t> superseded{0};

  Shard& shard(const CacheKey& key) { return *shards[key.hash.high % shards.size()]; }

  // The recording knows how to leave the table, but does not keep the table alive.
  std::shared_ptr<Recording> make(const FlightKey& flight);
  void unlink(const FlightKey& flight, const std::weak_ptr<Recording>& recording) {
    const auto alive = recording.lock();
    if (alive && alive->superseded()) superseded.fetch_add(1, std::memory_order_relaxed);
    Shard& s = shard(flight.key);
    std::shared_ptr<Recording> last;  // let go of after the lock
    const std::lock_guard guard{s.lock};
    const auto it = s.flights.find(flight);
    // A flight that replaced this one stays.
    if (it == s.flights.end() || it->second != alive) return;
    last = std::move(it->second);
    s.flights.erase(it);
  }
};

std::shared_ptr<Recording> SingleFlight::Impl::make(const FlightKey& flight) {
  auto self = std::make_shared<std::weak_ptr<Recording>>();
  auto recording = std::make_shared<Recording>(keep_bytes_max, [impl = weak_from_this(), flight, self] {
    if (const auto alive = impl.lock()) alive->unlink(flight, *self);
  });
  *self = recording;
  return recording;
}

SingleFlight::SingleFlight(MemoryCache* memory, std::size_t keep_bytes_max, unsigned shards)
    : impl_(std::make_shared<Impl>()) {
  impl_->memory = memory;
  impl_->keep_bytes_max = keep_bytes_max;
  for (unsigned i = 0; i < std::max(1U, shards); ++i) impl_->shards.push_back(std::make_unique<Shard>());
}

SingleFlight::~SingleFlight() = default;

Join SingleFlight::join(const CacheKey& key, bool stream, std::string_view tenant, std::string_view gateway,
                        boost::asio::any_io_executor executor, bool fast) {
  const FlightKey flight{.key = key, .stream = stream, .fast = fast};
  Shard& s = impl_->shard(key);
  Join out;
  std::shared_ptr<Recording> replaced;  // let go of after the lock
  const std::lock_guard guard{s.lock};
  const auto it = s.flights.find(flight);
  if (it != s.flights.end()) {
    out.reader = Recording::attach(it->second, executor);
    if (out.reader) {
      impl_->followed.fetch_add(1, std::memory_order_relaxed);
      return out;
    }
  }
  if (impl_->memory != nullptr) {
    out.hit = impl_->memory->lookup_again(key, tenant, gateway);
    if (out.hit) return out;
  }
  auto recording = impl_->make(flight);
  out.reader = Recording::attach(recording, executor);
  out.recorder = std::make_unique<Recorder>(recording, executor);
  if (it != s.flights.end()) {
    replaced = std::exchange(it->second, std::move(recording));
  } else {
    s.flights.emplace(flight, std::move(recording));
  }
  impl_->led.fetch_add(1, std::memory_order_relaxed);
  return out;
}

std::unique_ptr<Recorder> SingleFlight::refresh(const CacheKey& key, bool stream,
                                                boost::asio::any_io_executor executor) {
  const FlightKey flight{.key = key, .stream = stream};
  Shard& s = impl_->shard(key);
  auto recording = impl_->make(flight);
  recording->detach();
  {
    const std::lock_guard guard{s.lock};
    if (!s.flights.try_emplace(flight, recording).second) return nullptr;
  }
  impl_->led.fetch_add(1, std::memory_order_relaxed);
  return std::make_unique<Recorder>(std::move(recording), std::move(executor));
}

Join SingleFlight::lead_alone(boost::asio::any_io_executor executor) {
  auto recording = std::make_shared<Recording>(impl_->keep_bytes_max, nullptr);
  Join out;
  out.reader = Recording::attach(recording, executor);
  out.recorder = std::make_unique<Recorder>(std::move(recording), executor);
  return out;
}

bool SingleFlight::finish(Recorder& recorder, std::shared_ptr<Entry> meta) {
  bool stored = false;
  const auto head = recorder.head();
  if (meta && impl_->memory != nullptr && head && recorder.whole()) {
    meta->status = head->status;
    meta->content_type = head->content_type;
    meta->recorded_as = head->event_stream ? RecordedAs::stream : RecordedAs::whole;
    meta->body = recorder.bytes();
    meta->usage_event = recorder.usage_event();
    if (head->event_stream) meta->pace = recorder.pace();
    stored = impl_->memory->insert(std::move(meta));
  }
  recorder.finish();
  return stored;
}

FlightStats SingleFlight::stats() const {
  FlightStats out{.led = impl_->led.load(std::memory_order_relaxed),
                  .followed = impl_->followed.load(std::memory_order_relaxed),
                  .superseded = impl_->superseded.load(std::memory_order_relaxed)};
  for (const auto& shard : impl_->shards) {
    const std::lock_guard guard{shard->lock};
    out.flights_now += shard->flights.size();
  }
  return out;
}

}  // namespace ganglion::cache
