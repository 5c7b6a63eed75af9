#pragma once
// What must hold for any bytes that a disk or a Redis may give as a cache entry, also if whoever wrote them had the
// installation's secret. Run by libFuzzer (fuzz_cache_entry.cpp) and, over the kept corpus, by the unit tests. A broken
// property ends the process.

#include <cstring>
#include <string>
#include <string_view>

#include "cache/codec.hpp"
#include "core/assert.hpp"

namespace ganglion::fuzz {

inline constexpr std::size_t kEntryBodyMax = 64 * 1024;

inline bool same_entry(const cache::Entry& a, const cache::Entry& b) {
  const bool texts = a.tenant == b.tenant && a.gateway == b.gateway && a.model == b.model && a.body == b.body &&
                     a.content_type == b.content_type && a.custom_key == b.custom_key && a.tags == b.tags;
  const bool times = a.ttl == b.ttl && a.stale_while_revalidate == b.stale_while_revalidate &&
                     a.stale_if_error == b.stale_if_error && a.stored == b.stored && a.stored_wall == b.stored_wall;
  const bool usage =
      a.usage.has_value() == b.usage.has_value() &&
      (!a.usage || (a.usage->input_tokens == b.usage->input_tokens &&
                    a.usage->cached_input_tokens == b.usage->cached_input_tokens &&
                    a.usage->output_tokens == b.usage->output_tokens && a.usage->estimated == b.usage->estimated));
  const bool usage_event = (a.usage_event.empty() && b.usage_event.empty()) || a.usage_event == b.usage_event;
  return texts && times && usage && usage_event && a.endpoint == b.endpoint && a.status == b.status &&
         a.refusal == b.refusal && a.recorded_as == b.recorded_as && a.pace == b.pace && a.generation == b.generation;
}

// `content`: an entry without its seal. As it stands it never decodes; sealed it is refused, or an entry whose parts
// fit each other and which is written and read again as the same.
// True: it was an entry.
inline bool check_cache_entry(std::string_view content) {
  constexpr std::size_t kKeyOffset = 32;
  if (content.size() > 256 * 1024) return false;
  static const cache::StoreSecret secret{"fuzz"};
  static const cache::StoreKey key = secret.name("fuzz");
  constexpr core::SteadyTime kNow{std::chrono::hours{1'000'000}};
  constexpr core::WallTime kWall{std::chrono::hours{24 * 365 * 56}};
  const auto decode = [&](std::string_view bytes, const cache::StoreKey& name) {
    return cache::decode_entry(bytes, name, secret, kEntryBodyMax, kNow, kWall);
  };
  GW_ASSERT(!decode(content, key));
  std::string bytes{content};
  // The name that is asked for, else no input would come past it.
  if (bytes.size() >= kKeyOffset + key.bytes.size()) {
    std::memcpy(bytes.data() + kKeyOffset, key.bytes.data(), key.bytes.size());
  }
  const auto seal = secret.seal(bytes);
  bytes.append(reinterpret_cast<const char*>(seal.data()), seal.size());
  const auto entry = decode(bytes, key);
  if (!entry) return false;
  const cache::Entry& read = **entry;
  GW_ASSERT(read.body.size() <= kEntryBodyMax && read.tags.size() <= cache::kEntryTagsMax);
  GW_ASSERT(read.status >= 100 && read.status <= 599 && read.endpoint < api::Endpoint::kCount);
  GW_ASSERT(read.usage_event.offset + read.usage_event.length <= read.body.size());
  GW_ASSERT(read.pace.empty() || read.pace.back().end <= read.body.size());
  GW_ASSERT(read.stored <= kNow);  // a stamp from the future counts as now
  GW_ASSERT(cache::stamp_of(bytes) == cache::stamp_of(read));
  GW_ASSERT(!decode(bytes, secret.name("another")));
  std::string damaged = bytes;
  damaged[damaged.size() / 2] ^= 1;
  GW_ASSERT(!decode(damaged, key));
  for (const std::size_t compress_above : {std::size_t{0}, std::size_t{16}}) {
    const auto again = decode(cache::encode_entry(read, key, secret, compress_above), key);
    GW_ASSERT(again && same_entry(**again, read));
  }
  return true;
}

}  // namespace ganglion::fuzz
