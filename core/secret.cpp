// Wiping and comparing through OpenSSL, whose routines the compiler may not optimise away.

#include "core/secret.hpp"

#include <openssl/crypto.h>

namespace ganglion::core {

Secret& Secret::operator=(Secret&& other) noexcept {
  if (this != &other) {
    wipe();
    value_ = std::move(other.value_);
    other.wipe();
  }
  return *this;
}

void Secret::wipe() {
  OPENSSL_cleanse(value_.data(), value_.size());
  value_.clear();
}

bool equal_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace ganglion::core
