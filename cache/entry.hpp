#pragma once
// One cached answer: immutable and shared, so that a hit copies nothing and an eviction disturbs no reader. The other
// form (body of a stream, stream of a body) is made by the first hit that wants it and then kept.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/json_cursor.hpp"
#include "api/types.hpp"
#include "cache/key.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"

namespace ganglion::cache {

enum class RecordedAs : std::uint8_t { whole, stream };

// When a stream's bytes came: those up to `end`, `at_ms` after the first.
struct PaceMark {
  std::uint32_t end = 0;
  std::uint32_t at_ms = 0;
  friend bool operator==(const PaceMark&, const PaceMark&) = default;
};

// What may be done with an entry at its age.
enum class Freshness : std::uint8_t {
  fresh,
  revalidate,  // older than its ttl: served while one background call fetches a new one
  if_error,    // served only where the upstream fails
  dead,
};

struct Entry {
  CacheKey key;
  std::string tenant;
  std::string gateway;
  std::string model;  // resolved
  api::Endpoint endpoint = api::Endpoint::chat_completions;
  int status = 200;
  bool refusal = false;  // an upstream's 4xx that the policy wants kept
  std::string content_type;
  RecordedAs recorded_as = RecordedAs::whole;
  std::string body;       // as the upstream sent it, event by event for a stream, its usage event included
  api::Span usage_event;  // streams: the usage-only event in body, which a client that did not ask must not see
  std::optional<api::Usage> usage;
  std::vector<PaceMark> pace;     // streams: increasing; empty: unknown
  std::string custom_key;         // cf-aig-cache-key; "": keyed by the body
  std::vector<std::string> tags;  // of the request that brought the answer
  core::SteadyTime stored{};      // set by MemoryCache::insert unless it came from another tier
  core::WallTime stored_wall{};   // same instant, for other processes
  std::chrono::seconds ttl{0};
  std::chrono::seconds stale_while_revalidate{0};  // after the ttl
  std::chrono::seconds stale_if_error{0};          // same
  std::uint64_t purge_sequence = 0;                // PurgeLog's, when the answer was asked for
  std::uint64_t generation = 0;                    // the cluster's, same; see cache/purge_log.hpp

  bool fresh(core::SteadyTime now) const { return now - stored < ttl; }
  Freshness freshness(core::SteadyTime now) const {
    const auto over = now - stored - ttl;
    if (over < std::chrono::seconds{0}) return Freshness::fresh;
    if (over < stale_while_revalidate) return Freshness::revalidate;
    return over < stale_if_error ? Freshness::if_error : Freshness::dead;
  }
  // How long it may be of use, from when it was stored.
  std::chrono::seconds lifetime() const { return ttl + std::max(stale_while_revalidate, stale_if_error); }
  std::chrono::seconds age(core::SteadyTime now) const {
    return std::chrono::duration_cast<std::chrono::seconds>(now - stored);
  }
  std::size_t bytes() const;  // memory of this entry with its strings; the other form not counted

  // True for one caller until its refresh has failed (then after `again`) or is overdue.
  bool claim_refresh(core::SteadyTime now) const;
  void refresh_failed(core::SteadyTime again) const;

 private:
  friend class MemoryCache;
  // The other form and where its usage event lies; made once, under the lock.
  mutable std::mutex other_lock_;
  mutable std::shared_ptr<const std::string> other_;
  mutable api::Span other_usage_event_;
  mutable std::atomic<core::SteadyTime> refresh_from_{core::SteadyTime::min()};
};

// An answer ready to be sent. `entry` keeps the views alive.
struct Rendered {
  std::shared_ptr<const void> owner;
  std::string_view content_type;
  std::string_view body;
  api::Span usage_event;  // streams: to be left out for a client that did not ask for usage
};

}  // namespace ganglion::cache
