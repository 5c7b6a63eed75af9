// See gateway/auth.hpp.

#include "gateway/auth.hpp"

#include <openssl/crypto.h>

#include <algorithm>
#include <array>
#include <bit>

#include "core/text.hpp"

namespace ganglion::gateway {
namespace {

constexpr std::size_t kKeyBytesMax = 512;

// Ordered as the digests are.
std::uint64_t prefix(const core::Sha256& digest) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof value; ++i) value = value << 8 | digest[i];
  return value;
}

int nibble(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

core::Sha256 digest_from_hex(std::string_view text) {
  core::Sha256 digest{};
  for (std::size_t i = 0; i < digest.size() && 2 * i + 1 < text.size(); ++i) {
    digest[i] = static_cast<std::uint8_t>(nibble(text[2 * i]) << 4 | nibble(text[2 * i + 1]));
  }
  return digest;
}

// The token of "Bearer <token>", "" if it is not one.
std::string_view bearer(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size() || !core::iequals(authorization.substr(0, kScheme.size()), kScheme)) {
    return {};
  }
  authorization.remove_prefix(kScheme.size());
  while (!authorization.empty() && authorization.front() == ' ') authorization.remove_prefix(1);
  return authorization;
}

}  // namespace

bool Principal::may_use(std::string_view model) const {
  if (models.empty()) return true;
  for (const std::string& pattern : models) {
    if (pattern == model) return true;
    if (pattern.ends_with('*') && model.starts_with(std::string_view{pattern}.substr(0, pattern.size() - 1)))
      return true;
  }
  return false;
}

core::Sha256 key_digest(const core::Secret& pepper, std::string_view key) {
  return core::hmac_sha256(pepper.reveal(), key);
}

KeyRing::KeyRing(const GatewayOptions& options) : pepper_(options.key_pepper) {
  anonymous_ = Principal{.key_id = "anonymous", .tenant = "default", .gateway = "default"};
  std::vector<std::pair<core::Sha256, const KeyOptions*>> keys;
  keys.reserve(options.keys.size());
  for (const KeyOptions& key : options.keys) {
    keys.emplace_back(key.hash.empty() ? key_digest(pepper_, key.secret.reveal()) : digest_from_hex(key.hash), &key);
  }
  std::ranges::sort(keys);
  for (const auto& [digest, key] : keys) {
    checks_.push_back({.digest = digest, .good = !key->revoked});
    prefixes_.push_back(prefix(digest));
    principals_.push_back(Principal{.key_id = key->id,
                                    .tenant = key->tenant,
                                    .gateway = key->gateway,
                                    .models = key->models,
                                    .tier = key->tier,
                                    .tier_fixed = key->tier_fixed,
                                    .limits = key->limits});
  }
  index();
}

// About as many buckets as keys: digests are uniform, so the largest bucket stays small (12 at a million keys).
void KeyRing::index() {
  const std::size_t count = prefixes_.size();
  const auto bits = static_cast<unsigned>(std::bit_width(std::max<std::size_t>(count, 2) - 1));
  bucket_shift_ = 64 - bits;
  bucket_starts_.resize(std::size_t{1} << bits);
  std::size_t at = 0;
  for (std::size_t bucket = 0; bucket < bucket_starts_.size(); ++bucket) {
    bucket_starts_[bucket] = static_cast<std::uint32_t>(at);
    while (at < count && prefixes_[at] >> bucket_shift_ == bucket) ++at;
    scan_ = std::max(scan_, at - bucket_starts_[bucket]);
  }
  // No scan leaves the tables, and an empty last bucket has something to compare.
  prefixes_.resize(count + scan_ + 1);
  checks_.resize(count + scan_ + 1);
}

const Principal* KeyRing::find(const core::Sha256& digest) const {
  const std::uint64_t wanted = prefix(digest);
  const std::size_t start = bucket_starts_[wanted >> bucket_shift_];
  // Where nothing matches, the digest that has the wanted one's rank is compared in vain: memory that is as near or far
  // as a match's. Masks, because a branch that is taken for a match alone would tell of it.
  auto place = static_cast<std::size_t>(static_cast<unsigned __int128>(wanted) * principals_.size() >> 64);
  for (std::size_t i = 0; i < scan_; ++i) {
    const std::size_t match = std::size_t{0} - static_cast<std::size_t>(prefixes_[start + i] == wanted);
    place ^= (place ^ (start + i)) & match;
  }
  const Check& check = checks_[place];
  const int equal = static_cast<int>(CRYPTO_memcmp(check.digest.data(), digest.data(), digest.size()) == 0);
  const std::array<const Principal*, 2> answers{nullptr, principals_.data() + place};
  return answers[static_cast<std::size_t>(equal & static_cast<int>(check.good))];
}

Authenticator::Authenticator(std::shared_ptr<const KeyRing> ring)
    : ring_(std::move(ring)), hmac_(ring_->pepper().reveal()) {}

core::Result<const Principal*> Authenticator::identify(std::string_view authorization) {
  if (ring_->open()) return &ring_->anonymous();
  const std::string_view token = bearer(authorization);
  if (token.empty()) {
    return core::fail(core::ErrorKind::unauthorized,
                      "no API key given: send it as an Authorization header (Authorization: Bearer YOUR_KEY)");
  }
  const Principal* principal = token.size() <= kKeyBytesMax ? ring_->find(hmac_(token)) : nullptr;
  if (principal == nullptr) {
    return core::fail(core::ErrorKind::unauthorized, "the API key given is not valid here: it is unknown or revoked");
  }
  return principal;
}

}  // namespace ganglion::gateway
