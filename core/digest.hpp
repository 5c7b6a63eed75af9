#pragma once
// Digests in one place: SHA-256 and HMAC-SHA-256 (OpenSSL), CRC32C (hardware where present), a 128-bit hash for cache
// keys (xxHash XXH3), and hex.

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace ganglion::core {

using Sha256 = std::array<std::uint8_t, 32>;

Sha256 sha256(std::string_view data);
Sha256 hmac_sha256(std::string_view key, std::string_view data);

// CRC32C (Castagnoli), as iSCSI and ext4 use it; crc of the concatenation when fed the previous value.
std::uint32_t crc32c(std::string_view data, std::uint32_t previous = 0);

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

// Seeded per process by the caller where the input is under an attacker's control.
Hash128 hash128(std::string_view data, std::uint64_t seed = 0);

std::string hex(std::span<const std::uint8_t> bytes);
std::string random_hex(std::size_t bytes);  // from the system's CSPRNG

}  // namespace ganglion::core
