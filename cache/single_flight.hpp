#pragma once
// Identical concurrent misses make one upstream call. A flight is the call and everyone who waits for it: the pump
// (spawned by the first to come, on its worker) writes the recording, and every client, the first one included, is a
// reader, so that any of them can leave without hurting the others. Thread-safe across workers.

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/key.hpp"
#include "cache/memory_cache.hpp"
#include "cache/recording.hpp"

namespace ganglion::cache {

struct FlightStats {
  std::uint64_t led = 0;
  std::uint64_t followed = 0;
  std::uint64_t superseded = 0;  // every reader left before the end
  std::uint64_t flights_now = 0;
};

// Exactly one of: `hit` (the answer was stored meanwhile), or `reader`; `recorder` is set for the leader alone, which
// must spawn the pump that owns it.
struct Join {
  std::shared_ptr<const Entry> hit;
  std::unique_ptr<Reader> reader;
  std::unique_ptr<Recorder> recorder;
};

class SingleFlight {
 public:
  // `memory` may be null: nothing is stored, calls are still shared. keep_bytes_max: see recording.hpp.
  SingleFlight(MemoryCache* memory, std::size_t keep_bytes_max, unsigned shards = 16);
  ~SingleFlight();
  SingleFlight(const SingleFlight&) = delete;
  SingleFlight& operator=(const SingleFlight&) = delete;

  // Joins the flight of this key, or looks into the memory tier once more and else starts one. A streamed and a
  // non-streamed request are different flights, and so are a `fast` and a regular one: a regular flight may stand in a
  // queue in which the fast request would not. `executor` is the caller's worker.
  Join join(const CacheKey& key, bool stream, std::string_view tenant, std::string_view gateway,
            boost::asio::any_io_executor executor, bool fast = false);
  // A flight to fetch a newer answer than a stored one, without a client: it goes on when nobody reads, and misses that
  // come meanwhile may join. nullptr: there is such a flight already. `executor` is the pump's.
  std::unique_ptr<Recorder> refresh(const CacheKey& key, bool stream, boost::asio::any_io_executor executor);
  // A flight of one, which nobody can join: for requests that may be stored but not looked up (no-cache).
  Join lead_alone(boost::asio::any_io_executor executor);

  // Ends the flight as whole and, where `meta` is given and the answer is a whole 2xx, stores it
  // first, so that there is no moment in which it is neither in flight nor stored. False if it was not stored.
  // `meta` brings all but status, content type, body, usage_event and recorded_as, which come from the recording.
  bool finish(Recorder& recorder, std::shared_ptr<Entry> meta);

  FlightStats stats() const;

 private:
  struct Shard;
  struct Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace ganglion::cache
