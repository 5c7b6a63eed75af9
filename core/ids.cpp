// See core/ids.hpp. xoshiro256** suffices: ids must be unique, not secret.

#include "core/ids.hpp"

#include <openssl/rand.h>

#include <bit>
#include <stdexcept>

namespace ganglion::core {

RequestIds::RequestIds() {
  if (RAND_bytes(reinterpret_cast<unsigned char*>(state_.data()), sizeof state_) != 1) {
    throw std::runtime_error("the system's random generator failed");
  }
}

std::uint64_t RequestIds::random() {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t t = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= t;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

RequestId RequestIds::next(WallTime now) {
  static constexpr std::string_view kAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  RequestId id;
  auto ms =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count());
  for (int i = 9; i >= 0; --i, ms >>= 5) id.text_[static_cast<std::size_t>(i)] = kAlphabet[ms & 31];
  std::uint64_t bits = random();
  for (std::size_t i = 10; i < 26; ++i) {
    if (i == 18) bits = random();
    id.text_[i] = kAlphabet[bits & 31];
    bits >>= 5;
  }
  return id;
}

}  // namespace ganglion::core
