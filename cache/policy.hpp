#pragma once
// What the cache may do for one request: the operator's policy, moved by the request's headers. Pure functions.

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/openai_request.hpp"
#include "cache/options.hpp"
#include "core/error.hpp"

namespace ganglion::cache {

inline constexpr std::chrono::seconds kTtlMin{60};
inline constexpr std::chrono::seconds kTtlMax{2'592'000};  // 30 days
inline constexpr std::size_t kCacheKeyBytesMax = 1024;
inline constexpr std::string_view kTagsHeader = "x-ganglion-cache-tags";
inline constexpr std::string_view kReplayHeader = "x-ganglion-cache-replay";

// Header values as received (trimmed); nullopt: absent.
struct CacheHeaders {
  std::optional<std::string_view> ttl;       // cf-aig-cache-ttl
  std::optional<std::string_view> skip;      // cf-aig-skip-cache
  std::optional<std::string_view> key;       // cf-aig-cache-key
  std::optional<std::string_view> old_ttl;   // cf-cache-ttl; the new name wins
  std::optional<std::string_view> old_skip;  // cf-skip-cache; the new name wins
  std::optional<std::string_view> cache_control;
  std::optional<std::string_view> tags;    // x-ganglion-cache-tags
  std::optional<std::string_view> replay;  // x-ganglion-cache-replay
};

enum class CacheWhy : std::uint8_t {
  policy,             // the gateway's own ttl
  header_ttl,         // asked for by cf-aig-cache-ttl
  disabled,           // the cache or the gateway's caching is off
  skipped,            // cf-aig-skip-cache, ttl 0 or no-store
  not_deterministic,  // only_deterministic, and this request is not
  kCount
};

struct CacheDecision {
  bool lookup = false;  // a stored answer may be used; identical requests may share one upstream call
  bool store = false;   // the answer may be kept (Cache-Control: no-cache stores and does not look)
  std::chrono::seconds ttl{0};
  std::string_view custom_key;  // "" : key from the body; borrowed from the headers
  std::vector<std::string> tags;
  Replay replay = Replay::at_once;
  CacheWhy why = CacheWhy::disabled;
  bool only_deterministic = false;  // the policy's: narrow() holds the request to it

  // A key of the body may be asked for.
  bool keys_body() const { return (lookup || store) && custom_key.empty(); }
};

// What policy and headers allow, before the body is looked at. A decision that looks up and does not store shares no
// upstream call either: every miss is a call of its own. Errors: invalid_value, param naming the header.
core::Result<CacheDecision> decide(const CacheOptions& options, const CachePolicy& policy, const CacheHeaders& headers);
// What is left of it for this request.
void narrow(CacheDecision& decision, const api::RequestView& request);

}  // namespace ganglion::cache
