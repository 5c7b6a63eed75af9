#pragma once
// Sees to it that what a request needs has been borrowed before the limiter decides: at once from what lies here, ahead
// of need in the background, and by waiting one exchange only where a slice has run out and the shared bucket is
// thought to hold more. A request never waits longer than the store's own limit, and never fails because of the store:
// then the holder goes over to this gateway's own part of the limit until an exchange succeeds again.

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <string>

#include "metrics/registry.hpp"
#include "ratelimit/lease_store.hpp"
#include "ratelimit/limiter.hpp"

namespace ganglion::ratelimit {

// Default-made handles count nothing.
struct LeaseMetrics {
  metrics::Counter granted, refused, failed;
  metrics::Histogram wait;
};

// One a thread, on which its store lives. Everything is borrowed.
class LeaseBroker {
 public:
  LeaseBroker(boost::asio::any_io_executor executor, Limiter& limiter, LeaseStore& store, LeaseMetrics metrics = {});

  // The limiter's decision, where it can be made now; nothing: something has to be borrowed first, so admit() is to be
  // awaited. May begin exchanges in the background.
  std::optional<core::Result<Permit>> try_admit(const LimiterHandle& handle, const Estimate& estimate);
  // The decision after as many exchanges as it takes; bounded.
  boost::asio::awaitable<core::Result<Permit>> admit(LimiterHandle handle, Estimate estimate);

 private:
  friend class LeaseKeeper;
  using SetPtr = std::shared_ptr<detail::BucketSet>;
  using Costs = std::array<std::uint64_t, kLeaseKinds>;
  // covered: what the request costs lies here; decide: it does not, and waiting would not change that, or the local
  // share decides.
  enum class Look : std::uint8_t { covered, decide, wait };

  // Of all sets: the furthest in that order.
  Look look(const LimiterHandle& handle, const Costs& costs);
  Look look(const SetPtr& set, const Costs& costs);
  boost::asio::awaitable<void> wait_for(SetPtr set, Costs costs);
  // With the set's lock held; the exchange itself begins when it is released.
  LeaseAsk begin(detail::BucketSet& set, const Costs& costs, core::SteadyTime now);
  void send(const SetPtr& set, const LeaseAsk& ask);
  void finished(const SetPtr& set, const LeaseResult& result);
  void go_local(const SetPtr& set, core::SteadyTime now);
  // One look of the keeper; false: there is nothing more to put right.
  bool tend(const SetPtr& set);
  // Gives all back. True: nothing is on its way, and nothing is left that could be.
  bool close(const SetPtr& set);

  boost::asio::any_io_executor executor_;
  Limiter& limiter_;
  LeaseStore& store_;
  LeaseMetrics metrics_;
};

// The one of the process that gives back what lies unused, charges what was overspent, brings holders back from their
// local share, and counts the gateways.
class LeaseKeeper {
 public:
  LeaseKeeper(const boost::asio::any_io_executor& executor, Limiter& limiter, LeaseStore& store,
              LeaseMetrics metrics = {});
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;
  void start();  // ticks by itself from then on
  void tick();
  // Nothing is spent any more: gives everything back and is counted no longer. To be called again, now and then, until
  // it says true; or not, where the store takes too long.
  bool close();
  // Another process takes this one's place, under a name of its own: gives everything back and is counted no longer,
  // but goes on charging and giving back for the requests that still run here. resume(): that process did not.
  void resign();
  void resume();

 private:
  std::vector<std::shared_ptr<detail::BucketSet>> listed() const;
  void schedule();
  void report();

  LeaseBroker broker_;
  const std::string id_;  // of this gateway, for the count
  boost::asio::steady_timer timer_;
  unsigned ticks_ = 0;
  bool reported_ = false;
  bool resigned_ = false;
  bool closing_ = false;
  bool left_ = false;
  std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

}  // namespace ganglion::ratelimit
