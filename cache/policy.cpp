// See cache/policy.hpp.

#include "cache/policy.hpp"

#include <algorithm>
#include <string>

#include "api/json_text.hpp"
#include "cache/codec.hpp"
#include "core/text.hpp"

namespace ganglion::cache {
namespace {

using core::ErrorKind;

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

struct CacheControl {
  bool no_store = false;
  bool no_cache = false;  // also max-age=0: the client wants a fresh answer
};

CacheControl read_cache_control(std::string_view value) {
  CacheControl out;
  while (!value.empty()) {
    const std::size_t comma = value.find(',');
    const std::string_view directive = trim(value.substr(0, comma));
    value = comma == std::string_view::npos ? std::string_view{} : value.substr(comma + 1);
    if (core::iequals(directive, "no-store")) out.no_store = true;
    if (core::iequals(directive, "no-cache") || core::iequals(directive, "max-age=0")) out.no_cache = true;
  }
  return out;
}

core::Result<std::optional<std::chrono::seconds>> read_ttl(const CacheHeaders& headers) {
  const bool is_new = headers.ttl.has_value();
  const auto& value = is_new ? headers.ttl : headers.old_ttl;
  if (!value) return std::nullopt;
  const auto seconds = api::to_uint64(trim(*value));
  const bool in_range = seconds && (*seconds == 0 || (*seconds >= static_cast<std::uint64_t>(kTtlMin.count()) &&
                                                      *seconds <= static_cast<std::uint64_t>(kTtlMax.count())));
  if (!in_range) {
    const std::string name = is_new ? "cf-aig-cache-ttl" : "cf-cache-ttl";
    return core::fail(core::ErrorKind::invalid_value,
                      "header '" + name + "' must be 0 or a number of seconds from 60 to 2592000", name);
  }
  return std::chrono::seconds{static_cast<std::int64_t>(*seconds)};
}

core::Result<bool> read_skip(const CacheHeaders& headers) {
  const bool is_new = headers.skip.has_value();
  const auto& value = is_new ? headers.skip : headers.old_skip;
  if (!value) return false;
  const std::string_view text = trim(*value);
  if (core::iequals(text, "true")) return true;
  if (core::iequals(text, "false")) return false;
  const std::string name = is_new ? "cf-aig-skip-cache" : "cf-skip-cache";
  return core::fail(core::ErrorKind::invalid_value, "header '" + name + "' must be 'true' or 'false'", name);
}

bool tag_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view{"._:/-"}.find(c) != std::string_view::npos;
}

core::Result<std::vector<std::string>> read_tags(const CacheHeaders& headers) {
  std::vector<std::string> out;
  if (!headers.tags) return out;
  for (std::string_view rest = *headers.tags;;) {
    const std::size_t comma = rest.find(',');
    const std::string_view tag = trim(rest.substr(0, comma));
    if (tag.empty() || tag.size() > kTagBytesMax || !std::ranges::all_of(tag, tag_character) ||
        out.size() == kEntryTagsMax) {
      return core::fail(ErrorKind::invalid_value,
                        "header 'x-ganglion-cache-tags' must be 1 to 16 names with commas between, each of 1 to 64 "
                        "letters, digits, . _ : / -",
                        std::string{kTagsHeader});
    }
    if (std::ranges::find(out, tag) == out.end()) out.emplace_back(tag);
    if (comma == std::string_view::npos) return out;
    rest = rest.substr(comma + 1);
  }
}

core::Result<Replay> read_replay(const CacheHeaders& headers, Replay otherwise) {
  if (!headers.replay) return otherwise;
  const std::string_view text = trim(*headers.replay);
  if (core::iequals(text, "recorded")) return Replay::recorded;
  if (core::iequals(text, "at-once")) return Replay::at_once;
  return core::fail(ErrorKind::invalid_value, "header 'x-ganglion-cache-replay' must be 'recorded' or 'at-once'",
                    std::string{kReplayHeader});
}

bool deterministic(const api::RequestView& request) {
  return request.endpoint == api::Endpoint::embeddings || request.seed || request.temperature == 0.0;
}

}  // namespace

core::Result<CacheDecision> decide(const CacheOptions& options, const CachePolicy& policy,
                                   const CacheHeaders& headers) {
  const auto ttl = read_ttl(headers);
  if (!ttl) return std::unexpected(ttl.error());
  const auto skip = read_skip(headers);
  if (!skip) return std::unexpected(skip.error());
  auto tags = read_tags(headers);
  if (!tags) return std::unexpected(tags.error());
  const auto replay = read_replay(headers, policy.replay);
  if (!replay) return std::unexpected(replay.error());
  CacheDecision out;
  out.tags = *std::move(tags);
  out.replay = *replay;
  if (headers.key) {
    out.custom_key = trim(*headers.key);
    if (out.custom_key.empty() || out.custom_key.size() > kCacheKeyBytesMax) {
      return core::fail(core::ErrorKind::invalid_value, "header 'cf-aig-cache-key' must have 1 to 1024 bytes",
                        "cf-aig-cache-key");
    }
  }
  const CacheControl control = headers.cache_control ? read_cache_control(*headers.cache_control) : CacheControl{};
  if (!options.enabled) return out;
  if (*skip || control.no_store || *ttl == std::chrono::seconds{0}) {
    out.why = CacheWhy::skipped;
    return out;
  }
  // A key without a ttl opts in as a ttl does, for the gateway's ttl or else 5 minutes.
  constexpr std::chrono::seconds kKeyTtl{300};
  out.ttl = ttl->value_or(policy.ttl.count() == 0 && headers.key ? kKeyTtl : policy.ttl);
  if (out.ttl.count() == 0) return out;
  out.why = ttl->has_value() || policy.ttl.count() == 0 ? CacheWhy::header_ttl : CacheWhy::policy;
  out.lookup = !control.no_cache;
  out.store = !policy.keep_only_asked || ttl->has_value() || headers.key;
  out.only_deterministic = policy.only_deterministic;
  return out;
}

void narrow(CacheDecision& decision, const api::RequestView& request) {
  if (!decision.only_deterministic || deterministic(request)) return;
  decision.lookup = decision.store = false;
  decision.why = CacheWhy::not_deterministic;
}

}  // namespace ganglion::cache
