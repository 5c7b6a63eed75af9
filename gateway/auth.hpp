#pragma once
// Who is asking: a virtual API key -> principal (tenant, gateway, allowed models, tier). Keys are stored as
// HMAC-SHA-256 under the operator's pepper and looked up by that digest, so that neither the table nor the time of a
// look-up tells anything about a key. Known, unknown and revoked keys take the same path through the table: it always
// reads as many slots, compares one digest, and branches on none of it.
// A KeyRing is immutable; a reload makes a new one. Authenticator is per worker (it keeps the keyed HMAC).

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/digest.hpp"
#include "core/error.hpp"
#include "core/sha256.hpp"
#include "gateway/options.hpp"

namespace ganglion::gateway {

struct Principal {
  std::string key_id;
  std::string tenant;
  std::string gateway;
  std::vector<std::string> models;  // patterns; empty: all
  api::Tier tier = api::Tier::regular;
  bool tier_fixed = false;
  ratelimit::LimitSet limits;

  bool may_use(std::string_view model) const;
};

// HMAC-SHA-256 of a key under the pepper, as `ganglion keys create` stores it.
core::Sha256 key_digest(const core::Secret& pepper, std::string_view key);

class KeyRing {
 public:
  // Keys whose hash is not 64 hex digits are a configuration error and were refused before.
  explicit KeyRing(const GatewayOptions& options);

  bool open() const { return principals_.empty(); }  // no key configured: everyone is `anonymous`
  const Principal& anonymous() const { return anonymous_; }
  const core::Secret& pepper() const { return pepper_; }

  // nullptr for unknown and for revoked keys alike.
  const Principal* find(const core::Sha256& digest) const;

 private:
  struct Check {
    core::Sha256 digest{};
    bool good = false;  // neither revoked nor the place of no key
  };
  void index();

  core::Secret pepper_;
  // Sorted by digest. `prefixes_` has the digests' first 8 bytes; it and `checks_` go on as far as a scan may.
  std::vector<Principal> principals_;
  std::vector<Check> checks_;
  std::vector<std::uint64_t> prefixes_;
  std::vector<std::uint32_t> bucket_starts_;  // a bucket: the digests that begin with the same bits
  unsigned bucket_shift_ = 63;
  std::size_t scan_ = 0;  // the largest bucket
  Principal anonymous_;
};

class Authenticator {
 public:
  explicit Authenticator(std::shared_ptr<const KeyRing> ring);
  Authenticator(const Authenticator&) = delete;
  Authenticator& operator=(const Authenticator&) = delete;

  // `authorization`: the Authorization header's value. Error: unauthorized.
  core::Result<const Principal*> identify(std::string_view authorization);
  const KeyRing& ring() const { return *ring_; }

 private:
  std::shared_ptr<const KeyRing> ring_;
  const core::HmacSha256 hmac_;  // keyed once: a look-up does not hash the pepper again
};

}  // namespace ganglion::gateway
