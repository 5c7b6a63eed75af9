// See cache/store_key.hpp.

#include "cache/store_key.hpp"

#include <algorithm>

namespace ganglion::cache {
namespace {

core::Secret derived(std::string_view secret, std::string_view purpose) {
  const core::Sha256 key = core::hmac_sha256(secret, purpose);
  return core::Secret{std::string{reinterpret_cast<const char*>(key.data()), key.size()}};
}

}  // namespace

StoreSecret::StoreSecret(std::string_view secret)
    : naming_(derived(secret, "ganglion cache names 1")), sealing_(derived(secret, "ganglion cache seals 1")) {}

StoreKey StoreSecret::name(std::string_view canonical) const {
  return {.bytes = core::hmac_sha256(naming_.reveal(), canonical)};
}

std::array<std::uint8_t, 16> StoreSecret::seal(std::string_view bytes) const {
  const core::Sha256 whole = core::hmac_sha256(sealing_.reveal(), bytes);
  std::array<std::uint8_t, 16> out;
  std::ranges::copy_n(whole.begin(), out.size(), out.begin());
  return out;
}

}  // namespace ganglion::cache
