#pragma once
// What was purged, in order, so that an answer asked for before a purge is never stored or served after it: not one
// that was still under way, nor one that another gateway left in Redis.
//
// Two numbers order purges. `sequence` counts them in this process; an entry carries the sequence at which its answer
// was asked for. `generation` is the installation's, given by Redis; an entry in Redis carries the generation that its
// gateway knew then, so a gateway that knew too little errs towards an extra miss. Thread-safe.

#include <atomic>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cache/entry.hpp"
#include "core/error.hpp"

namespace ganglion::cache {

// Which entries: all those that agree with every field given. Nothing given: every entry.
struct PurgeScope {
  std::string tenant;
  std::string gateway;
  std::string model;
  std::string tag;
  std::string key;  // cf-aig-cache-key

  bool all() const { return tenant.empty() && gateway.empty() && model.empty() && tag.empty() && key.empty(); }
  bool matches(const Entry& entry) const;
  friend bool operator==(const PurgeScope&, const PurgeScope&) = default;
};

// One line of JSON, for disk and Redis. nullopt: not a scope that we understand; then purge everything.
std::string to_text(const PurgeScope& scope);
std::optional<PurgeScope> scope_from_text(std::string_view text);

struct Purge {
  std::uint64_t sequence = 0;
  std::uint64_t generation = 0;  // 0: not known to the installation (yet)
  PurgeScope scope;
};

class PurgeLog {
 public:
  // Purges beyond this many are folded into "everything before".
  static constexpr std::size_t kPurgesMax = 1024;

  std::uint64_t sequence() const { return sequence_.load(std::memory_order_acquire); }
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

  // A purge of this process: its sequence. Give it its generation when Redis has told it.
  std::uint64_t add(PurgeScope scope);
  void set_generation(std::uint64_t sequence, std::uint64_t generation);
  // A purge heard of. False if it was known already.
  bool hear(std::uint64_t generation, PurgeScope scope);
  bool knows(std::uint64_t generation) const;
  // Redis says that this is the newest generation, and that everything up to it has been told.
  void caught_up(std::uint64_t generation);

  // Was a matching purge made in this process after `entry` was asked for?
  bool purged(const Entry& entry) const;
  // The same for an entry found in Redis, by generations; a purge that has none yet counts as after everything.
  bool purged_in_cluster(const Entry& entry) const;

  std::vector<Purge> with_generation() const;     // newest last
  std::vector<Purge> without_generation() const;  // those that the installation has not been told

 private:
  bool known(std::uint64_t generation) const;
  void trim();

  mutable std::mutex lock_;
  std::deque<Purge> purges_;
  std::uint64_t sequence_floor_ = 0;    // everything asked for before this is purged
  std::uint64_t generation_floor_ = 0;  // same
  std::atomic<std::uint64_t> sequence_{0};
  std::atomic<std::uint64_t> generation_{0};
};

}  // namespace ganglion::cache
