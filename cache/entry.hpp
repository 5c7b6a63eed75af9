#pragma once
// One cached answer: immutable and shared, so that a hit copies nothing and an eviction disturbs no reader. The other
// form (body of a stream, stream of a body) is made by the first hit that wants it and then kept.

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "api/json_cursor.hpp"
#include "api/types.hpp"
#include "cache/key.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"

namespace ganglion::cache {

enum class RecordedAs : std::uint8_t { whole, stream };

struct Entry {
  CacheKey key;
  std::string tenant;
  std::string gateway;
  std::string model;  // resolved
  api::Endpoint endpoint = api::Endpoint::chat_completions;
  int status = 200;
  std::string content_type;
  RecordedAs recorded_as = RecordedAs::whole;
  std::string body;       // as the upstream sent it, event by event for a stream, its usage event included
  api::Span usage_event;  // streams: the usage-only event in body, which a client that did not ask must not see
  std::optional<api::Usage> usage;
  core::SteadyTime stored{};  // set by MemoryCache::insert
  std::chrono::seconds ttl{0};

  bool fresh(core::SteadyTime now) const { return now - stored < ttl; }
  std::chrono::seconds age(core::SteadyTime now) const {
    return std::chrono::duration_cast<std::chrono::seconds>(now - stored);
  }
  std::size_t bytes() const;  // memory of this entry with its strings; the other form not counted

 private:
  friend class MemoryCache;
  // The other form and where its usage event lies; made once, under the lock.
  mutable std::mutex other_lock_;
  mutable std::shared_ptr<const std::string> other_;
  mutable api::Span other_usage_event_;
};

// An answer ready to be sent. `entry` keeps the views alive.
struct Rendered {
  std::shared_ptr<const void> owner;
  std::string_view content_type;
  std::string_view body;
  api::Span usage_event;  // streams: to be left out for a client that did not ask for usage
};

}  // namespace ganglion::cache
