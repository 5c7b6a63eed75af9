#pragma once
// Budgets shared with other gateways through Redis: registers what this gateway uses, asks for slices of what is left,
// and gives back what others are short of. Requests spend from slices and make no round trip; one that finds its slice
// used up waits for the next. The ledger of each gateway is the truth: after Redis has lost its data, every gateway
// registers again what it has spent and holds, and nobody is granted more before all have, or `rebuild` has passed.
// What arrives late, from a connection that hung or from a process whose place was taken, changes nothing there.
// Lives on one thread; kick() may come from any.

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "gateway/budget_share_options.hpp"
#include "metering/budgets.hpp"
#include "metrics/registry.hpp"
#include "net/redis_client.hpp"

namespace ganglion::gateway {

class BudgetShare {
 public:
  // `gateway`: this gateway's name among the others, the same after a restart (its ledger's id). All outlive this.
  BudgetShare(boost::asio::io_context& io, net::RedisClient& redis, metering::Budgets& budgets,
              const BudgetShareOptions& options, std::string gateway, metrics::Registry& registry);
  ~BudgetShare();
  BudgetShare(const BudgetShare&) = delete;
  BudgetShare& operator=(const BudgetShare&) = delete;

  // Somebody waits for a slice: ask now instead of with the next round.
  void kick();
  // This process ends, and no request runs or comes any more: what is not spent is given back, and nothing is asked for
  // again. True: it has been, or another process speaks for this gateway. On this object's thread, any number of times.
  bool farewell();
  // How long it is worth waiting for a slice.
  std::chrono::milliseconds patience() const { return options_.patience; }

 private:
  struct Round;
  boost::asio::awaitable<void> run();
  boost::asio::awaitable<void> pause();
  boost::asio::awaitable<bool> announce();
  boost::asio::awaitable<void> leave();
  boost::asio::awaitable<bool> exchange(std::vector<metering::LeaseAsk> asks);
  // The first of those not sent that can be.
  void send_next(const std::shared_ptr<Round>& round);
  void send(const std::shared_ptr<Round>& round, std::size_t index);
  void failed(Round& round, std::size_t index);
  void take(const metering::LeaseAsk& ask, const net::RedisReply& reply);
  std::vector<std::string> arguments(const metering::LeaseAsk& ask);
  std::vector<metering::LeaseAsk> collect(metering::LeaseRound round);
  std::string epoch_key() const;
  std::string short_key() const;

  boost::asio::io_context& io_;
  net::RedisClient& redis_;
  metering::Budgets& budgets_;
  const BudgetShareOptions options_;
  const std::string gateway_;
  const std::string process_;  // of this gateway, one after the other
  metrics::Shard& shard_;
  metrics::Counter granted_, short_, failed_, rebuilt_;
  boost::asio::steady_timer timer_;
  boost::asio::steady_timer::time_point next_round_;  // of all that is due
  bool hurried_ = false;                              // this round came before it, for who waits
  std::atomic<bool> kicked_{false};
  std::uint64_t sequence_ = 0;  // of exchanges
  bool in_charge_ = false;      // the store knows that this process speaks for the gateway
  bool leaving_ = false, left_ = false;
  bool undecided_ = false;     // the store has neither answered nor failed
  unsigned misses_ = 0;        // rounds since it answered
  std::string born_;           // when the store's data began
  std::string registered_in_;  // the data in which all was registered; "": none yet
  std::uint32_t gateways_ = 1;
  std::vector<std::string> short_of_;  // budgets that other gateways are short of, by digest
  // What the others had spent, by the budget's digest: told to a store that has forgotten them.
  std::unordered_map<std::string, std::vector<std::pair<std::string, std::string>>> others_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace ganglion::gateway
