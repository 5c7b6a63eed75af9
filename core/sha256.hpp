#pragma once
// SHA-256 and HMAC-SHA-256 for paths that hash a few hundred bytes per request: OpenSSL's block functions without its
// EVP layer, which costs as much as the hashing does there. No allocation, cannot fail.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/digest.hpp"

namespace ganglion::core {

class Sha256State {
 public:
  Sha256State();
  void update(std::string_view bytes);
  Sha256 finish();  // the state is used up

 private:
  alignas(8) std::array<unsigned char, 112> context_;  // an SHA256_CTX
};

// Keyed once; a copy of it per thread. Wipes what it derived from the key.
class HmacSha256 {
 public:
  explicit HmacSha256(std::string_view key);
  ~HmacSha256();
  HmacSha256(const HmacSha256&) = default;
  HmacSha256& operator=(const HmacSha256&) = default;
  Sha256 operator()(std::string_view data) const;

 private:
  Sha256State inner_;
  Sha256State outer_;
};

}  // namespace ganglion::core
