#pragma once
// An entry as bytes, for disk and Redis. Format version 1, little-endian; docs/adr/0006-cache-tiers.md has the table.
// The last 16 bytes seal all the others, the store key included, with the installation's secret: a torn, swapped,
// flipped or forged value does not decode. Tenant and gateway are text inside, and compared by whoever asked.
//
// Pure functions; thread-safe.

#include <cstdint>
#include <expected>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cache/entry.hpp"
#include "cache/store_key.hpp"

namespace ganglion::cache {

inline constexpr std::uint8_t kEntryFormat = 1;
inline constexpr std::size_t kEntryTagsMax = 16;
inline constexpr std::size_t kTagBytesMax = 64;
// Where the 8 bytes lie that change whenever an entry of one key is stored anew.
inline constexpr std::size_t kStampOffset = 8;
inline constexpr std::size_t kStampBytes = 8;

enum class CodecError : std::uint8_t {
  foreign,    // not ours, or another version: left alone
  corrupt,    // ours once
  too_large,  // its body is over the caller's maximum
};

// False where a field is longer than the format holds; such an entry stays in memory.
bool encodable(const Entry& entry);

// `compress_above`: bodies larger than this are compressed if that makes them smaller; 0: never.
std::string encode_entry(const Entry& entry, const StoreKey& key, const StoreSecret& secret,
                         std::size_t compress_above);

// `stored` is set from the age by `wall_now`: a stamp from the future counts as now, so a wrong clock never makes an
// entry live longer than its ttl. Entry::key is left empty: the caller knows it.
std::expected<std::shared_ptr<Entry>, CodecError> decode_entry(std::string_view bytes, const StoreKey& key,
                                                               const StoreSecret& secret, std::size_t body_bytes_max,
                                                               core::SteadyTime now, core::WallTime wall_now);

// The stamp of encoded bytes, "" if there is none.
std::string_view stamp_of(std::string_view bytes);
std::string stamp_of(const Entry& entry);

}  // namespace ganglion::cache
