#pragma once
// What an entry is called outside this process, on disk and in Redis: HMAC-SHA-256 of the canonical request, its scope
// included, under a secret that all gateways of an installation share. Unlike the memory tier's seeded hash, nobody
// without the secret can make two requests collide or tell from a name what was asked.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/digest.hpp"
#include "core/secret.hpp"

namespace ganglion::cache {

struct StoreKey {
  core::Sha256 bytes{};
  std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }
  std::string hex() const { return core::hex(bytes); }
  friend bool operator==(const StoreKey&, const StoreKey&) = default;
};

struct StoreKeyHash {
  std::size_t operator()(const StoreKey& key) const {
    std::size_t out = 0;
    __builtin_memcpy(&out, key.bytes.data(), sizeof out);
    return out;
  }
};

// The two keys that an installation's secret gives: one names entries, one seals what is written (cache/codec.hpp).
class StoreSecret {
 public:
  StoreSecret() = default;
  explicit StoreSecret(std::string_view secret);

  StoreKey name(std::string_view canonical) const;
  std::array<std::uint8_t, 16> seal(std::string_view bytes) const;

 private:
  core::Secret naming_, sealing_;
};

}  // namespace ganglion::cache
