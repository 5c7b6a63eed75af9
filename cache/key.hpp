#pragma once
// The key of an exact answer cache: who asks (tenant, gateway), what for (endpoint, resolved model), the canonical
// body, and the version of the policy that shaped it. Two requests have one key exactly if JSON means the same by them:
// white space, the order of object keys and the spelling of strings (escapes) do not count, numbers count as written,
// `stream` and `stream_options` do not count (an entry serves both kinds of client), `model` is replaced by the
// resolved one. Not thread-safe: one KeyMaker a worker, all from one KeySeed.
//
// Collisions: 256 bits of two independently seeded hashes and the canonical length are compared, so among 10^6 entries
// an accidental one has odds below 10^-60. Seeds are drawn per process from the system's CSPRNG, or derived from the
// installation's secret where keys outlive the process, so none can be prepared offline; and an entry's tenant and
// gateway are compared as text at each hit (cache/entry.hpp), so that even a collision cannot show one tenant another's
// answer. Outside the process an entry has another name (store_key.hpp).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/json_outline.hpp"
#include "api/types.hpp"
#include "cache/store_key.hpp"
#include "core/digest.hpp"
#include "core/error.hpp"
#include "core/hash_stream.hpp"

namespace ganglion::cache {

struct CacheKey {
  core::Hash128 hash;   // finds the entry
  core::Hash128 check;  // proves it
  std::uint64_t bytes = 0;
  friend bool operator==(const CacheKey&, const CacheKey&) = default;
};

struct CacheKeyHash {
  std::size_t operator()(const CacheKey& key) const { return static_cast<std::size_t>(key.hash.low); }
};

struct KeySeed {
  std::uint64_t hash = 0;
  std::uint64_t check = 0;
  static KeySeed random();  // start-up only; throws if the system has no randomness
  // The same in every process that has the secret: keys that outlive one.
  static KeySeed of(const StoreSecret& secret);
};

struct KeyScope {
  std::string_view tenant;
  std::string_view gateway;
  api::Endpoint endpoint = api::Endpoint::chat_completions;
  std::string_view model;  // resolved
  std::uint64_t policy_version = 0;
};

class KeyMaker {
 public:
  explicit KeyMaker(KeySeed seed) : seed_(seed) {}

  // `body` must be one that parse_request accepted: UTF-8, which is not checked again. Not JSON: invalid_json.
  core::Result<CacheKey> from_body(const KeyScope& scope, std::string_view body);
  // The same for a body whose outline was recorded while it was read to its end; it is not scanned again.
  CacheKey from_outline(const KeyScope& scope, const api::JsonOutline& outline);
  // cf-aig-cache-key: the caller's own key, still inside tenant, gateway, endpoint and model.
  CacheKey from_text(const KeyScope& scope, std::string_view text);

  // The name in other tiers of what the last from_... made a key of. Its body must still be there.
  StoreKey store_key(const StoreSecret& secret) const;

  // The canonical text of the last from_body or from_outline, for tests; the same holds.
  std::string canonical() const;

 private:
  friend struct Canonical;

  // A long value that was left in the body: it comes after so much of text_.
  struct Run {
    std::size_t text_end = 0;
    std::string_view in_body;
  };

  void scope(const KeyScope& scope, char form);
  CacheKey hash();
  template <class Use>
  void each_part(const Use& use) const;
  std::string whole_text() const;

  KeySeed seed_;
  core::Hash128Stream hash_, check_;
  std::string text_;  // scope and canonical body without the runs
  std::vector<Run> runs_;
  std::size_t body_at_ = 0;
  api::JsonOutline outline_;  // from_body's
  std::vector<std::uint32_t> order_;
};

}  // namespace ganglion::cache
