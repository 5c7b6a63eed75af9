#pragma once
// Digests of the keys and requests that tests of idempotency name.

#include <string>

#include "idempotency/key.hpp"

namespace ganglion::gateway {

inline idempotency::Digest key(const std::string& name) {
  return idempotency::key_digest("t", "k", name);
}
inline idempotency::Digest body(const std::string& text) {
  return idempotency::request_digest(api::Endpoint::chat_completions, text);
}

}  // namespace ganglion::gateway
