// A worker's side of cache/tiers.hpp: leases, and looking.

#include <algorithm>
#include <boost/asio/post.hpp>

#include "cache/recording_state.hpp"
#include "cache/tiers_state.hpp"

namespace ganglion::cache {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

// Between two looks at what another gateway is fetching.
constexpr milliseconds kPollFirst{5};
constexpr milliseconds kPollMax{200};
// Values that do not do (stale, purged, damaged) and are looked past, one after another, before we go on without.
constexpr int kValuesMax = 3;

class Stopwatch {
 public:
  explicit Stopwatch(metrics::Histogram histogram) : histogram_(histogram) {}
  ~Stopwatch() { histogram_.observe(std::chrono::steady_clock::now() - began_); }

 private:
  metrics::Histogram histogram_;
  core::SteadyTime began_ = std::chrono::steady_clock::now();
};

}  // namespace

// --- Lease -----------------------------------------------------------------------------------------------------------

Lease::Lease(std::shared_ptr<Tiers::Impl> tiers, const StoreKey& key, std::string token)
    : tiers_(std::move(tiers)), key_(key), token_(std::move(token)) {
  const std::lock_guard guard{tiers_->lease_lock};
  tiers_->leases.emplace(token_, key_);
}

Lease::~Lease() {
  if (!token_.empty()) tiers_->release(key_, token_);
}

std::string Lease::hand_over() {
  return std::exchange(token_, {});
}

// --- TierReader ------------------------------------------------------------------------------------------------------

struct TierReader::Search {
  TierQuestion question;
  std::uint64_t sequence = 0;  // of purges, when it began
  std::string token;           // "": no lease wanted
  std::string known;           // the stamp of a value that does not do
  Found found;
  bool disk_asked = false;
  bool from_disk = false;
  bool waited = false;
  milliseconds poll = kPollFirst;
  std::unique_ptr<Lease> lease;
  core::CancelSource never;

  bool fresh() const { return found.freshness == Freshness::fresh; }
  core::CancelSource& cancel() { return question.cancel != nullptr ? *question.cancel : never; }
};

TierReader::TierReader(std::shared_ptr<Tiers::Impl> tiers, asio::any_io_executor executor)
    : tiers_(std::move(tiers)), executor_(std::move(executor)) {
  if (tiers_->make_store) store_ = tiers_->make_store(executor_);
}

TierReader::~TierReader() = default;

asio::awaitable<TierAnswer> TierReader::find(TierQuestion question) {
  Search search{.question = std::move(question), .sequence = tiers_->purges.sequence()};
  const TierQuestion& asked = search.question;
  if (asked.lease) search.token = tiers_->new_token();
  if (asked.known) search.known = stamp_of(*asked.known);
  if (store_) {
    if (store_->up(asked.name)) {
      co_await search_store(search);
    } else {
      tiers_->count(Tier::redis, LookResult::off);
    }
  }
  if (!search.fresh() && !search.disk_asked) co_await ask_disk(search);
  if (search.fresh() && search.waited && !search.from_disk) tiers_->count(SharedFlight::waited);
  if (search.fresh() && search.from_disk && search.lease) {
    // Others may be waiting for what lay on our disk.
    tiers_->enqueue(
        {.entry = search.found.entry, .key = asked.name, .token = search.lease->hand_over(), .to_disk = false});
    search.lease.reset();
  }
  co_return TierAnswer{.found = std::move(search.found), .lease = std::move(search.lease)};
}

asio::awaitable<void> TierReader::search_store(Search& search) {
  const core::Deadline give_up = search.question.deadline.capped(tiers_->options.redis.wait);
  for (int values = 0; values < kValuesMax;) {
    const SharedStore::Got got = co_await ask_store(search);
    if (search.fresh()) co_return;
    switch (got) {
      case SharedStore::Got::hit:
        ++values;  // it counts as nothing from now on
        continue;
      case SharedStore::Got::leased:
        search.lease = std::make_unique<Lease>(tiers_, search.question.name, search.token);
        tiers_->count(search.waited ? SharedFlight::took_over : SharedFlight::led);
        co_return;
      case SharedStore::Got::busy:
        break;
      case SharedStore::Got::miss:
      case SharedStore::Got::failed:
        co_return;
    }
    if (!search.disk_asked) co_await ask_disk(search);
    // A stale answer is good enough while another gateway fetches a new one.
    if (search.fresh() || search.found.freshness == Freshness::revalidate) co_return;
    search.waited = true;
    if (!co_await pause(search, give_up)) {
      tiers_->count(SharedFlight::gave_up);
      co_return;
    }
  }
}

asio::awaitable<SharedStore::Got> TierReader::ask_store(Search& search) {
  const StoreKey& name = search.question.name;
  const core::Deadline until = search.question.deadline.capped(tiers_->options.redis.timeout);
  SharedStore::Answer answer;
  {
    const Stopwatch watch(tiers_->histograms.redis);
    answer = co_await store_->get(name, search.token, search.known, until);
  }
  using Got = SharedStore::Got;
  if (answer.got == Got::failed) {
    tiers_->count(Tier::redis, until.passed() ? LookResult::timeout : LookResult::failed);
    co_return answer.got;
  }
  if (answer.got == Got::hit && answer.generation > tiers_->purges.generation()) {
    // There were purges that we have not heard of: first those, then the value.
    const auto told = co_await store_->told_since(tiers_->purges.generation(), until);
    if (!told) {
      tiers_->count(Tier::redis, LookResult::failed);
      co_return Got::failed;
    }
    tiers_->hearing->hear(*told);
  }
  if (answer.got != Got::hit) {
    tiers_->count(Tier::redis, LookResult::miss);
    co_return answer.got;
  }
  tiers_->bytes_read[static_cast<std::size_t>(Tier::redis)].fetch_add(answer.value.size(), std::memory_order_relaxed);
  search.known = stamp_of(answer.value);
  auto decoded = tiers_->decode(answer.value, name);
  tiers_->count(Tier::redis, decoded ? judge(search, *std::move(decoded), Tier::redis) : decoded.error());
  co_return answer.got;
}

asio::awaitable<void> TierReader::ask_disk(Search& search) {
  search.disk_asked = true;
  if (!tiers_->disk) co_return;
  if (!tiers_->disk->holds(search.question.name)) {
    tiers_->count(Tier::disk, LookResult::miss);
    co_return;
  }
  struct Read {
    std::shared_ptr<Waiter> waiter;
    std::optional<Tiers::Impl::Decoded> answer;
  };
  const auto read = std::make_shared<Read>(Read{.waiter = std::make_shared<Waiter>(executor_)});
  const Stopwatch watch(tiers_->histograms.disk);
  asio::post(*tiers_->io, [tiers = tiers_.get(), name = search.question.name, read, executor = executor_] {
    Tiers::Impl::Decoded answer = std::unexpected(LookResult::miss);
    if (const auto record = tiers->disk->read(name)) {
      tiers->bytes_read[static_cast<std::size_t>(Tier::disk)].fetch_add(record->bytes.size(),
                                                                        std::memory_order_relaxed);
      answer = tiers->decode(record->bytes, name);
      if (answer && tiers->disk->purged(record->position, **answer)) answer = std::unexpected(LookResult::purged);
      if (!answer) tiers->disk->forget(name);
    }
    asio::post(executor, [read, answer = std::move(answer)]() mutable {
      read->answer = std::move(answer);
      read->waiter->timer.cancel();
    });
  });
  const core::Deadline until = search.question.deadline.capped(tiers_->options.disk.timeout);
  while (!read->answer) {
    if (const auto slept = co_await sleep_on(read->waiter, search.cancel(), until); !slept && !read->answer) {
      tiers_->count(Tier::disk, LookResult::timeout);
      co_return;
    }
  }
  Tiers::Impl::Decoded& answer = *read->answer;
  const LookResult result = answer ? judge(search, *std::move(answer), Tier::disk) : answer.error();
  search.from_disk = result == LookResult::hit;
  tiers_->count(Tier::disk, result);
}

LookResult TierReader::judge(Search& search, std::shared_ptr<Entry> entry, Tier tier) {
  const TierQuestion& asked = search.question;
  if (entry->tenant != asked.tenant || entry->gateway != asked.gateway) return LookResult::foreign;
  if (tier == Tier::redis && tiers_->purges.purged_in_cluster(*entry)) return LookResult::purged;
  const Freshness freshness = entry->freshness(tiers_->clock.steady());
  if (freshness == Freshness::dead) return LookResult::miss;
  if (asked.known && entry->stored_wall <= asked.known->stored_wall) return LookResult::miss;
  if (search.found.entry && search.found.entry->stored >= entry->stored) return LookResult::stale;
  entry->key = asked.key;
  entry->purge_sequence = search.sequence;
  tiers_->memory.insert(entry);
  if (tiers_->purges.purged(*entry)) return LookResult::purged;
  search.found = {.entry = std::move(entry), .freshness = freshness};
  return freshness == Freshness::fresh ? LookResult::hit : LookResult::stale;
}

// False: waited long enough, or nobody waits any more.
asio::awaitable<bool> TierReader::pause(Search& search, core::Deadline give_up) {
  if (give_up.passed()) co_return false;
  const auto waiter = std::make_shared<Waiter>(executor_);
  const core::Deadline until = give_up.capped(search.poll);
  search.poll = std::min(search.poll * 2, kPollMax);
  const auto slept = co_await sleep_on(waiter, search.cancel(), until);
  co_return slept.has_value() || slept.error().kind == core::ErrorKind::deadline_exceeded;
}

}  // namespace ganglion::cache
