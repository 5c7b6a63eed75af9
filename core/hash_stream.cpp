// See core/hash_stream.hpp.

#include "core/hash_stream.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace ganglion::core {

struct Hash128Stream::State {
  XXH3_state_t xxh3;
};

Hash128Stream::Hash128Stream() : state_(std::make_unique<State>()) {
  XXH3_INITSTATE(&state_->xxh3);
}
Hash128Stream::~Hash128Stream() = default;
Hash128Stream::Hash128Stream(Hash128Stream&&) noexcept = default;
Hash128Stream& Hash128Stream::operator=(Hash128Stream&&) noexcept = default;

void Hash128Stream::reset(std::uint64_t seed) {
  XXH3_128bits_reset_withSeed(&state_->xxh3, seed);
}

void Hash128Stream::update(std::string_view part) {
  XXH3_128bits_update(&state_->xxh3, part.data(), part.size());
}

Hash128 Hash128Stream::digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->xxh3);
  return {.low = hash.low64, .high = hash.high64};
}

}  // namespace ganglion::core
