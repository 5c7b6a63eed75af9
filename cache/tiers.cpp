// The process's side of cache/tiers.hpp: the queue, its thread, leases and purges. Looking is cache/tier_reader.cpp.

#include "cache/tiers.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <future>
#include <utility>

#include "cache/tiers_state.hpp"
#include "core/log.hpp"
#include "core/run_loop.hpp"
#include "core/thread.hpp"
#include "net/keep_running.hpp"
#include "net/retry_for_memory.hpp"

namespace ganglion::cache {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

// Answers on their way to the shared store at once: enough to hide its round trip.
constexpr unsigned kWritersMax = 8;
// A purge whose message got lost is found by asking, this often.
constexpr milliseconds kWatch{1'000};
// Between two tries to take the disk from a process that still has it.
constexpr milliseconds kTakeFirst{20};
constexpr milliseconds kTakeMax{5'000};
constexpr milliseconds kTellWait{2'000};  // that an operator's purge waits for another one being told

template <class E>
constexpr std::size_t index(E value) {
  return static_cast<std::size_t>(value);
}

}  // namespace

std::string_view name(LookResult result) {
  constexpr std::string_view kNames[] = {"hit",     "stale",   "miss",   "purged", "foreign",
                                         "corrupt", "timeout", "failed", "off"};
  static_assert(std::size(kNames) == index(LookResult::kCount));
  return kNames[index(result)];
}

std::string_view name(StoreResult result) {
  constexpr std::string_view kNames[] = {"stored", "fenced", "refused", "failed"};
  static_assert(std::size(kNames) == index(StoreResult::kCount));
  return kNames[index(result)];
}

std::string_view name(SharedFlight flight) {
  constexpr std::string_view kNames[] = {"led", "waited", "took_over", "gave_up"};
  static_assert(std::size(kNames) == index(SharedFlight::kCount));
  return kNames[index(flight)];
}

// --- any thread ------------------------------------------------------------------------------------------------------

void Tiers::Impl::count(Tier tier, LookResult result) {
  looks[index(tier)][index(result)].fetch_add(1, std::memory_order_relaxed);
}
void Tiers::Impl::count(Tier tier, StoreResult result) {
  stores[index(tier)][index(result)].fetch_add(1, std::memory_order_relaxed);
}
void Tiers::Impl::count(SharedFlight flight) {
  shared_flights[index(flight)].fetch_add(1, std::memory_order_relaxed);
}

std::string Tiers::Impl::new_token() {
  return instance + "." + std::to_string(tokens.fetch_add(1, std::memory_order_relaxed));
}

Tiers::Impl::Decoded Tiers::Impl::decode(std::string_view bytes, const StoreKey& key) const {
  auto entry = decode_entry(bytes, key, secret, options.entry_bytes_max, clock.steady(), clock.wall());
  if (entry) return *std::move(entry);
  switch (entry.error()) {
    case CodecError::foreign:
      return std::unexpected(LookResult::foreign);
    case CodecError::too_large:
      return std::unexpected(LookResult::miss);
    case CodecError::corrupt:
      break;
  }
  return std::unexpected(LookResult::corrupt);
}

void Tiers::Impl::enqueue(Item item) {
  const std::size_t bytes = item.bytes();
  {
    const std::lock_guard guard{lock};
    if (!stopped && queue_bytes + bytes <= options.queue_bytes_max) {
      queue_bytes += bytes;
      queue.push_back(std::move(item));
      if (writers == kWritersMax) return;
      ++writers;
      keep("cache writer", &Impl::write_all);
      return;
    }
  }
  dropped.fetch_add(1, std::memory_order_relaxed);
  if (!item.token.empty()) release(item.key, item.token);
}

void Tiers::Impl::release(const StoreKey& key, const std::string& token) {
  {
    const std::lock_guard guard{lease_lock};
    leases.erase(token);
  }
  const std::lock_guard guard{lock};
  if (stopped) return;  // it runs out by itself
  asio::post(*io, [this, key, token] {
    if (store) asio::co_spawn(*io, drop_lease(key, token), asio::detached);
  });
}

// --- on io -----------------------------------------------------------------------------------------------------------

void Tiers::Impl::start_thread() {
  work.emplace(io->get_executor());
  if (make_store) {
    store = make_store(io->get_executor());
    watch_timer.emplace(*io);
    lease_timer.emplace(*io);
    store->listen([this] {
      woken = true;
      watch_timer->cancel();
    });
    keep("cache purges", &Impl::watch);
    keep("cache leases", &Impl::keep_leases);
  }
  if (disk) keep("cache disk", &Impl::take_disk);
  thread = core::start_thread("cache-tiers", [this] { core::run_loop(*io); });
}

void Tiers::Impl::keep(const char* name, asio::awaitable<void> (Impl::*coroutine)()) {
  net::retry_for_memory([&] {  // a writer that is counted has to come
    net::keep_running(io->get_executor(), {.name = name,
                                           .wanted = [this] { return !stopped; },
                                           .begin = [this, coroutine] { return (this->*coroutine)(); }});
  });
}

// Until it is here; then what lies there is found again.
asio::awaitable<void> Tiers::Impl::take_disk() {
  asio::steady_timer timer(*io);
  for (milliseconds pause = kTakeFirst; disk_wanted; pause = std::min(pause * 2, kTakeMax)) {
    const auto taken = disk->take();
    if (taken) break;
    if (pause == kTakeFirst) core::log(core::LogLevel::warn, "cache_disk_awaited", {{"why", taken.error().message}});
    timer.expires_after(pause);
    co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  // In steps, so that reads and writes come in between; it may be given up meanwhile.
  for (bool more = true; more;) {
    if (!disk_wanted || !disk->here()) co_return;
    more = disk->scan_some();
    if (more) co_await asio::post(*io, asio::use_awaitable);
  }
  const DiskStats found = disk->stats();
  core::log(core::LogLevel::info, "cache_disk_scanned",
            {{"entries", found.entries_now}, {"bytes", found.bytes_now}, {"directory", options.disk.directory}});
}

Tiers::Impl::Taken::~Taken() {
  {
    const std::lock_guard guard{tiers.lease_lock};
    tiers.leases.erase(item.token);
  }
  const std::lock_guard guard{tiers.lock};
  tiers.queue_bytes -= item.bytes();
}

asio::awaitable<void> Tiers::Impl::write_all() {
  for (;;) {
    std::optional<Taken> taken;
    {
      const std::lock_guard guard{lock};
      if (queue.empty()) {
        if (--writers == 0) drained.notify_all();
        co_return;
      }
      taken.emplace(*this, std::move(queue.front()));
      queue.pop_front();
    }
    co_await write(taken->item);
  }
}

asio::awaitable<void> Tiers::Impl::write(const Item& item) {
  const auto left =
      std::chrono::duration_cast<milliseconds>(item.entry->stored + item.entry->lifetime() - clock.steady());
  const bool useless = left.count() <= 0 || purges.purged(*item.entry) || !encodable(*item.entry);
  std::string bytes;
  if (!useless) bytes = encode_entry(*item.entry, item.key, secret, options.compress_above);
  bool put_there = false;
  if (!useless && store) put_there = co_await put(item, bytes, left);
  if (useless && store) count(Tier::redis, StoreResult::refused);
  if (!item.token.empty() && !put_there) release(item.key, item.token);
  if (!disk || !item.to_disk) co_return;
  // A purge may have come while the store was waited for.
  if (useless || purges.purged(*item.entry) || bytes.size() > options.disk.entry_bytes_max || !disk->here()) {
    count(Tier::disk, StoreResult::refused);
    co_return;
  }
  const bool written = disk->write(item.key, bytes, clock.wall() + left);
  count(Tier::disk, written ? StoreResult::stored : StoreResult::failed);
  if (written) bytes_written[index(Tier::disk)].fetch_add(bytes.size(), std::memory_order_relaxed);
}

// True: the store took the value or knows a better one; the lease is over.
asio::awaitable<bool> Tiers::Impl::put(const Item& item, std::string_view bytes, milliseconds left) {
  if (bytes.size() > options.redis.entry_bytes_max) {
    count(Tier::redis, StoreResult::refused);
    co_return false;
  }
  if (!store->up(item.key)) {
    count(Tier::redis, StoreResult::failed);
    co_return false;
  }
  const SharedStore::Put put = co_await store->put(item.key, item.token, bytes, left);
  switch (put) {
    case SharedStore::Put::stored:
      count(Tier::redis, StoreResult::stored);
      bytes_written[index(Tier::redis)].fetch_add(bytes.size(), std::memory_order_relaxed);
      co_return true;
    case SharedStore::Put::fenced:
      count(Tier::redis, StoreResult::fenced);
      co_return true;
    case SharedStore::Put::failed:
      break;
  }
  count(Tier::redis, StoreResult::failed);
  co_return false;
}

asio::awaitable<void> Tiers::Impl::watch() {
  for (;;) {
    woken = false;
    co_await tell_pending();
    co_await catch_up();
    if (woken) continue;
    watch_timer->expires_after(kWatch);
    co_await watch_timer->async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

asio::awaitable<void> Tiers::Impl::catch_up() {
  const std::uint64_t known = purges.generation();
  const auto told = co_await store->told_since(known);
  store_up.store(told.has_value(), std::memory_order_relaxed);
  if (!told) co_return;
  if (told->generation < known) {
    // It was restarted empty. Who knows of purges tells it again, for those who have not heard of them.
    std::vector<std::pair<std::uint64_t, std::string>> again;
    for (const Purge& purge : purges.with_generation()) again.emplace_back(purge.generation, to_text(purge.scope));
    core::log(core::LogLevel::warn, "cache_purges_told_again", {{"purges", again.size()}});
    co_await store->tell_again(again);
    co_return;
  }
  hearing->hear(*told);
}

asio::awaitable<void> Tiers::Impl::keep_leases() {
  for (;;) {
    lease_timer->expires_after(options.redis.lease / 3);
    co_await lease_timer->async_wait(asio::as_tuple(asio::use_awaitable));
    const std::lock_guard guard{lease_lock};
    for (const auto& [token, key] : leases) asio::co_spawn(*io, renew(key, token), asio::detached);
  }
}

// A lease that is lost stays lost: whoever has it now is the leader, and our answer will be fenced off.
asio::awaitable<void> Tiers::Impl::renew(StoreKey key, std::string token) {
  if (co_await store->renew(key, token) || !store->up(key)) co_return;
  const std::lock_guard guard{lease_lock};
  leases.erase(token);
}

asio::awaitable<void> Tiers::Impl::drop_lease(StoreKey key, std::string token) {
  co_await store->release(key, token);
}

// False: one of them could not be told.
asio::awaitable<bool> Tiers::Impl::tell_pending() {
  if (telling) co_return false;
  struct Telling {
    explicit Telling(bool& f) : flag(f) { flag = true; }
    Telling(const Telling&) = delete;
    Telling& operator=(const Telling&) = delete;
    ~Telling() { flag = false; }
    bool& flag;
  };
  const Telling now(telling);
  bool all = true;
  for (const Purge& purge : purges.without_generation()) {
    const auto generation = co_await store->purge(to_text(purge.scope));
    all = generation.has_value();
    if (!all) break;
    purges.set_generation(purge.sequence, *generation);
  }
  co_return all;
}

asio::awaitable<PurgeReport> Tiers::Impl::purge(PurgeScope scope) {
  PurgeReport report;
  if (disk) {
    const bool here = disk->here();
    const auto done = disk->purge(scope);
    report.disk = done && here ? PurgeReport::Disk::done : PurgeReport::Disk::failed;
    if (!here) {
      report.disk_problem = "another process takes this one's place and has the disk: ask again";
    } else if (!done) {
      report.disk_problem = done.error().message + "; purged entries are not served, but a restart may bring them back";
    }
  }
  const std::uint64_t sequence = purges.add(scope);
  report.memory_entries = memory.purge(scope);
  purges_made.fetch_add(1, std::memory_order_relaxed);
  if (!store) co_return report;
  const auto told = [&] {
    return std::ranges::none_of(purges.without_generation(),
                                [&](const Purge& purge) { return purge.sequence == sequence; });
  };
  const auto give_up = std::chrono::steady_clock::now() + kTellWait;
  asio::steady_timer timer(*io);
  for (bool tried = false; !told() && std::chrono::steady_clock::now() < give_up;) {
    if (!telling) {
      if (tried) break;
      tried = true;
      co_await tell_pending();
    } else {
      timer.expires_after(milliseconds{5});
      co_await timer.async_wait(asio::as_tuple(asio::use_awaitable));
    }
  }
  report.cluster = told() ? PurgeReport::Cluster::told : PurgeReport::Cluster::pending;
  co_return report;
}

// --- Tiers -----------------------------------------------------------------------------------------------------------

Tiers::Tiers(const CacheOptions& options, const core::Clock& clock, MemoryCache& memory, PurgeLog& purges,
             StoreSecret secret, std::unique_ptr<DiskPlace> disk, MakeStore make_store, TierHistograms histograms)
    : secret_(std::move(secret)),
      purges_(purges),
      impl_(std::make_shared<Impl>(options, clock, memory, purges, secret_)) {
  impl_->histograms = histograms;
  impl_->disk = std::move(disk);
  impl_->make_store = std::move(make_store);
  impl_->hearing.emplace(purges, memory, impl_->disk.get(), [impl = impl_.get()](std::function<void()> job) {
    const std::lock_guard guard{impl->lock};
    if (!impl->stopped) asio::post(*impl->io, std::move(job));
  });
  if (any()) impl_->start_thread();
}

Tiers::~Tiers() {
  stop();
}

bool Tiers::any() const {
  return impl_->disk != nullptr || impl_->make_store;
}

bool Tiers::disk_on() const {
  return impl_->disk != nullptr;
}

bool Tiers::settled() const {
  return !disk_on() || impl_->disk->stats().scanned;
}

void Tiers::stop() {
  {
    const std::lock_guard guard{impl_->lock};
    if (impl_->stopped.exchange(true)) return;
  }
  impl_->io->stop();
  if (impl_->thread.joinable()) impl_->thread.join();
  impl_->watch_timer.reset();
  impl_->lease_timer.reset();
  impl_->store.reset();
  impl_->work.reset();
  impl_->io.reset();
}

bool Tiers::flush(milliseconds limit) {
  std::unique_lock guard{impl_->lock};
  return impl_->drained.wait_for(guard, limit, [this] { return impl_->queue.empty() && impl_->writers == 0; });
}

bool Tiers::give_up_disk(milliseconds limit) {
  if (!disk_on()) return true;
  const auto given = std::make_shared<std::promise<void>>();
  {
    const std::lock_guard guard{impl_->lock};
    if (impl_->stopped) return true;
    asio::post(*impl_->io, [impl = impl_.get(), given] {
      impl->disk_wanted = false;
      impl->disk->give_up();
      given->set_value();
    });
  }
  return given->get_future().wait_for(limit) == std::future_status::ready;
}

void Tiers::take_disk_back() {
  if (!disk_on()) return;
  const std::lock_guard guard{impl_->lock};
  if (impl_->stopped) return;
  asio::post(*impl_->io, [impl = impl_.get()] {
    if (!std::exchange(impl->disk_wanted, true)) impl->keep("cache disk", &Impl::take_disk);
  });
}

std::unique_ptr<TierReader> Tiers::reader(asio::any_io_executor executor) {
  if (!any()) return nullptr;
  return std::make_unique<TierReader>(impl_, std::move(executor));
}

void Tiers::store(std::shared_ptr<const Entry> entry, const StoreKey& key, std::string token) {
  if (!any()) return;
  impl_->enqueue({.entry = std::move(entry), .key = key, .token = std::move(token)});
}

asio::awaitable<PurgeReport> Tiers::purge(PurgeScope scope) {
  if (any()) co_return co_await asio::co_spawn(*impl_->io, impl_->purge(std::move(scope)), asio::use_awaitable);
  impl_->purges.add(scope);
  impl_->purges_made.fetch_add(1, std::memory_order_relaxed);
  co_return PurgeReport{.memory_entries = impl_->memory.purge(scope)};
}

TierStats Tiers::stats() const {
  TierStats out;
  const auto copy = [](auto& to, const auto& from) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = from[i].load(std::memory_order_relaxed);
  };
  for (std::size_t tier = 0; tier < 2; ++tier) {
    copy(out.looks[tier], impl_->looks[tier]);
    copy(out.stores[tier], impl_->stores[tier]);
  }
  copy(out.shared_flights, impl_->shared_flights);
  copy(out.bytes_read, impl_->bytes_read);
  copy(out.bytes_written, impl_->bytes_written);
  out.queue_dropped = impl_->dropped.load(std::memory_order_relaxed);
  out.purges_made = impl_->purges_made.load(std::memory_order_relaxed);
  out.purges_heard = impl_->hearing->heard();
  out.redis_on = static_cast<bool>(impl_->make_store);
  out.redis_up = impl_->store_up.load(std::memory_order_relaxed);
  if (out.redis_on) out.purges_untold = impl_->purges.without_generation().size();
  out.disk_on = impl_->disk != nullptr;
  if (out.disk_on) out.disk = impl_->disk->stats();
  const std::lock_guard guard{impl_->lock};
  out.queue_entries_now = impl_->queue.size();
  out.queue_bytes_now = impl_->queue_bytes;
  return out;
}

}  // namespace ganglion::cache
