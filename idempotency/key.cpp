// See idempotency/key.hpp.

#include "idempotency/key.hpp"

#include <algorithm>
#include <initializer_list>
#include <string>

#include "core/digest.hpp"

namespace ganglion::idempotency {
namespace {

constexpr std::string_view kHeader = "idempotency-key";

Digest cut(const core::Sha256& whole) {
  Digest out{};
  std::copy_n(whole.begin(), out.size(), out.begin());
  return out;
}

// Lengths go in front, so that no two lists of parts are one text.
std::string joined(std::initializer_list<std::string_view> parts) {
  std::string out;
  for (const std::string_view part : parts) out.append(std::to_string(part.size())).append(":").append(part);
  return out;
}

}  // namespace

core::Result<void> check_key(std::string_view text) {
  if (text.empty()) {
    return core::fail(core::ErrorKind::invalid_value, "the Idempotency-Key header is empty; send 1 to 255 characters",
                      std::string{kHeader});
  }
  if (text.size() > kKeyBytesMax) {
    return core::fail(core::ErrorKind::invalid_value,
                      "the Idempotency-Key has " + std::to_string(text.size()) + " characters; at most 255 are taken",
                      std::string{kHeader});
  }
  if (!std::ranges::all_of(text, [](char c) { return c > ' ' && c < '\x7f'; })) {
    return core::fail(core::ErrorKind::invalid_value,
                      "the Idempotency-Key may hold visible ASCII characters only, without spaces",
                      std::string{kHeader});
  }
  return {};
}

Digest key_digest(std::string_view tenant, std::string_view api_key_id, std::string_view text) {
  return cut(core::sha256(joined({tenant, api_key_id, text})));
}

Digest request_digest(api::Endpoint endpoint, std::string_view body) {
  const core::Sha256 of_body = core::sha256(body);
  return cut(
      core::sha256(joined({api::name(endpoint), {reinterpret_cast<const char*>(of_body.data()), of_body.size()}})));
}

}  // namespace ganglion::idempotency
