#pragma once
// What an Idempotency-Key is and what it is compared by. The key's text is never stored: rows are found by a digest of
// who asks and the key, and a request is the same request if its endpoint and body bytes are.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "api/types.hpp"
#include "core/error.hpp"

namespace ganglion::idempotency {

inline constexpr std::size_t kKeyBytesMax = 255;

// 1 to 255 visible ASCII characters, opaque to us (quotes included). Error: invalid_value naming the header.
core::Result<void> check_key(std::string_view text);

using Digest = std::array<std::uint8_t, 16>;  // of a SHA-256

// Tenant and API key scope a key: nobody meets another's.
Digest key_digest(std::string_view tenant, std::string_view api_key_id, std::string_view text);
Digest request_digest(api::Endpoint endpoint, std::string_view body);

struct DigestHash {
  std::size_t operator()(const Digest& digest) const {
    std::size_t out = 0;
    std::memcpy(&out, digest.data(), sizeof out);
    return out;
  }
};

}  // namespace ganglion::idempotency
