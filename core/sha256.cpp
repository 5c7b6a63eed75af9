// See core/sha256.hpp. The SHA256_* functions are deprecated in OpenSSL 3 in favour of EVP, whose look-ups and copies
// are the very cost that is left out here; they stay for the life of the 3 series.

#define OPENSSL_SUPPRESS_DEPRECATED
#include "core/sha256.hpp"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <cstring>
#include <new>
#include <type_traits>

namespace ganglion::core {
namespace {

constexpr std::size_t kBlockBytes = 64;

std::string_view view(const Sha256& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace

Sha256State::Sha256State() {
  static_assert(sizeof(SHA256_CTX) == sizeof context_ && alignof(SHA256_CTX) <= 8 &&
                std::is_trivially_copyable_v<SHA256_CTX>);
  SHA256_Init(new (context_.data()) SHA256_CTX);
}

void Sha256State::update(std::string_view bytes) {
  SHA256_Update(std::launder(reinterpret_cast<SHA256_CTX*>(context_.data())), bytes.data(), bytes.size());
}

Sha256 Sha256State::finish() {
  Sha256 out;
  SHA256_Final(out.data(), std::launder(reinterpret_cast<SHA256_CTX*>(context_.data())));
  return out;
}

HmacSha256::HmacSha256(std::string_view key) {
  std::array<char, kBlockBytes> block{};
  if (key.size() > kBlockBytes) {
    Sha256State state;
    state.update(key);
    const Sha256 digest = state.finish();
    std::memcpy(block.data(), digest.data(), digest.size());
  } else if (!key.empty()) {
    std::memcpy(block.data(), key.data(), key.size());
  }
  for (char& c : block) c = static_cast<char>(c ^ 0x36);
  inner_.update({block.data(), block.size()});
  for (char& c : block) c = static_cast<char>(c ^ 0x36 ^ 0x5C);
  outer_.update({block.data(), block.size()});
  OPENSSL_cleanse(block.data(), block.size());
}

HmacSha256::~HmacSha256() {
  OPENSSL_cleanse(&inner_, sizeof inner_);
  OPENSSL_cleanse(&outer_, sizeof outer_);
}

Sha256 HmacSha256::operator()(std::string_view data) const {
  Sha256State inner = inner_;
  inner.update(data);
  Sha256State outer = outer_;
  outer.update(view(inner.finish()));
  return outer.finish();
}

}  // namespace ganglion::core
