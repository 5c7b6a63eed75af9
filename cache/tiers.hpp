#pragma once
// The tiers below memory: a store shared with other gateways, then this machine's disk. Looked into by the pump of a
// flight, after memory missed and before an upstream is asked; written to behind the request's back. Whatever is slow
// or lost is left out: a request waits for its small timeout at most and never fails because of a tier.
// docs/cache.md has the table.
//
// Tiers is the process's: it owns the thread that writes, reads the disk and listens for purges. Each worker has a
// TierReader.

#include <array>
#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "cache/disk_place.hpp"
#include "cache/memory_cache.hpp"
#include "cache/options.hpp"
#include "cache/purge_log.hpp"
#include "cache/shared_store.hpp"
#include "core/cancel.hpp"
#include "core/deadline.hpp"
#include "metrics/registry.hpp"

namespace ganglion::cache {

enum class Tier : std::uint8_t { redis, disk, kCount };
constexpr std::string_view name(Tier tier) {
  return tier == Tier::redis ? "redis" : "disk";
}

// How a look into a tier ended.
enum class LookResult : std::uint8_t { hit, stale, miss, purged, foreign, corrupt, timeout, failed, off, kCount };
std::string_view name(LookResult result);

// How an answer's way into a tier ended.
enum class StoreResult : std::uint8_t { stored, fenced, refused, failed, kCount };
std::string_view name(StoreResult result);

// How a miss fared among several gateways.
enum class SharedFlight : std::uint8_t {
  led,        // took the lease at once
  waited,     // another gateway's answer came
  took_over,  // waited, and got the lease when the other lost or gave it back
  gave_up,    // waited as long as it may, and went on alone
  kCount
};
std::string_view name(SharedFlight flight);

struct TierStats {
  std::array<std::array<std::uint64_t, static_cast<std::size_t>(LookResult::kCount)>, 2> looks{};
  std::array<std::array<std::uint64_t, static_cast<std::size_t>(StoreResult::kCount)>, 2> stores{};
  std::array<std::uint64_t, static_cast<std::size_t>(SharedFlight::kCount)> shared_flights{};
  std::array<std::uint64_t, 2> bytes_read{}, bytes_written{};
  std::uint64_t queue_dropped = 0;
  std::uint64_t queue_entries_now = 0, queue_bytes_now = 0;
  std::uint64_t purges_made = 0, purges_heard = 0, purges_untold = 0;
  bool disk_on = false, redis_on = false, redis_up = false;
  DiskStats disk;
};

// Time that a look took, by tier; default-made handles count nothing.
struct TierHistograms {
  metrics::Histogram redis, disk;
};

struct PurgeReport {
  std::size_t memory_entries = 0;
  enum class Disk : std::uint8_t { off, done, failed } disk = Disk::off;
  std::string disk_problem;
  enum class Cluster : std::uint8_t { off, told, pending } cluster = Cluster::off;
};

class Lease;
class TierReader;

class Tiers {
 public:
  using MakeStore = std::function<std::shared_ptr<SharedStore>(boost::asio::any_io_executor)>;

  // `disk` and `make_store` may be null: no such tier. A disk that is not here yet is taken as soon as it can be.
  // Everything referred to outlives this object.
  Tiers(const CacheOptions& options, const core::Clock& clock, MemoryCache& memory, PurgeLog& purges,
        StoreSecret secret, std::unique_ptr<DiskPlace> disk, MakeStore make_store, TierHistograms histograms = {});
  ~Tiers();
  Tiers(const Tiers&) = delete;
  Tiers& operator=(const Tiers&) = delete;

  bool any() const;      // is there a tier below memory
  bool disk_on() const;  // also while another process has it
  // False while the disk may hold answers of an earlier process that are not found again yet.
  bool settled() const;
  const StoreSecret& secret() const { return secret_; }
  PurgeLog& purges() { return purges_; }

  // For one worker; nullptr where there is no tier.
  std::unique_ptr<TierReader> reader(boost::asio::any_io_executor executor);

  // Hands an answer to the tiers below, which write it when they come to it. Never blocks; where too much is queued
  // the answer is dropped and counted. `token`: of the lease under which it was fetched, "" for none. Any thread.
  void store(std::shared_ptr<const Entry> entry, const StoreKey& key, std::string token);

  // Everywhere. Done when this process, its disk included, is purged, and the other gateways are told or known not to
  // be. Any thread's coroutine.
  boost::asio::awaitable<PurgeReport> purge(PurgeScope scope);

  // For the process that takes this one's place: writes nothing more to the disk, closes its files and gives up its
  // lock; looks miss from here on. False: not within `limit`, but as soon as the disk lets it.
  bool give_up_disk(std::chrono::milliseconds limit);
  // That process did not: the disk is taken again as soon as it can be, and read again behind the caller's back.
  void take_disk_back();

  TierStats stats() const;
  // Blocks until the queue is written, at most for `limit`; for shutdown and tests.
  bool flush(std::chrono::milliseconds limit);
  // Ends the thread; what is queued then is lost. After the workers' threads, before their io_contexts die.
  void stop();

 private:
  friend class TierReader;
  friend class Lease;
  struct Impl;
  const StoreSecret secret_;
  PurgeLog& purges_;
  std::shared_ptr<Impl> impl_;
};

// The right to make one upstream call that other gateways wait for; renewed while it lives. Given back when it dies,
// unless the answer went to Tiers::store with its token.
class Lease {
 public:
  Lease(std::shared_ptr<Tiers::Impl> tiers, const StoreKey& key, std::string token);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  std::string hand_over();  // the token; the lease is the receiver's to end

 private:
  std::shared_ptr<Tiers::Impl> tiers_;
  const StoreKey key_;
  std::string token_;
};

struct TierQuestion {
  StoreKey name;
  CacheKey key;
  std::string_view tenant;
  std::string_view gateway;
  bool lease = false;                    // a call may follow that other gateways can wait for
  std::shared_ptr<const Entry> known;    // stale, and not good enough: only a newer one counts
  core::CancelSource* cancel = nullptr;  // nobody wants the answer any more
  core::Deadline deadline;
};

struct TierAnswer {
  Found found;                   // put into memory already
  std::unique_ptr<Lease> lease;  // held while the call runs
};

// Its worker's thread only.
class TierReader {
 public:
  TierReader(std::shared_ptr<Tiers::Impl> tiers, boost::asio::any_io_executor executor);
  ~TierReader();

  // The freshest answer that the tiers have, else perhaps the lease to fetch one. While another gateway has the lease
  // this waits for its answer, within options.redis.wait and the question's deadline.
  boost::asio::awaitable<TierAnswer> find(TierQuestion question);

 private:
  struct Search;
  boost::asio::awaitable<void> search_store(Search& search);
  boost::asio::awaitable<SharedStore::Got> ask_store(Search& search);
  boost::asio::awaitable<void> ask_disk(Search& search);
  boost::asio::awaitable<bool> pause(Search& search, core::Deadline give_up);
  LookResult judge(Search& search, std::shared_ptr<Entry> entry, Tier tier);

  std::shared_ptr<Tiers::Impl> tiers_;
  boost::asio::any_io_executor executor_;
  std::shared_ptr<SharedStore> store_;
};

}  // namespace ganglion::cache
