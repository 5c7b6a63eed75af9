#pragma once
// Internal to cache/tiers.cpp and cache/tier_reader.cpp: what the process's tiers share. Coroutines and jobs on `io`
// hold it by plain pointer: they die with `io`, which stop() destroys.

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <deque>
#include <expected>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "cache/codec.hpp"
#include "cache/purge_hearing.hpp"
#include "cache/tiers.hpp"

namespace ganglion::cache {

struct Tiers::Impl {
  using Decoded = std::expected<std::shared_ptr<Entry>, LookResult>;

  Impl(const CacheOptions& o, const core::Clock& c, MemoryCache& m, PurgeLog& p, const StoreSecret& s)
      : options(o), clock(c), memory(m), purges(p), secret(s) {}

  struct Item {
    std::shared_ptr<const Entry> entry;
    StoreKey key;
    std::string token;
    bool to_disk = true;
    std::size_t bytes() const { return entry->bytes() + 256; }
  };

  // What a writer took off the queue, until it is done with it or is no more; then its lease runs out by itself.
  struct Taken {
    Taken(Impl& t, Item i) : tiers(t), item(std::move(i)) {}
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;
    ~Taken();
    Impl& tiers;
    const Item item;
  };

  // Any thread.
  void enqueue(Item item);
  void release(const StoreKey& key, const std::string& token);
  std::string new_token();
  Decoded decode(std::string_view bytes, const StoreKey& key) const;
  void count(Tier tier, LookResult result);
  void count(Tier tier, StoreResult result);
  void count(SharedFlight flight);

  // On io.
  void start_thread();
  // Until stop(), whatever becomes of it in between.
  void keep(const char* name, boost::asio::awaitable<void> (Impl::*coroutine)());
  boost::asio::awaitable<void> take_disk();
  boost::asio::awaitable<void> write_all();
  boost::asio::awaitable<void> write(const Item& item);
  boost::asio::awaitable<bool> put(const Item& item, std::string_view bytes, std::chrono::milliseconds left);
  boost::asio::awaitable<void> watch();
  boost::asio::awaitable<void> keep_leases();
  boost::asio::awaitable<void> renew(StoreKey key, std::string token);
  boost::asio::awaitable<void> drop_lease(StoreKey key, std::string token);
  boost::asio::awaitable<bool> tell_pending();
  boost::asio::awaitable<void> catch_up();
  boost::asio::awaitable<PurgeReport> purge(PurgeScope scope);

  const CacheOptions options;
  const core::Clock& clock;
  MemoryCache& memory;
  PurgeLog& purges;
  const StoreSecret secret;
  TierHistograms histograms;
  std::unique_ptr<DiskPlace> disk;
  MakeStore make_store;
  std::optional<PurgeHearing> hearing;
  const std::string instance = core::random_hex(8);

  std::unique_ptr<boost::asio::io_context> io = std::make_unique<boost::asio::io_context>(1);
  std::optional<boost::asio::executor_work_guard<boost::asio::io_context::executor_type>> work;
  std::shared_ptr<SharedStore> store;  // of io
  std::optional<boost::asio::steady_timer> watch_timer, lease_timer;
  bool telling = false;     // on io
  bool woken = false;       // same
  bool disk_wanted = true;  // same
  std::thread thread;

  std::mutex lock;  // the queue, and whether io may be posted to
  std::condition_variable drained;
  std::deque<Item> queue;
  std::size_t queue_bytes = 0;  // being written included
  unsigned writers = 0;
  std::atomic<bool> stopped{false};  // set under the lock

  std::mutex lease_lock;
  std::map<std::string, StoreKey> leases;  // by token: those to renew

  template <std::size_t N>
  using Counts = std::array<std::atomic<std::uint64_t>, N>;
  std::array<Counts<static_cast<std::size_t>(LookResult::kCount)>, 2> looks{};
  std::array<Counts<static_cast<std::size_t>(StoreResult::kCount)>, 2> stores{};
  Counts<static_cast<std::size_t>(SharedFlight::kCount)> shared_flights{};
  Counts<2> bytes_read{}, bytes_written{};
  std::atomic<std::uint64_t> dropped{0}, tokens{0}, purges_made{0};
  std::atomic<bool> store_up{false};
};

}  // namespace ganglion::cache
