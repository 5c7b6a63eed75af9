#pragma once
// Remembers the ids of short words. Fixed size, direct-mapped: a newcomer simply takes its slot, which suits word
// frequencies. Not thread-safe: each encode call borrows one with its Scratch.

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace ganglion::local::tok {

class WordCache {
 public:
  static constexpr std::size_t kWordBytesMax = 24;
  static constexpr std::size_t kIdsMax = 9;

  // A word's slot, to find and then to fill.
  struct Key {
    std::uint64_t part[3];
    std::size_t slot;
    std::uint8_t size;
  };

  static bool fits(std::string_view word) { return word.size() <= kWordBytesMax; }

  static Key key(std::string_view word) {
    Key k{};
    std::memcpy(k.part, word.data(), word.size());
    k.size = static_cast<std::uint8_t>(word.size());
    const auto mix = [](std::uint64_t a, std::uint64_t b) {
      const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
      return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    };
    const std::uint64_t h = mix(k.part[0] ^ 0x9E3779B97F4A7C15u, k.part[1] ^ 0xC2B2AE3D27D4EB4Fu ^ k.size);
    k.slot = mix(h ^ k.part[2], 0xD6E8FEB86659FD93u) >> (64 - kBits);
    return k;
  }

  // Empty span with data() == nullptr: not there.
  std::span<const std::int32_t> find(const Key& k) const {
    if (entries_.empty()) return {};
    const Entry& e = entries_[k.slot];
    if (e.size != k.size || e.part[0] != k.part[0] || e.part[1] != k.part[1] || e.part[2] != k.part[2]) return {};
    return {e.ids, e.count};
  }

  void insert(const Key& k, std::span<const std::int32_t> ids) {
    if (ids.size() > kIdsMax) return;
    if (entries_.empty()) entries_.resize(std::size_t{1} << kBits);
    Entry& e = entries_[k.slot];
    std::memcpy(e.part, k.part, sizeof e.part);
    e.size = k.size;
    e.count = static_cast<std::uint8_t>(ids.size());
    std::memcpy(e.ids, ids.data(), ids.size_bytes());
  }

 private:
  static constexpr int kBits = 13;  // 8192 entries of 64 bytes: stays in the second-level cache
  struct Entry {
    std::uint64_t part[3] = {};
    std::int32_t ids[kIdsMax] = {};
    std::uint8_t size = 0;  // 0: empty slot; the empty word is never looked up
    std::uint8_t count = 0;
  };
  static_assert(sizeof(Entry) == 64);
  std::vector<Entry> entries_;
};

}  // namespace ganglion::local::tok
